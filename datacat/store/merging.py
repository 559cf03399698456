"""Decide which entries of a session to merge, and merge them. Pure.

A batch is merged once in most sessions: when there is about a megabyte of records, or the session has ended. Where
batches are tiny they are merged in tiers, so that a session has at most some hundred entries before that.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import msgspec

from datacat.store import entry
from datacat.store.chunks import FAN, NO_STATE, STATEFUL, Chunk, Part
from datacat.store.entry import Front, Opened

TARGET_BYTES = 1024 * 1024
"""Of records uncompressed in a merged entry; one batch that is larger stays alone."""
FULL = 255
"""The tier of entries that are not merged again."""


class Plan(NamedTuple):
    """Merge chunks[start:stop] of a session into an entry of that tier."""

    start: int
    stop: int
    tier: int


def plan(chunks: Sequence[Chunk], *, done: bool) -> Plan | None:
    """Return what to merge next of a session's chunks, oldest first; None: nothing.

    done: the session has ended and is quiet, so that everything is to be in merged entries. Otherwise an entry without
    records, which can only be the newest, is left alone.
    """
    return _when_done(chunks) if done else _while_open(chunks)


def _while_open(chunks: Sequence[Chunk]) -> Plan | None:
    end = len(chunks)
    if chunks and not chunks[-1].batches:
        end -= 1
    while end:
        tier = chunks[end - 1].tier
        start = end
        while start and chunks[start - 1].tier == tier:
            start -= 1
        if tier != FULL and end - start >= FAN:
            stop = _filled(chunks, start, end)
            full = _raw(chunks, start, stop) >= TARGET_BYTES // 2
            return Plan(start, stop, FULL if full else min(tier + 1, FULL - 1))
        end = start
    return None


def _when_done(chunks: Sequence[Chunk]) -> Plan | None:
    start = len(chunks)
    while start and chunks[start - 1].tier != FULL:
        start -= 1
    if start == len(chunks):
        return None
    rest = _raw(chunks, start, len(chunks))
    if start:
        # What came late is merged with what is there, unless far more would be written again than is new.
        before = chunks[start - 1].raw_bytes
        bare = not any(chunk.batches for chunk in chunks[start:])
        if bare or (before + rest <= TARGET_BYTES and before <= 4 * rest):
            start -= 1
    return Plan(start, _filled(chunks, start, len(chunks)), FULL)


def _raw(chunks: Sequence[Chunk], start: int, stop: int) -> int:
    return sum(chunk.raw_bytes for chunk in chunks[start:stop])


def _filled(chunks: Sequence[Chunk], start: int, end: int) -> int:
    """Return the stop of the longest run from start on within TARGET_BYTES, of at least one entry with records."""
    stop = start + 1
    total = chunks[start].raw_bytes
    # An entry without records, at the end, always finds room: it cannot stand alone.
    while stop < end and (not chunks[stop].batches or total + chunks[stop].raw_bytes <= TARGET_BYTES):
        total += chunks[stop].raw_bytes
        stop += 1
    return stop


class _Time(msgspec.Struct, gc=False):
    """What is read of a record to know when it is and whether it can change the state."""

    t: int
    k: str


_decode_time = msgspec.json.Decoder(_Time).decode
_STATEFUL_KINDS = frozenset({"open", "state", "gap"})


def merge(session_id: str, payloads: Sequence[bytes], before: bytes, tier: int) -> tuple[bytes, Chunk]:
    """Return the payload of the entry that stands for these, consecutive and oldest first, and its chunk.

    before is the state before them as JSON, no bytes when they are the session's first. Raises: StoreError.
    """
    opened = [entry.whole(payload) for payload in payloads]
    newest = opened[-1].front
    parts: list[Part] = []
    texts: list[bytes] = []
    after = b""
    for one, payload in zip(opened, payloads, strict=True):
        after = entry.state_text(payload) or after
        text = entry.body_bytes(one, payload)
        if text:
            texts.append(text)
            parts += _counted(entry.parts_of(one, payload), text)
    body = b"\n".join(texts)
    s_min, s_max, in_order = _stateful(parts, body)
    front = Front(
        session_id,
        newest.rev,
        newest.head,
        _together(parts),
        newest.chunks,
        first=opened[0].front.first or opened[0].front.rev,
        tier=tier,
        batches=sum(_batches(one) for one in opened),
        stateful=(s_min, s_max, in_order),
    )
    state = entry.pack_states(before, after or before)
    frame = entry.squeeze_well(body)
    payload = entry.pack(front, state, frame, entry.pack_index(parts))
    return payload, entry.chunk_of(front, frame, has_state=bool(after or before))


def _batches(opened: Opened) -> int:
    front = opened.front
    return front.batches or (front.chunk is not None)


def _counted(parts: list[Part], text: bytes) -> list[Part]:
    if len(parts) == 1 and not parts[0].lines:
        # Written by the first version, which did not tell.
        parts[0].lines = text.count(b"\n") + 1
    return parts


def _together(parts: Sequence[Part]) -> Part:
    """Return a part that tells of all of them."""
    kinds = levels = names = 0
    for part in parts:
        kinds |= part.kinds
        levels |= part.levels
        names |= part.names
    t_min, t_max = min(part.t_min for part in parts), max(part.t_max for part in parts)
    return Part("", 0, 0, t_min, t_max, kinds, levels, names, sum(part.lines for part in parts))


def _stateful(parts: Sequence[Part], body: bytes) -> tuple[int, int, bool]:
    """Return the least and greatest t of records that can change the state, and whether they come in their order."""
    places = list(_stateful_places(parts, body))
    if not places:
        return (*NO_STATE, True)
    in_order = all(one < other for one, other in pairwise(places))
    return min(places)[0], max(places)[0], in_order


def _stateful_places(parts: Sequence[Part], body: bytes) -> Iterator[tuple[int, str, int, int]]:
    """Yield the places of records that can change the state in the order of rows.py."""
    lines = body.split(b"\n")
    at = 0
    for part in parts:
        if part.kinds & STATEFUL:
            for index, line in enumerate(lines[at : at + part.lines]):
                record = _decode_time(line)
                if record.k in _STATEFUL_KINDS:
                    yield record.t, part.stream, part.start, index
        at += part.lines
