"""How long a store takes: every write, and what is asked of it, by operation; around any Store."""

import threading
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from datacat.store import (
    Batch,
    CatalogueQuery,
    Entry,
    Fleet,
    Head,
    Page,
    Query,
    RecordQuery,
    RollupQuery,
    Rollups,
    Row,
    Store,
    Summary,
    Written,
)
from datacat.store.chunks import Part
from datacat.store.rounds import Round

BOUNDS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
WRITES = ("append", "drop", "tend")
QUERIES = ("fleet", "heads", "scan", "state", "records", "snapshot", "batches", "rollups", "catalogue")
_T = TypeVar("_T")

Times = dict[str, tuple[list[int], float]]
"""By operation: how many took at most each of BOUNDS_S, not added up, the last beyond all; and the sum in seconds."""


class Timings:
    """Any thread, behind its own lock."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock = clock
        self._lock = threading.Lock()
        self._counts: dict[str, list[int]] = {}
        self._sums: dict[str, float] = {}

    def note(self, op: str, seconds: float) -> None:
        """Count an operation that took so long."""
        place = bisect_left(BOUNDS_S, seconds)
        with self._lock:
            counts = self._counts.get(op)
            if counts is None:
                counts = self._counts[op] = [0] * (len(BOUNDS_S) + 1)
            counts[place] += 1
            self._sums[op] = self._sums.get(op, 0.0) + seconds

    @contextmanager
    def timing(self, op: str) -> Iterator[None]:
        """Count how long the block takes, also when it raises."""
        began = self.clock()
        try:
            yield
        finally:
            self.note(op, self.clock() - began)

    def of(self, ops: tuple[str, ...]) -> Times:
        """Return what was counted of those operations that happened."""
        with self._lock:
            return {op: (list(self._counts[op]), self._sums[op]) for op in ops if op in self._counts}


class Timed:
    """A Store that does what another does, and notes how long that took. head() is asked with each batch: not timed.

    What yields rows counts the time between its first and last row, as long as the store works on them, not the reader.
    """

    def __init__(self, store: Store, timings: Timings) -> None:
        self._store = store
        self._timings = timings
        self._written: deque[tuple[int, float]] = deque()
        store.fleet.watch = lambda: timings.timing("fleet")

    @property
    def fleet(self) -> Fleet:
        """See Store.fleet."""
        return self._store.fleet

    def append(self, session_id: str, batch: Batch, *, received_us: int) -> Head:
        """See Store.append."""
        began = self._timings.clock()
        try:
            return self._store.append(session_id, batch, received_us=received_us)
        finally:
            self._timings.note("append", self._timings.clock() - began)

    def write(self, session_id: str, batch: Batch, *, received_us: int) -> Written:
        """See Store.write. It counts as an append that takes until its commit."""
        began = self._timings.clock()
        try:
            written = self._store.write(session_id, batch, received_us=received_us)
        except Exception:
            self._timings.note("append", self._timings.clock() - began)
            raise
        self._written.append((written.ticket, began))
        return written

    def commit(self, ticket: int) -> None:
        """See Store.commit."""
        try:
            self._store.commit(ticket)
        finally:
            self._note_written(ticket)

    def begin(self, ticket: int, wake: Callable[[], object]) -> Round | None:
        """See Store.begin."""
        return self._store.begin(ticket, wake)

    def end(self, over: Round) -> None:
        """See Store.end."""
        try:
            self._store.end(over)
        finally:
            self._note_written(over.goal)

    def _note_written(self, goal: int) -> None:
        now = self._timings.clock()
        while True:
            try:
                # One step of the interpreter: each is taken by one thread.
                ticket, began = self._written.popleft()
            except IndexError:
                return
            if ticket > goal:
                self._written.appendleft((ticket, began))
                return
            self._timings.note("append", now - began)

    def head(self, session_id: str) -> Head:
        """See Store.head."""
        return self._store.head(session_id)

    def state(self, session_id: str) -> dict[str, Any]:
        """See Store.state."""
        with self._timings.timing("state"):
            return self._store.state(session_id)

    def heads(self, query: Query) -> Page:
        """See Store.heads."""
        with self._timings.timing("heads"):
            return self._store.heads(query)

    def scan(self, query: Query) -> Iterator[Summary]:
        """See Store.scan."""
        return self._rows("scan", self._store.scan(query), 0.0)

    def records(self, session_id: str, query: RecordQuery) -> Iterator[Row]:
        """See Store.records."""
        began = self._timings.clock()
        rows = self._store.records(session_id, query)
        return self._rows("records", rows, self._timings.clock() - began)

    def snapshot(self, session_id: str, query: RecordQuery) -> tuple[dict[str, Any] | None, Iterator[Row]]:
        """See Store.snapshot."""
        began = self._timings.clock()
        state, rows = self._store.snapshot(session_id, query)
        return state, self._rows("snapshot", rows, self._timings.clock() - began)

    def batches(self, session_id: str) -> Iterator[tuple[Part, list[bytes]]]:
        """See Store.batches."""
        return self._rows("batches", self._store.batches(session_id), 0.0)

    def rollups(self, query: RollupQuery) -> Rollups:
        """See Store.rollups."""
        with self._timings.timing("rollups"):
            return self._store.rollups(query)

    def catalogue(self, query: CatalogueQuery) -> list[Entry]:
        """See Store.catalogue."""
        with self._timings.timing("catalogue"):
            return self._store.catalogue(query)

    def open_heads(self) -> list[Head]:
        """See Store.open_heads."""
        return self._store.open_heads()

    def drop(self, session_id: str, *, at_once: bool = True) -> None:
        """See Store.drop."""
        with self._timings.timing("drop"):
            self._store.drop(session_id, at_once=at_once)

    def tend(self, budget_s: float) -> bool:
        """See Store.tend."""
        with self._timings.timing("tend"):
            return self._store.tend(budget_s)

    def check(self) -> None:
        """See Store.check."""
        self._store.check()

    def check_progress(self, limit_s: float) -> None:
        """See Store.check_progress."""
        self._store.check_progress(limit_s)

    def stats(self) -> dict[str, int]:
        """See Store.stats."""
        return self._store.stats()

    def close(self) -> None:
        """See Store.close."""
        self._store.close()

    def _rows(self, op: str, rows: Iterator[_T], spent_s: float) -> Iterator[_T]:
        clock = self._timings.clock
        try:
            while True:
                began = clock()
                try:
                    row = next(rows)
                except StopIteration:
                    return
                finally:
                    spent_s += clock() - began
                yield row
        finally:
            self._timings.note(op, spent_s)
