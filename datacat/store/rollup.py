"""Roll-ups: what one batch adds to the aggregates of its minutes. Pure; rollup_query.py has what is asked of them.

A series is (minute, kind, name, tags): minute is Unix time in minutes, tags are sorted texts. Cells of the same series
merge in any order to the same cell. kind, with name and what the cell has:

    gauge timer    the metric's; count sum min max last last_t, and bins
    counter        the metric's; count of increments, their sum, min, max, last
    histogram      the metric's; as a gauge, with counts per bucket instead of bins
    event          the event's; count and last_t; tags level:WORD, category:TEXT, exception:TYPE when there is one
    status         started recovered resumed hung suspended crashed ended abnormal; count, and last_t
    hang           how it came to its end: recovered, or the status after it; seconds of hanging as a gauge has values

An end that is corrected later (crashed, then the app's own end) counts once: the earlier one is taken back with count
-1 at its own time.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise
from operator import attrgetter
from typing import Any, TypeAlias

import msgspec

from datacat.store import sketch
from datacat.store.cell import Cell, Layout
from datacat.store.columns import Columns, EventKey, event_key
from datacat.store.fold import HangEnd, Head, Transition
from datacat.wire.records import DEFAULT_BOUNDS, METRIC_TYPES, Event, Metric
from datacat.wire.routes import OPEN_STATUSES

MINUTE_US = 60_000_000
KINDS = (*METRIC_TYPES, "event", "status", "hang")
PAST_US = 400 * 24 * 3600 * 1_000_000
FUTURE_US = 24 * 3600 * 1_000_000
"""What claims to be older or to come later than that, seen from when the server got it, counts as of then: a machine
whose clock is wrong by years must not spread its counts over centuries."""
OTHER = "other"
"""The tag, name, version or product of what is beyond a limit."""
MAX_TAGS = 10
MAX_TAG_CHARS = 200

_LARGEST = 1.7e308

Row: TypeAlias = tuple[int, str, str, tuple[str, ...], Cell]
"""Minute, kind, name, tags, cell."""


class Delta(msgspec.Struct, array_like=True, gc=False):
    """What one batch adds: rows, each series at most once; units of metrics by name; events by their group."""

    product: str
    version: str
    rows: list[Row]
    units: dict[str, str] = {}
    groups: dict[str, int] = {}


_time = attrgetter("t")
_group = attrgetter("group")
_unit = attrgetter("unit")
_value = attrgetter("value")
_metadata = attrgetter("metadata")
_count = attrgetter("count")
_NUMBERS = (int, float)


def roll_up(
    before: Head,
    columns: Columns,
    transitions: Sequence[Transition],
    hang_ends: Sequence[HangEnd],
    received_us: int,
) -> Delta:
    """Return the delta of one batch of the session whose head before it is given, with what fold() says it did."""
    rows: list[Row] = []
    events, metrics = columns.events, columns.metrics
    delta = Delta(before.product, before.version, rows)
    if events:
        _roll_events(columns, rows)
        if any(map(_group, events)):
            delta.groups = dict(Counter(filter(None, map(_group, events))))
    if metrics:
        _roll_metrics(metrics, rows)
        if any(map(_unit, metrics)):
            delta.units = {metric.name: metric.unit for metric in metrics if metric.unit}
    if transitions:
        _roll_transitions(before, transitions, rows)
    for hang in hang_ends:
        _merge_row(rows, hang.t // MINUTE_US, "hang", _outcome(hang.status), (), _measured(hang.seconds, hang.t))
    first, last = (received_us - PAST_US) // MINUTE_US, (received_us + FUTURE_US) // MINUTE_US
    if any(not first <= row[0] <= last for row in rows):
        delta.rows = _within(rows, first, last, received_us)
    return delta


def from_old_rows(product: str, version: str, rows: Iterable[Sequence[Any]]) -> Delta:
    """Return the delta that an entry of an early version holds: [minute, kind, name, count, sum, min, max, last, t].

    It had no tags, no distribution, and the statuses' own words.
    """
    words = {"active": "resumed"}
    new: list[Row] = []
    for minute, kind, name, count, total, low, high, last, last_t in rows:
        cell = Cell(count, total, low, high, last, last_t or (minute * MINUTE_US if kind in ("event", "status") else 0))
        if kind in ("gauge", "timer"):
            cell.distribution = sketch.bins_of_spread(sketch.spread(count, total, low, high))
        elif kind == "histogram":
            parts = sketch.spread(count, total, low, high)
            cell.layouts = [(DEFAULT_BOUNDS, sketch.bucket_counts(DEFAULT_BOUNDS, parts))]
        new.append((minute, kind, words.get(name, name) if kind == "status" else name, (), cell))
    return Delta(product, version, new)


def _roll_events(columns: Columns, rows: list[Row]) -> None:
    events, in_order = columns.events, columns.in_order
    times = columns.times if events is columns.records else list(map(_time, events))
    low, high = columns.t_min, columns.t_max
    if low // MINUTE_US == high // MINUTE_US:
        newest_first = zip(reversed(events), reversed(times), strict=True)
        _count_events(low // MINUTE_US, columns.event_counts, newest_first, rows, in_order=in_order)
        return
    by_minute: dict[int, list[tuple[Event, int]]] = {}
    for event, t in zip(events, times, strict=True):
        by_minute.setdefault(t // MINUTE_US, []).append((event, t))
    for minute, part in by_minute.items():
        counts = Counter([event_key(event) for event, _ in part])
        _count_events(minute, counts, reversed(part), rows, in_order=in_order)


def _count_events(
    minute: int,
    counts: Counter[EventKey],
    newest_first: Iterable[tuple[Event, int]],
    rows: list[Row],
    *,
    in_order: bool,
) -> None:
    """Add the row of each key; newest_first has all events of the minute with their t."""
    newest: dict[EventKey, int] = {}
    for event, t in newest_first:
        key = event_key(event)
        if t > newest.get(key, -1):
            newest[key] = t
        # In order, nearly always only a few have to be looked at.
        if in_order and len(newest) == len(counts):
            break
    for key, count in counts.items():
        name, level, category, exception = key
        rows.append(
            (minute, "event", name, _event_tags(level, category, exception), Cell(count, 0, 0, 0, 0, newest[key]))
        )


@lru_cache(maxsize=4096)
def _event_tags(level: str, category: str | None, exception: str | None) -> tuple[str, ...]:
    tags = [f"category:{category or level}"[:MAX_TAG_CHARS], f"level:{level}"]
    if exception:
        tags.insert(1, f"exception:{exception}"[:MAX_TAG_CHARS])
    return tuple(tags)


def _roll_metrics(metrics: Sequence[Metric], rows: list[Row]) -> None:
    series: dict[tuple[int, str, str, tuple[str, ...]], list[Metric]] = {}
    for metric in metrics:
        tags = metric.tags
        key = (metric.t // MINUTE_US, metric.type, metric.name, _tags(tags) if tags else ())
        same = series.get(key)
        if same is None:
            series[key] = [metric]
        else:
            same.append(metric)
    for key, same in series.items():
        rows.append((*key, _cell(key[1], same)))


def _tags(tags: list[str]) -> tuple[str, ...]:
    return tuple(sorted({tag[:MAX_TAG_CHARS] for tag in tags})[:MAX_TAGS])


def _cell(kind: str, metrics: list[Metric]) -> Cell:
    if not any(map(_metadata, metrics)) and not (kind == "timer" and any(map(_count, metrics))):
        cell = _plain_cell(kind, metrics)
    else:
        plain = [metric for metric in metrics if not metric.metadata and not (metric.count and kind == "timer")]
        merged = [metric for metric in metrics if metric.metadata or (metric.count and kind == "timer")]
        if kind == "gauge":
            cell = _merged_gauges(merged)
        else:
            cell = _merged_cell(kind, merged[0])
            for metric in merged[1:]:
                cell.merge(_merged_cell(kind, metric))
        if plain:
            cell.merge(_plain_cell(kind, plain))
    if type(cell.sum) is not float or not math.isfinite(cell.sum):
        cell.sum = _finite(cell.sum)
    return cell


def _plain_cell(kind: str, metrics: list[Metric]) -> Cell:
    if len(metrics) == 1:
        newest = metrics[0]
        values: list[float] = [newest.value]
        total = low = high = last = newest.value
        last_t = newest.t
    else:
        values = list(map(_value, metrics))
        total, low, high = sum(values), min(values), max(values)
        last_t, last = max(zip(map(_time, metrics), values, strict=True))
    if kind == "counter":
        return Cell(len(values), total, low, high, last, last_t)
    if kind == "histogram":
        counts = sketch.bucket_counts(DEFAULT_BOUNDS, [(value, 1) for value in values])
        return Cell(len(values), total, low, high, last, last_t, None, [(DEFAULT_BOUNDS, counts)])
    return Cell(len(values), total, low, high, last, last_t, sketch.bins_of(values, low))


def _merged_gauges(metrics: list[Metric]) -> Cell:
    """Return what _merged_cell() of each would give when merged; gauges come in many such points, one a second."""
    samples, total = 0, 0.0
    lows: list[float] = []
    highs: list[float] = []
    parts: list[tuple[float, int]] = []
    for metric in metrics:
        about = metric.metadata or {}
        value, count = metric.value, about.get("count")
        if type(count) is not int or not 1 <= count < 2**53:
            count, whole, low, high = 1, value, value, value
        else:
            mean: Any = about.get("mean")
            low, high = about.get("min", value), about.get("max", value)
            whole = (mean if type(mean) in _NUMBERS else value) * count
            low = low if type(low) in _NUMBERS else value
            high = high if type(high) in _NUMBERS else value
            if low > high:
                low, high = high, low
        samples += count
        total += whole
        lows.append(low)
        highs.append(high)
        parts += sketch.spread(count, whole, low, high)
    last_t, last = max([(metric.t, metric.value) for metric in metrics])
    return Cell(samples, total, min(lows), max(highs), last, last_t, sketch.bins_of_spread(parts))


def _measured(value: float, t: int) -> Cell:
    return Cell(1, value, value, value, value, t, {sketch.bin_of(value): 1})


def _merged_cell(kind: str, metric: Metric) -> Cell:
    """Return a metric with metadata, or a timer with a count, as a cell; a merged one stands for all its samples."""
    value: float = metric.value
    if kind == "counter":
        return Cell(1, value, value, value, value, metric.t)
    about = metric.metadata or {}
    count = about.get("count")
    if type(count) is not int or not 1 <= count < 2**53:
        count, total, low, high = 1, value, value, value
    else:
        total = _number(about, "mean", value) * count if kind == "gauge" else _number(about, "sum", value)
        low, high = _number(about, "min", value), _number(about, "max", value)
        if low > high:
            low, high = high, low
    if kind == "timer" and metric.count is not None and 1 < metric.count < 2**53:
        # So many iterations took the value together; only their mean is known.
        count, each = metric.count, total / metric.count
        return Cell(count, total, each, each, each, metric.t, {sketch.bin_of(each): count})
    parts = sketch.spread(count, total, low, high)
    cell = Cell(count, total, low, high, value, metric.t)
    if kind == "histogram":
        cell.layouts = [_layout(about.get("buckets"), count, parts)]
    else:
        cell.distribution = sketch.bins_of_spread(parts)
    return cell


def _layout(given: Any, count: int, parts: list[tuple[float, int]]) -> Layout:
    """Return the samples in the buckets that metadata.buckets names; else in the default ones."""
    try:
        if given and isinstance(given[0], dict):
            bounds = tuple(_plain(bucket["le"]) for bucket in given[:-1])
            upto = [bucket["count"] for bucket in given]
            counts = [now - before for now, before in zip(upto, [0, *upto[:-1]], strict=True)]
            known = all(type(one) is int and 0 <= one < 2**53 for one in (*upto, *counts)) and upto[-1] == count
            if given[-1]["le"] == "+Inf" and known and _ascends(bounds):
                return bounds, counts
        elif given:
            bounds = tuple(map(_plain, given))
            if _ascends(bounds):
                return bounds, sketch.bucket_counts(bounds, parts)
    except (TypeError, KeyError, IndexError, AttributeError):
        pass
    return DEFAULT_BOUNDS, sketch.bucket_counts(DEFAULT_BOUNDS, parts)


def _ascends(bounds: Sequence[float]) -> bool:
    return all(low < high for low, high in pairwise(bounds))


def _plain(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError
    return value


def _number(about: dict[str, Any], name: str, otherwise: float) -> float:
    value = about.get(name)
    return value if isinstance(value, _NUMBERS) and not isinstance(value, bool) else otherwise


def _finite(total: float) -> float:
    """Return a sum as a number that JSON and 64 bits can hold; whole ones stay exact up to 2^63."""
    if isinstance(total, int):
        return total if -(2**63) <= total < 2**63 else float(total)
    return total if math.isfinite(total) else math.copysign(_LARGEST, total)


def _outcome(status: str) -> str:
    return "recovered" if status == "active" else status


def _roll_transitions(before: Head, transitions: Sequence[Transition], rows: list[Row]) -> None:
    status, since = (before.status, before.status_since) if before.updated_at else (None, 0)
    for transition in transitions:
        word = transition.status
        if word == "active":
            word = "started" if status is None else "recovered" if status == "hung" else "resumed"
        if status is not None and status not in OPEN_STATUSES:
            _merge_row(rows, since // MINUTE_US, "status", status, (), Cell(-1, 0, 0, 0, 0, since))
        _merge_row(rows, transition.t // MINUTE_US, "status", word, (), Cell(1, 0, 0, 0, 0, transition.t))
        status, since = transition.status, transition.t


def _merge_row(rows: list[Row], minute: int, kind: str, name: str, tags: tuple[str, ...], cell: Cell) -> None:
    """Add a cell to the rows; few of these kinds are in one batch, so it looks at each row."""
    for row in rows:
        if row[1] == kind and row[0] == minute and row[2] == name and row[3] == tags:
            row[4].merge(cell)
            return
    rows.append((minute, kind, name, tags, cell))


def _within(rows: list[Row], first: int, last: int, received_us: int) -> list[Row]:
    """Return the rows with each minute that cannot be replaced by that of receiving."""
    merged: dict[tuple[int, str, str, tuple[str, ...]], Cell] = {}
    for claimed, kind, name, tags, cell in rows:
        minute = claimed if first <= claimed <= last else received_us // MINUTE_US
        if minute != claimed:
            cell.last_t = min(cell.last_t, received_us)
        known = merged.get((minute, kind, name, tags))
        if known is None:
            merged[minute, kind, name, tags] = cell
        else:
            known.merge(cell)
    return [(*series, cell) for series, cell in merged.items()]
