"""The heads of all sessions, in memory: by id, by creation, those still open, and the ids that were deleted."""

import threading
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from operator import attrgetter
from typing import Any

from datacat.errors import Deleted, NotFound
from datacat.store import Page, Query
from datacat.store.fleet import Fleet
from datacat.store.fold import Head
from datacat.store.select import (
    SortKey,
    always_there,
    created_span,
    needs_records,
    read_cursor,
    sieve,
    sort_field,
    sort_key,
    write_cursor,
)
from datacat.store.summary import Summary, head_of, summary_of
from datacat.wire.routes import OPEN_STATUSES

_STRIDE = 4096
"""Heads that are taken at once; the lock is let go in between, so that no writer waits for a reader."""
_FULL_PAGES = 4
"""So many times a page of heads are gathered before they are sorted and those that are too many go."""
_RECENT = 256
"""Heads of the sessions that changed last are also kept whole: a batch asks three times for the one before it."""
_FIRST_STRIDE = 128
"""A page of the newest sessions mostly needs no more."""


class Heads:
    """What readers see of every session. Any thread may call; its own lock is a leaf and held for short moments.

    Heads are kept as summaries, sorted by (created_at, id), a few of them whole as well. fleet follows every change.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_id: dict[str, Summary] = {}
        self._recent: dict[str, Head] = {}
        self._times = array("q")
        self._sorted: list[Summary] = []
        self._open: dict[str, None] = {}
        self._deleted: set[str] = set()
        self.fleet = Fleet(self._known, self._by_id.get)

    def get(self, session_id: str) -> Head:
        """Return a head. Raises: NotFound, Deleted."""
        head = self.find(session_id)
        if head is None:
            raise NotFound(session_id)
        return head

    def find(self, session_id: str) -> Head | None:
        """Return a head, None when there is no such session. Raises: Deleted."""
        head = self._known(session_id)
        if head is None and session_id in self._deleted:
            raise Deleted(session_id)
        return head

    def summary(self, session_id: str) -> Summary | None:
        """Return a head in compact form, None when there is none."""
        return self._by_id.get(session_id)

    def put(self, head: Head) -> None:
        """Show this head from now on."""
        with self._lock:
            old = self._by_id.get(head.id)
            before = self._known(head.id)
            summary = summary_of(head, old)
            at = self._place(summary.created_at, summary.id)
            # created_at is set once, by the first record.
            if old is None:
                self._times.insert(at, summary.created_at)
                self._sorted.insert(at, summary)
            else:
                self._sorted[at] = summary
            self._by_id[summary.id] = summary
            self._recent.pop(head.id, None)
            self._recent[summary.id] = head
            if len(self._recent) > _RECENT:
                del self._recent[next(iter(self._recent))]
            self.fleet.note(before, head)
            if head.status in OPEN_STATUSES:
                self._open[summary.id] = None
            else:
                self._open.pop(head.id, None)

    def put_all(self, summaries: Iterable[Summary]) -> None:
        """Show these heads of sessions that were not shown before; faster than one by one."""
        with self._lock:
            new = list(summaries)
            self.fleet.load(new)
            self._sorted = sorted([*self._sorted, *new], key=attrgetter("created_at", "id"))
            self._times = array("q", map(attrgetter("created_at"), self._sorted))
            for summary in new:
                self._by_id[summary.id] = summary
                if summary.status in OPEN_STATUSES:
                    self._open[summary.id] = None

    def delete(self, session_id: str) -> None:
        """Forget a head and remember that the session was deleted."""
        with self._lock:
            self._deleted.add(session_id)
            self._open.pop(session_id, None)
            self._recent.pop(session_id, None)
            summary = self._by_id.pop(session_id, None)
            if summary is not None:
                self.fleet.note(head_of(summary), None)
                at = self._place(summary.created_at, session_id)
                del self._times[at], self._sorted[at]

    def forget_deleted(self, session_id: str) -> None:
        """Forget also that the session was deleted."""
        with self._lock:
            self._deleted.discard(session_id)

    def counts(self) -> dict[str, int]:
        """Return how many sessions there are, how many are open, and how many were deleted."""
        return {
            "sessions": len(self._by_id),
            "open_sessions": len(self._open),
            "deleted_sessions": len(self._deleted),
        }

    def open_heads(self) -> list[Head]:
        """Return the heads of the sessions that have not ended."""
        with self._lock:
            summaries = [self._by_id[session_id] for session_id in self._open]
        return [head_of(summary) for summary in summaries]

    def scan(self, query: Query) -> Iterator[Summary]:
        """Yield the heads that match by themselves, oldest session first; sort, limit and cursor play no part."""
        anywhere = replace(query, sort="created_at", cursor="")
        return (summary for some in self._by_creation(anywhere, descending=False) for summary in sieve(some, query))

    def page(self, query: Query, deep: Callable[[str, Query], bool], clock: Callable[[], float]) -> Page:
        """Return the page that query asks for.

        deep(id, query) decides the conditions that need the state or the records; it is asked about heads that pass
        all others, in order, until the page is full or query.budget_s of the clock is over. Then the cursor stands
        behind the last head that was looked at. Raises: WireError.
        """
        field, descending = sort_field(query)
        looks_deeper = needs_records(query)
        deadline = clock() + query.budget_s
        heads: list[Head] = []
        last: Summary | None = None
        for summary in self._in_order(query, field, descending=descending, looks_deeper=looks_deeper):
            if len(heads) == query.limit and last is not None:
                return Page(heads, write_cursor(query, sort_key(last, field)))
            if looks_deeper and last is not None and clock() > deadline:
                return Page(heads, write_cursor(query, sort_key(last, field)), truncated=True)
            last = summary
            if not looks_deeper or deep(summary.id, query):
                heads.append(head_of(summary))
        return Page(heads)

    def _known(self, session_id: str) -> Head | None:
        recent = self._recent.get(session_id)
        if recent is not None:
            return recent
        summary = self._by_id.get(session_id)
        return None if summary is None else head_of(summary)

    def _place(self, created_at: int, session_id: str) -> int:
        """Return where (created_at, id) is in the order, or would be; the caller holds the lock."""
        low = bisect_left(self._times, created_at)
        if low == len(self._times) or self._times[low] != created_at:
            return low
        return bisect_left(self._sorted, session_id, low, bisect_right(self._times, created_at), key=attrgetter("id"))

    def _in_order(self, query: Query, field: str, *, descending: bool, looks_deeper: bool) -> Iterator[Summary]:
        """Yield the heads that match by themselves and lie behind the cursor, in the query's order."""
        # Most fields grow with the time of creation, so that what is to come first is found first.
        strides = self._by_creation(query, descending=descending)
        if field == "created_at":
            for some in strides:
                yield from sieve(some, query)
            return
        behind = read_cursor(query)
        found: list[tuple[SortKey, Summary]] = []
        # One more than the page holds tells whether there is another page.
        enough = query.limit + 1
        bound: Any = None
        value_of = attrgetter(field)
        for some in strides:
            matching = sieve(some, query)
            if bound is not None:
                # What cannot be on the page is left out before a key is made of it.
                matching = (
                    [head for head in matching if value_of(head) >= bound]
                    if descending
                    else [head for head in matching if value_of(head) <= bound]
                )
            keyed = [(sort_key(head, field), head) for head in matching]
            if behind is not None:
                keyed = [(key, head) for key, head in keyed if (key < behind if descending else key > behind)]
            found += keyed
            if not looks_deeper and len(found) > _FULL_PAGES * enough:
                found.sort(key=_key, reverse=descending)
                del found[enough:]
                bound = found[-1][0][1] if always_there(field) else None
        found.sort(key=_key, reverse=descending)
        yield from (head for _, head in found)

    def _by_creation(self, query: Query, *, descending: bool) -> Iterator[list[Summary]]:
        """Yield the heads of the query's span by (created_at, id), some at a time, the lock let go in between.

        Sessions that come or go meanwhile are seen or not; none is seen twice and none that stays is left out.
        """
        low, high = created_span(query)
        first: tuple[int, str] = (low, "")
        last: tuple[int, str] | None = None if high is None else (high, "")
        behind = read_cursor(query) if sort_field(query)[0] == "created_at" else None
        if behind is not None:
            if descending:
                at = (int(behind[1]), behind[2])
                last = at if last is None else min(last, at)
            else:
                first = max(first, (int(behind[1]), behind[2] + "\0"))
        stride = _FIRST_STRIDE
        while True:
            with self._lock:
                start = self._place(*first)
                stop = len(self._sorted) if last is None else self._place(*last)
                some = (
                    self._sorted[max(start, stop - stride) : stop][::-1]
                    if descending
                    else self._sorted[start : min(stop, start + stride)]
                )
            if not some:
                return
            yield some
            stride = _STRIDE
            if descending:
                last = (some[-1].created_at, some[-1].id)
            else:
                first = (some[-1].created_at, some[-1].id + "\0")


def _key(pair: tuple[SortKey, Summary]) -> SortKey:
    return pair[0]
