"""The bytes of one segment: semidbm's file format with a seal in every value, and what is sound in such a file. Pure.

    file    HEADER, then records
    record  key length i32, value length i32, key, value, CRC-32 of key and value       (semidbm's; big endian)
    value   seal u32, ahead u16, seq u48, payload
    seal    CRC-32 of (key length u32, payload length u32, ahead u16, seq u48, key, payload), begun with the salt

semidbm's own checksum leaves out the lengths and knows neither order nor file: zeros, erased flash and blocks of
another file can pass it. With the segment's salt and seq they cannot. seq counts from 1 in each segment. ahead is how
many of the records before it were not durable when it was written: a disk that loses its power may have kept a later
page of what was not synced and not an earlier one, and what lies behind such a hole was acknowledged to nobody.
"""

import re
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

HEADER = b"SEMI\x00\x01\x00\x01"
MAX_KEY_BYTES = 255
MAX_VALUE_BYTES = (1 << 27) - 1
"""128 MiB: far above a batch with its state, and small enough that a damaged length is mostly recognised."""
VALUE_START = 12
"""Where the payload begins in a value."""

_LENGTHS = struct.Struct("!ii")
_SEAL = struct.Struct("!IQ")
_SEQ_BITS = 48
_SEQ_MASK = (1 << _SEQ_BITS) - 1
MOST_AHEAD = 0xFFFF
"""ahead of a record before which so many, or more, were not durable."""
_SECTOR_BYTES = 512
"""Disks write at least so much at once; the end of a sector that was never written is zeros."""
_ZEROS = 16
_SEALED = struct.Struct("!IIQ")
_CRC = struct.Struct("!I")
# A record begins with a key length below 256 and a value length below 2^27.
_CANDIDATE = re.compile(rb"(?=\0\0\0[^\0][\0-\7])", re.DOTALL)


class Record(NamedTuple):
    """A sound record: where it lies in the file and where its payload does.

    durable: the records up to that number were durable when it was written; 0 when that is not known.
    """

    key: bytes
    seq: int
    durable: int
    offset: int
    end: int
    payload: int


class Position(NamedTuple):
    """A place in the log: behind the record seq of a segment, which ends at that offset of its file."""

    segment: int
    seq: int
    offset: int


class Region(NamedTuple):
    """Bytes of a file that are no sound records.

    reason: torn (the end of an interrupted write; nobody was told that it is stored), damaged (something else changed
    bytes), missing (nothing between two records whose numbers do not follow each other).
    """

    offset: int
    end: int
    reason: str


def seal(salt: int, seq: int, key: bytes, payload: bytes, ahead: int = 0) -> bytes:
    """Return the value for a payload."""
    number = min(ahead, MOST_AHEAD) << _SEQ_BITS | seq
    return _SEAL.pack(_checksum(salt, number, key, payload), number) + payload


def record(salt: int, seq: int, key: bytes, payload: bytes, ahead: int = 0) -> bytes:
    """Return the bytes of one record."""
    value = seal(salt, seq, key, payload, ahead)
    crc = zlib.crc32(value, zlib.crc32(key))
    return b"".join((_LENGTHS.pack(len(key), len(value)), key, value, _CRC.pack(crc)))


def lengths_of(data: bytes) -> tuple[int, int] | None:
    """Return the lengths of key and value of the record at the beginning of data; None when they cannot be that."""
    if len(data) < _LENGTHS.size:
        return None
    key_size, value_size = _LENGTHS.unpack_from(data)
    plausible = 0 < key_size <= MAX_KEY_BYTES and VALUE_START <= value_size <= MAX_VALUE_BYTES
    return (key_size, value_size) if plausible else None


def record_bytes(key_size: int, value_size: int) -> int:
    """Return the size of a record with a key and a value of these sizes."""
    return _LENGTHS.size + key_size + value_size + _CRC.size


def unseal_record(salt: int, key: bytes, data: bytes) -> bytes | None:
    """Return the payload of a whole record; None when it is not the one that was sealed under that key."""
    start = _LENGTHS.size + len(key)
    if len(data) < start + VALUE_START + _CRC.size:
        return None
    if _LENGTHS.unpack_from(data) != (len(key), len(data) - start - _CRC.size) or data[_LENGTHS.size : start] != key:
        return None
    crc, number = _SEAL.unpack_from(data, start)
    payload = data[start + VALUE_START : -_CRC.size]
    return payload if _checksum(salt, number, key, payload) == crc else None


def examine(data: bytes, salt: int, *, base: int = 0, seq: int = 1) -> tuple[list[Record], list[Region]]:
    """Return the sound records of a file in order, and every region between, before and behind them.

    data is the file from byte base on, where a record begins whose number is seq; offsets are those in data.
    """
    sound: list[Record] = []
    bad: list[Region] = []
    position = 0 if base else len(HEADER)
    if data[:position] != HEADER[:position]:
        bad.append(Region(0, min(position, len(data)), "damaged"))
    while position < len(data):
        found = _parse(data, position, salt)
        if found is None or found.seq < seq:
            following = next((one for one in _sound_from(data, position + 1, salt) if one.seq >= seq), None)
            end = following.offset if following else len(data)
            is_torn = _is_unwritten(data, base, position, end) or (following is None and _is_torn(data, position))
            if following is None or (is_torn and not _was_durable(data, following.offset, salt, seq)):
                bad.append(Region(position, len(data), "torn" if is_torn else "damaged"))
                break
            bad.append(Region(position, following.offset, "damaged"))
            found = following
        elif found.seq > seq:
            bad.append(Region(position, position, "missing"))
        sound.append(found)
        seq, position = found.seq + 1, found.end
    return sound, bad


def is_foreign(data: bytes) -> bool:
    """Return whether the first record of a file is whole by semidbm's checksum, and so was sealed for another file."""
    start = len(HEADER) + _LENGTHS.size
    if len(data) < start:
        return False
    key_size, value_size = _LENGTHS.unpack_from(data, len(HEADER))
    end = start + key_size + value_size
    if key_size <= 0 or value_size <= 0 or end + _CRC.size > len(data):
        return False
    return bool(zlib.crc32(data[start:end]) == _CRC.unpack_from(data, end)[0])


def _checksum(salt: int, number: int, key: bytes, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(_SEALED.pack(len(key), len(payload), number) + key, salt))


def _parse(data: bytes, offset: int, salt: int) -> Record | None:
    """Return the record that begins at offset; None when there is no sound one."""
    if offset + _LENGTHS.size > len(data):
        return None
    key_size, value_size = _LENGTHS.unpack_from(data, offset)
    if not (0 < key_size <= MAX_KEY_BYTES and VALUE_START <= value_size <= MAX_VALUE_BYTES):
        return None
    value_start = offset + _LENGTHS.size + key_size
    end = value_start + value_size + _CRC.size
    if end > len(data):
        return None
    key = data[value_start - key_size : value_start]
    value = memoryview(data)[value_start : value_start + value_size]
    crc, number = _SEAL.unpack_from(value)
    payload = value[VALUE_START:]
    sealed = zlib.crc32(_SEALED.pack(key_size, len(payload), number) + key, salt)
    if zlib.crc32(payload, sealed) != crc or zlib.crc32(value, zlib.crc32(key)) != _CRC.unpack_from(data, end - 4)[0]:
        return None
    ahead, seq = number >> _SEQ_BITS, number & _SEQ_MASK
    durable = 0 if ahead == MOST_AHEAD else max(0, seq - 1 - ahead)
    return Record(key, seq, durable, offset, end, value_start + VALUE_START)


def _sound_from(data: bytes, offset: int, salt: int) -> Iterator[Record]:
    for match in _CANDIDATE.finditer(data, offset):
        if found := _parse(data, match.start(), salt):
            yield found


def _was_durable(data: bytes, offset: int, salt: int, seq: int) -> bool:
    """Whether a sound record from offset on tells that the record seq was durable when it was written."""
    return any(one.durable >= seq for one in _sound_from(data, offset, salt))


def _is_unwritten(data: bytes, base: int, start: int, end: int) -> bool:
    """Whether a sector of these bytes was never written: it ends in zeros, which parts of a record hardly ever do."""
    first = start - (base + start) % _SECTOR_BYTES
    for sector in range(first, end, _SECTOR_BYTES):
        stop = min(sector + _SECTOR_BYTES, len(data))
        if stop <= end and not data[max(start, sector, stop - _ZEROS) : stop].strip(b"\0"):
            return True
    return False


def _is_torn(data: bytes, offset: int) -> bool:
    """Whether the bytes from offset on look like a write that was cut: zeros, or a record that ends behind the file."""
    rest = data[offset:]
    if len(rest) < _LENGTHS.size or not rest.strip(b"\0"):
        return True
    key_size, value_size = _LENGTHS.unpack_from(rest)
    plausible = 0 < key_size <= MAX_KEY_BYTES and VALUE_START <= value_size <= MAX_VALUE_BYTES
    return bool(plausible and _LENGTHS.size + key_size + value_size + _CRC.size > len(rest))
