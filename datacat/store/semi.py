"""The embedded store: sessions in semidbm files, an index in memory (docs/storage.md has the format).

Heads and chunks (where a batch lies and what it can hold) are in memory; states and records are read when asked for.
"""

import bisect
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from datacat.errors import Deleted, Mismatch, StoreError
from datacat.host import Lock
from datacat.store import Batch, Page, Query, RecordQuery, Row, entry, rollup_pages
from datacat.store.apply import Applied, apply
from datacat.store.cache import States
from datacat.store.catalogue import CatalogueQuery, Entry
from datacat.store.chunks import Chunk, describe
from datacat.store.fleet import Fleet
from datacat.store.fold import Head
from datacat.store.heads import Heads
from datacat.store.hinting import Hinting
from datacat.store.history import passes
from datacat.store.loading import Session, load, take
from datacat.store.pages import DEFAULT_AGES, Ages
from datacat.store.rollup import Delta
from datacat.store.rollup_query import RollupQuery, Rollups
from datacat.store.rows import read_rows
from datacat.store.segments import SEGMENT_BYTES
from datacat.store.underway import UnderWay

HINT_BYTES = 8 * 1024 * 1024
"""After so many new bytes the segment that is written gets a new hint; a start after a crash reads what lies behind."""
_HINTS_S = 2.0
"""How long closing may take to write hints."""
_STRIPES = 64
"""Sessions share so many locks; a thread holds one while it folds and compresses a batch of its session."""


class SemiStore:
    """Store in a folder, for one process at a time. Any thread may call.

    Locks, outermost first: the stripe of a session (its order of batches), then one of: the segments' own, the heads'
    own, _lock (the visible chunks of every session). None is held during fsync.
    """

    def __init__(
        self,
        root: Path,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        clock: Callable[[], float] = time.monotonic,
        now_ns: Callable[[], int] = time.time_ns,
        ages: Ages = DEFAULT_AGES,
    ) -> None:
        """Open or create the store.

        Raises: Busy when another process has it; StoreError when it cannot be read or is of a later version.
        """
        self._clock = clock
        self._lock = threading.Lock()
        self._stripes = [threading.Lock() for _ in range(_STRIPES)]
        self._tending = threading.Lock()
        self._heads = Heads()
        self._states = States()
        self._under_way = UnderWay(clock)
        self._records = 0
        self._closed = False
        self._owner: Lock = take(root)
        try:
            self._sessions, self._tombstones, self._segments = load(root, self._heads, segment_bytes)
            self._rollups = rollup_pages.open_pages(root, self._segments, ages, clock)
        except BaseException:
            self._owner.release()
            raise
        self._now_ns = now_ns
        self._hinting = Hinting(root, self._lock, self._sessions, self._tombstones, self._heads, self._segments)

    @property
    def fleet(self) -> Fleet:
        """See Store.fleet."""
        return self._heads.fleet

    def append(self, session_id: str, batch: Batch, *, received_us: int) -> Head:
        """See Store.append. Returns after an fsync that began after the batch was written."""
        with self._under_way.write():
            return self._append(session_id, batch, received_us)

    def _append(self, session_id: str, batch: Batch, received_us: int) -> Head:
        refusal: Mismatch | Deleted | None = None
        with self._stripe(session_id):
            self._check_open()
            session = self._sessions.get(session_id)
            if session is None:
                self._heads.find(session_id)
                session = Session()
            if session.deleted:
                refusal = Deleted(session_id)
            else:
                try:
                    applied = apply(
                        session_id,
                        session.written,
                        batch,
                        received_us,
                        partial(self._newest_state, session_id, session),
                    )
                except Mismatch as error:
                    refusal = error
                else:
                    if applied is not None:
                        self._write(session, session_id, batch.stream, applied)
            head, ticket = session.written, session.ticket
        # Also a repeat or a refusal speaks of what others wrote, so that must be durable before it is told.
        self._segments.commit(ticket)
        self._rollups.relieve()
        if refusal is not None:
            raise refusal
        if head is None:  # apply() raises for a session that does not exist
            raise StoreError(f"session {session_id} has no head")
        return head

    def head(self, session_id: str) -> Head:
        """See Store.head."""
        return self._heads.get(session_id)

    def state(self, session_id: str) -> dict[str, Any]:
        """See Store.state."""
        session = self._session(session_id)
        with self._lock:
            chunk = session.state
        return self._read_state(session_id, chunk)

    def heads(self, query: Query) -> Page:
        """See Store.heads."""
        return self._heads.page(query, lambda head, wanted: passes(self, head, wanted), self._clock)

    def scan(self, query: Query) -> Iterator[Head]:
        """See Store.scan."""
        return self._heads.scan(query)

    def records(self, session_id: str, query: RecordQuery) -> Iterator[Row]:
        """See Store.records. Raises Corrupt when the records of a batch are not what was written."""
        session = self._session(session_id)
        return read_rows(list(session.chunks), query, lambda chunk: entry.lines_of(self._read(session_id, chunk)))

    def rollups(self, query: RollupQuery) -> Rollups:
        """See Store.rollups."""
        return self._rollups.rollups(query)

    def catalogue(self, query: CatalogueQuery) -> list[Entry]:
        """See Store.catalogue."""
        return self._rollups.catalogue(query)

    def open_heads(self) -> list[Head]:
        """See Store.open_heads."""
        return self._heads.open_heads()

    def drop(self, session_id: str) -> None:
        """See Store.drop."""
        with self._under_way.write():
            self._drop(session_id)

    def _drop(self, session_id: str) -> None:
        with self._stripe(session_id):
            self._check_open()
            head = self._heads.get(session_id)
            session = self._sessions[session_id]
            if not session.deleted:
                session.rev += 1
                key = entry.key_of(session_id, session.rev)
                tombstone = entry.pack(entry.Front(session_id, session.rev, deleted=True), b"", b"")
                shown = partial(self._show_deleted, head.id, session, session.rev)
                session.ticket, _ = self._segments.write(key, tombstone, shown)
                session.deleted = True
            ticket = session.ticket
        self._segments.commit(ticket)

    def tend(self, budget_s: float) -> bool:
        """See Store.tend. Moves what lives in mostly dead segments into the newest one and removes the empty ones."""
        if not self._tending.acquire(blocking=False):
            return False
        try:
            deadline = self._clock() + budget_s
            while self._rollups.step(self._now_ns() // 1000):
                if self._clock() >= deadline:
                    return True
            if self._tend(deadline):
                return True
            return self._hinting.step(HINT_BYTES)
        finally:
            self._tending.release()

    def check(self) -> None:
        """See Store.check."""
        self._segments.check()

    def check_progress(self, limit_s: float) -> None:
        """See Store.check_progress."""
        self._segments.check_failed()
        waited_s = self._under_way.oldest_s()
        if waited_s > limit_s:
            raise StoreError(f"a write has waited for {waited_s:.1f} s", hint="look at the disk")

    def stats(self) -> dict[str, int]:
        """See Store.stats."""
        chunks = sum(len(session.chunks) for session in list(self._sessions.values()))
        counted = {**self._heads.counts(), **self._segments.stats(), **self._rollups.stats()}
        return {**counted, "chunks": chunks, "records": self._records}

    def close(self) -> None:
        """See Store.close."""
        closed, self._closed = self._closed, True
        try:
            self._segments.flush()
            if not closed:
                self._rollups.write_all()
            deadline = self._clock() + _HINTS_S
            while not closed and self._hinting.step(1) and self._clock() < deadline:
                pass
        finally:
            try:
                self._segments.close()
            finally:
                self._owner.release()

    def _write(self, session: Session, session_id: str, stream: str, applied: Applied) -> None:
        """Write what a batch does; the caller holds the session's stripe and commits. Raises: StoreError."""
        rev = session.rev + 1
        chunk = describe(rev, stream, applied.start, applied.end, applied.lines) if applied.lines else None
        state = entry.encode_state(applied.state) if applied.state_changed else b""
        chunks = session.chunk_count + (chunk is not None)
        payload = entry.pack(
            entry.front_of(applied.head, rev, chunk, chunks, applied.rollup),
            entry.squeeze(state),
            entry.body_of(applied.lines),
        )
        shown = partial(self._show, session, applied.head, rev, chunk, applied.rollup, has_state=bool(state))
        ticket, number = self._segments.write(entry.key_of(session_id, rev), payload, shown)
        if chunk is not None:
            chunk.segment = number
        if state:
            session.newest_state = chunk
            self._states.put(session_id, rev, applied.state, len(state))
        session.written, session.rev, session.chunk_count, session.ticket = applied.head, rev, chunks, ticket
        with self._lock:
            self._records += len(applied.lines)
            self._sessions[session_id] = session

    def _show(
        self, session: Session, head: Head, rev: int, chunk: Chunk | None, delta: Delta, number: int, *, has_state: bool
    ) -> None:
        """Let readers see a batch that is durable now; one thread at a time, in the order of writing."""
        with self._lock:
            bare, session.bare = session.bare, None if chunk is not None else (rev, number)
            if chunk is not None:
                session.chunks.append(chunk)
                session.state = chunk if has_state else session.state
        if bare is not None:
            self._segments.forget(bare[1], entry.key_of(head.id, bare[0]))
        self._heads.put(head)
        if delta.rows:
            self._rollups.apply(self._segments.showing, head.id, delta)

    def _show_deleted(self, session_id: str, session: Session, rev: int, number: int) -> None:
        self._heads.delete(session_id)
        self._states.forget(session_id)
        with self._lock:
            self._tombstones[session_id] = (rev, number)
            self._sessions.pop(session_id, None)
            dead = [(chunk.segment, chunk.rev) for chunk in session.chunks]
            if session.bare is not None:
                dead.append((session.bare[1], session.bare[0]))
            session.chunks, session.bare = [], None
        for segment, dead_rev in dead:
            self._segments.forget(segment, entry.key_of(session_id, dead_rev))

    def _tend(self, deadline: float) -> bool:
        while (found := self._segments.mostly_dead()) is not None:
            number, keys = found
            ticket = 0
            for key in keys:
                ticket = self._move(number, key) or ticket
                # Looked at after a move, so that the smallest budget makes progress.
                if self._clock() >= deadline and key != keys[-1]:
                    self._segments.commit(ticket)
                    return True
            self._segments.commit(ticket)
            if not self._segments.remove_if_empty(number):
                # Something was written to it a moment ago and is not shown yet.
                return True
            if self._clock() >= deadline:
                return True
        return False

    def _move(self, number: int, key: bytes) -> int:
        """Write an entry again, into the newest segment; return the ticket, 0 when it is dead or not shown yet."""
        session_id, rev = entry.split_key(key)
        if self._place(session_id, rev) != number:
            return 0
        try:
            payload = self._segments.read(number, key)
        except KeyError:
            return 0
        ticket, _ = self._segments.write(
            key, entry.without_delta(payload), partial(self._show_moved, session_id, rev, number)
        )
        return ticket

    def _show_moved(self, session_id: str, rev: int, old: int, new: int) -> None:
        key = entry.key_of(session_id, rev)
        with self._lock:
            session = self._sessions.get(session_id)
            chunk = _chunk(session, rev) if session else None
            if chunk is not None:
                chunk.segment = new
            elif session is not None and session.bare == (rev, old):
                session.bare = (rev, new)
            elif self._tombstones.get(session_id) == (rev, old):
                self._tombstones[session_id] = (rev, new)
            else:
                # It died while it was on its way.
                old, new = new, old
        self._segments.forget(old, key)

    def _place(self, session_id: str, rev: int) -> int:
        """Return the segment in which a visible entry lies; 0 when there is none."""
        with self._lock:
            session = self._sessions.get(session_id)
            chunk = _chunk(session, rev) if session else None
            if chunk is not None:
                return chunk.segment
            for place in (session.bare if session else None, self._tombstones.get(session_id)):
                if place is not None and place[0] == rev:
                    return place[1]
        return 0

    def _front(self, session_id: str, chunk: Chunk) -> entry.Front:
        start = self._at_place(
            session_id, chunk, lambda number, key: self._segments.start_of(number, key, entry.FRONT_GUESS_BYTES)
        )
        opened = entry.open_front(start) or entry.open_front(self._read(session_id, chunk))
        if opened is None:
            raise StoreError(f"an entry of session {session_id} has no front")
        return opened.front

    def _read(self, session_id: str, chunk: Chunk) -> bytes:
        return self._at_place(session_id, chunk, self._segments.read)

    def _at_place(self, session_id: str, chunk: Chunk, read: Callable[[int, bytes], bytes]) -> bytes:
        """Read an entry, wherever tend() moves it meanwhile. Raises: Deleted when it is gone; Corrupt, StoreError."""
        key = entry.key_of(session_id, chunk.rev)
        while True:
            number = chunk.segment
            try:
                return read(number, key)
            except KeyError:
                if chunk.segment == number:
                    self._check_open()
                    raise Deleted(session_id) from None

    def _newest_state(self, session_id: str, session: Session) -> dict[str, Any]:
        """Return the state after the newest batch, durable or not; the caller holds the session's stripe."""
        return self._read_state(session_id, session.newest_state)

    def _read_state(self, session_id: str, chunk: Chunk | None) -> dict[str, Any]:
        if chunk is None:
            return {}
        cached = self._states.get(session_id, chunk.rev)
        if cached is not None:
            return cached
        state, size = entry.state_of(self._read(session_id, chunk))
        self._states.put(session_id, chunk.rev, state, size)
        return state

    def _session(self, session_id: str) -> Session:
        self._check_open()
        self._heads.get(session_id)
        session = self._sessions.get(session_id)
        if session is None:
            raise Deleted(session_id)
        return session

    def _stripe(self, session_id: str) -> threading.Lock:
        return self._stripes[hash(session_id) % _STRIPES]

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError("the store is closed", permanent=True)


def _chunk(session: Session, rev: int) -> Chunk | None:
    """Return the visible chunk of that rev; the caller holds the store's lock."""
    index = bisect.bisect_left(session.chunks, rev, key=lambda chunk: chunk.rev)
    found = session.chunks[index] if index < len(session.chunks) else None
    return found if found is not None and found.rev == rev else None
