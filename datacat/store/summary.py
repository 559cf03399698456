"""Summaries: heads as the store holds them in memory, at a quarter of a Head's size. Pure.

What every session has, or many ask for, is a member; the rest is packed. Texts that sessions share are one object, and
nothing of it is tracked by the garbage collector. Measured: 450 to 600 bytes, where a Head takes about 2 KiB.
"""

import functools
import operator
import sys
import zlib
from typing import Any

import msgspec

from datacat.store.fold import Head
from datacat.store.ledger import Stream


class Summary(msgspec.Struct, array_like=True, gc=False):
    """A head in compact form, never changed; every other attribute of a Head costs unpacking."""

    id: str
    product: str
    version: str
    environment: str | None
    created_at: int
    updated_at: int
    ended_at: int
    last_seen: int
    status: str
    end_reason: str | None
    by: str
    hang_count: int
    hang_seconds: float
    has_exception: bool
    machine_id: str | None
    boot_id: str | None
    hostname: str | None
    platform: str | None
    daemon_id: str | None
    rare: bytes

    def __getattr__(self, name: str) -> Any:
        if name not in _RARE_AT:
            raise AttributeError(name)
        if name in _ASKED_OFTEN:
            return _remembered(self.rare)[_ASKED_OFTEN[name]]
        return _unpacked(self.rare)[_RARE_AT[name]]


_ASKED_OFTEN = {"crash": 0, "hangs": 1}
"""Attributes that questions about crashes and hangs need of every such session: unpacked once."""
_MEMBERS = Summary.__struct_fields__[:-1]
_FIELDS = {field.name: field for field in msgspec.structs.fields(Head)}
_RARE = tuple(name for name in _FIELDS if name not in _MEMBERS)
_RARE_AT = {name: index for index, name in enumerate(_RARE)}
_TEXTS = tuple(name for name in _MEMBERS if name != "id" and "str" in str(_FIELDS[name].type))
_ORDER = [[*_MEMBERS, *_RARE].index(name) for name in _FIELDS]
_members_of = operator.attrgetter(*_MEMBERS)
_rare_of = operator.attrgetter(*_RARE)
_in_order = operator.itemgetter(*_ORDER)
_encode = msgspec.msgpack.Encoder().encode
_COUNTS = ("events", "errors", "exceptions", "metrics", "states", "gaps", "lost_bytes")
"""Names in Head.counts that are packed as their place in this row."""
_COUNT_NAMES = frozenset(_COUNTS)


class _Streams(msgspec.Struct, array_like=True, gc=False):
    """Streams and counts without the names of their members, which are half of the bytes."""

    streams: list[tuple[str, int, int | None, int, int, int]]
    counts: list[int]
    others: dict[str, int]


_TYPES = {"streams": _Streams, "counts": None}
_decode: Any = msgspec.msgpack.Decoder(tuple[tuple(_TYPES.get(name, _FIELDS[name].type) for name in _RARE)]).decode  # type: ignore[misc]
_STREAMS_AT, _COUNTS_AT = _RARE_AT["streams"], _RARE_AT["counts"]
LAYOUT = zlib.crc32(",".join([*_MEMBERS, *_RARE, *_COUNTS, *Stream.__struct_fields__]).encode())
"""Tells whether packed summaries have the members that this datacat's have."""


def summary_of(head: Head, old: Summary | None = None) -> Summary:
    """Return the summary of a head; old is the one before, whose texts are used again."""
    members = (*_members_of(head), _packed(head))
    return share(Summary(*members), old)


def head_of(summary: Summary) -> Head:
    """Return the head that a summary was made of."""
    return Head(*_in_order((*_members_of(summary), *_unpacked(summary.rare))))


def share(summary: Summary, old: Summary | None = None) -> Summary:
    """Let a summary that nobody else has yet use the texts that others have; return it."""
    if old is not None:
        summary.id = old.id
        summary.created_at = old.created_at
    for name in _TEXTS:
        text = getattr(summary, name)
        if text is not None:
            setattr(summary, name, sys.intern(text))
    return summary


def _packed(head: Head) -> bytes:
    rare = list(_rare_of(head))
    counts = head.counts
    known = [counts.get(name, 0) for name in _COUNTS]
    others = {} if counts.keys() <= _COUNT_NAMES else {name: counts[name] for name in counts.keys() - _COUNT_NAMES}
    streams = [
        (name, one.acked, one.end_crc, one.records, one.shipped, one.pending) for name, one in head.streams.items()
    ]
    rare[_STREAMS_AT], rare[_COUNTS_AT] = _Streams(streams, known, others), None
    return _encode(rare)


@functools.lru_cache(maxsize=16_384)
def _remembered(packed: bytes) -> tuple[Any, Any]:
    rare = _decode(packed)
    return rare[_RARE_AT["crash"]], rare[_RARE_AT["hangs"]]


def _unpacked(packed: bytes) -> list[Any]:
    rare = list(_decode(packed))
    row = rare[_STREAMS_AT]
    rare[_STREAMS_AT] = {name: Stream(*members) for name, *members in row.streams}
    rare[_COUNTS_AT] = {
        **{name: count for name, count in zip(_COUNTS, row.counts, strict=False) if count},
        **row.others,
    }
    return rare
