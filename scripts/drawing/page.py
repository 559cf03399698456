"""A page that shows what each panel of a dashboard answers, in its place: datacat's own drawing, no screenshot."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from boards.looks import COLORS
from drawing import charts
from drawing.charts import Box

WIDTH = 1600
CELL, GAP, PAD = 30, 8, 16
"""A unit of the grid and the gap, as in Grafana; the margin of the page."""
_HEAD, _INSIDE = 28, 10
Shown = tuple[Mapping[str, Any], Mapping[str, Any]]
_COLUMN = (WIDTH - 2 * PAD + GAP) / 24

STYLE = Path(__file__).with_name("page.css")


def page(board: Mapping[str, Any], chosen: Mapping[str, str], span: tuple[int, int], panels: Sequence[Shown]) -> str:
    """Return the HTML. chosen are the variables by label, as texts; span is in Unix ms."""
    bottom = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel, _ in panels)
    style = Template(STYLE.read_text(encoding="utf-8")).substitute(COLORS, width=WIDTH, pad=PAD)
    words = "".join(f"<b>{escape(label)}: {escape(value)}</b>" for label, value in chosen.items())
    sections = "".join(_section(panel, told, span, chosen) for panel, told in panels)
    return (
        f'<!doctype html><meta charset="utf-8"><style>{style}</style><header><h1>{escape(board["title"])}</h1>{words}'
        "<i>datacat's own drawing of what the panels answer, no screenshot of Grafana</i></header>"
        f'<main style="height:{bottom * (CELL + GAP) + PAD}px">{sections}</main>'
    )


def _section(
    panel: Mapping[str, Any], told: Mapping[str, Any], span: tuple[int, int], chosen: Mapping[str, str]
) -> str:
    place = panel["gridPos"]
    width = int(place["w"] * _COLUMN - GAP)
    height = place["h"] * (CELL + GAP) - GAP
    title = panel["title"]
    for name, value in chosen.items():
        title = title.replace(f"${name.lower()}", value).replace("$agg", chosen.get("Aggregate", ""))
    style = (
        f"left:{PAD + place['x'] * _COLUMN:.0f}px;top:{place['y'] * (CELL + GAP)}px;width:{width}px;height:{height}px"
    )
    body, filled = _body(panel, told, span, width - 2 * _INSIDE - 2, height - _HEAD - _INSIDE)
    if filled:
        style += f";background:{filled}"
    return f'<section style="{style}"{" class=fill" if filled else ""}><h2>{escape(title)}</h2>{body}</section>'


def _body(
    panel: Mapping[str, Any], told: Mapping[str, Any], span: tuple[int, int], width: int, height: int
) -> tuple[str, str]:
    """Return the inside of a panel, and the colour of its ground if it has one of its own."""
    seen = [one for one in told["series"] if not one["hidden"]]
    nothing = f'<p class="nothing">{escape(panel["fieldConfig"]["defaults"].get("noValue", ""))}</p>'
    if panel["type"] == "stat":
        filled = panel["options"]["colorMode"] == "background" and told["numbers"]
        return _numbers(told["numbers"], width, height, colored=not filled), told["numbers"][0][
            "color"
        ] if filled else ""
    if not seen or not seen[0]["values"]:
        return nothing, ""
    match panel["type"]:
        case "timeseries":
            if not any(value is not None for one in seen if one["kind"] == "number" for value in one["values"]):
                return nothing, ""
            return _with_legend(panel, seen, span, width, height), ""
        case "barchart":
            many = sum(one["kind"] == "number" for one in seen) > 1
            drawn = charts.bars(dict(panel), seen, width, height - 24 * many)
            return drawn + (_legend(seen, right=False) if many else ""), ""
        case "table":
            return _table(seen, width, height), ""
        case "logs":
            return _logs(seen, height), ""
    return charts.states(_rows(panel, seen, span), Box(width, height, *span)), ""


def _numbers(numbers: Sequence[Mapping[str, Any]], width: int, height: int, *, colored: bool) -> str:
    size = min(44, int(height * 0.55 / len(numbers)), *(int(width / max(4, len(one["text"])) * 1.5) for one in numbers))
    parts = []
    for one in numbers:
        small = f"<small>{escape(one['title'])}</small>" if len(numbers) > 1 else ""
        color = f";color:{one['color']}" if colored else ""
        parts.append(f'<div>{small}<span style="font-size:{size}px{color}">{escape(one["text"])}</span></div>')
    return f'<div class="number">{"".join(parts)}</div>'


def _with_legend(
    panel: Mapping[str, Any], seen: Sequence[Mapping[str, Any]], span: tuple[int, int], width: int, height: int
) -> str:
    right = panel["options"]["legend"]["placement"] == "right"
    box = Box(width - 217, height, *span) if right else Box(width, height - 22, *span)
    drawn = charts.over_time(dict(panel), [dict(one) for one in seen], box)
    legend = _legend(seen, right=right)
    return f'<div class="split">{drawn}{legend}</div>' if right else drawn + legend


def _legend(seen: Sequence[Mapping[str, Any]], *, right: bool) -> str:
    lines = []
    for one in seen:
        if one["kind"] != "number":
            continue
        texts = " · ".join(text for _, text in one["legend"])
        name = one["name"] if len(one["name"]) < 22 else "…" + one["name"][-20:]
        lines.append(f'<p><q style="background:{one["color"]}"></q>{escape(name)}&ensp;<em>{escape(texts)}</em></p>')
    head = [name.replace(" *", "") for name, _ in next(one["legend"] for one in seen if one["kind"] == "number")]
    first = f"<p><em>{escape(' · '.join(head)).lower()}</em></p>" if right and head else ""
    return f'<div class="legend {"right" if right else "bottom"}">{first}{"".join(lines)}</div>'


def _table(seen: Sequence[Mapping[str, Any]], width: int, height: int) -> str:
    needs = [6.6 * max(4, *map(len, [one["name"], *one["texts"][:20]])) + 18 for one in seen]
    needs = [need + 50 if one["cell"] == "gauge" else need for need, one in zip(needs, seen, strict=True)]
    columns = "".join(f'<col style="width:{need * width / sum(needs):.0f}px">' for need in needs)
    heads = "".join(f'<th class="{_side(one)}">{escape(one["name"])}</th>' for one in seen)
    count = min(len(seen[0]["values"]), (height - 24) // 27)
    rows = "".join("<tr>" + "".join(_cell(one, at) for one in seen) + "</tr>" for at in range(count))
    return f"<table>{columns}<tr>{heads}</tr>{rows}</table>"


def _side(one: Mapping[str, Any]) -> str:
    return "n" if one["kind"] == "number" and one["cell"] != "gauge" else ""


def _cell(one: Mapping[str, Any], at: int) -> str:
    text = escape(one["texts"][at])
    if one["links"]:
        text = f"<a>{text}</a>"
    if one["cell"] == "gauge" and one["values"][at] is not None:
        share = max(0.0, min(1.0, one["percents"][at] or 0))
        text = f'<s style="width:{share * 44:.0f}px;background:{one["colors"][at]}"></s>{text}'
    style = (
        f' style="color:{one["colors"][at]}"' if one["cell"] in ("color-text", "gauge") and one["colors"][at] else ""
    )
    return f'<td class="{_side(one)}"{style}>{text}</td>'


def _logs(seen: Sequence[Mapping[str, Any]], height: int) -> str:
    columns = {one["raw"]: one for one in seen}
    words = {"critical": "crashed", "error": "crashed", "warning": "hung", "info": "active"}
    lines = []
    for at in range(min(len(seen[0]["values"]), height // 19)):
        severity = columns["severity"]["texts"][at]
        color = COLORS[words.get(severity, "faint")]
        time, body = columns["timestamp"]["texts"][at], columns["body"]["texts"][at]
        lines.append(f'<div style="border-color:{color}"><span>{escape(time)}</span>{escape(body)}</div>')
    return f'<div class="logs">{"".join(lines)}</div>'


def _rows(
    panel: Mapping[str, Any], seen: Sequence[Mapping[str, Any]], span: tuple[int, int]
) -> list[tuple[str, list[tuple[float, float, str, str]]]]:
    """Return the pieces of a history (a cell for each bucket) or timeline (until the next change)."""
    times = next(one["values"] for one in seen if one["kind"] == "time")
    step = times[1] - times[0] if times[1:] else span[1] - times[0]
    rows = []
    for one in seen:
        if one["kind"] == "time":
            continue
        ends = [ms + step for ms in times] if panel["type"] == "status-history" else [*times[1:], span[1]]
        cells = zip(times, ends, one["colors"], one["texts"], one["values"], strict=True)
        rows.append(
            (one["name"], [(begin, end, color, text) for begin, end, color, text, value in cells if value is not None])
        )
    return rows
