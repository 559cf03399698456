"""Build the index in memory from the entries of a store: which are alive, what the heads are, what is missing."""

from pathlib import Path
from typing import TypeVar

import msgspec

from datacat.errors import StoreError
from datacat.host import Lock, lock, needs_a_person
from datacat.store import durable, entry, version
from datacat.store.chunks import Chunk
from datacat.store.fold import Head
from datacat.store.heads import Heads
from datacat.store.hints import Hint
from datacat.store.repair import Distrust, Finding, open_segments
from datacat.store.segment import Known
from datacat.store.segments import Segments

_Place = TypeVar("_Place", int, Chunk)

DAMAGED = "damaged"
"""The reason in Head.dropped under which batches are counted that were stored once and are not readable any more."""


class Session:
    """One session of the store.

    The first group is about everything that was written and belongs to the session's stripe: the newest head (None
    before the first batch), the entries and those of them with records so far, the chunk with the newest state, the
    ticket of the newest write, whether a tombstone was written. The second is what readers see and belongs to the
    store's lock: the chunks in order of rev, the one with the state, and (rev, segment) of the newest entry when it has
    no records.
    """

    __slots__ = ("bare", "chunk_count", "chunks", "deleted", "newest_state", "rev", "state", "ticket", "written")

    def __init__(self) -> None:
        self.written: Head | None = None
        self.rev = 0
        self.chunk_count = 0
        self.newest_state: Chunk | None = None
        self.ticket = 0
        self.deleted = False
        self.chunks: list[Chunk] = []
        self.state: Chunk | None = None
        self.bare: tuple[int, int] | None = None


class _Loaded:
    """What was seen of one session so far; rev, head and total are those of its newest entry."""

    __slots__ = ("bares", "chunks", "head", "rev", "state_rev", "total")

    def __init__(self) -> None:
        self.rev = 0
        self.head: Head | msgspec.Raw | None = None
        self.total = 0
        self.chunks: dict[int, Chunk] = {}
        self.bares: dict[int, int] = {}
        self.state_rev = 0


class _Collector:
    """Takes in entries, read or told of by hints, in the order of the segments."""

    def __init__(self) -> None:
        self.sessions: dict[str, _Loaded] = {}
        self.tombstones: dict[str, tuple[int, int]] = {}
        self.dead: list[tuple[int, bytes]] = []
        self.hinted: dict[int, int] = {}

    def visit(self, number: int, _key: bytes, payload: memoryview) -> None:
        """Take in an entry. Raises: StoreError."""
        opened = entry.open_front(payload)
        if opened is None:
            raise StoreError(f"an entry in segment {number} has no front", permanent=True)
        front = opened.front
        if front.deleted:
            self._bury(front.id, front.rev, number)
            return
        session = self._session(front.id)
        if front.rev >= session.rev:
            session.rev, session.head, session.total = front.rev, front.head, front.chunks
        chunk = entry.chunk_of(front, number)
        if chunk is None:
            self._add(front.id, session.bares, front.rev, number)
            return
        self._add(front.id, session.chunks, front.rev, chunk)
        if opened.state_bytes:
            session.state_rev = max(session.state_rev, front.rev)

    def visit_hint(self, number: int, hint: Hint) -> Known:
        """Take in what a hint tells; return where its values lie."""
        index = {}
        for kept in hint.sessions:
            session = self._session(kept.id)
            key = entry.key_of
            for position, chunk in enumerate(kept.chunks):
                chunk.segment = number
                index[key(kept.id, chunk.rev)] = (kept.places[2 * position], kept.places[2 * position + 1])
            if session.chunks:
                for chunk in kept.chunks:
                    self._add(kept.id, session.chunks, chunk.rev, chunk)
            else:
                session.chunks = {chunk.rev: chunk for chunk in kept.chunks}
            newest = kept.chunks[-1].rev if kept.chunks else 0
            if kept.bare is not None:
                newest = max(newest, kept.bare[0])
                index[key(kept.id, kept.bare[0])] = kept.bare[1:]
                self._add(kept.id, session.bares, kept.bare[0], number)
            if newest >= session.rev:
                session.rev, session.head, session.total = newest, kept.head, kept.total
            session.state_rev = max(session.state_rev, kept.state_rev)
        for session_id, rev, offset, size in hint.tombstones:
            index[entry.key_of(session_id, rev)] = (offset, size)
            self._bury(session_id, rev, number)
        self.hinted[number] = hint.size
        return Known(hint.size, hint.seq, index)

    def _session(self, session_id: str) -> _Loaded:
        session = self.sessions.get(session_id)
        if session is None:
            session = self.sessions[session_id] = _Loaded()
        return session

    def _bury(self, session_id: str, rev: int, number: int) -> None:
        if session_id in self.tombstones:
            earlier_rev, earlier = self.tombstones[session_id]
            self.dead.append((earlier, entry.key_of(session_id, earlier_rev)))
        self.tombstones[session_id] = (rev, number)

    def _add(self, session_id: str, places: dict[int, _Place], rev: int, place: _Place) -> None:
        earlier = places.get(rev)
        if earlier is not None:
            # Moving it was interrupted: it counts in the later segment.
            number = earlier.segment if isinstance(earlier, Chunk) else earlier
            self.dead.append((number, entry.key_of(session_id, rev)))
        places[rev] = place


def take(root: Path) -> Lock:
    """Return the lock of the folder, which is made when there is none. Raises: Busy, StoreError."""
    try:
        durable.make_dir(root)
    except OSError as error:
        raise StoreError(
            f"cannot create {root}: {error}",
            hint="check the path and its permissions",
            permanent=needs_a_person(error),
        ) from error
    return lock(root / "lock")


def load(
    root: Path, heads: Heads, segment_bytes: int
) -> tuple[dict[str, Session], dict[str, tuple[int, int]], Segments]:
    """Open a store's files and fill heads; return (sessions, tombstones with rev and segment, segments).

    An entry that lies in two segments, because moving it was interrupted, counts in the later one. When anything is not
    as it was written, every byte is read and hints are not believed. Raises: StoreError.
    """
    version.check(root)
    repaired: list[Finding] = []
    try:
        seen = _Collector()
        opened, findings = open_segments(root, seen.visit, seen.visit_hint)
        if any(one.head is None for session_id, one in seen.sessions.items() if session_id not in seen.tombstones):
            for segment in opened:
                segment.retire()
            raise Distrust(findings)
    except Distrust as distrust:
        repaired = distrust.findings
        seen = _Collector()
        opened, findings = open_segments(root, seen.visit)
    segments = Segments(root, opened, repaired + findings, segment_bytes)
    for number, size in seen.hinted.items():
        segments.hinted(number, size)
    dead = seen.dead
    sessions: dict[str, Session] = {}
    written: list[Head] = []
    for session_id, one in seen.sessions.items():
        if session_id in seen.tombstones:
            dead += [(chunk.segment, entry.key_of(session_id, rev)) for rev, chunk in one.chunks.items()]
            dead += [(number, entry.key_of(session_id, rev)) for rev, number in one.bares.items()]
            continue
        session = sessions[session_id] = _session(session_id, one, dead)
        if session.written is not None:
            written.append(session.written)
    heads.put_all(written)
    for session_id in seen.tombstones:
        heads.delete(session_id)
    for number, key in dead:
        segments.forget(number, key)
    return sessions, seen.tombstones, segments


def _session(session_id: str, one: _Loaded, dead: list[tuple[int, bytes]]) -> Session:
    session = Session()
    session.rev = one.rev
    session.chunk_count = one.total
    session.chunks = [one.chunks[rev] for rev in sorted(one.chunks)]
    session.state = session.newest_state = one.chunks.get(one.state_rev)
    for rev, number in one.bares.items():
        if rev == one.rev:
            session.bare = (rev, number)
        else:
            dead.append((number, entry.key_of(session_id, rev)))
    session.written = one.head if isinstance(one.head, Head) else entry.head_of(one.head or msgspec.Raw(b"null"))
    missing = one.total - len(session.chunks)
    if missing:
        session.written.dropped = {**session.written.dropped, DAMAGED: missing}
    return session
