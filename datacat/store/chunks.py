"""Chunks: what a store remembers in memory of one stored batch, so that it reads only the chunks a query can match."""

import zlib
from collections.abc import Iterable
from functools import lru_cache
from operator import attrgetter

import msgspec

from datacat.store import RecordQuery
from datacat.wire.lines import Line, records_of
from datacat.wire.records import KINDS, LEVELS, Event, Metric, Unknown, kind_of

NAME_BITS = 64
"""Names of events and metrics are kept as one bit of 64 each: a set bit says maybe, an unset one says never."""

_KIND_BITS = {word: 1 << index for index, word in enumerate(KINDS)}
_OTHER_KIND = 1 << len(KINDS)
_LEVEL_BITS = {word: 1 << index for index, word in enumerate(LEVELS)}
_NAMED = (Event, Metric)
_time, _level, _name = map(attrgetter, ("t", "level", "name"))


class Chunk(msgspec.Struct, array_like=True, gc=False):
    """The records of one batch that left a trace.

    rev is the session's count of writes at that moment and names the chunk. start and end are bytes of the stream,
    t_min and t_max the least and greatest t (us). kinds, levels and names are masks of bits. segment is where the body
    lies, for stores that have segments. As MessagePack it is an array (hints.py).
    """

    rev: int
    stream: str
    start: int
    end: int
    t_min: int
    t_max: int
    kinds: int
    levels: int
    names: int
    segment: int = 0


def describe(rev: int, stream: str, start: int, end: int, lines: Iterable[Line]) -> Chunk:
    """Return the chunk of these lines, of which there is at least one."""
    # One pass in C for each question is several times as fast as one loop that asks them all.
    records = records_of(lines)
    times = list(map(_time, records))
    kinds = levels = names = 0
    by_type = dict(zip(map(type, records), records, strict=True))
    for example in by_type.values():
        kinds |= _OTHER_KIND if isinstance(example, Unknown) else _KIND_BITS[kind_of(example)]
    mixed = len(by_type) > 1
    events = [record for record in records if isinstance(record, Event)] if mixed else records
    if events and isinstance(events[0], Event):
        for level in set(map(_level, events)):
            levels |= _LEVEL_BITS.get(level, 0)
    named = [record for record in records if isinstance(record, _NAMED)] if mixed else records
    if named and isinstance(named[0], _NAMED):
        for name in set(map(_name, named)):
            names |= name_bit(name)
    return Chunk(rev, stream, start, end, min(times), max(times), kinds, levels, names)


def may_match(chunk: Chunk, query: RecordQuery) -> bool:
    """Return whether the chunk can hold a record that the query asks for; False is certain."""
    if query.from_us is not None and chunk.t_max < query.from_us:
        return False
    if query.to_us is not None and chunk.t_min >= query.to_us:
        return False
    if query.after is not None:
        if query.newest_first and chunk.t_min > query.after[0]:
            return False
        if not query.newest_first and chunk.t_max < query.after[0]:
            return False
    if query.kinds and not chunk.kinds & _mask(query.kinds):
        return False
    if query.levels and not any(chunk.levels & _LEVEL_BITS.get(level, 0) for level in query.levels):
        return False
    return not query.names or any(chunk.names & name_bit(name) for name in query.names)


@lru_cache(maxsize=4096)
def name_bit(name: str) -> int:
    """Return the bit of a name: CRC-32 of its UTF-8 modulo NAME_BITS, the same in every process."""
    return 1 << zlib.crc32(name.encode("utf-8", "surrogatepass")) % NAME_BITS


def _mask(kinds: Iterable[str]) -> int:
    mask = 0
    for kind in kinds:
        mask |= _KIND_BITS.get(kind, _OTHER_KIND)
    return mask
