"""Cells for questions about metrics and events: from the roll-ups, or from the records of a few sessions."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from datacat.errors import Deleted, NotFound
from datacat.server.query.asked import Asked, dimension
from datacat.server.query.cohorts import heads_in, is_plain, of_shelf
from datacat.server.query.ground import Ground
from datacat.server.query.spans import DAY_US, US, Buckets, Span, buckets
from datacat.store import Head, RecordQuery, RollupQuery
from datacat.store.cell import Cell
from datacat.store.columns import columns_of
from datacat.store.rollup import roll_up
from datacat.store.rollup_query import tag_value
from datacat.wire.records import Event, Metric

MAX_SESSIONS = 50
BUDGET_S = 2.0
"""Of questions that only records can answer: so many sessions are read, for so long."""
_HOURS_AFTER_US, _DAYS_AFTER_US = 2 * DAY_US, 90 * DAY_US
"""After these ages roll-ups are kept by the hour and by the day (rollup_query.py)."""
_OF_SESSIONS = frozenset({"hostname", "session", "machine", "status", "environment", "platform", "end_reason"})


@dataclass(slots=True)
class Found:
    """Cells by bucket's start in us and group; sessions counts those with a sample, where records told."""

    cells: dict[tuple[int, tuple[str, ...]], Cell] = field(default_factory=dict)
    sessions: dict[tuple[int, tuple[str, ...]], set[str]] | None = None
    meta: dict[str, Any] = field(default_factory=dict)


def cut(asked: Asked) -> Buckets:
    """Return the buckets of a series: not finer than what is known of that time."""
    if reads_records(asked):
        return asked.buckets()
    age = asked.now_us - asked.span.start
    least = 60 * US if age <= _HOURS_AFTER_US else 3600 * US if age <= _DAYS_AFTER_US else DAY_US
    points = min(asked["max_points"], 20_000 // (asked["top"] + 1))
    return buckets(asked.span, max(least, asked["interval"]), points)


def reads_records(asked: Asked) -> bool:
    """Whether only records can answer: a filter or a dimension looks at more than product and version."""
    return not is_plain(asked) or not _OF_SESSIONS.isdisjoint(asked.values.get("by") or ())


def gather(
    asked: Asked,
    ground: Ground,
    kinds: tuple[str, ...],
    names: tuple[str, ...],
    by: Sequence[str],
    *,
    bucketed: Buckets | None,
    tags: tuple[str, ...] = (),
    distributions: bool = True,
) -> Found:
    """Return the cells of what is asked, grouped by dimensions; without buckets the whole span is one.

    A bucket has all samples of its time, also where the span begins within it. Groups are texts, empty where there is
    no value.
    """
    start = bucketed.starts[0] if bucketed and bucketed.starts else asked.span.start
    span = Span(start, asked.span.stop)
    if reads_records(asked):
        return _from_records(asked, ground, kinds, names, by, span, bucketed, tags)
    products, versions = _known(asked, ground)
    if products is not None and not products:
        return Found()
    query = RollupQuery(
        from_us=start if bucketed else start // (60 * US) * 60 * US,
        to_us=span.stop,
        interval_s=bucketed.interval_us // US if bucketed else None,
        product=products or (),
        version=versions or (),
        kinds=kinds,
        names=names,
        tags=tags,
        by=tuple(by),
        distributions=distributions,
    )
    answer = ground.store.rollups(query)
    found = Found(meta={"resolution_ms": answer.resolution_s * 1000})
    for (t, group), cell in answer.cells.items():
        key = (t if bucketed else start, tuple(value or "" for value in group))
        known = found.cells.get(key)
        if known is None:
            found.cells[key] = cell
        else:
            known.merge(cell)
    return found


def _known(asked: Asked, ground: Ground) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None]:
    """Return the products and versions that pass the filters; None: all do. Roll-ups know no negation."""
    products: tuple[str, ...] | None = None
    versions: tuple[str, ...] | None = None
    with ground.store.fleet.reading() as shelves:
        keys = list(shelves)
    if asked.products or "product" in asked.filters:
        wanted = asked.filters["product"].included if "product" in asked.filters else asked.products
        products = tuple(sorted(p for p in wanted | {product for product, _ in keys} if asked.sees_product(p)))
    if "version" in asked.filters:
        chosen = asked.filters["version"]
        versions = tuple(sorted(v for v in chosen.included | {version for _, version in keys} if chosen.passes(v)))
        if not versions:
            return (), ()
    return products, versions


def _from_records(
    asked: Asked,
    ground: Ground,
    kinds: tuple[str, ...],
    names: tuple[str, ...],
    by: Sequence[str],
    span: Span,
    bucketed: Buckets | None,
    tags: tuple[str, ...],
) -> Found:
    fleet = ground.store.fleet
    with fleet.reading() as shelves:
        mine = {key: shelf for key, shelf in shelves.items() if of_shelf(asked, *key)}
        heads = sorted(heads_in(asked, fleet, mine, span), key=lambda head: (head.updated_at, head.id), reverse=True)
    found = Found(sessions={})
    deadline = time.monotonic() + BUDGET_S
    interval = bucketed.interval_us if bucketed else None
    truncated = len(heads) > MAX_SESSIONS
    for at, head in enumerate(heads[:MAX_SESSIONS]):
        if at and time.monotonic() > deadline:
            truncated = True
            break
        try:
            _add_session(found, ground, head, kinds, names, by, span, interval, tags)
        except (NotFound, Deleted):
            continue
    found.meta = {"truncated": truncated}
    return found


def _add_session(
    found: Found,
    ground: Ground,
    head: Head,
    kinds: tuple[str, ...],
    names: tuple[str, ...],
    by: Sequence[str],
    span: Span,
    interval: int | None,
    tags: tuple[str, ...],
) -> None:
    kind: type[Event | Metric] = Event if kinds == ("event",) else Metric
    query = RecordQuery(kinds=(kind.__name__.lower(),), names=names, from_us=span.start, to_us=span.stop)
    parts: dict[int, list[Event | Metric]] = {}
    for row in ground.store.records(head.id, query):
        record = msgspec.convert(row.record, kind)
        parts.setdefault(span.start if interval is None else record.t // interval * interval, []).append(record)
    for t, records in parts.items():
        for _, series, name, own_tags, cell in roll_up(head, columns_of(records), (), (), records[-1].t).rows:
            if series not in kinds or (tags and not set(tags) & set(own_tags)):
                continue
            group = tuple(_value(head, one, series, name, own_tags) for one in by)
            known = found.cells.get((t, group))
            if known is None:
                found.cells[t, group] = cell
            else:
                known.merge(cell)
            if found.sessions is not None:
                found.sessions.setdefault((t, group), set()).add(head.id)


def _value(head: Head, name: str, kind: str, series: str, tags: Iterable[str]) -> str:
    match name:
        case "name":
            return series
        case "kind":
            return kind
        case "level" | "category" | "exception":
            return tag_value(tags, name) or ""
        case "tags":
            return ",".join(tags)
    if name.startswith("tag:"):
        return tag_value(tags, name.removeprefix("tag:")) or ""
    return dimension(head, name) or ""


def biggest(sizes: Mapping[tuple[str, ...], float], count: int) -> Callable[[tuple[str, ...]], tuple[str, ...]]:
    """Return the function that names the group in which a group is counted: itself, or other beyond the biggest."""
    if len(sizes) <= count:
        return lambda group: group
    kept = set(sorted(sizes, key=lambda group: (-sizes[group], group))[:count])
    return lambda group: group if group in kept else ("other",) * len(group)
