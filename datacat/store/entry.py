"""One entry of the semidbm store: everything that one batch changes, or what several entries were merged to.

It is one value, so that it is there whole or not.

    payload   sizes, front, state, index, body
    sizes     front length u32, CRC-32 of the front u32, state length u32 (big endian)
    front     JSON: the struct Front
    state     one zstd frame of JSON: the whole state, when the batch changed it; in a merged entry [the state before
              its first record, or null when that is the session's first; the state behind its last]; else no bytes
    index     of a merged entry only: one zstd frame of JSON, the list of its parts in the order of their records
    body      the records as NDJSON in one zstd frame that tells its size, with or without a newline behind the last
              one; no bytes when none left a trace

The key of an entry is "<session id>/<rev>", of a merged one "<session id>/<first>-<rev>". rev counts the entries of a
session from 1, so keys never repeat. A merged entry stands for all those from first to rev.
"""

import struct
import threading
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import zstandard

from datacat.errors import StoreError
from datacat.store.chunks import HAS_STATE, IN_ORDER, NO_STATE, STATEFUL, Chunk, Part
from datacat.store.fold import Head
from datacat.store.rollup import Delta, from_old_rows
from datacat.wire.lines import Line, Packed, raws_of

_LEVEL = 1
"""Of zstd: about 90 ns for a record of 180 bytes at a quarter of its size; higher levels cost more than disk does."""
_MERGED_LEVEL = 3
"""Of zstd for what is written once and kept for long."""
_SIZES = struct.Struct("!III")
FRONT_GUESS_BYTES = 4096
"""Nearly every front is shorter, so one read of this size gets it."""

_NO_ROLLUP = msgspec.Raw(b"[]")


class Front(msgspec.Struct, omit_defaults=True):
    """What is known without unpacking records. head is the session's after the batch.

    chunk is the part when the entry has records; in a merged entry its times, kinds, levels and names are those of all
    its parts together. chunks counts the session's batches with records up to this one: it tells whether any is
    missing. rollup is the Delta of rollup.py, or [] when there is none; no copy of an entry has it. deleted marks
    a tombstone, which has nothing else but at_us, when that was, and whether to erase what other segments still hold.

    A merged entry has first (0: it is none), tier (chunks.py), batches, the length of its index, and stateful: the
    least and greatest t of records that can change the state, and whether they come in the order of their times.
    """

    id: str
    rev: int
    head: msgspec.Raw = msgspec.Raw(b"null")
    chunk: Part | None = None
    chunks: int = 0
    rollup: msgspec.Raw = _NO_ROLLUP
    deleted: bool = False
    at_us: int = 0
    erase: bool = False
    first: int = 0
    tier: int = 0
    batches: int = 0
    index: int = 0
    stateful: tuple[int, int, bool] = (*NO_STATE, True)


class Opened(NamedTuple):
    """A front, and where state, index and body begin in the payload."""

    front: Front
    state_at: int
    index_at: int
    body_at: int


_encode = msgspec.json.Encoder().encode
_decode_front = msgspec.json.Decoder(Front).decode
_decode_head = msgspec.json.Decoder(Head).decode
_decode_delta = msgspec.json.Decoder(Delta).decode
_decode_parts = msgspec.json.Decoder(list[Part]).decode
_decode_old_rows: msgspec.json.Decoder[list[list[Any]]] = msgspec.json.Decoder(list[list[Any]])
_decode_state: msgspec.json.Decoder[dict[str, Any]] = msgspec.json.Decoder(dict[str, Any])
_decode_states: msgspec.json.Decoder[tuple[msgspec.Raw, msgspec.Raw]] = msgspec.json.Decoder(
    tuple[msgspec.Raw, msgspec.Raw]
)
_local = threading.local()


def key_of(session_id: str, first: int, last: int) -> bytes:
    """Return the key of an entry."""
    return f"{session_id}/{last}".encode() if first == last else f"{session_id}/{first}-{last}".encode()


def session_of(key: bytes) -> str:
    """Return the session that an entry belongs to."""
    return key.partition(b"/")[0].decode()


def pack(front: Front, state: bytes, body: bytes, index: bytes = b"") -> bytes:
    """Return the payload of an entry; state, index and body are frames."""
    front.index = len(index)
    text = _encode(front)
    return b"".join((_SIZES.pack(len(text), zlib.crc32(text), len(state)), text, state, index, body))


def front_of(head: Head, rev: int, part: Part | None, chunks: int, rollup: Delta) -> Front:
    """Return the front of the entry of one batch."""
    added = msgspec.Raw(_encode(rollup)) if rollup.rows else _NO_ROLLUP
    return Front(head.id, rev, msgspec.Raw(_encode(head)), part, chunks, added)


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


def squeeze_well(data: bytes) -> bytes:
    """Return data in one zstd frame, smaller than squeeze() makes it and in several times its time."""
    compressed: bytes = zstandard.ZstdCompressor(level=_MERGED_LEVEL).compress(data)
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
    start = _SIZES.size + size
    if start > len(payload):
        return None
    text = payload[_SIZES.size : start]
    if zlib.crc32(text) != crc:
        raise StoreError("the front of an entry is not what was written")
    front = _decode_front(text)
    return Opened(front, start, start + state_bytes, start + state_bytes + front.index)


def whole(payload: bytes | memoryview) -> Opened:
    """Return the front of a whole payload. Raises: StoreError."""
    opened = open_front(payload)
    if opened is None:
        raise StoreError("an entry has no front")
    return opened


def chunk_of(front: Front, body: bytes | memoryview, *, has_state: bool) -> Chunk:
    """Return the chunk that an entry is, without its place (zeros)."""
    part = front.chunk
    flags = HAS_STATE if has_state else 0
    if part is None:
        return Chunk(front.rev, front.rev, 0, 0, 0, 0, 0, 0, 0, 0, *NO_STATE, 0, 0, 0, flags)
    if front.first:
        s_min, s_max, in_order = front.stateful
        flags |= IN_ORDER * in_order
    else:
        # Where just these records are is not known without unpacking; a wider span is right too.
        s_min, s_max = (part.t_min, part.t_max) if part.kinds & STATEFUL else NO_STATE
    raw_bytes = zstandard.frame_content_size(body)
    return Chunk(
        front.first or front.rev, front.rev, 0, 0, 0, raw_bytes, front.batches or 1, part.kinds, part.t_min, part.t_max,
        s_min, s_max, part.names, front.tier, part.levels, flags,
    )  # fmt: skip


def head_of(raw: msgspec.Raw) -> Head:
    """Return the head that a front has in its JSON."""
    return _decode_head(raw)


def delta_of(front: Front) -> Delta | None:
    """Return what the batch of an entry added to the roll-ups; None when that is nothing, or was told elsewhere."""
    raw = bytes(front.rollup)
    if raw == b"[]":
        return None
    if raw.startswith(b"[["):
        known = head_of(front.head)
        return from_old_rows(known.product, known.version, _decode_old_rows.decode(raw))
    return _decode_delta(raw)


def without_delta(payload: bytes) -> bytes:
    """Return the payload for a copy of an entry, without what it adds to the roll-ups: that is in the log once."""
    opened = whole(payload)
    if opened.front.rollup == _NO_ROLLUP:
        return payload
    opened.front.rollup = _NO_ROLLUP
    state, index = payload[opened.state_at : opened.index_at], payload[opened.index_at : opened.body_at]
    return pack(opened.front, state, payload[opened.body_at :], index)


def parts_of(opened: Opened, payload: bytes) -> list[Part]:
    """Return the parts of an entry in the order of their records."""
    front = opened.front
    if front.first:
        return _decode_parts(_expand(payload[opened.index_at : opened.body_at]))
    if front.chunk is None:
        return []
    front.chunk.rev = front.rev
    return [front.chunk]


def body_bytes(opened: Opened, payload: bytes) -> bytes:
    """Return the records of an entry as NDJSON, without a newline at the end."""
    body = payload[opened.body_at :]
    return _expand(body).removesuffix(b"\n") if body else b""


def pieces_of(payload: bytes) -> list[tuple[Part, list[bytes]]]:
    """Return the parts of an entry, each with its records, one JSON text each, in order. Raises: StoreError."""
    opened = whole(payload)
    text = body_bytes(opened, payload)
    parts = parts_of(opened, payload)
    lines = text.split(b"\n") if text else []
    if len(parts) == 1:
        return [(parts[0], lines)]
    pieces = []
    at = 0
    for part in parts:
        pieces.append((part, lines[at : at + part.lines]))
        at += part.lines
    if at != len(lines):
        raise StoreError("an entry has other records than its index tells")
    return pieces


def state_of(payload: bytes) -> tuple[dict[str, Any], int]:
    """Return the whole state behind the records of an entry, and its size as JSON."""
    text = state_text(payload)
    return _decode_state.decode(text), len(text)


def state_text(payload: bytes) -> bytes:
    """Return the whole state behind the records of an entry as JSON; no bytes when the entry has none."""
    opened = whole(payload)
    text = _state_section(opened, payload)
    return bytes(_decode_states.decode(text)[1]) if opened.front.first and text else text


def state_before(payload: bytes) -> dict[str, Any] | None:
    """Return the whole state before the records of a merged entry; None when it is the first of its session."""
    text = _state_section(whole(payload), payload)
    before = bytes(_decode_states.decode(text)[0]) if text else b"null"
    return None if before == b"null" else _decode_state.decode(before)


def pack_states(before: bytes, after: bytes) -> bytes:
    """Return the state section of a merged entry; each is JSON or no bytes."""
    return squeeze_well(b"[%b,%b]" % (before or b"null", after or b"null"))


def pack_index(parts: list[Part]) -> bytes:
    """Return the index section of a merged entry."""
    return squeeze_well(_encode(parts))


def encode_state(state: dict[str, Any]) -> bytes:
    """Return a state as JSON."""
    return _encode(state)


def _state_section(opened: Opened, payload: bytes) -> bytes:
    frame = payload[opened.state_at : opened.index_at]
    return _expand(frame) if frame else b""


def _expand(frame: bytes) -> bytes:
    try:
        decompressor = _local.decompressor
    except AttributeError:
        decompressor = _local.decompressor = zstandard.ZstdDecompressor()
    data: bytes = decompressor.decompress(frame)
    return data
