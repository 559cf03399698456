"""Back-pressure: a server that is behind says so before it hurts, and what matters most passes first.

Batches under way are bounded twice: by their bytes once unpacked, which bounds memory, and while the store is slow by
their number, so that threads stay free for reads and for batches that open, end or judge a session.
"""

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator

from datacat.server.problems import Refusal
from datacat.wire.records import MAX_BATCH_BYTES

BEHIND_S = 0.5
"""The store is behind while a batch has been under way for so long; a group commit takes a few milliseconds."""
SLOT_S = 0.25
"""A batch waits so long for a place when all threads but one store something."""
MOST_URGENT = 200
"""So many urgent batches wait for a store that is behind without a thread of their own: each is a connection."""
PLAIN_BYTES = 2 * MAX_BATCH_BYTES
"""So many bytes of unpacked batches are under way at once; as records they take up to ten times as much memory."""
ROOM_S = 1.0
"""A batch waits so long for its part of PLAIN_BYTES."""
SMALL_BYTES = 64 * 1024
"""A batch of at most this size is always unpacked; each thread has one."""
RETRY_S = (1, 5)
"""Refused batches are to come again after a time between these, each another one: a fleet must not come at once."""


class Pressure:
    """What is under way in a server with so many threads. Any thread; clock is monotonic, in seconds."""

    def __init__(
        self, threads: int, clock: Callable[[], float] = time.monotonic, chance: Callable[[], float] = random.random
    ) -> None:
        self._most = max(1, threads // 2)
        self._most_urgent = max(1, threads - 1)
        self._clock = clock
        self._chance = chance
        self._room = threading.Condition()
        self._bytes = 0
        self._waiting = 0
        self._under_way: dict[object, tuple[float, bool]] = {}
        self.refused = 0

    def is_behind(self) -> bool:
        """Return whether a batch has been under way for too long."""
        # The dict is in the order of begin(): its first is the oldest.
        for began, _ in self._under_way.copy().values():
            return self._clock() - began > BEHIND_S
        return False

    def begin(self, *, is_urgent: bool, waits: bool = True) -> object:
        """Count a batch that is being stored from now on; return what end() takes.

        waits: the caller is a thread that does nothing else until end(); one thread is left to read in any case.
        Raises: Refusal 503 when the store is behind and enough others wait for it.
        """
        token = object()
        with self._room:
            held = len(self._under_way)
            most = (self._most_urgent if waits else MOST_URGENT) if is_urgent else self._most
            if held >= most and self.is_behind():
                raise self._refusal("the store is behind")
            if waits:
                if not self._room.wait_for(lambda: self._waiting < self._most_urgent, SLOT_S):
                    raise self._refusal("the store is behind")
                self._waiting += 1
            self._under_way[token] = (self._clock(), waits)
        return token

    def end(self, token: object) -> None:
        """Count a batch no longer."""
        with self._room:
            _, waits = self._under_way.pop(token)
            if waits:
                self._waiting -= 1
                self._room.notify_all()

    @contextlib.contextmanager
    def unpacked(self, size_bytes: int) -> Iterator[None]:
        """Hold while a batch of this size, once unpacked, is under way. Raises: Refusal 503 when there is no room."""
        if size_bytes <= SMALL_BYTES:
            yield
            return
        with self._room:
            if not self._room.wait_for(lambda: self._bytes + size_bytes <= PLAIN_BYTES, ROOM_S):
                raise self._refusal("too many batches are under way")
            self._bytes += size_bytes
        try:
            yield
        finally:
            with self._room:
                self._bytes -= size_bytes
                self._room.notify_all()

    def _refusal(self, why: str) -> Refusal:
        self.refused += 1
        low, high = RETRY_S
        wait_s = low + int(self._chance() * (high - low + 1))
        return Refusal(503, f"{why}; try again later", headers={"Retry-After": str(min(wait_s, high))})
