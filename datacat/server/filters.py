"""Parameters of a request -> what is asked of the store. Pure; raises Refusal 400 that names the parameter."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec

from datacat.errors import WireError
from datacat.server.problems import Refusal
from datacat.server.router import Request
from datacat.server.views import MEMBERS, Wanted, read_cursor
from datacat.store import Query, RecordQuery
from datacat.wire import times
from datacat.wire.records import LEVELS
from datacat.wire.routes import END_REASONS, STATUS_CODES

MAX_LIMIT = 1000
_SETS = ("product", "version", "environment", "status", "end_reason", "hostname", "machine", "daemon", "event")
_HAS = ("crash", "hang", "exception")
_AT = ("start", "overlap", "end")
SESSIONS = (
    *_SETS, "from", "to", "at", "q", "state", "state_ever", "has", "sort", "limit", "cursor",
)  # fmt: skip
WHOLE = ("events", "metrics", "history", "history_state")
PAGE = ("from", "to", "limit", "cursor", "order")
EVENTS = (*PAGE, "name", "level", "q")
METRICS = (*PAGE, "name", "q")
TRANSITIONS = (*PAGE, "name")
_REASONS = tuple(reason for reasons in END_REASONS.values() for reason in reasons)


def sessions(request: Request, *, limit: int = 100) -> Query:
    """Return the query for heads; a set of alternatives is given by repeating a parameter or with commas."""
    sets: dict[str, Any] = {name: items(request, name) for name in _SETS}
    for name, words in (("status", tuple(STATUS_CODES)), ("end_reason", _REASONS)):
        for item in sets[name]:
            word(name, item, words)
    has = items(request, "has")
    for item in has:
        word("has", item, _HAS)
    return Query(
        **sets,
        from_us=time_of(request, "from"),
        to_us=time_of(request, "to"),
        at=word("at", request.one("at", "start"), _AT),
        q=request.one("q"),
        state=tuple(path_value("state", text) for text in request.query.get("state", ())),
        state_ever=tuple(path_value("state_ever", text) for text in request.query.get("state_ever", ())),
        has=has,
        sort=request.one("sort", "-created_at"),
        limit=count_of(request, "limit", limit, 1, MAX_LIMIT),
        cursor=request.one("cursor"),
    )


def whole(request: Request) -> Wanted:
    """Return how much of each a session object is to hold."""
    counts = {name: _count_or_all(request, name) for name in ("events", "metrics", "history")}
    text = request.one("history_state", "0")
    return Wanted(**counts, history_state=word("history_state", text, ("0", "1")) == "1")


def members(request: Request) -> tuple[str, ...]:
    """Return which members of session objects are asked for, each once; all unless some are named."""
    named = tuple(dict.fromkeys(items(request, "fields")))
    for name in named:
        word("fields", name, MEMBERS)
    return named or MEMBERS


def records(request: Request, kinds: tuple[str, ...]) -> tuple[RecordQuery, int]:
    """Return the query for one page of records and the size of the page; the query asks for one more."""
    levels = items(request, "level")
    for item in levels:
        word("level", item, LEVELS)
    limit = count_of(request, "limit", 100, 1, MAX_LIMIT)
    order = word("order", request.one("order", "asc"), ("asc", "desc"))
    query = RecordQuery(
        kinds=kinds,
        names=items(request, "name"),
        levels=levels,
        from_us=time_of(request, "from"),
        to_us=time_of(request, "to"),
        q=request.one("q"),
        newest_first=order == "desc",
        limit=limit + 1,
        after=_cursor(request.one("cursor")),
    )
    return query, limit


def in_span(query: RecordQuery, timestamp: str) -> bool:
    """Return whether a time lies in the span that the query asks for."""
    t = times.to_us(timestamp)
    return (query.from_us is None or t >= query.from_us) and (query.to_us is None or t < query.to_us)


def next_page(query: Query, cursor: str) -> Query:
    """Return the query for the page after."""
    return replace(query, cursor=cursor)


def items(request: Request, name: str) -> tuple[str, ...]:
    """Return the alternatives given for a parameter."""
    return tuple(item for value in request.query.get(name, ()) for item in value.split(",") if item)


def word(name: str, value: str, words: tuple[str, ...]) -> str:
    """Return value when it is one of words."""
    if value not in words:
        raise Refusal(400, f"{name}={value[:80]} is not possible", hint=f"use one of {', '.join(words)}")
    return value


def count_of(request: Request, name: str, default: int, low: int, high: int) -> int:
    """Return a whole number between low and high."""
    text = request.one(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 20 and low <= int(text) <= high):
        raise Refusal(400, f"{name}={text[:80]} is not possible", hint=f"use a whole number from {low} to {high}")
    return int(text)


def time_of(request: Request, name: str) -> int | None:
    """Return a time as Unix us; numbers may be Unix seconds, ms or us."""
    text = request.one(name)
    if not text:
        return None
    value: Any = text
    try:
        value = int(text) if text.isascii() and text.isdigit() else float(text)
    except ValueError:
        value = text.replace(" ", "+")  # a + that was not quoted in the query
    try:
        return times.to_us(value)
    except (WireError, ValueError, OverflowError) as error:
        raise Refusal(
            400, f"{name}={text[:80]} is no time", hint="use RFC 3339 with an offset, or Unix seconds, ms or us"
        ) from error


def _count_or_all(request: Request, name: str) -> int | None:
    if request.one(name) == "all":
        return None
    return count_of(request, name, Wanted._field_defaults[name], 0, 1_000_000)


def path_value(name: str, text: str) -> tuple[str, Any]:
    """Return (path, value) of `path:value`; a value that is no JSON is a text."""
    path, colon, value = text.partition(":")
    if not path or not colon:
        raise Refusal(
            400, f"{name}={text[:80]} is not possible", hint=f"use {name}=path:value, such as {name}=level.name:forest"
        )
    try:
        return path, msgspec.json.decode(value)
    except (msgspec.MsgspecError, UnicodeError):
        return path, value


def _cursor(text: str) -> tuple[int, str, int, int] | None:
    try:
        return read_cursor(text)
    except WireError as error:
        raise Refusal(400, error.message, hint=error.hint) from error


def parameters(*groups: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of several groups, each once."""
    names: Mapping[str, None] = dict.fromkeys(name for group in groups for name in group)
    return tuple(names)
