"""Events: one by one from the sessions' records, and counted over time from the roll-ups."""

import time
from collections.abc import Iterator
from dataclasses import replace

import msgspec

from datacat.errors import Deleted, NotFound
from datacat.server.query.asked import Asked
from datacat.server.query.cohorts import heads_in, of_shelf
from datacat.server.query.ground import Ground
from datacat.server.query.shape import Column, Result, Row
from datacat.server.query.spans import Span
from datacat.server.views import read_cursor, write_cursor
from datacat.store import Head, RecordQuery
from datacat.wire.times import rfc3339

BUDGET_S = 2.0
MAX_SESSIONS = 300
"""So many sessions are looked into for one page."""
MAX_BYTES = 900_000
"""Of one page, whatever its limit is: apps may log texts of 16 KiB, and Grafana carries all of it to the browser."""

COLUMNS = (
    Column("time", "time_ms", "when it happened"),
    Column("at", "time", "the same with microseconds"),
    Column("id", "text", "tells events apart"),
    Column("session", "text", "the session"),
    Column("product", "text", "its product"),
    Column("version", "text", "its version"),
    Column("hostname", "text", "the host's name", optional=True),
    Column("name", "text", "the event's name"),
    Column("category", "text", "its category, the level without one"),
    Column("severity", "text", "its level: debug, info, warning, error or critical"),
    Column("group", "text", "its group", optional=True),
    Column("message", "text", "its message", optional=True),
    Column("body", "text", "name and message: one line of a log"),
    Column("exception_type", "text", "type of its exception", optional=True),
    Column("exception_message", "text", "what the exception says", optional=True),
    Column("source", "text", "file:line in function", optional=True),
    Column("labels", "text", "its labels, separated by commas"),
    Column("web_url", "text", "the session's page"),
)

_Position = tuple[int, str, int, int]


def events(asked: Asked, ground: Ground) -> Result:
    """Answer /api/query/events: one page of events of the sessions that match, by time.

    Sessions are looked into as long as they can have what belongs on the page.
    """
    descending = asked["order"] == "desc"
    fleet = ground.store.fleet
    with fleet.reading() as shelves:
        mine = {key: shelf for key, shelf in shelves.items() if of_shelf(asked, *key)}
        heads = list(heads_in(replace(asked, values={**asked.values, "q": ""}), fleet, mine, asked.span))
    span = asked.span
    after = read_cursor(asked["cursor"])
    if after is not None:
        span = (
            Span(span.start, min(span.stop, after[0] + 1)) if descending else Span(max(span.start, after[0]), span.stop)
        )
    heads = [head for head in heads if head.created_at < span.stop and head.updated_at >= span.start]
    heads.sort(key=lambda head: head.updated_at if descending else head.created_at, reverse=descending)
    limit: int = asked["limit"]
    page: list[tuple[_Position, Row]] = []
    truncated = False
    deadline = time.monotonic() + BUDGET_S
    for looked, head in enumerate(heads):
        if len(page) > limit:
            page = sorted(page, key=lambda item: item[0], reverse=descending)[: limit + 1]
            farthest = page[-1][0][0]
            if (head.updated_at < farthest) if descending else (head.created_at > farthest):
                break
        if looked and (looked == MAX_SESSIONS or time.monotonic() > deadline):
            truncated = True
            break
        found = _events_of(head, asked, ground, span, after, descending=descending)
        page += [item for item, _ in zip(found, range(limit + 1), strict=False)]
    page.sort(key=lambda item: item[0], reverse=descending)
    rows = _that_fit([row for _, row in page[:limit]])
    cursor = write_cursor(page[len(rows) - 1][0]) if len(page) > len(rows) else None
    return Result(COLUMNS, rows, cursor, {"truncated": truncated})


def _that_fit(rows: list[Row]) -> list[Row]:
    """Return the first rows, at least one, that an answer of MAX_BYTES has room for."""
    left = MAX_BYTES
    for count, row in enumerate(rows):
        left -= len(msgspec.json.encode(row)) + 1
        if left < 0 and count:
            return rows[:count]
    return rows


def _events_of(
    head: Head, asked: Asked, ground: Ground, span: Span, after: _Position | None, *, descending: bool
) -> Iterator[tuple[_Position, Row]]:
    """Yield the events of a session that match, in the order asked for, behind the cursor."""
    query = RecordQuery(
        kinds=("event",),
        names=asked["name"],
        levels=asked["severity"],
        from_us=span.start,
        to_us=span.stop,
        q=asked["q"],
        newest_first=descending,
    )
    try:
        for row in ground.store.records(head.id, query):
            # The session is part of the place, so that the order is the same on every page.
            t, stream, offset, index = row.position
            place = (t, f"{head.id}/{stream}", offset, index)
            if after is not None and (place >= after if descending else place <= after):
                continue
            told = _row(head, row.record, place, ground)
            if _wanted(asked, told, row.record):
                yield place, told
    except (NotFound, Deleted):
        return


def _wanted(asked: Asked, told: Row, record: Row) -> bool:
    return (
        (not asked["category"] or told["category"] in asked["category"])
        and (not asked["group"] or told["group"] in asked["group"])
        and (not asked["label"] or any(label in asked["label"] for label in record.get("labels") or ()))
    )


def _row(head: Head, record: Row, place: _Position, ground: Ground) -> Row:
    name, message, level = record.get("name", ""), record.get("message"), record.get("level", "info")
    return {
        "time": place[0] // 1000,
        "at": rfc3339(place[0]),
        "id": write_cursor(place),
        "session": head.id,
        "product": head.product,
        "version": head.version,
        "hostname": head.hostname,
        "name": name,
        "category": record.get("category") or level,
        "severity": level,
        "group": record.get("group"),
        "message": message,
        "body": f"{name} {message}" if message else name,
        "exception_type": record.get("exception_type"),
        "exception_message": record.get("exception_msg"),
        "source": _source(record),
        "labels": ",".join(label for label in record.get("labels") or () if isinstance(label, str)),
        "web_url": ground.session_url(head.id),
    }


def _source(record: Row) -> str | None:
    file, line, function = (record.get(f"source_{name}") for name in ("file", "line", "function"))
    if not file:
        return None
    return f"{file}{f':{line}' if line else ''}{f' in {function}' if function else ''}"
