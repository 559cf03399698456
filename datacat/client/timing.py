"""Measure how long something takes with a clock that never jumps: as a block, or as a decorator."""

import functools
import time
from collections.abc import Callable
from typing import ParamSpec, Self, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_PER_SECOND = {
    "seconds": 1.0,
    "s": 1.0,
    "milliseconds": 1e3,
    "ms": 1e3,
    "microseconds": 1e6,
    "us": 1e6,
    "nanoseconds": 1e9,
    "ns": 1e9,
    "minutes": 1 / 60,
}


class Timer:
    """One measurement for each block; count may be set inside the block to what was done in it.

    Blocks of one Timer may follow each other but not overlap. As a decorator it measures every call, in any thread.
    """

    __slots__ = ("_log", "_started", "_tags", "_unit", "count", "name")

    def __init__(
        self, log: Callable[..., None], name: str, count: int | None, tags: list[str] | None, unit: str
    ) -> None:
        self._log = log
        self._tags = tags
        self._unit = unit
        self._started = 0.0
        self.name = name
        self.count = count

    def __enter__(self) -> Self:
        self._started = time.perf_counter()
        return self

    def __exit__(self, *_exc: object) -> None:
        elapsed_s = time.perf_counter() - self._started
        self._log(self.name, elapsed_s * factor(self._unit), self._unit, self._tags, self.count)

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Return function so that each of its calls is measured."""

        @functools.wraps(function)
        def timed(*args: P.args, **kwargs: P.kwargs) -> R:
            with Timer(self._log, self.name, self.count, self._tags, self._unit):
                return function(*args, **kwargs)

        return timed


def factor(unit: object) -> float:
    """Return how many of unit are in a second; an unknown unit is taken as seconds."""
    return _PER_SECOND.get(unit, 1.0) if isinstance(unit, str) else 1.0
