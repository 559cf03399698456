"""Charts as SVG, of what Grafana's data layer made of an answer: lines, areas, bars and rows of states. Pure."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any, NamedTuple

Series = dict[str, Any]
LEFT, BOTTOM, TOP = 52, 20, 6
"""Pixels for the texts of the axes."""
_STEPS = (1, 2, 2.5, 5, 10)


class Box(NamedTuple):
    """Width and height in pixels, the times at the left and right edge in Unix ms."""

    width: int
    height: int
    start_ms: int
    stop_ms: int

    def x(self, ms: float) -> float:
        """Return where a time is."""
        return LEFT + (ms - self.start_ms) / (self.stop_ms - self.start_ms) * (self.width - LEFT)

    def y(self, value: float, low: float, high: float) -> float:
        """Return where a value is."""
        return self.height - BOTTOM - (value - low) / ((high - low) or 1) * (self.height - BOTTOM - TOP)


def over_time(panel: dict[str, Any], series: Sequence[Series], box: Box) -> str:
    """Return lines, areas or bars over time."""
    defaults = panel["fieldConfig"]["defaults"]
    custom = defaults["custom"]
    times = next(one["values"] for one in series if one["kind"] == "time")
    drawn = [one for one in series if one["kind"] == "number"]
    stacked = custom["stacking"]["mode"]
    layers = _layers([one["values"] for one in drawn], stacked)
    tops = [top for layer in layers for _, top in layer if top is not None]
    known = tops or [0.0]
    low = min([*known, custom.get("axisSoftMin", 0 if stacked != "none" else min(known))])
    high = defaults.get("max", max([*known, low + 1e-9]))
    unit = "percentunit" if stacked == "percent" else defaults.get("unit", "short")
    low, high, ticks = scale(low, 1 if stacked == "percent" else high, unit, fixed="max" in defaults)
    parts = [_grid(box, low, high, ticks, unit), _times(box)]
    if custom.get("thresholdsStyle", {}).get("mode") == "dashed":
        for step in defaults["thresholds"]["steps"]:
            if step["value"] is not None and low < step["value"] < high:
                y = box.y(step["value"], low, high)
                parts.append(f'<path d="M{LEFT} {y:.1f}H{box.width}" stroke="{step["color"]}" stroke-dasharray="6 5"/>')
    opacity = custom["fillOpacity"] / 100
    slot = (box.width - LEFT) / max(1, (box.stop_ms - box.start_ms) / max(1, (times[1] - times[0]) if times[1:] else 1))
    for at, (one, layer) in enumerate(zip(drawn, layers, strict=True)):
        points = [
            (box.x(ms), box.y(max(base, low), low, high), box.y(top, low, high)) if top is not None else None
            for ms, (base, top) in zip(times, layer, strict=True)
        ]
        if custom["drawStyle"] == "bars":
            side = stacked == "none"
            width = slot * 0.8 / (len(drawn) if side else 1)
            shift = width * at if side else 0
            parts += [_bar(point, width, shift, one["color"], opacity) for point in points if point]
        else:
            parts.append(_line(points, one["color"], opacity))
    return _svg(box, parts)


def _layers(columns: Sequence[Sequence[float | None]], mode: str) -> list[list[tuple[float, float | None]]]:
    """Return (base, top) of each value; null stays a gap."""
    if mode == "none":
        return [[(0.0, value) for value in column] for column in columns]
    count = len(columns[0]) if columns else 0
    whole = [sum(column[at] or 0 for column in columns) for at in range(count)]
    base = [0.0] * count
    layers = []
    for column in columns:
        layer: list[tuple[float, float | None]] = []
        for at, value in enumerate(column):
            share = value if mode == "normal" or value is None else value / whole[at] if whole[at] else None
            top = None if share is None else base[at] + share
            layer.append((base[at], top))
            base[at] = base[at] if top is None else top
        layers.append(layer)
    return layers


def _line(points: Sequence[tuple[float, float, float] | None], color: str, opacity: float) -> str:
    parts, run = [], []
    for point in [*points, None]:
        if point:
            run.append(point)
            continue
        if len(run) == 1:
            parts.append(f'<circle cx="{run[0][0]:.1f}" cy="{run[0][2]:.1f}" r="2.5" fill="{color}"/>')
        elif run:
            top = "L".join(f"{x:.1f} {y:.1f}" for x, _, y in run)
            back = "L".join(f"{x:.1f} {base:.1f}" for x, base, _ in reversed(run))
            parts.append(f'<path d="M{top}L{back}Z" fill="{color}" fill-opacity="{opacity * 0.6:.2f}"/>')
            parts.append(f'<path d="M{top}" fill="none" stroke="{color}" stroke-width="1.6"/>')
        run = []
    return "".join(parts)


def _bar(point: tuple[float, float, float], width: float, shift: float, color: str, opacity: float) -> str:
    x, base, top = point
    if base - top < 0.05:
        return ""
    return (
        f'<rect x="{x + shift:.1f}" y="{top:.1f}" width="{max(width, 1):.1f}" height="{base - top:.1f}" '
        f'fill="{color}" fill-opacity="{min(1, opacity + 0.15):.2f}"/>'
    )


def bars(panel: dict[str, Any], series: Sequence[Series], width: int, height: int) -> str:
    """Return a bar for each row, with its text."""
    names = next(one["texts"] for one in series if one["kind"] == "string")
    drawn = [one for one in series if one["kind"] == "number"]
    stacked = panel["options"]["stacking"] == "normal"
    totals = [sum((one["values"][at] or 0) for one in drawn) for at in range(len(names))]
    most = max(totals, default=0) or 1
    if panel["options"]["orientation"] == "horizontal":
        return _lying(names, drawn, totals, most, width, height, stacked=stacked)
    return _standing(names, drawn[0], most, width, height)


def _lying(
    names: Sequence[str], drawn: Sequence[Series], totals: Sequence[float], most: float, width: int, height: int, *,
    stacked: bool,
) -> str:  # fmt: skip
    left, step = 110, height / max(1, len(names))
    thick = min(26.0, step * 0.7)
    parts = []
    for at, name in enumerate(names):
        y, x = at * step + (step - thick) / 2, float(left)
        parts.append(f'<text x="{left - 8}" y="{y + thick / 2 + 4:.1f}" class="end">{escape(name)}</text>')
        for one in drawn:
            length = (one["values"][at] or 0) / most * (width - left - 60)
            parts.append(_rect(x, y, length, thick, one["color"]))
            if stacked and length > 16:
                parts.append(_inside(x + length / 2, y + thick / 2, one["texts"][at]))
            x += length
        text = f"{totals[at]:g}" if stacked else drawn[0]["texts"][at]
        parts.append(f'<text x="{x + 6:.1f}" y="{y + thick / 2 + 4:.1f}">{escape(text)}</text>')
    return f'<svg width="{width}" height="{height}">{"".join(parts)}</svg>'


def _standing(names: Sequence[str], one: Series, most: float, width: int, height: int) -> str:
    step = width / max(1, len(names))
    every = max(1, math.ceil(100 / step))
    parts = []
    for at, name in enumerate(names):
        value = one["values"][at] or 0
        tall = value / most * (height - 44)
        x, y = at * step + step * 0.1, height - 22 - tall
        parts.append(_rect(x, y, step * 0.8, tall, one["color"]))
        middle = x + step * 0.4
        if step > 30:
            parts.append(f'<text x="{middle:.1f}" y="{y - 5:.1f}" class="mid">{escape(one["texts"][at])}</text>')
        if at % every == 0:
            middle = min(max(middle, 3.2 * len(name)), width - 3.2 * len(name))
            parts.append(f'<text x="{middle:.1f}" y="{height - 6}" class="mid">{escape(name)}</text>')
    return f'<svg width="{width}" height="{height}">{"".join(parts)}</svg>'


def _rect(x: float, y: float, width: float, height: float, color: str) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
    return f'<rect {place} fill="{color}" fill-opacity=".87"/>'


def _inside(x: float, y: float, text: str) -> str:
    return f'<text x="{x:.1f}" y="{y + 4:.1f}" class="in">{escape(text)}</text>'


def states(rows: Sequence[tuple[str, Sequence[tuple[float, float, str, str]]]], box: Box) -> str:
    """Return a row for each name with its pieces: (begin ms, end ms, colour, text), a text where it fits."""
    left = 340 if len(rows) > 1 else LEFT
    step = (box.height - BOTTOM) / max(1, len(rows))
    wide = box.width - left

    def place(ms: float) -> float:
        return left + (ms - box.start_ms) / (box.stop_ms - box.start_ms) * wide

    parts = []
    for at, (name, pieces) in enumerate(rows):
        y, tall = at * step + step * 0.1, step * 0.8
        parts.append(f'<text x="{left - 8}" y="{y + tall / 2 + 4:.1f}" class="end">{escape(name)}</text>')
        parts.append(f'<rect x="{left}" y="{y:.1f}" width="{wide}" height="{tall:.1f}" class="track"/>')
        for begin, end, color, text in pieces:
            x, x2 = max(left, place(begin)), min(box.width, place(end))
            parts.append(_rect(x, y, max(1.5, x2 - x - 1), tall, color))
            if x2 - x > 8 * len(text) and step > 16:
                parts.append(
                    f'<text x="{(x + x2) / 2:.1f}" y="{y + tall / 2 + 4:.1f}" class="in">{escape(text)}</text>'
                )
    return _svg(box, [*parts, _times(box, left)])


def scale(low: float, high: float, unit: str, *, fixed: bool = False) -> tuple[float, float, list[float]]:
    """Return the ends of an axis and its ticks, round in the unit; fixed: it ends where it was told to."""
    rough = (high - low) / 4 or 1
    whole = next((length for length in _WHOLE.get(unit, ()) if high >= 2 * length), 1)
    power = 10 ** math.floor(math.log10(rough / whole)) * whole
    step = next(step * power for step in _STEPS if step * power >= rough * 0.999)
    first = math.floor(low / step + 1e-9) * step
    last = high if fixed else math.ceil(high / step - 1e-9) * step
    count = int((last - first) / step + 1e-6) + 1
    return first, last, [first + at * step for at in range(count)]


_WHOLE = {"s": (86400, 3600, 60), "dtdurations": (86400, 3600, 60), "bytes": (2**30, 2**20, 2**10)}
"""Lengths that ticks are multiples of, by unit."""


def tick(value: float, unit: str) -> str:
    """Return the text of a tick."""
    if unit == "percentunit":
        return f"{value * 100:g}%"
    if unit == "bytes":
        return f"{value / 2**20:.3g} MiB"
    if unit in ("s", "dtdurations"):
        for length, name in ((86400, "d"), (3600, "h"), (60, "min")):
            if value >= length:
                return f"{value / length:.3g} {name}"
        return f"{value * 1000:.3g} ms" if 0 < value < 1 else f"{value:.3g} s"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value / 1000:.3g} k"


def _grid(box: Box, low: float, high: float, ticks: Sequence[float], unit: str) -> str:
    parts = []
    for value in ticks:
        y = box.y(value, low, high)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{box.width}" class="grid"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" class="end">{tick(value, unit)}</text>')
    return "".join(parts)


def _times(box: Box, left: int = LEFT) -> str:
    hours = (box.stop_ms - box.start_ms) / 3_600_000
    wanted = max(2, (box.width - left) // 90)
    step_h = next((step for step in (1, 2, 3, 4, 6, 12, 24, 48) if hours / step <= wanted), 96)
    step = step_h * 3_600_000
    parts = []
    for ms in range(-(-box.start_ms // step) * step, box.stop_ms + 1, step):
        x = left + (ms - box.start_ms) / (box.stop_ms - box.start_ms) * (box.width - left)
        if x > box.width - 24:
            continue
        when = datetime.fromtimestamp(ms / 1000, UTC)
        text = when.strftime("%m-%d" if step_h >= 24 or (hours > 48 and when.hour == 0) else "%H:%M")
        parts.append(f'<text x="{x:.1f}" y="{box.height - 4}" class="mid">{text}</text>')
    return "".join(parts)


def _svg(box: Box, parts: Sequence[str]) -> str:
    return f'<svg width="{box.width}" height="{box.height}">{"".join(parts)}</svg>'
