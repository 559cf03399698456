"""The pulse of this server: requests, latencies and sizes of every 10 seconds of the last day, in memory.

A request costs a few additions. A step that is over is packed, so that a busy day takes a few megabytes.
"""

import math
import shutil
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from datacat.errors import DatacatError
from datacat.host.usage import Usage
from datacat.server import bodies
from datacat.server.served import Served
from datacat.store import Store
from datacat.store.timed import Timings

STEP_S = 10
STEPS = 24 * 3600 // STEP_S
ROUTE = "datacat.route"
"""In the environment of a request: a list whose one member the router sets to the path of the route."""
NOWHERE = "other"
"""Stands for the route of requests to paths that do not exist."""
_BINS_PER_OCTAVE = 16
"""Latencies are right within 2.2 %."""
_REASONS = {
    401: "auth", 403: "auth", 404: "unknown", 409: "conflict", 410: "unknown", 413: "too_large", 429: "rate_limited",
    503: "busy",
}  # fmt: skip
_INVALID = "invalid"
_STORED = ("session", "event", "metric", "state")
"""Of the totals of the fleet: what is counted as stored."""

Application = Callable[[dict[str, Any], Any], Iterable[bytes]]


class Step(msgspec.Struct, array_like=True):
    """Ten seconds. requests, errors (5xx) and latencies (bin: count) by route; rejected by reason; ingested by kind.

    gauges are what was measured at the end of the step.
    """

    number: int
    requests: dict[str, int] = {}
    errors: dict[str, int] = {}
    rejected: dict[str, int] = {}
    ingested: dict[str, int] = {}
    latencies: dict[str, dict[int, int]] = {}
    gauges: dict[str, float] = {}


class Disk(NamedTuple):
    """The file system that has the store."""

    size_bytes: int
    free_bytes: int


class Pulse:
    """Any thread. clock_us is Unix time in us, usage tells what this process uses, daemons how many are connected.

    disk tells about the file system of the store, None when there is none. timings are those of the store, if somebody
    notes them there; deleted counts the sessions that retention has deleted, by kind: age or size.
    """

    REASONS = frozenset({*_REASONS.values(), _INVALID})

    def __init__(
        self,
        store: Store,
        clock_us: Callable[[], int],
        usage: Callable[[], Usage | None],
        daemons: Callable[[], int],
        disk: Callable[[], Disk | None] = lambda: None,
    ) -> None:
        self.started_us = clock_us()
        self._store = store
        self._clock_us = clock_us
        self._usage = usage
        self.daemons = daemons
        self.disk = disk
        self.timings = Timings()
        self.deleted: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._steps: deque[bytes] = deque(maxlen=STEPS)
        self._now = Step(self.started_us // (STEP_S * 1_000_000))
        self._totals = self._stored()
        self._cpu: tuple[int, float] | None = None
        self._ran: dict[str, int] = {}
        self.served = Served()

    def around(self, app: Application) -> Application:
        """Return the application with every request counted; latency is the time until the answer begins."""

        def serve(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            told: list[int] = []

            def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
                told[:] = [int(status[:3])]
                return start_response(status, headers, *more)

            began = self.begin(environ)
            try:
                return app(environ, start)
            finally:
                self.end(environ, began, told[0] if told else 500)

        return serve

    def begin(self, environ: dict[str, Any]) -> float:
        """Note that a request has come; return what end() is to be told."""
        environ[ROUTE] = [NOWHERE]
        environ[bodies.RECEIVED] = [0]
        self.served.begin()
        return time.perf_counter()

    def end(self, environ: Mapping[str, Any], began: float, status: int) -> None:
        """Count a request that is answered now."""
        seconds = time.perf_counter() - began
        route: str = environ[ROUTE][0]
        self.request(route, status, seconds)
        self.served.end(environ["REQUEST_METHOD"], route, status, seconds, environ[bodies.RECEIVED][0])

    @staticmethod
    def reason(status: int) -> str:
        """Return why a request with this status (4xx or 503) was refused: one of REASONS."""
        return _REASONS.get(status, _INVALID)

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count one request."""
        number = math.floor(math.log2(max(seconds, 1e-6)) * _BINS_PER_OCTAVE)
        with self._lock:
            step = self._current()
            step.requests[route] = step.requests.get(route, 0) + 1
            bins = step.latencies.setdefault(route, {})
            bins[number] = bins.get(number, 0) + 1
            if status >= 500:
                step.errors[route] = step.errors.get(route, 0) + 1
            elif status >= 400:
                reason = self.reason(status)
                step.rejected[reason] = step.rejected.get(reason, 0) + 1

    def ran(self, job: str) -> None:
        """Note that a job has done its work."""
        self._ran[job] = self._clock_us()

    def sample(self, now_us: int) -> bool:
        """Measure sizes, and count what was stored since the last time; the step function of a job."""
        usage = self._usage()
        stats = self._store.stats()
        gauges: dict[str, float] = {
            "store_bytes": stats.get("size_bytes", 0),
            "store_sessions": stats.get("sessions", 0),
            "daemons": self.daemons(),
        }
        if usage is not None:
            gauges |= {"rss_bytes": usage.rss_bytes, "open_files": usage.fds}
            if self._cpu is not None and now_us > self._cpu[0]:
                gauges["cpu"] = max(0.0, usage.cpu_s - self._cpu[1]) / ((now_us - self._cpu[0]) / 1_000_000)
            self._cpu = (now_us, usage.cpu_s)
        totals = self._stored()
        with self._lock:
            step = self._current()
            step.gauges = gauges
            for kind, total in totals.items():
                if new := total - self._totals.get(kind, 0):
                    step.ingested[kind] = step.ingested.get(kind, 0) + new
            self._totals = totals
        return False

    def steps(self, start_us: int, stop_us: int) -> list[Step]:
        """Return the steps that begin in a span, oldest first; those in which nothing happened are missing."""
        low, high = -(-start_us // (STEP_S * 1_000_000)), -(-stop_us // (STEP_S * 1_000_000))
        with self._lock:
            self._current()
            packed, now = list(self._steps), msgspec.msgpack.encode(self._now)
        found = [_UNPACK.decode(one) for one in (*packed, now)]
        return [step for step in found if low <= step.number < high]

    def gauges(self) -> dict[str, float]:
        """Return what was measured last."""
        with self._lock:
            if self._now.gauges:
                return dict(self._now.gauges)
            packed = self._steps[-1] if self._steps else None
        return _UNPACK.decode(packed).gauges if packed else {}

    def age_s(self, job: str) -> float | None:
        """Return how long ago a job did its work; None when it has not yet."""
        ran = self._ran.get(job)
        return None if ran is None else max(0, self._clock_us() - ran) / 1_000_000

    def ran_us(self, job: str) -> int:
        """Return when a job last did its work; 0 when it has not yet."""
        return self._ran.get(job, 0)

    def _stored(self) -> dict[str, int]:
        totals = self._store.fleet.totals
        return {kind: totals[kind] for kind in _STORED}

    def _current(self) -> Step:
        """Return the step of now; the caller holds the lock."""
        number = self._clock_us() // (STEP_S * 1_000_000)
        if number != self._now.number:
            self._steps.append(msgspec.msgpack.encode(self._now))
            self._now = Step(number)
        return self._now


_UNPACK = msgspec.msgpack.Decoder(Step)


def latency(bins: dict[int, int], share: float) -> float | None:
    """Return a quantile in seconds; None without requests."""
    whole = sum(bins.values())
    if not whole:
        return None
    place = share * (whole - 1)
    seen = 0
    for number in sorted(bins):
        seen += bins[number]
        if seen > place:
            return float(2 ** ((number + 0.5) / _BINS_PER_OCTAVE))
    return None


def disk_of(folder: Path) -> Disk | None:
    """Return the file system that has this folder; None when it does not say."""
    try:
        found = shutil.disk_usage(folder)
    except OSError:
        return None
    return Disk(found.total, found.free)


def own_usage(read: Callable[[int], Usage], pid: int) -> Callable[[], Usage | None]:
    """Return the function that tells what this process uses; None where it cannot be read."""

    def usage() -> Usage | None:
        try:
            return read(pid)
        except DatacatError:
            return None

    return usage
