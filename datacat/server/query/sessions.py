"""Lists of sessions, and how their status changed."""

import base64
import heapq
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import msgspec

from datacat.errors import Deleted, NotFound, WireError
from datacat.server import views
from datacat.server.filters import path_value
from datacat.server.query.asked import Asked
from datacat.server.query.cohorts import heads_in, of_shelf, passes
from datacat.server.query.ground import Ground
from datacat.server.query.ordering import sort_value
from datacat.server.query.shape import Column, Result, Row
from datacat.server.query.spans import US, buckets
from datacat.store import Head, Query
from datacat.store.fleet import Shelves
from datacat.store.history import passes as passes_deeply
from datacat.store.shelf import Shelf, machine_of
from datacat.wire.routes import STATUS_CODES
from datacat.wire.times import rfc3339, to_us

BUDGET_S = 2.0
"""How long conditions on state and records may be looked for."""
TRANSITION_SESSIONS = 50

COLUMNS = (
    Column("id", "text", "the session"),
    Column("product", "text", "its product"),
    Column("version", "text", "its version"),
    Column("environment", "text", "its environment", optional=True),
    Column("status", "text", "its status now"),
    Column("status_code", "integer", "0 ended, 1 active, 2 suspended, 3 hung, 4 crashed, 5 abnormal"),
    Column("started_at", "time", "when it began"),
    Column("ended_at", "time", "when it ended", optional=True),
    Column("last_heartbeat_at", "time", "the app's newest heartbeat", optional=True),
    Column("duration_seconds", "number", "from begin to end, or to now"),
    Column("hostname", "text", "the host's name", optional=True),
    Column("machine", "text", "the machine's id, else the host's name", optional=True),
    Column("platform", "text", "the platform", optional=True),
    Column("hangs", "integer", "how often it hung"),
    Column("hang_seconds", "number", "how long in all, a hang that goes on until now"),
    Column("crashed", "flag", "whether it crashed"),
    Column("crash_reason", "text", "why it crashed, in one word", optional=True),
    Column("crash_title", "text", "what crashed, where", optional=True),
    Column("signature", "text", "its crash group", optional=True),
    Column("end_reason", "text", "why it ended, in one word", optional=True),
    Column("end_detail", "text", "the same in a sentence", optional=True),
    Column("exceptions", "integer", "exceptions it logged"),
    Column("errors", "integer", "events of level error and critical"),
    Column("events", "integer", "events it logged"),
    Column("metrics", "integer", "metrics it logged"),
    Column("web_url", "text", "its page"),
)  # fmt: skip
SORTS = tuple(column.name for column in COLUMNS if column.name != "web_url")

TRANSITIONS = (
    Column("time", "time_ms", "when the status changed, or the bucket begins"),
    Column("session", "text", "the session"),
    Column("product", "text", "its product"),
    Column("status", "text", "the status from then on; in a bucket the last one"),
    Column("status_code", "integer", "the same as a number"),
    Column("reason", "text", "why it ended", optional=True),
    Column("by", "text", "who judged: app, daemon or server"),
)


class _Cursor(msgspec.Struct, array_like=True):
    """Where a page ended: its sort, whether the value is missing, the value, the id."""

    sort: str
    missing: bool
    value: str | int | float | bool | None
    id: str


class _Key(NamedTuple):
    missing: bool
    value: Any
    id: str


def sessions(asked: Asked, ground: Ground) -> Result:
    """Answer /api/query/sessions: one page of sessions."""
    field, descending = asked["sort"].removeprefix("-"), asked["sort"].startswith("-")
    behind = _read_cursor(asked)
    deep = _deep(asked, ground)
    limit: int = asked["limit"]
    fleet = ground.store.fleet
    with fleet.reading() as shelves:
        mine = {key: shelf for key, shelf in shelves.items() if of_shelf(asked, *key)}
        if field == "started_at" and descending and asked["at"] != "end":
            # The usual page looks only at what it shows.
            found = _newest_first(asked, mine, fleet.lookup, behind)
        else:
            found = iter(_sorted(asked, heads_in(asked, fleet, mine, asked.span), field, behind, descending))
        if deep is None:
            page = [head for head, _ in zip(found, range(limit + 1), strict=False)]
            return _page(asked, ground, page, limit, field)
        candidates = list(found)
    return _deep_page(asked, ground, candidates, deep, field)


def row_of(head: Head, ground: Ground, now_us: int) -> Row:
    """Return a session as a row of COLUMNS."""
    crashed = head.status == "crashed"
    crash = head.crash if crashed else None
    counts = head.counts
    return {
        "id": head.id,
        "product": head.product,
        "version": head.version,
        "environment": head.environment,
        "status": head.status,
        "status_code": STATUS_CODES[head.status],
        "started_at": rfc3339(head.created_at),
        "ended_at": rfc3339(head.ended_at) if head.ended_at else None,
        "last_heartbeat_at": rfc3339(head.last_heartbeat) if head.last_heartbeat else None,
        "duration_seconds": _duration_us(head, now_us) / US,
        "hostname": head.hostname,
        "machine": machine_of(head) or None,
        "platform": head.platform,
        "hangs": head.hang_count,
        "hang_seconds": _hang_seconds(head, now_us),
        "crashed": crashed,
        "crash_reason": head.end_reason if crashed else None,
        "crash_title": crash.title if crash else None,
        "signature": crash.signature if crash else None,
        "end_reason": head.end_reason,
        "end_detail": head.end_detail,
        "exceptions": counts.get("exceptions", 0),
        "errors": counts.get("errors", 0),
        "events": counts.get("events", 0),
        "metrics": counts.get("metrics", 0),
        "web_url": ground.session_url(head.id),
    }


def transitions(asked: Asked, ground: Ground) -> Result:
    """Answer /api/query/transitions: changes of status of the newest sessions, or their status in each bucket."""
    newest = replace(asked, values={**asked.values, "at": "overlap"})
    fleet = ground.store.fleet
    with fleet.reading() as shelves:
        mine = {key: shelf for key, shelf in shelves.items() if of_shelf(asked, *key)}
        found = _newest_first(newest, mine, fleet.lookup, None)
        heads = [head for head, _ in zip(found, range(asked["limit_sessions"] + 1), strict=False)]
    truncated = len(heads) > asked["limit_sessions"]
    rows: list[Row] = []
    cut = buckets(asked.span, asked["interval"], asked["max_points"])
    for head in heads[: asked["limit_sessions"]]:
        try:
            changes = views.transitions(ground.store, head.id)
        except (NotFound, Deleted):
            continue
        steps = [(to_us(change["timestamp"]), change) for change in changes]
        rows += _sampled(head, steps, cut.starts, cut.edges) if asked["sample"] else _changes(head, steps, asked)
    rows.sort(key=lambda row: (row["time"], row["session"]))
    meta = {"truncated": truncated, "interval_ms": cut.interval_us // 1000 if asked["sample"] else None}
    return Result(TRANSITIONS, rows, meta=meta)


def _changes(head: Head, steps: list[tuple[int, Row]], asked: Asked) -> Iterator[Row]:
    """Yield the status at the begin of the span, each change in it, and the last one again at its end."""
    before = [change for t, change in steps if t < asked.span.start]
    if before:
        yield _transition(head, asked.span.start, before[-1])
    inside = [(t, change) for t, change in steps if asked.span.start <= t < asked.span.stop]
    for t, change in inside:
        yield _transition(head, t, change)
    if before or inside:
        yield _transition(head, asked.span.stop, inside[-1][1] if inside else before[-1])


def _sampled(head: Head, steps: list[tuple[int, Row]], starts: list[int], edges: list[int]) -> Iterator[Row]:
    at = 0
    for index, start in enumerate(starts):
        while at < len(steps) and steps[at][0] < edges[index + 1]:
            at += 1
        if at:
            yield _transition(head, start, steps[at - 1][1])


def _transition(head: Head, t: int, change: Row) -> Row:
    return {
        "time": t // 1000,
        "session": head.id,
        "product": head.product,
        "status": change["status"],
        "status_code": STATUS_CODES[change["status"]],
        "reason": change["reason"],
        "by": change["by"],
    }


def _duration_us(head: Head, now_us: int) -> int:
    return max(0, (head.ended_at or now_us) - head.created_at)


def _hang_seconds(head: Head, now_us: int) -> float:
    """Return how long a session hung in all; the head counts hangs once they are over."""
    goes_on = head.status == "hung" and head.hangs and not head.hangs[-1].end_us
    return head.hang_seconds + (max(0, now_us - head.hangs[-1].start_us) / US if goes_on else 0.0)


_VALUES: dict[str, Callable[[Head, int], Any]] = {
    "id": lambda head, _: head.id,
    "product": lambda head, _: head.product,
    "version": lambda head, _: head.version,
    "environment": lambda head, _: head.environment,
    "status": lambda head, _: head.status,
    "status_code": lambda head, _: STATUS_CODES[head.status],
    "started_at": lambda head, _: head.created_at,
    "ended_at": lambda head, _: head.ended_at or None,
    "last_heartbeat_at": lambda head, _: head.last_heartbeat or None,
    "duration_seconds": _duration_us,
    "hostname": lambda head, _: head.hostname,
    "machine": lambda head, _: machine_of(head) or None,
    "platform": lambda head, _: head.platform,
    "hangs": lambda head, _: head.hang_count,
    "hang_seconds": _hang_seconds,
    "crashed": lambda head, _: head.status == "crashed",
    "crash_reason": lambda head, _: head.end_reason if head.status == "crashed" else None,
    "crash_title": lambda head, _: head.crash.title if head.crash and head.status == "crashed" else None,
    "signature": lambda head, _: head.crash.signature if head.crash and head.status == "crashed" else None,
    "end_reason": lambda head, _: head.end_reason,
    "end_detail": lambda head, _: head.end_detail,
    "exceptions": lambda head, _: head.counts.get("exceptions", 0),
    "errors": lambda head, _: head.counts.get("errors", 0),
    "events": lambda head, _: head.counts.get("events", 0),
    "metrics": lambda head, _: head.counts.get("metrics", 0),
}  # fmt: skip


def _key(head: Head, field: str, now_us: int) -> _Key:
    """Return the place of a session in the ascending order; the value orders, the id breaks ties."""
    value = _VALUES[field](head, now_us)
    return _Key(True, 0, head.id) if value is None else _Key(False, sort_value(field, value), head.id)


def _fits(asked: Asked, head: Head) -> bool:
    """Return whether the time that at names lies in the span."""
    start, stop = asked.span
    if asked["at"] == "end":
        return start <= head.ended_at < stop if head.ended_at else False
    if start <= head.created_at < stop:
        return True
    return asked["at"] == "overlap" and head.created_at < start and (not head.ended_at or head.ended_at > start)


def _newest_first(
    asked: Asked, shelves: Shelves, lookup: Callable[[str], Head | None], behind: _Key | None
) -> Iterator[Head]:
    """Yield the sessions that match, newest first, behind a key; looks only at as many as are taken."""
    start, stop = asked.span
    if behind is not None:
        stop = min(stop, behind.value + 1)
    begun = heapq.merge(*(_begun(shelf, start, stop) for shelf in shelves.values()), reverse=True)
    before: Iterable[tuple[int, str]] = ()
    if asked["at"] == "overlap":
        before = sorted(
            ((shelf.created[at], shelf.ids[at]) for shelf in shelves.values() for at in shelf.straddling(start)),
            reverse=True,
        )
    for part in (begun, before):
        for created, session_id in part:
            if behind is not None and (created, session_id) >= (behind.value, behind.id):
                continue
            head = lookup(session_id)
            if head is not None and passes(asked, head) and _fits(asked, head):
                yield head


def _begun(shelf: Shelf, start: int, stop: int) -> Iterator[tuple[int, str]]:
    created, ids = shelf.created, shelf.ids
    for at in range(bisect_left(created, stop) - 1, bisect_left(created, start) - 1, -1):
        yield created[at], ids[at]


def _sorted(asked: Asked, heads: Iterable[Head], field: str, behind: _Key | None, descending: bool) -> list[Head]:
    keyed = [(_key(head, field, asked.now_us), head) for head in heads if _fits(asked, head)]
    there = [item for item in keyed if not item[0].missing]
    there.sort(key=lambda item: item[0], reverse=descending)
    missing = sorted((item for item in keyed if item[0].missing), key=lambda item: item[0], reverse=descending)
    ordered = [*there, *missing]
    if behind is not None:
        ordered = [item for item in ordered if _is_behind(item[0], behind, descending=descending)]
    return [head for _, head in ordered]


def _is_behind(key: _Key, behind: _Key, *, descending: bool) -> bool:
    """Return whether a key comes later in the order; missing values come last in both directions."""
    if key.missing != behind.missing:
        return key.missing
    return key < behind if descending else key > behind


def _page(asked: Asked, ground: Ground, heads: list[Head], limit: int, field: str) -> Result:
    rows = [row_of(head, ground, asked.now_us) for head in heads[:limit]]
    cursor = _write_cursor(asked, heads[limit - 1], field) if len(heads) > limit else None
    return Result(COLUMNS, rows, cursor)


def _deep(asked: Asked, ground: Ground) -> Callable[[Head], bool] | None:
    """Return the conditions that look into state and records; None without any."""
    states = tuple(path_value("state", text) for text in asked["state"])
    ever = tuple(path_value("state_ever", text) for text in asked["state_ever"])
    if not (states or ever or asked["event"]):
        return None
    query = Query(state=states, state_ever=ever, event=asked["event"])
    return lambda head: passes_deeply(ground.store, head.id, query)


def _deep_page(
    asked: Asked, ground: Ground, candidates: list[Head], deep: Callable[[Head], bool], field: str
) -> Result:
    """Look into the candidates in order until the page is full or the time is over; the fleet is not held."""
    deadline = time.monotonic() + BUDGET_S
    rows: list[Row] = []
    last: Head | None = None
    for head in candidates:
        if last is not None and (len(rows) == asked["limit"] or time.monotonic() > deadline):
            truncated = len(rows) < asked["limit"]
            return Result(COLUMNS, rows, _write_cursor(asked, last, field), {"truncated": truncated})
        last = head
        if deep(head):
            rows.append(row_of(head, ground, asked.now_us))
    return Result(COLUMNS, rows)


def _write_cursor(asked: Asked, head: Head, field: str) -> str:
    value = _VALUES[field](head, asked.now_us)
    cursor = _Cursor(asked["sort"], value is None, value, head.id)
    return base64.urlsafe_b64encode(msgspec.json.encode(cursor)).decode().rstrip("=")


def _read_cursor(asked: Asked) -> _Key | None:
    """Return the key that the page begins behind. Raises: WireError."""
    text: str = asked["cursor"]
    if not text:
        return None
    field = asked["sort"].removeprefix("-")
    try:
        plain = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        cursor = msgspec.json.decode(plain, type=_Cursor)
        fits = cursor.value is None if cursor.missing else type(cursor.value) in _TYPES[field]
    except (ValueError, msgspec.MsgspecError) as error:
        raise WireError("the cursor is not one of ours", hint="begin without a cursor") from error
    if cursor.sort != asked["sort"] or not fits:
        raise WireError("the cursor belongs to another sort", hint="keep sort while you page")
    return _Key(cursor.missing, 0 if cursor.missing else sort_value(field, cursor.value), cursor.id)


_EXAMPLE = Head(id="", product="", version="", created_at=1, ended_at=1, last_heartbeat=1, hostname="", environment="")
_TYPES: Mapping[str, tuple[type, ...]] = {
    field: (bool,) if field == "crashed" else (int, float) if isinstance(value(_EXAMPLE, 1), (int, float)) else (str,)
    for field, value in _VALUES.items()
}
