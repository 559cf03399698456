"""Make a record out of a line that is none, or say that it cannot be done. Pure.

One bad line, torn or from a foreign writer, must never block a stream: it is mended, or dropped and counted.
"""

from typing import Any

import msgspec

from datacat.errors import WireError
from datacat.wire.lines import decode, decode_object
from datacat.wire.records import (
    CUT_MARK,
    MAX_DEPTH,
    MAX_NAME_CHARS,
    MAX_RECORD_BYTES,
    MAX_T_US,
    MAX_TEXT_CHARS,
    Record,
    cut_text,
    safe_form,
)

_TEXT_CHARS = (MAX_TEXT_CHARS, 4096, 512, 64)
_ROOMY_MEMBERS = ("data", "stacktrace", "labels", "metadata", "tags", "patch", "state")
"""Members that may be given up when cut texts alone do not make the record small enough."""


def read(raw: bytes, t: int) -> tuple[Record, bytes] | str:
    """Return the record in a line and the line that says it, or the reason why there is none.

    A good line comes back as it is. t is the time of the record before it, for a line that has none. Reasons:
    malformed (no JSON object with a kind), too_large.
    """
    if len(raw) < MAX_RECORD_BYTES:
        try:
            return decode(raw), raw
        except WireError:
            pass
    try:
        members = decode_object(raw)
    except WireError:
        return "malformed"
    if not isinstance(members.get("k"), str):
        return "malformed"
    given_t = members.get("t")
    if not isinstance(given_t, int) or isinstance(given_t, bool) or not 0 <= given_t <= MAX_T_US:
        members["t"] = t
    for text_chars in _TEXT_CHARS:
        if found := _fit(safe_form(members, MAX_DEPTH, text_chars)):
            return found
    for name in _ROOMY_MEMBERS:
        if name in members:
            members[name] = {} if name in ("patch", "state") else None
            members["cut"] = CUT_MARK
    return _fit(safe_form(members, MAX_DEPTH, _TEXT_CHARS[-1])) or "too_large"


def _fit(members: dict[str, Any]) -> tuple[Record, bytes] | None:
    """Set aside one member after the other that does not obey the language, until what is left does."""
    for _ in range(len(members) + 1):
        raw = msgspec.json.encode(members)
        if len(raw) >= MAX_RECORD_BYTES:
            return None
        try:
            return decode(raw), raw
        except WireError as error:
            name = error.pointer.lstrip("/").partition("/")[0]
        if name == "name":
            given = members.get("name")
            members["name"] = cut_text(str(given), MAX_NAME_CHARS) if given else "unnamed"
        elif name in members and name not in ("t", "k"):
            members[f"bad_{name}"] = members.pop(name)
        else:
            return None
    return None
