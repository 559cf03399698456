"""The heads of all sessions, in memory: by id, by creation, those still open, and the ids that were deleted."""

import bisect
import heapq
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from datacat.errors import Deleted, NotFound
from datacat.store import Page, Query
from datacat.store.fleet import Fleet
from datacat.store.fold import Head
from datacat.store.select import (
    created_span,
    head_matches,
    needs_records,
    read_cursor,
    sort_field,
    sort_key,
    write_cursor,
)
from datacat.wire.routes import OPEN_STATUSES

_STRIDE = 256
"""Heads that are looked at before the lock is let go for a moment, so that no writer waits for a reader."""


class Heads:
    """What readers see of every session. Any thread may call; its own lock is a leaf and held for short moments.

    fleet follows every change.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._heads: dict[str, Head] = {}
        self._created: list[tuple[int, str]] = []
        self._open: dict[str, None] = {}
        self._deleted: set[str] = set()
        self.fleet = Fleet(self._heads.get)

    def get(self, session_id: str) -> Head:
        """Return a head. Raises: NotFound, Deleted."""
        head = self._heads.get(session_id)
        if head is None:
            raise Deleted(session_id) if session_id in self._deleted else NotFound(session_id)
        return head

    def find(self, session_id: str) -> Head | None:
        """Return a head, None when there is no such session. Raises: Deleted."""
        head = self._heads.get(session_id)
        if head is None and session_id in self._deleted:
            raise Deleted(session_id)
        return head

    def put(self, head: Head) -> None:
        """Show this head from now on."""
        with self._lock:
            old = self._heads.get(head.id)
            # created_at is set once, by the first record.
            if old is None:
                bisect.insort(self._created, (head.created_at, head.id))
            self._heads[head.id] = head
            self.fleet.note(old, head)
            if head.status in OPEN_STATUSES:
                self._open[head.id] = None
            else:
                self._open.pop(head.id, None)

    def put_all(self, heads: Iterable[Head]) -> None:
        """Show these heads of sessions that were not shown before; faster than one by one."""
        with self._lock:
            heads = list(heads)
            self.fleet.load(heads)
            for head in heads:
                self._created.append((head.created_at, head.id))
                self._heads[head.id] = head
                if head.status in OPEN_STATUSES:
                    self._open[head.id] = None
            self._created.sort()

    def delete(self, session_id: str) -> None:
        """Forget a head and remember that the session was deleted."""
        with self._lock:
            self._deleted.add(session_id)
            self._open.pop(session_id, None)
            head = self._heads.pop(session_id, None)
            if head is not None:
                self.fleet.note(head, None)
                del self._created[bisect.bisect_left(self._created, (head.created_at, head.id))]

    def counts(self) -> dict[str, int]:
        """Return how many sessions there are, how many are open, and how many were deleted."""
        return {
            "sessions": len(self._heads),
            "open_sessions": len(self._open),
            "deleted_sessions": len(self._deleted),
        }

    def open_heads(self) -> list[Head]:
        """Return the heads of the sessions that have not ended."""
        with self._lock:
            return [self._heads[session_id] for session_id in self._open]

    def all(self) -> list[Head]:
        """Return every head, oldest session first."""
        with self._lock:
            return [self._heads[session_id] for _, session_id in self._created]

    def scan(self, query: Query) -> Iterator[Head]:
        """Yield the heads that match by themselves, oldest session first; sort, limit and cursor play no part."""
        anywhere = replace(query, sort="created_at", cursor="")
        return (head for head in self._by_creation(anywhere, descending=False) if head_matches(head, query))

    def page(self, query: Query, deep: Callable[[Head, Query], bool], clock: Callable[[], float]) -> Page:
        """Return the page that query asks for.

        deep(head, query) decides the conditions that need the state or the records; it is asked about heads that pass
        all others, in order, until the page is full or query.budget_s of the clock is over. Then the cursor stands
        behind the last head that was looked at. Raises: WireError.
        """
        field, descending = sort_field(query)
        behind = read_cursor(query)
        looks_deeper = needs_records(query)
        deadline = clock() + query.budget_s
        heads: list[Head] = []
        last: Head | None = None
        for head in self._in_order(query, field, descending=descending, looks_deeper=looks_deeper):
            key = sort_key(head, field)
            if behind is not None and (key >= behind if descending else key <= behind):
                continue
            if len(heads) == query.limit and last is not None:
                return Page(heads, write_cursor(query, sort_key(last, field)))
            if looks_deeper and last is not None and clock() > deadline:
                return Page(heads, write_cursor(query, sort_key(last, field)), truncated=True)
            last = head
            if not looks_deeper or deep(head, query):
                heads.append(head)
        return Page(heads)

    def _in_order(self, query: Query, field: str, *, descending: bool, looks_deeper: bool) -> Iterator[Head]:
        """Yield the heads that match by themselves, in the query's order; the cursor is the caller's."""
        if field == "created_at":
            for head in self._by_creation(query, descending=descending):
                if head_matches(head, query):
                    yield head
            return
        behind = read_cursor(query)
        matching = [head for head in self._by_creation(query, descending=False) if head_matches(head, query)]
        if behind is not None:
            matching = [
                head
                for head in matching
                if (sort_key(head, field) < behind if descending else sort_key(head, field) > behind)
            ]
        if looks_deeper:
            matching.sort(key=lambda head: sort_key(head, field), reverse=descending)
            yield from matching
            return
        # One more than the page holds tells whether there is another page.
        pick = heapq.nlargest if descending else heapq.nsmallest
        yield from pick(query.limit + 1, matching, key=lambda head: sort_key(head, field))

    def _by_creation(self, query: Query, *, descending: bool) -> Iterator[Head]:
        """Yield the heads of the query's span by (created_at, id), letting go of the lock between strides.

        Sessions that come or go meanwhile are seen or not; none is seen twice and none that stays is left out.
        """
        low, high = created_span(query)
        first: tuple[int, str] = (low, "")
        last: tuple[int, str] | None = None if high is None else (high, "")
        behind = read_cursor(query) if sort_field(query)[0] == "created_at" else None
        if behind is not None:
            at = (int(behind[1]), behind[2])
            if descending:
                last = at if last is None else min(last, at)
            else:
                first = max(first, at)
        while True:
            with self._lock:
                start = bisect.bisect_left(self._created, first)
                stop = len(self._created) if last is None else bisect.bisect_left(self._created, last)
                keys = (
                    self._created[max(start, stop - _STRIDE) : stop][::-1]
                    if descending
                    else self._created[start : min(stop, start + _STRIDE)]
                )
                heads = [self._heads[session_id] for _, session_id in keys]
            if not keys:
                return
            yield from heads
            if descending:
                last = keys[-1]
            else:
                first = (keys[-1][0], keys[-1][1] + "\0")
