"""Bodies of the simple endpoints -> lines of records. Pure: the time is an argument; bad fields raise WireError."""

from typing import Any

from datacat.errors import WireError
from datacat.server.fit import fit
from datacat.wire import ids, times
from datacat.wire.lines import Line
from datacat.wire.records import event_level
from datacat.wire.state import merge

_WRAPPED = frozenset({"state", "timestamp", "session_id"})
_NOT_OURS = frozenset({"t", "k", "timestamp", "session_id"})
"""Members that a record cannot take over from a body."""


def opening(body: object, now_us: int, new_id: str) -> tuple[str, Line]:
    """Return the id and the open record that create a session; new_id is used when the body names none."""
    fields = _object(body)
    session_id = ids.session_id(fields["id"]) if fields.get("id") is not None else new_id
    members: dict[str, Any] = {"t": _time(fields, "started_at", now_us), "k": "open", "id": session_id}
    for name in ("product", "version", "hostname", "machine_id", "boot_id", "pid", "environment", "platform"):
        if fields.get(name) is not None:
            members[name] = fields[name]
    for name in ("product", "version"):
        if name not in members:
            raise WireError(f"{name} is missing", pointer=f"/{name}")
    state = fields.get("state")
    if state is not None:
        # A state has no null members: they delete, also where nothing is yet.
        members["state"] = merge({}, _object(state, "/state"))
    return session_id, fit(members)


def state(body: object, now_us: int, *, bare: bool) -> Line:
    """Return the state record of a merge patch, or of {"state": patch, "timestamp": t} unless bare."""
    patch = _object(body)
    t_us = now_us
    if not bare and "state" in patch and patch.keys() <= _WRAPPED:
        t_us = _time(patch, "timestamp", now_us)
        patch = _object(patch["state"], "/state")
    return fit({"t": t_us, "k": "state", "patch": patch})


def events(body: object, now_us: int) -> list[Line]:
    """Return the records of one event or of an array of them."""
    return _each(body, lambda item: _event(item, now_us))


def metrics(body: object, now_us: int) -> list[Line]:
    """Return the records of one metric or of an array of them."""
    return _each(body, lambda item: _metric(item, now_us))


def exit_code(body: object) -> int | None:
    """Return the exit code in the body of end; the body may be missing."""
    value = _object({} if body is None else body).get("exit_code")
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not -(2**63) <= value < 2**63):
        raise WireError("exit_code is no whole number", pointer="/exit_code")
    return value


def reason(body: object) -> str | None:
    """Return the reason in the body of crash; the body may be missing."""
    value = _object({} if body is None else body).get("reason")
    if value is not None and not isinstance(value, str):
        raise WireError("reason is no text", pointer="/reason")
    return value


def daemon(body: object) -> dict[str, Any]:
    """Return what a daemon says about itself: id, texts, pid, sessions."""
    fields = _object(body)
    told: dict[str, Any] = {"id": fields.get("id")}
    if not isinstance(told["id"], str) or not 0 < len(told["id"]) <= 64:
        raise WireError("id is no text of 1 to 64 characters", pointer="/id")
    for name in ("hostname", "machine_id", "boot_id", "version", "platform"):
        told[name] = value = fields.get(name)
        if value is not None and not isinstance(value, str):
            raise WireError(f"{name} is no text", pointer=f"/{name}")
    told["pid"] = pid = fields.get("pid")
    if pid is not None and (isinstance(pid, bool) or not isinstance(pid, int)):
        raise WireError("pid is no whole number", pointer="/pid")
    told["sessions"] = sessions(body)
    told["asleep_s"] = asleep_s(body)
    return told | standing(body)


def standing(body: object) -> dict[str, int]:
    """Return how a daemon stands, as far as it says so: its clock when it sent this (Unix us), bytes that wait."""
    fields = _object({} if body is None else body)
    told = {}
    for name in ("sent_at", "spool_bytes"):
        value = fields.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 63:
            raise WireError(f"{name} is no whole number from 0 on", pointer=f"/{name}")
        told[name] = value
    return told


def asleep_s(body: object) -> float | None:
    """Return how long a daemon's machine has slept since its boot; None when it does not say."""
    value = _object({} if body is None else body).get("asleep_s")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
        raise WireError("asleep_s is no number of seconds", pointer="/asleep_s")
    return float(value)


def sessions(body: object) -> list[str] | None:
    """Return the ids of the sessions that a daemon serves; None when it does not say."""
    value = _object({} if body is None else body).get("sessions")
    if value is None:
        return None
    if not isinstance(value, list):
        raise WireError("sessions is no array", pointer="/sessions")
    try:
        return [ids.session_id(item) for item in value]
    except WireError as error:
        raise WireError("sessions are ids of sessions (UUIDs)", pointer="/sessions") from error


def _each(body: object, make: Any) -> list[Line]:
    if not isinstance(body, list):
        return [make(_object(body))]
    made = []
    for index, item in enumerate(body):
        try:
            made.append(make(_object(item)))
        except WireError as error:
            raise WireError(
                f"item {index}: {error.message}", pointer=f"/{index}{error.pointer}", hint=error.hint
            ) from error
    return made


def _event(item: dict[str, Any], now_us: int) -> Line:
    members = {name: value for name, value in item.items() if value is not None and name not in _NOT_OURS}
    level, category = members.get("level"), members.get("category")
    if (level is None or isinstance(level, str)) and (category is None or isinstance(category, str)):
        members["level"] = event_level(level, category, bool(members.get("exception_type")))
    return fit({"t": _time(item, "timestamp", now_us), "k": "event", **members})


def _metric(item: dict[str, Any], now_us: int) -> Line:
    members = {name: value for name, value in item.items() if value is not None and name not in _NOT_OURS}
    delta = members.pop("delta", None)
    if delta is not None:
        members.setdefault("type", "counter")
        if members["type"] == "counter":
            members["value"] = delta
    if "value" not in members:
        raise WireError("value is missing", pointer="/value")
    try:
        return fit({"t": _time(item, "timestamp", now_us), "k": "metric", **members})
    except WireError as error:
        if delta is not None and error.pointer == "/value":
            raise WireError(error.message, pointer="/delta", hint=error.hint) from error
        raise


def _object(value: object, pointer: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        what = pointer[1:] or "the body"
        raise WireError(f"{what} is no JSON object", pointer=pointer)
    return value


def _time(fields: dict[str, Any], name: str, now_us: int) -> int:
    value = fields.get(name)
    if value is None:
        return now_us
    try:
        return times.to_us(value)
    except WireError as error:
        raise WireError(error.message, pointer=f"/{name}", hint=error.hint) from error
