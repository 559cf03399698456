"""Own threads: the only module that creates one. Who starts a thread stops and joins it."""

import logging
import threading
import time
from collections.abc import Callable

_log = logging.getLogger(__name__)

STOP_TIMEOUT_S = 5.0
"""How long stop() waits for a thread; long enough for one request to a server that does not answer."""


class Worker:
    """Own one thread that calls work() every interval_s seconds, and at once when poked, until stop().

    work() returns whether there is more to do right now; True runs it again without waiting. A call that raises is
    logged and counted (failures), and the next one still runs. last_ok is the clock of the last call that returned,
    last_ended of the last that returned or raised: old, it says that work() hangs.
    start, poke and stop may be called from any thread; stop() is idempotent and must not be called by work() itself.
    """

    def __init__(
        self,
        name: str,
        interval_s: float,
        work: Callable[[], bool | None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.interval_s = interval_s
        self.failures = 0
        self.last_ok = self.last_ended = clock()
        self._work = work
        self._clock = clock
        self._due = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Start the thread; the first call of work() happens at once."""
        if self._thread is None:
            self._due.set()
            self._thread = threading.Thread(target=self._run, name=f"datacat-{self.name}", daemon=True)
            self._thread.start()

    def poke(self) -> None:
        """Let work() run now instead of when the interval is over."""
        self._due.set()

    def finish(self) -> None:
        """Ask the thread to end after the current call, and wait for nothing; work() itself may call it."""
        self._stopping = True
        self._due.set()

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> bool:
        """Ask the thread to end after the current call and join it; True when it has ended."""
        self.finish()
        if self._thread is not None:
            self._thread.join(timeout_s)
        return not self.alive

    def _run(self) -> None:
        while not self._stopping:
            self._due.wait(self.interval_s)
            self._due.clear()
            if self._stopping:
                return
            try:
                while self._work() and not self._stopping:
                    self.last_ended = self._clock()
                self.last_ok = self._clock()
            except Exception:
                self.failures += 1
                _log.exception("%s failed; it runs again in %.0f s", self.name, self.interval_s)
            self.last_ended = self._clock()


class Pump:
    """Own one thread that runs work() once, until its source ends; end() makes the source end.

    For loops that block in their own source of events: an accept loop, a queue, a wait for a process.
    """

    def __init__(self, name: str, work: Callable[[], None], end: Callable[[], None]) -> None:
        self.name = name
        self._work = work
        self._end = end
        self._thread: threading.Thread | None = None

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Start the thread."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=f"datacat-{self.name}", daemon=True)
            self._thread.start()

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> bool:
        """End the source and join the thread; True when it has ended."""
        if self.alive:
            self._end()
        if self._thread is not None:
            self._thread.join(timeout_s)
        return not self.alive

    def _run(self) -> None:
        try:
            self._work()
        except Exception:
            _log.exception("%s ended with an error", self.name)
