"""Ids: UUIDs of sessions (version 7 when we make them, RFC 9562) and random ids of streams."""

import re

from datacat.errors import WireError

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII)
_STREAM = re.compile(r"[0-9A-Za-z_-]{1,64}", re.ASCII)

STREAM_ID_BYTES = 8
"""Random bytes of a stream's id; written as twice as many hexadecimal digits."""


def uuid7(unix_ms: int, random: bytes) -> str:
    """Return a UUID of version 7 from the time and 10 random bytes; such ids sort by time."""
    value = (unix_ms & (1 << 48) - 1) << 80 | int.from_bytes(random[:10])
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    digits = f"{value:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def session_id(text: object) -> str:
    """Return a session's id in its canonical form. Raises: WireError when it is no UUID."""
    if isinstance(text, str) and _UUID.fullmatch(lowered := text.lower()):
        return lowered
    raise WireError("the session id is not a UUID", pointer="/id")


def stream_id(text: object) -> str:
    """Return a stream's id. Raises: WireError when it is not 1 to 64 letters, digits, - or _."""
    if isinstance(text, str) and _STREAM.fullmatch(text):
        return text
    raise WireError("the stream id is not 1 to 64 letters, digits, - or _", pointer="/stream")
