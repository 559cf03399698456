"""Summaries: heads as the store holds them in memory, at a quarter of a Head's size. Pure.

What every session has, or many ask for, is a member; the rest is packed. Texts that sessions share are one object, and
nothing of it is tracked by the garbage collector. Measured: 450 to 600 bytes, where a Head takes about 2 KiB.
"""

import operator
import sys
import zlib
from typing import Any

import msgspec

from datacat.store.fold import Head


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
        return _decode(self.rare)[_RARE_AT[name]]


_MEMBERS = Summary.__struct_fields__[:-1]
_FIELDS = {field.name: field for field in msgspec.structs.fields(Head)}
_RARE = tuple(name for name in _FIELDS if name not in _MEMBERS)
_RARE_AT = {name: index for index, name in enumerate(_RARE)}
_TEXTS = tuple(name for name in _MEMBERS if name != "id" and "str" in str(_FIELDS[name].type))
_ORDER = [[*_MEMBERS, *_RARE].index(name) for name in _FIELDS]
LAYOUT = zlib.crc32(",".join([*_MEMBERS, *_RARE]).encode())
"""Tells whether packed summaries have the members that this datacat's have."""

_members_of = operator.attrgetter(*_MEMBERS)
_rare_of = operator.attrgetter(*_RARE)
_in_order = operator.itemgetter(*_ORDER)
_encode = msgspec.msgpack.Encoder().encode
_decode: Any = msgspec.msgpack.Decoder(tuple[tuple(_FIELDS[name].type for name in _RARE)]).decode  # type: ignore[misc]


def summary_of(head: Head, old: Summary | None = None) -> Summary:
    """Return the summary of a head; old is the one before, whose texts are used again."""
    members = (*_members_of(head), _encode(_rare_of(head)))
    return share(Summary(*members), old)


def head_of(summary: Summary) -> Head:
    """Return the head that a summary was made of."""
    return Head(*_in_order((*_members_of(summary), *_decode(summary.rare))))


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
