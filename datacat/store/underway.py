"""Writes that are under way, so that a watchdog can see when one never ends."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class UnderWay:
    """When each write began that has not ended. Any thread; it has no lock, so that asking never waits for a writer."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._began: dict[int, float] = {}
        self._numbers = itertools.count()

    def begin(self) -> int:
        """Count a write from now on; return the number to end it by."""
        number = next(self._numbers)
        self._began[number] = self._clock()
        return number

    def end(self, number: int) -> None:
        """Count a write no longer; idempotent."""
        self._began.pop(number, None)

    @contextmanager
    def write(self) -> Iterator[None]:
        """Count a write while the block runs."""
        number = self.begin()
        try:
            yield
        finally:
            self.end(number)

    def oldest_s(self) -> float:
        """Return for how long the oldest write has been under way; 0.0 when there is none."""
        # The copy is one step of the interpreter: no thread can change the dict meanwhile.
        began = self._began.copy().values()
        return self._clock() - min(began) if began else 0.0
