"""The fleet: a shelf for each product and version, kept in step with the heads; asked about many sessions at once."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from datacat.store.fold import Head
from datacat.store.shelf import Shelf, facts_of
from datacat.store.summary import Summary, head_of
from datacat.store.tally import Tally, acknowledged

MAX_WAITING = 2000
"""Changes that wait for the next reader; beyond, the writer that comes with one more puts them in order itself."""

_COUNTS = (("event", "events"), ("metric", "metrics"), ("state", "states"))

Shelves = dict[tuple[str, str], Shelf]


class Fleet:
    """Any thread may call. Writers only leave a note, so that no batch waits for a question; readers take turns.

    lookup returns the current head of a session, None when there is none; glance what costs less and has the attributes
    that most questions look at. heard is when the server last got anything,
    by product and version. generation counts the changes that shelves have seen. totals counts what came since the
    store was opened: sessions, events, metrics, states, acknowledged records of journals, and as heartbeat the batches
    that brought a newer one; dropped the records that did not come, by reason; tallies what happened, by product, as
    far as the shelves have seen it. watch is entered while a question waits for the shelves and holds them.
    """

    def __init__(self, lookup: Callable[[str], Head | None], glance: Callable[[str], Any | None] | None = None) -> None:
        self.lookup = lookup
        self.glance = glance or lookup
        self.heard: dict[tuple[str, str], int] = {}
        self.generation = 0
        self.totals = dict.fromkeys(("session", "event", "metric", "state", "heartbeat", "acknowledged"), 0)
        self.dropped: dict[str, int] = {}
        self.tallies: dict[str, Tally] = {}
        self.watch: Callable[[], AbstractContextManager[Any]] = nullcontext
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Head | None, Head | None]] = deque()
        self._shelves: Shelves = {}

    def load(self, summaries: Iterable[Summary]) -> None:
        """Take in the heads of sessions that were not known before; faster than one by one."""
        groups: dict[tuple[str, str], list[Summary]] = {}
        for summary in summaries:
            groups.setdefault((summary.product, summary.version), []).append(summary)
        with self._lock:
            self._drain()
            for key, some in groups.items():
                self._hear(key, max(summary.last_seen for summary in some))
                # One group at a time: heads and facts are large, and there are many.
                rows = (facts_of(head_of(summary)) for summary in some)
                known = self._shelves.get(key)
                if known is None:
                    self._shelves[key] = Shelf(rows)
                    continue
                for row in rows:
                    known.add(row)
            self.generation += 1

    def note(self, old: Head | None, new: Head | None) -> None:
        """Note that a session came (old None), changed, or was deleted (new None). Called in the order of changes."""
        if new is not None:
            self._hear((new.product, new.version), new.last_seen)
            self._count(old, new)
            if old is not None and _alike(old, new):
                return
        self._waiting.append((old, new))
        if len(self._waiting) > MAX_WAITING and self._lock.acquire(blocking=False):
            try:
                self._drain()
            finally:
                self._lock.release()

    @contextmanager
    def reading(self) -> Iterator[Shelves]:
        """Hold the shelves still while one question is answered; they are not to be changed."""
        with self.watch(), self._lock:
            self._drain()
            yield self._shelves

    def _count(self, old: Head | None, new: Head) -> None:
        totals, after = self.totals, new.counts
        before: Mapping[str, int] = old.counts if old is not None else {}
        if old is None:
            totals["session"] += 1
        for kind, name in _COUNTS:
            if count := after.get(name, 0):
                totals[kind] += count - before.get(name, 0)
        totals["heartbeat"] += new.last_heartbeat > (old.last_heartbeat if old is not None else 0)
        totals["acknowledged"] += acknowledged(new.streams) - (acknowledged(old.streams) if old is not None else 0)
        if new.dropped:
            for reason, lost in new.dropped.items():
                known = old.dropped.get(reason, 0) if old is not None else 0
                self.dropped[reason] = self.dropped.get(reason, 0) + lost - known

    def _hear(self, key: tuple[str, str], seen: int) -> None:
        if seen > self.heard.get(key, 0):
            self.heard[key] = seen

    def _drain(self) -> None:
        waiting = self._waiting
        while waiting:
            old, new = waiting.popleft()
            head = new or old
            if head is None:
                continue
            key = (head.product, head.version)
            shelf = self._shelves.get(key)
            if shelf is None:
                shelf = self._shelves[key] = Shelf()
            before = facts_of(old) if old is not None else None
            if before is not None:
                shelf.remove(before)
            if new is not None:
                after = facts_of(new)
                shelf.add(after)
                self.tallies.setdefault(new.product, Tally()).note(before, after)
            elif not len(shelf):
                del self._shelves[key]
                self.heard.pop(key, None)
            self.generation += 1


def _alike(old: Head, new: Head) -> bool:
    """Whether shelves need not know of the change; most batches change nothing that they hold."""
    return (
        old.status == new.status
        and old.ended_at == new.ended_at
        and old.created_at == new.created_at
        and old.end_reason == new.end_reason
        and old.machine_id == new.machine_id
        and old.hostname == new.hostname
        and old.hang_count == new.hang_count
        and old.hangs == new.hangs
        and old.suspensions == new.suspensions
        and old.counts.get("exceptions", 0) == new.counts.get("exceptions", 0)
    )
