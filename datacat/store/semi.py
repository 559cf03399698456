"""The embedded store: sessions in semidbm files, an index in memory (docs/storage.md has the format).

Heads and chunks (where entries lie and what they can hold) are in memory; states and records are read when asked for.
"""

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from datacat.errors import Deleted, Mismatch, StoreError
from datacat.host import Lock, heap
from datacat.store import Batch, Page, Query, RecordQuery, Row, Written, entry, rollup_pages
from datacat.store.apply import Applied, apply
from datacat.store.cache import States
from datacat.store.catalogue import CatalogueQuery, Entry
from datacat.store.chunks import ROW_BYTES, Chunk, chunks_of, state_of
from datacat.store.fleet import Fleet
from datacat.store.fold import Head
from datacat.store.hinting import Hinting
from datacat.store.history import passes, snapshot_chunk
from datacat.store.index import Index, Pending, Session, Tombstone
from datacat.store.loading import load, take
from datacat.store.pages import DEFAULT_AGES, Ages
from datacat.store.repair import Finding
from datacat.store.rollup import Delta
from datacat.store.rollup_query import RollupQuery, Rollups
from datacat.store.rounds import Round
from datacat.store.rows import Piece, read_rows
from datacat.store.segments import SEGMENT_BYTES, Place, placed
from datacat.store.summary import Summary
from datacat.store.tending import QUIET_S, Tending
from datacat.store.underway import UnderWay
from datacat.worker import Worker

HINT_BYTES = 8 * 1024 * 1024
"""After so many new bytes the segment that is written gets a new hint; a start after a crash reads what lies behind."""
_MANY_SESSIONS = 2000
"""From so many on a start needs much memory that is free behind it."""
_HINTS_S = 2.0
"""How long closing may take to write hints."""
_STRIPES = 64
"""Sessions share so many locks; a thread holds one while it folds and compresses a batch of its session."""


class SemiStore:
    """Store in a folder, for one process at a time. Any thread may call.

    Locks, outermost first: the stripe of a session (its order of batches), then one of: the segments' own, the index's
    (which has the heads' inside). None is held during fsync.
    """

    def __init__(
        self,
        root: Path,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        sync_interval_s: float = 0.0,
        quiet_s: float = QUIET_S,
        clock: Callable[[], float] = time.monotonic,
        now_ns: Callable[[], int] = time.time_ns,
        ages: Ages = DEFAULT_AGES,
    ) -> None:
        """Open or create the store.

        sync_interval_s 0: a batch is acknowledged when it is durable; otherwise when it is written, and everything is
        made durable so often. quiet_s: so long after its end and its last batch a session is merged into few entries.
        Raises: Busy when another process has it; StoreError when it cannot be read or is of a later version.
        """
        self._clock = clock
        self._stripes = [threading.Lock() for _ in range(_STRIPES)]
        self._tended = threading.Lock()
        self._index = Index()
        self._heads = self._index.heads
        self._states = States()
        self._under_way = UnderWay(clock)
        self._records = 0
        self._closed = False
        self._owner: Lock = take(root)
        try:
            self._segments = load(root, self._index, segment_bytes, synced_later=sync_interval_s > 0)
            self._rollups = rollup_pages.open_pages(root, self._segments, ages, clock)
        except BaseException:
            self._owner.release()
            raise
        self._now_ns = now_ns
        self._hinting = Hinting(root, self._index, self._segments)
        self._tending = Tending(self._index, self._segments, clock, now_ns, quiet_s=quiet_s)
        if len(self._index.sessions) >= _MANY_SESSIONS:
            heap.give_back()
        self._sync_interval_s = sync_interval_s
        self._syncer: Worker | None = None
        if sync_interval_s:
            self._syncer = Worker("sync", sync_interval_s, self._sync, clock=clock)
            self._syncer.start()

    @property
    def fleet(self) -> Fleet:
        """See Store.fleet."""
        return self._heads.fleet

    @property
    def findings(self) -> list[Finding]:
        """What was not as it was written when the store was opened, and was repaired."""
        return self._segments.findings

    def append(self, session_id: str, batch: Batch, *, received_us: int) -> Head:
        """See Store.append. Returns after an fsync that began after the batch was written."""
        written = self.write(session_id, batch, received_us=received_us)
        self.commit(written.ticket)
        return written.outcome()

    def write(self, session_id: str, batch: Batch, *, received_us: int) -> Written:
        """See Store.write."""
        number = self._under_way.begin()
        told: Head | Mismatch | Deleted
        is_written = False
        try:
            with self._stripe(session_id):
                self._check_open()
                session = self._index.sessions.get(session_id) or Session()
                pending = session.pending
                head = pending.head if pending else self._heads.find(session_id)
                # Also a repeat or a refusal speaks of what others wrote: that must be durable before it is told.
                ticket = pending.ticket if pending else session.deleted
                if session.deleted:
                    told = Deleted(session_id)
                else:
                    state = partial(self._newest_state, session_id, session)
                    try:
                        applied = apply(session_id, head, batch, received_us, state)
                    except Mismatch as error:
                        told = error
                    else:
                        if applied is not None:
                            head, ticket = applied.head, self._write(session, session_id, applied, number)
                            is_written = True
                        if head is None:  # apply() raises for a session that does not exist
                            raise StoreError(f"session {session_id} has no head")
                        told = head
        finally:
            if not is_written:
                self._under_way.end(number)
        return Written(ticket, told)

    def commit(self, ticket: int) -> None:
        """See Store.commit."""
        self._segments.commit(ticket)
        self._rollups.relieve()

    def begin(self, ticket: int, wake: Callable[[], object]) -> Round | None:
        """See Store.begin."""
        began = self._segments.begin(ticket, wake)
        if began is not None:
            began.chores = self._rollups.relieve
        return began

    def end(self, over: Round) -> None:
        """See Store.end."""
        self._segments.end(over)

    def _sync(self) -> None:
        self._segments.sync()
        self._rollups.relieve()

    def head(self, session_id: str) -> Head:
        """See Store.head."""
        return self._heads.get(session_id)

    def state(self, session_id: str) -> dict[str, Any]:
        """See Store.state."""
        return self._read_state(session_id, state_of(self._chunks(session_id)))

    def heads(self, query: Query) -> Page:
        """See Store.heads."""
        return self._heads.page(query, partial(passes, self), self._clock)

    def scan(self, query: Query) -> Iterator[Summary]:
        """See Store.scan."""
        return self._heads.scan(query)

    def records(self, session_id: str, query: RecordQuery) -> Iterator[Row]:
        """See Store.records. Raises Corrupt when the records of a batch are not what was written."""
        return self._rows(session_id, self._chunks(session_id), query)

    def snapshot(self, session_id: str, query: RecordQuery) -> tuple[dict[str, Any] | None, Iterator[Row]]:
        """See Store.snapshot."""
        chunks = self._chunks(session_id)
        at = snapshot_chunk(chunks, query.to_us)
        if at:
            payload, found = self._read(session_id, chunks[at])
            state = entry.state_before(payload) if found.first == chunks[at].first else None
            if state is not None:
                return state, self._rows(session_id, chunks[at:], query)
        return None, self._rows(session_id, chunks, query)

    def batches(self, session_id: str) -> Iterator[Piece]:
        """See Store.batches."""
        for chunk in self._chunks(session_id):
            if chunk.batches:
                yield from sorted(self._pieces(session_id, chunk), key=lambda piece: piece[0].rev)

    def rollups(self, query: RollupQuery) -> Rollups:
        """See Store.rollups."""
        return self._rollups.rollups(query)

    def catalogue(self, query: CatalogueQuery) -> list[Entry]:
        """See Store.catalogue."""
        return self._rollups.catalogue(query)

    def open_heads(self) -> list[Head]:
        """See Store.open_heads."""
        return self._heads.open_heads()

    def drop(self, session_id: str, *, at_once: bool = True) -> None:
        """See Store.drop."""
        with self._under_way.write():
            self._drop(session_id, at_once=at_once)

    def _drop(self, session_id: str, *, at_once: bool) -> None:
        with self._stripe(session_id):
            self._check_open()
            self._heads.get(session_id)
            session = self._index.sessions[session_id]
            if not session.deleted:
                rev = session.rev + 1
                now_us = self._now_ns() // 1000
                front = entry.Front(session_id, rev, deleted=True, at_us=now_us, erase=at_once)
                key, payload = entry.key_of(session_id, rev, rev), entry.pack(front, b"", b"")
                shown = partial(self._show_deleted, session_id, rev, now_us, at_once=at_once)
                ticket, _ = self._segments.write(key, payload, shown)
                with self._index.lock:
                    session.rev, session.deleted = rev, ticket
            ticket = session.deleted
        self._segments.commit(ticket)

    def tend(self, budget_s: float) -> bool:
        """See Store.tend. Merges entries, moves what lives out of mostly dead segments, writes hints."""
        if not self._tended.acquire(blocking=False):
            return False
        try:
            self._check_open()
            deadline = self._clock() + budget_s
            while self._rollups.step(self._now_ns() // 1000):
                if self._clock() >= deadline:
                    return True
            return self._tending.step(deadline) or self._hinting.step(HINT_BYTES)
        finally:
            self._tended.release()

    def empty_dead(self) -> None:
        """Let tend() also empty segments of which only a small part is dead: fewer bytes for more writing."""
        for segment in self._segments.with_dead():
            self._segments.empty(segment.number)

    def check(self) -> None:
        """See Store.check."""
        self._segments.check()

    def check_progress(self, limit_s: float) -> None:
        """See Store.check_progress."""
        self._segments.check_failed()
        waited_s = self._under_way.oldest_s()
        if self._syncer is not None:
            # Nobody waits for the disk, so that its silence shows here only.
            waited_s = max(waited_s, self._clock() - self._syncer.last_ended - self._sync_interval_s)
        if waited_s > limit_s:
            raise StoreError(f"a write has waited for {waited_s:.1f} s", hint="look at the disk")

    def stats(self) -> dict[str, int]:
        """See Store.stats."""
        chunks = sum(len(session.table) for session in list(self._index.sessions.values())) // ROW_BYTES
        counted = {**self._heads.counts(), **self._segments.stats(), **self._rollups.stats()}
        return {**counted, "chunks": chunks, "records": self._records}

    def close(self) -> None:
        """See Store.close."""
        closed, self._closed = self._closed, True
        if self._syncer is not None:
            self._syncer.stop()
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

    def _write(self, session: Session, session_id: str, applied: Applied, number: int) -> int:
        """Write what a batch does; return the ticket. The caller holds the session's stripe. Raises: StoreError.

        number is that of the batch under way, which ends when it is shown.
        """
        rev = session.rev + 1
        state = entry.encode_state(applied.state) if applied.state_changed else b""
        batches = session.batches + (applied.part is not None)
        front = entry.front_of(applied.head, rev, applied.part, batches, applied.rollup)
        body = entry.body_of(applied.lines)
        payload = entry.pack(front, entry.squeeze(state), body)
        chunk = entry.chunk_of(front, body, has_state=bool(state))
        shown = partial(self._show, session, applied.head, chunk, applied.rollup, number)
        ticket, place = self._segments.write(entry.key_of(session_id, rev, rev), payload, shown)
        newest = session.pending.state if session.pending else None
        if state:
            newest = placed(chunk, place)
            self._states.put(session_id, rev, applied.state, len(state))
        with self._index.lock:
            session.rev, session.batches = rev, batches
            session.pending = Pending(applied.head, ticket, newest)
            self._records += len(applied.lines)
            self._index.sessions.setdefault(session_id, session)
        return ticket

    def _show(self, session: Session, head: Head, chunk: Chunk, delta: Delta, number: int, place: Place) -> None:
        """Let readers see a batch that is durable now; one thread at a time, in the order of writing."""
        dead = self._index.show(session, head, placed(chunk, place))
        if dead is not None:
            self._segments.forget(dead)
        if delta.rows:
            self._rollups.apply(self._segments.showing, head.id, delta)
        self._tending.note(head.id, session.table)
        self._under_way.end(number)

    def _show_deleted(self, session_id: str, rev: int, at_us: int, place: Place, *, at_once: bool) -> None:
        dead = self._index.bury(session_id, Tombstone(rev, at_us, at_once, *place))
        self._states.forget(session_id)
        for chunk in dead:
            self._segments.forget(chunk)
        if at_once:
            self._tending.erase(session_id)

    def _rows(self, session_id: str, chunks: list[Chunk], query: RecordQuery) -> Iterator[Row]:
        return read_rows([chunk for chunk in chunks if chunk.batches], query, partial(self._pieces, session_id))

    def _pieces(self, session_id: str, chunk: Chunk) -> list[Piece]:
        payload, found = self._read(session_id, chunk)
        pieces = entry.pieces_of(payload)
        # Merged meanwhile with others, which are read at their own time.
        return (
            pieces
            if found.first == chunk.first and found.last == chunk.last
            else [piece for piece in pieces if chunk.first <= piece[0].rev <= chunk.last]
        )

    def _chunks(self, session_id: str) -> list[Chunk]:
        """Return the chunks that readers see. Raises: NotFound, Deleted, StoreError."""
        self._check_open()
        chunks = self._index.chunks(session_id)
        if not chunks:
            self._heads.get(session_id)
            raise Deleted(session_id)
        return chunks

    def _read(self, session_id: str, chunk: Chunk) -> tuple[bytes, Chunk]:
        """Return the entry with what is in a chunk, and its chunk: the same, or what tend() made of it meanwhile.

        Raises: Deleted when it is gone; Corrupt, StoreError.
        """
        now = chunk
        while True:
            place = Place(now.segment, now.offset, now.size_bytes)
            try:
                return self._segments.read(entry.key_of(session_id, now.first, now.last), place), now
            except KeyError:
                found = self._index.find(session_id, chunk.first, chunk.last)
                if found is None or found == now:
                    self._check_open()
                    raise Deleted(session_id) from None
                now = found

    def _newest_state(self, session_id: str, session: Session) -> dict[str, Any]:
        """Return the state after the newest batch, durable or not; the caller holds the session's stripe."""
        written = session.pending.state if session.pending else None
        return self._read_state(session_id, written or state_of(chunks_of(session.table)))

    def _read_state(self, session_id: str, chunk: Chunk | None) -> dict[str, Any]:
        if chunk is None:
            return {}
        cached = self._states.get(session_id, chunk.last)
        if cached is not None:
            return cached
        payload, found = self._read(session_id, chunk)
        state, size = entry.state_of(payload)
        self._states.put(session_id, found.last, state, size)
        return state

    def _stripe(self, session_id: str) -> threading.Lock:
        return self._stripes[hash(session_id) % _STRIPES]

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError("the store is closed", permanent=True)
