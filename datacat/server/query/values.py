"""The values that a dimension has: what variables and selection lists offer."""

from collections.abc import Iterable
from dataclasses import replace

from datacat.errors import Deleted, NotFound
from datacat.server.query.asked import Asked, dimension
from datacat.server.query.cohorts import cohorts, glances_in, is_plain, of_shelf
from datacat.server.query.columns import Columns
from datacat.server.query.ground import Ground
from datacat.server.query.ordering import newest_version
from datacat.server.query.shape import Column, Result, Row
from datacat.store import CatalogueQuery, RecordQuery
from datacat.wire.records import METRIC_TYPES
from datacat.wire.times import rfc3339

SESSION_DIMS = (
    "product",
    "version",
    "status",
    "hostname",
    "machine",
    "session",
    "environment",
    "platform",
    "end_reason",
)
_CATALOGUE = {
    "event": ("event",),
    "category": ("category",),
    "group": ("group",),
    "exception": ("exception",),
    "metric": METRIC_TYPES,
    "tag": ("tag",),
}
DIMS = (*SESSION_DIMS, *_CATALOGUE)
MAX_RECORDS = 20_000
"""Of one session, the newest that are looked at for its own metrics and events."""

COLUMNS = (
    Column("value", "text", "the value"),
    Column("text", "text", "the same, for people"),
    Column("count", "integer", "sessions of the span; of what apps name: how often in all"),
    Column("last_seen_at", "time", "when it was last seen", optional=True),
)


def values(asked: Asked, ground: Ground) -> Result:
    """Answer /api/query/values/{dim}: versions newest first, others by count."""
    dim: str = asked["dim"]
    if dim in SESSION_DIMS:
        rows = _of_sessions(asked, ground)
    elif "session" in asked.filters and dim in ("metric", "event", "category", "group"):
        rows = _of_records(asked, ground)
    else:
        rows = _of_catalogue(asked, ground)
    text = asked["q"].casefold()
    rows = [row for row in rows if text in row["value"].casefold() and row["value"]]
    rows.sort(key=lambda row: (-row["count"], row["value"]))
    if dim == "version":
        place = {version: at for at, version in enumerate(newest_version(row["value"] for row in rows))}
        rows.sort(key=lambda row: place[row["value"]])
    rows = rows[: asked["limit"]]
    if not rows and asked["placeholder"]:
        rows = [{"value": asked["placeholder"], "text": asked["placeholder"], "count": 0, "last_seen_at": None}]
    return Result(COLUMNS, rows)


def _of_sessions(asked: Asked, ground: Ground) -> list[Row]:
    dim = asked["dim"]
    own = replace(asked, values={**asked.values, "by": (dim,), "q": ""})
    start, stop = asked.span
    fleet = ground.store.fleet
    found: dict[str, tuple[int, int]] = {}
    with fleet.reading() as shelves:
        if dim in ("product", "version") and is_plain(own):
            for (value,), group in cohorts(own, fleet, shelves, asked.span).items():
                count = Columns(group.shelves, (start, stop), asked.now_us).present[0]
                found[value] = (count, group.heard)
        else:
            mine = {key: shelf for key, shelf in shelves.items() if of_shelf(own, *key)}
            for head in glances_in(own, fleet, mine, asked.span):
                if head.created_at >= start or not 0 < head.ended_at <= start:
                    value = dimension(head, dim) or ""
                    count, seen = found.get(value, (0, 0))
                    found[value] = (count + 1, max(seen, head.last_seen))
    return [_row(value, count, seen) for value, (count, seen) in found.items() if count]


def _of_catalogue(asked: Asked, ground: Ground) -> list[Row]:
    query = CatalogueQuery(kinds=_CATALOGUE[asked["dim"]], since_us=asked.span.start)
    found: dict[str, tuple[int, int]] = {}
    for entry in ground.store.catalogue(query):
        if asked.sees_product(entry.product):
            count, seen = found.get(entry.name, (0, 0))
            found[entry.name] = (count + entry.count, max(seen, entry.last_seen))
    return [_row(name, count, seen) for name, (count, seen) in found.items()]


def _of_records(asked: Asked, ground: Ground) -> list[Row]:
    """Return what a few sessions themselves named, by their newest records."""
    dim = asked["dim"]
    kind, member = ("metric", "name") if dim == "metric" else ("event", "name" if dim == "event" else dim)
    found: dict[str, tuple[int, int]] = {}
    for session_id in sorted(asked.filters["session"].included)[:10]:
        for name, t in _named(ground, asked, session_id, kind, member):
            count, seen = found.get(name, (0, 0))
            found[name] = (count + 1, max(seen, t))
    return [_row(name, count, seen) for name, (count, seen) in found.items()]


def _named(ground: Ground, asked: Asked, session_id: str, kind: str, member: str) -> Iterable[tuple[str, int]]:
    query = RecordQuery(
        kinds=(kind,), from_us=asked.span.start, to_us=asked.span.stop, newest_first=True, limit=MAX_RECORDS
    )
    try:
        if not asked.sees_product(ground.store.head(session_id).product):
            return
        for row in ground.store.records(session_id, query):
            name = row.record.get(member)
            if name is None and member == "category":
                name = row.record.get("level", "info")
            if isinstance(name, str) and name:
                yield name, row.position[0]
    except (NotFound, Deleted):
        return


def _row(value: str, count: int, seen_us: int) -> Row:
    return {"value": value, "text": value, "count": count, "last_seen_at": rfc3339(seen_us) if seen_us else None}
