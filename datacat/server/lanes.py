"""Two lanes of connections that wait for a worker thread: reads and urgent batches pass ordinary batches."""

import queue
from collections import deque
from typing import Any

FIRST_IN_A_ROW = 3
"""Then one of the second lane has its turn, so that it is never starved."""


class Lanes(queue.Queue[Any]):
    """A queue.Queue whose items have a field is_first; each lane has maxsize places. Any thread."""

    def _init(self, maxsize: int) -> None:
        self._most = maxsize
        self.maxsize = 0  # put() below looks at one lane
        self._lanes: tuple[deque[Any], deque[Any]] = (deque(), deque())
        self._row = 0

    def _qsize(self) -> int:
        return len(self._lanes[0]) + len(self._lanes[1])

    def _put(self, item: Any) -> None:
        # What is no connection ends a thread; it comes last, when what has come is served.
        lane = self._lanes[0 if getattr(item, "is_first", False) else 1]
        if hasattr(item, "is_first") and len(lane) >= self._most:
            raise queue.Full
        lane.append(item)

    def _get(self) -> Any:
        first, second = self._lanes
        if first and (self._row < FIRST_IN_A_ROW or not second or not hasattr(second[0], "is_first")):
            self._row += 1
            return first.popleft()
        self._row = 0
        return second.popleft()
