"""Heads and stored records -> the JSON of the API: session objects, rows of events, metrics, history, transitions."""

import base64
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import msgspec

from datacat.errors import WireError
from datacat.store import Head, RecordQuery, Row, Store
from datacat.store.fold import public, transitions_of
from datacat.store.history import state_at, states
from datacat.wire import lines
from datacat.wire.records import DEFAULT_BOUNDS, Record
from datacat.wire.state import diff, merge
from datacat.wire.times import rfc3339

Json: TypeAlias = dict[str, Any]

_EVENT: Json = {
    "name": "",
    "level": "info",
    "category": None,
    "group": None,
    "labels": [],
    "message": None,
    "data": {},
    "stacktrace": [],
    "exception_type": None,
    "exception_msg": None,
    "source_file": None,
    "source_line": None,
    "source_function": None,
}
_METRIC: Json = {
    "name": "",
    "type": "gauge",
    "value": 0,
    "delta": None,
    "count": None,
    "unit": None,
    "tags": [],
    "metadata": {},
}
STATE_KINDS = ("open", "state", "gap")
"""Records that set or change the state."""
_STATUS_KINDS = ("open", "gap", "verdict", "close")


class Wanted(NamedTuple):
    """How many of the newest events, metrics and history entries a session object holds; None: all of them."""

    events: int | None = 1000
    metrics: int | None = 1000
    history: int | None = 1000
    history_state: bool = False


MEMBERS = (*public(Head("", "", "")), "state", "state_history", "events", "metrics")
"""Of a whole session object; the last four are read from its records."""


def whole(store: Store, head: Head, wanted: Wanted, fields: Sequence[str] = MEMBERS) -> Json:
    """Return the whole session object, or some of its members. Raises: NotFound, Deleted."""
    told = public(head)
    for name in MEMBERS[-4:]:
        if name in fields:
            told[name] = _RECORDED[name](store, head, wanted)
    return told if fields is MEMBERS else {name: told[name] for name in fields}


def newest(store: Store, session_id: str, kind: str, limit: int | None) -> list[Json]:
    """Return the newest events or metrics, oldest of them first. Raises: NotFound, Deleted."""
    return [row_of(row) for row in _newest(store, session_id, (kind,), limit)]


def history(store: Store, head: Head, limit: int | None, *, with_state: bool) -> list[Json]:
    """Return the newest changes of the state, oldest of them first: {timestamp, patch}, and the state if asked for.

    The state begins as {product, version}. Raises: NotFound, Deleted.
    """
    if with_state:
        entries = list(_folded(store, head))
        return entries[-limit:] if limit else entries if limit is None else []
    rows = _newest(store, head.id, STATE_KINDS, limit)
    return patches(store, head, rows)


_RECORDED: dict[str, Callable[[Store, Head, Wanted], Any]] = {
    "state": lambda store, head, _: store.state(head.id),
    "state_history": lambda store, head, wanted: history(store, head, wanted.history, with_state=wanted.history_state),
    "events": lambda store, head, wanted: newest(store, head.id, "event", wanted.events),
    "metrics": lambda store, head, wanted: newest(store, head.id, "metric", wanted.metrics),
}


def patches(store: Store, head: Head, rows: Iterable[Row]) -> list[Json]:
    """Return the history entries of stored records; a record that has no patch has none. Raises: NotFound, Deleted."""
    entries = []
    for row in rows:
        record = row.record
        if record["k"] == "state":
            patch = record.get("patch")
        elif record["k"] == "gap":
            # The whole state may be replaced: what that changed is known from all that came before.
            patch = diff(_state_before(store, head, record["t"]), _state_before(store, head, record["t"] + 1))
        else:
            patch = merge({}, record.get("state") or {})
        if patch:
            entries.append({"timestamp": rfc3339(record["t"]), "patch": patch})
    return entries


def _state_before(store: Store, head: Head, t_us: int) -> Json:
    return state_at(store, head.id, t_us) or {"product": head.product, "version": head.version}


def _folded(store: Store, head: Head) -> Iterator[Json]:
    before: Json = {"product": head.product, "version": head.version}
    for t, state in states(store, head.id):
        if patch := diff(before, state):
            yield {"timestamp": rfc3339(t), "patch": patch, "state": state}
        before = state


def row_of(row: Row) -> Json:
    """Return the API's row of a stored event or metric; members that we do not know are kept."""
    record = row.record
    members = {name: value for name, value in record.items() if name not in ("t", "k")}
    if record["k"] == "event":
        told = {"timestamp": rfc3339(record["t"]), **_EVENT, **members}
        if told["category"] is None:
            told["category"] = told["level"]
        return told
    told = {"timestamp": rfc3339(record["t"]), **_METRIC, **members}
    if told["type"] == "counter":
        told["delta"] = told["value"]
    elif told["type"] in ("histogram", "timer"):
        told["metadata"] = distribution(told["type"], told["value"], told["metadata"])
    return told


def distribution(kind: str, value: float, metadata: Json) -> Json:
    """Return the metadata of a histogram or timer; a single sample becomes a distribution of one.

    buckets are cumulative {le, count} with a last le of "+Inf"; a sample may name its bounds in metadata.buckets.
    """
    if "sum" in metadata:
        return metadata
    told = {**metadata, "sum": value, "count": 1, "min": value, "max": value}
    if kind == "histogram":
        given = metadata.get("buckets")
        numbers = given if isinstance(given, list) else []
        bounds = sorted(bound for bound in numbers if type(bound) in (int, float)) or DEFAULT_BOUNDS
        told["buckets"] = [
            *({"le": bound, "count": int(value <= bound)} for bound in bounds),
            {"le": "+Inf", "count": 1},
        ]
    return told


def transitions(store: Store, session_id: str) -> list[Json]:
    """Return the changes of status, oldest first. Raises: NotFound, Deleted."""
    found = list(store.records(session_id, RecordQuery(kinds=_STATUS_KINDS)))
    if any(row.record.get("status") in ("suspended", "abnormal") for row in found):
        # Any sign of life ends such a status, so all records have to be looked at.
        found = list(store.records(session_id, RecordQuery()))
    changes = transitions_of(session_id, _decoded(found))
    return [
        {"timestamp": rfc3339(t), "status": status, "reason": reason, "detail": detail, "by": by}
        for t, status, reason, detail, by in changes
    ]


def write_cursor(position: tuple[int, str, int, int]) -> str:
    """Return the text that read_cursor() understands: where a page of records ended."""
    return base64.urlsafe_b64encode(msgspec.json.encode(position)).decode().rstrip("=")


def read_cursor(text: str) -> tuple[int, str, int, int] | None:
    """Return the position behind which a page begins; None for an empty text. Raises: WireError."""
    if not text:
        return None
    try:
        plain = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        return msgspec.json.decode(plain, type=tuple[int, str, int, int])
    except (ValueError, msgspec.MsgspecError) as error:
        raise WireError("the cursor is not one of ours", pointer="/cursor", hint="begin without a cursor") from error


def _newest(store: Store, session_id: str, kinds: tuple[str, ...], limit: int | None) -> list[Row]:
    if limit == 0:
        return []
    if limit is None:
        return list(store.records(session_id, RecordQuery(kinds=kinds)))
    found = list(store.records(session_id, RecordQuery(kinds=kinds, newest_first=True, limit=limit)))
    found.reverse()
    return found


def _decoded(rows: Iterable[Row]) -> Iterator[Record]:
    for row in rows:
        yield lines.decode(msgspec.json.encode(row.record))
