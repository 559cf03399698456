"""Bring a record into the limits of the wire: names cut, size and depth reduced, each with a mark. Pure."""

from typing import Any

import msgspec

from datacat.wire import lines
from datacat.wire.lines import Line
from datacat.wire.records import (
    CUT_MARK,
    MAX_DEPTH,
    MAX_NAME_CHARS,
    MAX_RECORD_BYTES,
    MAX_TEXT_CHARS,
    Event,
    Metric,
    Open,
    cut_text,
    depth_of,
    safe_form,
)

NAMES = ("name", "product", "version", "category", "group", "unit", "environment", "hostname")
"""Members that are names: they become keys of indexes and labels of charts."""
_TEXT_CHARS = (MAX_TEXT_CHARS, MAX_TEXT_CHARS // 4, MAX_TEXT_CHARS // 16, MAX_NAME_CHARS)
_PART_BYTES = 12 * 1024
"""What one member of a record that is still too large may keep; four of them fit beside all the small ones."""


def fit(members: dict[str, Any]) -> Line:
    """Return the record with these members (t and k among them) as a line within the limits.

    Raises: WireError when it is no record of its kind.
    """
    short = {
        name: cut_text(value, MAX_NAME_CHARS) if name in NAMES and isinstance(value, str) else value
        for name, value in members.items()
    }
    if depth_of(short) > MAX_DEPTH:
        short = safe_form(short, MAX_DEPTH, MAX_RECORD_BYTES)
    raw = msgspec.json.encode(short)
    if len(raw) >= MAX_RECORD_BYTES:
        raw = _shrink(short)
    return Line(lines.decode(raw), raw)


def mend(line: Line) -> Line:
    """Return a line of a batch within the limits; nearly always the line itself."""
    record = line.record
    if len(line.raw) < MAX_RECORD_BYTES:
        if not isinstance(record, (Event, Metric)):
            if not isinstance(record, Open) or max(len(record.product), len(record.version)) <= MAX_NAME_CHARS:
                return line
        elif len(record.name) <= MAX_NAME_CHARS:
            return line
    return fit(lines.decode_object(line.raw))


def _shrink(members: dict[str, Any]) -> bytes:
    """Return a record of at most MAX_RECORD_BYTES: first the texts get shorter, then objects and lists."""
    for text_chars in _TEXT_CHARS:
        form = safe_form(members, MAX_DEPTH, text_chars)
        raw = msgspec.json.encode(form)
        if len(raw) < MAX_RECORD_BYTES:
            return raw
    trimmed = {name: _trim(value, _PART_BYTES) for name, value in form.items()}
    raw = msgspec.json.encode(trimmed)
    if len(raw) < MAX_RECORD_BYTES:
        return raw
    return msgspec.json.encode(_trim(trimmed, MAX_RECORD_BYTES - MAX_NAME_CHARS))


def _trim(value: Any, budget: int) -> Any:
    """Return value with the first members or items that fit into budget bytes, and a mark when some are missing."""
    size = 2
    if isinstance(value, dict):
        kept: dict[str, Any] = {}
        for name, item in value.items():
            size += len(msgspec.json.encode(name)) + len(msgspec.json.encode(item)) + 2
            if size > budget:
                return {**kept, CUT_MARK: CUT_MARK}
            kept[name] = item
        return kept
    if isinstance(value, list):
        items: list[Any] = []
        for item in value:
            size += len(msgspec.json.encode(item)) + 1
            if size > budget:
                return [*items, CUT_MARK]
            items.append(item)
        return items
    return value
