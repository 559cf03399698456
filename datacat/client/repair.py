"""Make a record that the language accepts out of whatever the app passed, losing as little as possible. Pure."""

import math
from typing import Any

import msgspec

from datacat.errors import WireError
from datacat.wire import lines, records
from datacat.wire.records import Event, Metric, Record, StatePatch

BAD_METRIC_EVENT = "datacat_bad_metric"
"""A metric whose value is no number becomes an event of this name: a made-up number would be a lie."""

# Other libraries' words for our levels.
_LEVELS = {"warn": "warning", "err": "error", "fatal": "critical", "exception": "error", "notice": "info"}
_STEPS = (records.MAX_TEXT_CHARS, 2048, 256, 64)
"""Texts are cut to these lengths, one after the other, until the record fits."""
_STACK_LINES = 100


def encode(record: Record) -> tuple[bytes, bool]:
    """Return record as a line that every border accepts, and whether it had to be changed for that."""
    line = _acceptable(record)
    if line is not None:
        return line, False
    for text_chars in _STEPS:
        line = _acceptable(repaired(record, text_chars))
        if line is not None:
            return line, True
    return lines.encode(_rest(record)), True


def repaired(record: Record, text_chars: int) -> Record:
    """Return record with every member of the right type, its texts cut to text_chars."""
    match record:
        case Event():
            return Event(
                record.t,
                _name(record.name),
                _level(record.level, record.exception_type is not None),
                _text(record.category, text_chars),
                _text(record.group, text_chars),
                _texts(record.labels, text_chars),
                _text(record.message, text_chars),
                _object(record.data, text_chars),
                _stack(record.stacktrace, text_chars),
                _text(record.exception_type, text_chars),
                _text(record.exception_msg, text_chars),
                _text(record.source_file, text_chars),
                _integer(record.source_line),
                _text(record.source_function, text_chars),
            )
        case Metric():
            value = _number(record.value)
            if value is None:
                data = {"name": _name(record.name), "value": records.safe_form(record.value, text_chars=text_chars)}
                return Event(record.t, BAD_METRIC_EVENT, "warning", data=data)
            return Metric(
                record.t,
                _name(record.name),
                value,
                record.type if record.type in records.METRIC_TYPES else "gauge",
                _integer(record.count),
                _text(record.unit, text_chars),
                _texts(record.tags, text_chars),
                _object(record.metadata, text_chars),
            )
        case StatePatch():
            return StatePatch(record.t, _object(record.patch, text_chars) or {})
        case _:
            return _whole(record, text_chars)


def _whole(record: Record, text_chars: int) -> Record:
    """Return a record of another kind with every member safe; members that still have the wrong type are left out."""
    kind = type(record)
    safe = {
        name: records.safe_form(getattr(record, name), text_chars=text_chars)
        for name in record.__struct_fields__
        if name != "t"
    }
    for name in list(safe):
        try:
            msgspec.convert({"t": record.t, "k": records.kind_of(record), name: safe[name]}, kind)
        except msgspec.ValidationError:
            del safe[name]
    changed: Record = kind(record.t, **safe)
    return changed


def _rest(record: Record) -> Record:
    """Return what is left of a record that stays too large: that it was there, and its beginning."""
    name = getattr(record, "name", "")
    kind = records.kind_of(record)
    return Event(
        record.t,
        _name(name) if name else kind,
        "warning",
        category=kind,
        message=records.cut_text(repr(records.safe_form(record_members(record), text_chars=64)), 1024),
    )


def record_members(record: Record) -> dict[str, Any]:
    """Return the members of a record by name, as they are."""
    return {name: getattr(record, name) for name in record.__struct_fields__}


def _acceptable(record: Record) -> bytes | None:
    """Return the line when a reader takes it and reads back the same numbers, else None."""
    try:
        line = lines.encode(record)
        if len(line) > records.MAX_RECORD_BYTES or len(getattr(record, "name", "")) > records.MAX_NAME_CHARS:
            return None
        # Encoders write NaN and infinity as null: look for them where the app's own structures may hide them.
        if b"null" in line and not records.is_finite_json(msgspec.to_builtins(record)):
            return None
        lines.decode(line[:-1])
    except (WireError, TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError):
        return None
    except Exception:  # whatever an object of the app raises when it is encoded
        return None
    return line


def _name(value: object) -> str:
    text = records.safe_form(value, text_chars=records.MAX_NAME_CHARS)
    return (text if isinstance(text, str) else _repr(value, records.MAX_NAME_CHARS)) or "(no name)"


def _level(value: object, has_exception: bool) -> str:
    word = str(value).lower() if isinstance(value, str) else ""
    word = _LEVELS.get(word, word)
    return word if word in records.LEVELS else records.event_level(None, None, has_exception)


def _text(value: object, text_chars: int) -> str | None:
    if value is None:
        return None
    text = records.safe_form(value, text_chars=text_chars)
    return text if isinstance(text, str) else _repr(value, text_chars)


def _texts(value: object, text_chars: int) -> list[str] | None:
    if value is None:
        return None
    safe = records.safe_form(value, text_chars=text_chars)
    if isinstance(safe, dict):  # tags of other libraries are pairs
        safe = [f"{key}:{_text(item, text_chars)}" for key, item in safe.items()]
    items = safe if isinstance(safe, list) else [safe]
    return [_text(item, text_chars) or "" for item in items[:_STACK_LINES]]


def _stack(value: object, text_chars: int) -> list[str] | None:
    return _texts(value.splitlines() if isinstance(value, str) else value, min(text_chars, 1024))


def _object(value: object, text_chars: int) -> dict[str, Any] | None:
    if value is None:
        return None
    # Two levels are the record's own: the object that is the record, and the member.
    safe = records.safe_form(value, records.MAX_DEPTH - 2, text_chars)
    members = list((safe if isinstance(safe, dict) else {"value": safe}).items())[: max(8, text_chars)]
    return {name: _within(item, text_chars) for name, item in members}


def _within(value: Any, text_chars: int) -> Any:
    """Return value with long arrays and wide objects cut; the shorter the texts, the fewer the items."""
    items = max(8, text_chars)
    if isinstance(value, dict):
        return {name: _within(item, text_chars) for name, item in list(value.items())[:items]}
    if isinstance(value, list):
        kept = [_within(item, text_chars) for item in value[:items]]
        return kept if len(value) <= items else [*kept, records.CUT_MARK]
    return value


def _number(value: object) -> int | float | None:
    """Return value as a number that JSON has: numpy's and other numbers too; None when it is none."""
    if isinstance(value, bool):
        return int(value)
    try:
        number = value if isinstance(value, (int, float)) else float(value)  # type: ignore[arg-type]  # tried, not known
        if isinstance(number, int):
            return int(number) if -(2**63) <= number < 2**64 else float(number)
        return float(number) if math.isfinite(number) else None
    except (TypeError, ValueError, OverflowError):
        return None


def _integer(value: object) -> int | None:
    number = _number(value)
    return None if number is None else int(number)


def _repr(value: object, limit: int) -> str:
    safe = records.safe_form(value, text_chars=limit)
    return records.cut_text(str(safe), limit)
