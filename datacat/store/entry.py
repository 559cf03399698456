"""One entry of the semidbm store: everything that one batch changes, in one value, so that it is there whole or not.

    payload   sizes, front, state, body
    sizes     front length u32, CRC-32 of the front u32, state length u32 (big endian)
    front     JSON: the struct Front
    state     the whole state as JSON in one zstd frame, when the batch changed it; else no bytes
    body      the records as NDJSON in one zstd frame that tells its size, with or without a newline behind the last
              one; no bytes when none left a trace

The key of an entry is "<session id>/<rev>". rev counts the entries of a session from 1, so keys never repeat.
"""

import struct
import threading
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import zstandard

from datacat.errors import StoreError
from datacat.store.chunks import Chunk
from datacat.store.fold import Head
from datacat.store.rollup import Delta, from_old_rows
from datacat.wire.lines import Line, Packed, raws_of

_LEVEL = 1
"""Of zstd: about 90 ns for a record of 180 bytes at a quarter of its size; higher levels cost more than disk does."""
_SIZES = struct.Struct("!III")
FRONT_GUESS_BYTES = 4096
"""Nearly every front is shorter, so one read of this size gets it."""


_NO_ROLLUP = msgspec.Raw(b"[]")


class Front(msgspec.Struct, omit_defaults=True):
    """What is known without unpacking records. head is the session's after the batch.

    chunk is [stream, start, end, t_min, t_max, kinds, levels, names] (chunks.py) when the entry has records. chunks
    counts the session's entries with records up to this one: it tells whether any is missing. rollup is the Delta of
    rollup.py, or [] when there is none. deleted marks a tombstone, which has nothing else.
    """

    id: str
    rev: int
    head: msgspec.Raw = msgspec.Raw(b"null")
    chunk: list[Any] | None = None
    chunks: int = 0
    rollup: msgspec.Raw = _NO_ROLLUP
    deleted: bool = False


class Opened(NamedTuple):
    """A front, and how long it and the state behind it are."""

    front: Front
    front_bytes: int
    state_bytes: int


_encode = msgspec.json.Encoder().encode
_decode_front = msgspec.json.Decoder(Front).decode
_decode_head = msgspec.json.Decoder(Head).decode
_decode_delta = msgspec.json.Decoder(Delta).decode
_decode_old_rows: msgspec.json.Decoder[list[list[Any]]] = msgspec.json.Decoder(list[list[Any]])
_decode_state: msgspec.json.Decoder[dict[str, Any]] = msgspec.json.Decoder(dict[str, Any])
_local = threading.local()


def key_of(session_id: str, rev: int) -> bytes:
    """Return the key of an entry."""
    return f"{session_id}/{rev}".encode()


def split_key(key: bytes) -> tuple[str, int]:
    """Return (session id, rev)."""
    session_id, _, rev = key.decode().rpartition("/")
    return session_id, int(rev)


def pack(front: Front, state: bytes, body: bytes) -> bytes:
    """Return the payload of an entry; state and body come from squeeze()."""
    text = _encode(front)
    return b"".join((_SIZES.pack(len(text), zlib.crc32(text), len(state)), text, state, body))


def front_of(head: Head, rev: int, chunk: Chunk | None, chunks: int, rollup: Delta) -> Front:
    """Return the front of an entry."""
    row = None
    if chunk is not None:
        row = [chunk.stream, chunk.start, chunk.end, chunk.t_min, chunk.t_max, chunk.kinds, chunk.levels, chunk.names]
    added = msgspec.Raw(_encode(rollup)) if rollup.rows else _NO_ROLLUP
    return Front(head.id, rev, msgspec.Raw(_encode(head)), row, chunks, added)


def squeeze(data: bytes) -> bytes:
    """Return data in one zstd frame; any thread may call."""
    if not data:
        return b""
    try:
        compressor = _local.compressor
    except AttributeError:
        compressor = _local.compressor = zstandard.ZstdCompressor(level=_LEVEL)
    compressed: bytes = compressor.compress(data)
    return compressed


def body_of(some: Sequence[Line]) -> bytes:
    """Return the body of an entry with these lines: the frame that they came in, or one that is made now."""
    if isinstance(some, Packed) and some.frame is not None:
        return some.frame
    return squeeze(b"\n".join(raws_of(some)))


def open_front(payload: bytes | memoryview) -> Opened | None:
    """Return the front of a payload, or of its beginning; None when the beginning is too short.

    Raises: StoreError when it is not what was written.
    """
    if len(payload) < _SIZES.size:
        return None
    size, crc, state_bytes = _SIZES.unpack_from(payload)
    if _SIZES.size + size > len(payload):
        return None
    text = payload[_SIZES.size : _SIZES.size + size]
    if zlib.crc32(text) != crc:
        raise StoreError("the front of an entry is not what was written")
    return Opened(_decode_front(text), size, state_bytes)


def chunk_of(front: Front, segment: int) -> Chunk | None:
    """Return the chunk that an entry holds; None when it has no records."""
    if front.chunk is None:
        return None
    chunk = Chunk(front.rev, *front.chunk)
    chunk.segment = segment
    return chunk


def head_of(raw: msgspec.Raw) -> Head:
    """Return the head that a front has in its JSON."""
    return _decode_head(raw)


def delta_of(front: Front) -> Delta | None:
    """Return what the entry adds to the roll-ups; None when that is nothing."""
    raw = bytes(front.rollup)
    if raw == b"[]":
        return None
    if raw.startswith(b"[["):
        head = head_of(front.head)
        return from_old_rows(head.product, head.version, _decode_old_rows.decode(raw))
    return _decode_delta(raw)


def without_delta(payload: bytes) -> bytes:
    """Return the payload for a copy of an entry, without what it adds to the roll-ups: that is in the log once."""
    opened = open_front(payload)
    if opened is None or opened.front.rollup == _NO_ROLLUP:
        return payload
    opened.front.rollup = _NO_ROLLUP
    text, rest = _encode(opened.front), payload[_SIZES.size + opened.front_bytes :]
    return b"".join((_SIZES.pack(len(text), zlib.crc32(text), opened.state_bytes), text, rest))


def lines_of(payload: bytes) -> list[bytes]:
    """Return the records of an entry, one JSON text each, in order."""
    size, _, state_bytes = _SIZES.unpack_from(payload)
    body = payload[_SIZES.size + size + state_bytes :]
    return _expand(body).removesuffix(b"\n").split(b"\n") if body else []


def state_of(payload: bytes) -> tuple[dict[str, Any], int]:
    """Return the whole state that an entry holds, and its size as JSON."""
    size, _, state_bytes = _SIZES.unpack_from(payload)
    text = _expand(payload[_SIZES.size + size : _SIZES.size + size + state_bytes])
    return _decode_state.decode(text), len(text)


def encode_state(state: dict[str, Any]) -> bytes:
    """Return a state as JSON."""
    return _encode(state)


def _expand(frame: bytes) -> bytes:
    try:
        decompressor = _local.decompressor
    except AttributeError:
        decompressor = _local.decompressor = zstandard.ZstdDecompressor()
    data: bytes = decompressor.decompress(frame)
    return data
