"""The store in memory: the reference implementation, and what tests and `memory:` use. Nothing survives the process."""

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from datacat.errors import Deleted, Mismatch, StoreError
from datacat.store import Batch, Page, Query, RecordQuery, Row, Written
from datacat.store.apply import apply
from datacat.store.catalogue import Catalogue, CatalogueQuery, Entry
from datacat.store.distinct import hash_of
from datacat.store.fleet import Fleet
from datacat.store.fold import Head
from datacat.store.heads import Heads
from datacat.store.history import passes
from datacat.store.rollup import Delta
from datacat.store.rollup_query import RollupQuery, Rollups, collect
from datacat.store.rounds import Round
from datacat.store.rows import Piece, read_rows
from datacat.store.summary import Summary
from datacat.wire.lines import raws_of


class _Session:
    """One session's records and state; guarded by the store's lock."""

    __slots__ = ("pieces", "state")

    def __init__(self) -> None:
        self.state: dict[str, Any] = {}
        self.pieces: dict[tuple[str, int], Piece] = {}


class MemoryStore:
    """Store in memory. Any thread may call; one lock serialises writes and is held while a batch is folded."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._lock = threading.Lock()
        self._clock = clock
        self._heads = Heads()
        self._sessions: dict[str, _Session] = {}
        self._deltas: list[Delta] = []
        self._catalogue = Catalogue()
        self._closed = False
        self._records = 0

    @property
    def fleet(self) -> Fleet:
        """See Store.fleet."""
        return self._heads.fleet

    def append(self, session_id: str, batch: Batch, *, received_us: int) -> Head:
        """See Store.append."""
        with self._lock:
            self._check_open()
            head = self._heads.find(session_id)
            session = self._sessions.get(session_id) or _Session()
            applied = apply(session_id, head, batch, received_us, lambda: session.state)
            if applied is None:
                return self._heads.get(session_id)
            if applied.state_changed:
                session.state = applied.state
            if (part := applied.part) is not None:
                session.pieces[part.stream, part.start] = (part, list(raws_of(applied.lines)))
                self._records += len(applied.lines)
            if applied.rollup.rows:
                self._deltas.append(applied.rollup)
                self._catalogue.add(applied.rollup, hash_of(session_id))
            self._sessions[session_id] = session
            self._heads.put(applied.head)
            return applied.head

    def write(self, session_id: str, batch: Batch, *, received_us: int) -> Written:
        """See Store.write."""
        try:
            return Written(0, self.append(session_id, batch, received_us=received_us))
        except (Mismatch, Deleted) as error:
            return Written(0, error)

    def commit(self, ticket: int) -> None:
        """See Store.commit."""

    def begin(self, ticket: int, wake: Callable[[], object]) -> Round | None:  # noqa: ARG002  nobody is waited for
        """See Store.begin."""
        return Round(ticket)

    def end(self, over: Round) -> None:
        """See Store.end."""

    def head(self, session_id: str) -> Head:
        """See Store.head."""
        return self._heads.get(session_id)

    def state(self, session_id: str) -> dict[str, Any]:
        """See Store.state."""
        return self._session(session_id).state

    def heads(self, query: Query) -> Page:
        """See Store.heads."""
        return self._heads.page(query, partial(passes, self), self._clock)

    def scan(self, query: Query) -> Iterator[Summary]:
        """See Store.scan."""
        return self._heads.scan(query)

    def records(self, session_id: str, query: RecordQuery) -> Iterator[Row]:
        """See Store.records."""
        session = self._session(session_id)
        with self._lock:
            parts = [part for part, _ in session.pieces.values()]
        return read_rows(parts, query, lambda part: [session.pieces[part.stream, part.start]])

    def snapshot(self, session_id: str, query: RecordQuery) -> tuple[dict[str, Any] | None, Iterator[Row]]:
        """See Store.snapshot."""
        return None, self.records(session_id, query)

    def batches(self, session_id: str) -> Iterator[Piece]:
        """See Store.batches."""
        session = self._session(session_id)
        with self._lock:
            pieces = list(session.pieces.values())
        yield from pieces

    def rollups(self, query: RollupQuery) -> Rollups:
        """See Store.rollups."""
        with self._lock:
            return collect(self._deltas, query)

    def catalogue(self, query: CatalogueQuery) -> list[Entry]:
        """See Store.catalogue."""
        with self._lock:
            return self._catalogue.entries(query)

    def open_heads(self) -> list[Head]:
        """See Store.open_heads."""
        return self._heads.open_heads()

    def drop(self, session_id: str, *, at_once: bool = True) -> None:  # noqa: ARG002  it always is
        """See Store.drop."""
        with self._lock:
            self._check_open()
            self._heads.get(session_id)
            self._heads.delete(session_id)
            del self._sessions[session_id]

    def tend(self, budget_s: float) -> bool:  # noqa: ARG002  # dropping has freed it already
        """See Store.tend."""
        return False

    def check(self) -> None:
        """See Store.check."""
        self._check_open()

    def check_progress(self, limit_s: float) -> None:  # noqa: ARG002  # nothing waits for a disk
        """See Store.check_progress."""
        self._check_open()

    def stats(self) -> dict[str, int]:
        """See Store.stats."""
        with self._lock:
            sessions = list(self._sessions.values())
            pieces = [piece for session in sessions for piece in session.pieces.values()]
        size = sum(len(raw) + 1 for _, lines in pieces for raw in lines)
        return {**self._heads.counts(), "size_bytes": size, "chunks": len(pieces), "records": self._records}

    def close(self) -> None:
        """See Store.close."""
        self._closed = True

    def _session(self, session_id: str) -> _Session:
        self._heads.get(session_id)
        with self._lock:
            session = self._sessions.get(session_id)
        if session is None:
            # Dropped between the two looks; now the heads know it.
            self._heads.get(session_id)
            raise StoreError(f"session {session_id} lost its records")
        return session

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError("the store is closed", permanent=True)
