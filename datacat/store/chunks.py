"""Chunks: what a store knows of stored batches without reading them, so that it reads only what a query can match."""

import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import NamedTuple, Protocol

import msgspec

from datacat.store import RecordQuery
from datacat.store.columns import Columns
from datacat.wire.records import KINDS, LEVELS, Unknown, kind_of_type

NAME_BITS = 64
"""Names of events and metrics are kept as one bit of 64 each: a set bit says maybe, an unset one says never."""

_KIND_BITS = {word: 1 << index for index, word in enumerate(KINDS)}
_OTHER_KIND = 1 << len(KINDS)
_LEVEL_BITS = {word: 1 << index for index, word in enumerate(LEVELS)}
_name = attrgetter("name")
STATEFUL = _KIND_BITS["open"] | _KIND_BITS["state"] | _KIND_BITS["gap"]
"""The bits of the kinds of records that can change the state."""

HAS_STATE = 1
"""The entry has the whole state behind its last record."""
IN_ORDER = 2
"""The records that can change the state come in the order of their times."""


class Described(Protocol):
    """What tells whether records can match a query."""

    @property
    def t_min(self) -> int: ...  # noqa: D102
    @property
    def t_max(self) -> int: ...  # noqa: D102
    @property
    def kinds(self) -> int: ...  # noqa: D102
    @property
    def levels(self) -> int: ...  # noqa: D102
    @property
    def names(self) -> int: ...  # noqa: D102


class Part(msgspec.Struct, array_like=True, gc=False):
    """The records of one batch that left a trace.

    start and end are bytes of the stream, t_min and t_max the least and greatest t (us). kinds, levels and names are
    masks of bits. lines is their number, 0 when it is not told, rev that of the entry that was written with the batch.
    """

    stream: str
    start: int
    end: int
    t_min: int
    t_max: int
    kinds: int
    levels: int
    names: int
    lines: int = 0
    rev: int = 0


class Chunk(NamedTuple):
    """One entry of a store, in memory: the entries rev first to last of its session, in one.

    It lies at offset of the file of a segment, size_bytes long. raw_bytes is the size of its records uncompressed,
    batches how many are in it (0: it has no records). s_min and s_max are the least and greatest t of records that can
    change the state; s_max is less than s_min when there are none. tier is 0 for what was written with a batch, and
    grows with each merge. flags has HAS_STATE and IN_ORDER. The rest is as in Part.
    """

    first: int
    last: int
    segment: int
    offset: int
    size_bytes: int
    raw_bytes: int
    batches: int
    kinds: int
    t_min: int
    t_max: int
    s_min: int
    s_max: int
    names: int
    tier: int
    levels: int
    flags: int


_ROW = struct.Struct("<8I4qQ3Bx")
ROW_BYTES = _ROW.size
"""A chunk in a table; the table of a session is the rows of its chunks in the order of first."""
_TIER_AT = ROW_BYTES - 4
_BATCHES_AT = 6 * 4
FAN = 64
"""So many entries of one tier are merged into one of the next."""
NO_STATE = (0, -1)
"""s_min and s_max of a chunk without records that can change the state."""


def row_of(chunk: Chunk) -> bytes:
    """Return a chunk as a row of a table."""
    return _ROW.pack(*chunk)


def chunks_of(table: bytes) -> list[Chunk]:
    """Return the chunks of a table."""
    return [Chunk._make(row) for row in _ROW.iter_unpack(table)]


def newest_first(table: bytes) -> Iterator[Chunk]:
    """Yield the chunks of a table, the last one first."""
    for at in range(len(table) - ROW_BYTES, -1, -ROW_BYTES):
        yield Chunk._make(_ROW.unpack_from(table, at))


def state_of(chunks: Sequence[Chunk]) -> Chunk | None:
    """Return the last of the chunks that has the state behind it; None when there is none."""
    return next((chunk for chunk in reversed(chunks) if chunk.flags & HAS_STATE), None)


def is_bare(table: bytes) -> bool:
    """Return whether the last chunk of a table has no records."""
    at = len(table) - ROW_BYTES + _BATCHES_AT
    return table[at : at + 4] == b"\0\0\0\0"


def has_any(table: bytes) -> bool:
    """Return whether the last chunk of a table was not merged yet; those that were come before those that were not."""
    return bool(table) and not table[-ROW_BYTES + _TIER_AT]


def has_many(table: bytes) -> bool:
    """Return whether the last FAN chunks of a table were not merged yet."""
    return len(table) >= FAN * ROW_BYTES and not table[-FAN * ROW_BYTES + _TIER_AT]


def lies_in(table: bytes, segment: int) -> bool:
    """Return whether a chunk of the table may lie in that segment; False is certain and quick."""
    return segment.to_bytes(4, "little") in table


def describe(stream: str, start: int, end: int, columns: Columns) -> Part:
    """Return the part that these records are, of which there is at least one."""
    kinds = levels = names = 0
    for one in columns.types:
        kinds |= _OTHER_KIND if issubclass(one, Unknown) else _KIND_BITS[kind_of_type(one)]
    for name, level, _, _ in columns.event_counts:
        levels |= _LEVEL_BITS.get(level, 0)
        names |= name_bit(name)
    for name in set(map(_name, columns.metrics)):
        names |= name_bit(name)
    return Part(stream, start, end, columns.t_min, columns.t_max, kinds, levels, names, len(columns.records))


def may_match(some: Described, query: RecordQuery) -> bool:
    """Return whether there can be a record that the query asks for; False is certain."""
    if query.from_us is not None and some.t_max < query.from_us:
        return False
    if query.to_us is not None and some.t_min >= query.to_us:
        return False
    if query.after is not None:
        if query.newest_first and some.t_min > query.after[0]:
            return False
        if not query.newest_first and some.t_max < query.after[0]:
            return False
    if query.kinds and not some.kinds & _mask(query.kinds):
        return False
    if query.levels and not any(some.levels & _LEVEL_BITS.get(level, 0) for level in query.levels):
        return False
    return not query.names or any(some.names & name_bit(name) for name in query.names)


@lru_cache(maxsize=4096)
def name_bit(name: str) -> int:
    """Return the bit of a name: CRC-32 of its UTF-8 modulo NAME_BITS, the same in every process."""
    return 1 << zlib.crc32(name.encode("utf-8", "surrogatepass")) % NAME_BITS


def _mask(kinds: Iterable[str]) -> int:
    mask = 0
    for kind in kinds:
        mask |= _KIND_BITS.get(kind, _OTHER_KIND)
    return mask
