"""Hints: what a start needs to know of a segment, beside it, so that it need not be read whole. Never trusted blindly.

    <store>/hints/<segment>    MAGIC, CRC-32 of the rest (big endian), the struct Hint in MessagePack

A hint tells of the first size bytes of its segment, all of them durable and sound when it was made. It is ignored when
it is not whole, when the file is shorter, or when a file of just that size was changed since (its time says so). What
lies behind those bytes is read as without a hint. Hints may be removed at any time.
"""

import contextlib
import os
import struct
import zlib
from pathlib import Path

import msgspec

from datacat.store import durable
from datacat.store.summary import LAYOUT, Summary

HINTS_DIR = "hints"

_MAGIC = b"datacat hint 2\n"
_EARLIER = (b"datacat hint 1\n",)
"""Of hints that are not read any more, but are no damage."""
_CRC = struct.Struct("!I")
_CHECKED_BYTES = 4096
"""So many of the last bytes that a hint tells of are compared with the file when that has grown since."""


class Kept(msgspec.Struct, array_like=True, gc=False):
    """One session in one segment: the rows of its chunks there (chunks.py), oldest first.

    head and total (the batches with records of the session as its newest entry counts them) are there when the newest
    entry is in this segment.
    """

    id: str
    rows: bytes
    head: Summary | None
    total: int


class Hint(msgspec.Struct, array_like=True, gc=False):
    """A segment as it was: size bytes in a file last changed at time_ns, the next record's number, what is alive.

    tail_crc is the CRC-32 of the last _CHECKED_BYTES of them, layout that of summaries. sessions are the struct Kept,
    decoded one at a time, for there are many and most of their texts are the same. tombstones are
    (session id, rev, when, whether to erase, offset, size).
    """

    layout: int
    size: int
    time_ns: int
    tail_crc: int
    seq: int
    sessions: list[msgspec.Raw]
    tombstones: list[tuple[str, int, int, bool, int, int]]


class _Layout(msgspec.Struct, array_like=True, gc=False):
    """The first member of a Hint."""

    layout: int


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Hint).decode
decode_kept = msgspec.msgpack.Decoder(Kept).decode
_decode_layout = msgspec.msgpack.Decoder(_Layout).decode


def packed(kept: Kept) -> msgspec.Raw:
    """Return a session as it is in a hint."""
    return msgspec.Raw(_encode(kept))


def save(root: Path, name: str, hint: Hint) -> None:
    """Write the hint of the segment with that folder name. Raises: OSError. Not durable: a start can do without."""
    body = _encode(hint)
    path = root / HINTS_DIR / name
    durable.make_dir(path.parent)
    new = path.with_name(name + durable.NEW_SUFFIX)
    fd = os.open(new, (durable.OPEN_FLAGS & ~os.O_APPEND) | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        durable.write_all(fd, _MAGIC + _CRC.pack(zlib.crc32(body)) + body)
    finally:
        os.close(fd)
    new.replace(path)


def load(root: Path, name: str, data: Path) -> Hint | None:
    """Return the hint for the segment file data; None when there is none that can be used."""
    try:
        packed = memoryview((root / HINTS_DIR / name).read_bytes())
        body = packed[len(_MAGIC) + _CRC.size :]
        if packed[: len(_MAGIC)] != _MAGIC or zlib.crc32(body) != _CRC.unpack_from(packed, len(_MAGIC))[0]:
            return None
        if _decode_layout(body).layout != LAYOUT:
            return None
        hint = _decode(body)
        found = data.stat()
        if found.st_size == hint.size:
            return hint if found.st_mtime_ns == hint.time_ns else None
        if found.st_size < hint.size or tail_crc(data, hint.size) != hint.tail_crc:
            return None
    except (OSError, struct.error, msgspec.DecodeError):
        return None
    return hint


def is_whole(root: Path, name: str) -> bool:
    """Return whether the hint of that name is as it was written, of whatever layout. Raises: OSError."""
    packed = (root / HINTS_DIR / name).read_bytes()
    start = len(_MAGIC) + _CRC.size
    if len(packed) < start or packed[: len(_MAGIC)] not in (_MAGIC, *_EARLIER):
        return False
    return bool(zlib.crc32(packed[start:]) == _CRC.unpack_from(packed, len(_MAGIC))[0])


def tail_crc(data: Path, size: int) -> int:
    """Return the CRC-32 of the last of the first size bytes of a file. Raises: OSError."""
    with data.open("rb") as file:
        file.seek(max(0, size - _CHECKED_BYTES))
        return zlib.crc32(file.read(min(size, _CHECKED_BYTES)))


def forget(root: Path, name: str) -> None:
    """Remove the hint of a segment, if there is one."""
    with contextlib.suppress(OSError):
        (root / HINTS_DIR / name).unlink()


def forget_others(root: Path, names: set[str]) -> None:
    """Remove every hint but those of these segments."""
    with contextlib.suppress(OSError):
        for path in (root / HINTS_DIR).iterdir():
            if path.name not in names:
                forget(root, path.name)
