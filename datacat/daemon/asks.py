"""What comes in through the local endpoints, checked: JSON objects -> records and orders. Pure.

Unknown members of events and metrics are kept, unknown members of orders ignored, wrong types refused.
"""

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from datacat.daemon import mend
from datacat.errors import WireError
from datacat.wire import ids
from datacat.wire.lines import decode
from datacat.wire.records import (
    MAX_NAME_CHARS,
    MAX_RECORD_BYTES,
    cut_text,
    event_level,
    is_finite_json,
)
from datacat.wire.times import to_us

DEFAULT_END_TIMEOUT_S = 5.0
LONGEST_END_TIMEOUT_S = 60.0

_T = TypeVar("_T", bound=msgspec.Struct)


class Register(msgspec.Struct):
    """A session of a program without a journal of its own. parent_pid is watched unless it is 0."""

    product: str
    version: str
    parent_pid: int = 0
    id: str | None = None
    environment: str | None = None
    hostname: str | None = None


class End(msgspec.Struct):
    """The end of a session; the answer waits for the server at most timeout_s."""

    exit_code: int | None = None
    timeout_s: float = DEFAULT_END_TIMEOUT_S


def register(members: Mapping[str, Any]) -> Register:
    """Return the order. Raises: WireError."""
    order = _convert(members, Register)
    for name in ("product", "version"):
        text = getattr(order, name).strip()
        if not text:
            raise WireError(f"{name} is missing or empty", pointer=f"/{name}")
        setattr(order, name, cut_text(text, MAX_NAME_CHARS))
    if order.id is not None:
        order.id = ids.session_id(order.id)
    if order.parent_pid < 0:
        raise WireError("a pid is not negative", pointer="/parent_pid")
    return order


def end(members: Mapping[str, Any]) -> End:
    """Return the order. Raises: WireError."""
    order = _convert(members, End)
    if not 0 <= order.timeout_s <= LONGEST_END_TIMEOUT_S:
        raise WireError(f"use 0 to {LONGEST_END_TIMEOUT_S:.0f} seconds", pointer="/timeout_s")
    return order


def session_id(members: Mapping[str, Any]) -> str:
    """Return the id of the session that is meant. Raises: WireError."""
    if "session_id" not in members:
        raise WireError("session_id is missing", pointer="/session_id")
    try:
        return ids.session_id(members["session_id"])
    except WireError as error:
        raise WireError(error.message, pointer="/session_id") from error


def state_line(members: Mapping[str, Any], now_us: int) -> bytes:
    """Return the line of a state patch. Raises: WireError."""
    patch = members.get("state")
    if not isinstance(patch, dict):
        raise WireError("state is no JSON object", pointer="/state")
    return _line({"k": "state", "t": _time(members, now_us), "patch": patch})


def event_line(members: Mapping[str, Any], now_us: int) -> bytes:
    """Return the line of an event. Raises: WireError."""
    record = _record(members, "event", now_us)
    level, category = record.get("level"), record.get("category")
    if level is None:
        record["level"] = event_level(None, category, bool(record.get("exception_type")))
    return _line(record)


def metric_line(members: Mapping[str, Any], now_us: int) -> bytes:
    """Return the line of a metric; delta is the value of a counter. Raises: WireError."""
    record = _record(members, "metric", now_us)
    delta = record.pop("delta", None)
    if delta is not None and record.setdefault("type", "counter") == "counter":
        record["value"] = delta
    record.setdefault("type", "gauge")
    if "value" not in record:
        raise WireError("value is missing", pointer="/value")
    return _line(record)


def _record(members: Mapping[str, Any], kind: str, now_us: int) -> dict[str, Any]:
    others = {
        name: value
        for name, value in members.items()
        if name not in ("session_id", "timestamp", "k", "t") and value is not None
    }
    record: dict[str, Any] = {"k": kind, "t": _time(members, now_us), **others}
    if isinstance(record.get("name"), str):
        record["name"] = cut_text(record["name"], MAX_NAME_CHARS)
    return record


def _time(members: Mapping[str, Any], now_us: int) -> int:
    given = members.get("timestamp")
    if given is None:
        return now_us
    try:
        return to_us(given)
    except WireError as error:
        raise WireError(error.message, pointer="/timestamp", hint=error.hint) from error


def _line(record: dict[str, Any]) -> bytes:
    if not is_finite_json(record):
        raise WireError("a number is not finite")
    try:
        raw = msgspec.json.encode(record)
    except (UnicodeEncodeError, RecursionError, OverflowError) as error:
        raise WireError(f"not JSON: {error}") from error
    if len(raw) < MAX_RECORD_BYTES:
        decode(raw)
        return raw + b"\n"
    found = mend.read(raw, record["t"])
    if isinstance(found, str):
        raise WireError(f"larger than {MAX_RECORD_BYTES} bytes and cannot be cut")
    return found[1] + b"\n"


def _convert(members: Mapping[str, Any], kind: type[_T]) -> _T:
    given = {name: value for name, value in members.items() if value is not None}
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as error:
        text, _, path = str(error).partition(" - at `$")
        pointer = path.rstrip("`").replace(".", "/")
        if "missing required field" in text:
            pointer = "/" + text.rpartition("field ")[2].strip("`")
        raise WireError(text, pointer=pointer) from error
