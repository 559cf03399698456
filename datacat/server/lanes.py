"""Two lanes of connections that wait for a worker thread: reads and urgent batches pass ordinary batches."""

import queue
from collections import deque
from typing import Any

FIRST_IN_A_ROW = 3
"""Then one of the second lane has its turn, so that it is never starved."""
RESERVED = 2
"""So many threads never serve the second lane: when the store stands still, the others are all that stand with it."""


class Lanes(queue.Queue[Any]):
    """A queue.Queue whose items have a field is_first; each lane has places. Any thread.

    Whoever got an item of the second lane calls done() when it has served it. What has no such field ends a thread, and
    comes when all the others are served.
    """

    def __init__(self, places: int, threads: int) -> None:
        self._places = places
        self._most = max(1, threads - RESERVED)
        self._busy = 0
        self._row = 0
        self._first: deque[Any] = deque()
        self._second: deque[Any] = deque()
        self._ends: deque[Any] = deque()
        super().__init__()

    @property
    def waiting(self) -> int:
        """How many connections wait."""
        return len(self._first) + len(self._second)

    @property
    def is_full(self) -> bool:
        """Whether a connection of the second lane would have to wait for others."""
        return self._busy >= self._most

    def done(self) -> None:
        """One of the second lane was served."""
        with self.mutex:
            self._busy -= 1
            self.not_empty.notify()

    def give_back(self) -> list[Any]:
        """Return the connections that wait in the second lane and wait no longer."""
        with self.mutex:
            waited = list(self._second)
            self._second.clear()
            return waited

    def _init(self, maxsize: int) -> None:
        """Make nothing: the lanes are there."""

    def _qsize(self) -> int:
        """Return how many can be taken now."""
        ends = 0 if self._second else len(self._ends)
        return len(self._first) + (0 if self.is_full else len(self._second)) + ends

    def _put(self, item: Any) -> None:
        if not hasattr(item, "is_first"):
            self._ends.append(item)
            return
        lane = self._first if item.is_first else self._second
        if len(lane) >= self._places:
            raise queue.Full
        lane.append(item)

    def _get(self) -> Any:
        second = bool(self._second) and not self.is_full
        if self._first and (self._row < FIRST_IN_A_ROW or not second):
            self._row += 1
            return self._first.popleft()
        if second:
            self._row = 0
            self._busy += 1
            return self._second.popleft()
        return self._ends.popleft()
