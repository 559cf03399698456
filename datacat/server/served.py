"""Requests since the start: how many by method, route and status, how long they took, how many are under way, bytes."""

import threading
from bisect import bisect_left
from typing import NamedTuple

BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Any other method counts as "other": what a client invents makes no new series."""


class Snapshot(NamedTuple):
    """What was counted at one moment. times has for each route the counts between BOUNDS_S and the sum in seconds.

    received_bytes are those of the bodies of requests that were taken (2xx), as they travelled.
    """

    requests: dict[tuple[str, str, int], int]
    times: dict[str, tuple[list[int], float]]
    in_flight: int
    received_bytes: int


class Served:
    """Any thread, behind its own lock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: dict[tuple[str, str, int], int] = {}
        self._times: dict[str, list[int]] = {}
        self._sums: dict[str, float] = {}
        self._in_flight = 0
        self._received_bytes = 0

    def begin(self) -> None:
        """Note that a request has come."""
        with self._lock:
            self._in_flight += 1

    def end(self, method: str, route: str, status: int, seconds: float, received_bytes: int = 0) -> None:
        """Count one that is answered; route is the path of its route, with names instead of values."""
        key = (method if method in METHODS else "other", route, status)
        with self._lock:
            self._in_flight -= 1
            if 200 <= status < 300:
                self._received_bytes += received_bytes
            self._requests[key] = self._requests.get(key, 0) + 1
            counts = self._times.get(route)
            if counts is None:
                counts = self._times[route] = [0] * (len(BOUNDS_S) + 1)
            counts[bisect_left(BOUNDS_S, seconds)] += 1
            self._sums[route] = self._sums.get(route, 0.0) + seconds

    def snapshot(self) -> Snapshot:
        """Return what has been counted."""
        with self._lock:
            times = {route: (list(counts), self._sums[route]) for route, counts in self._times.items()}
            return Snapshot(dict(self._requests), times, self._in_flight, self._received_bytes)
