"""The watchdog proves work: it beats only while requests are answered, commits end and every job runs in time.

A process that merely lives is restarted: by systemd, which hears no WATCHDOG=1 and sends SIGABRT, or by itself where
no manager watches. Either way faulthandler writes the stacks of all threads to stderr first.
"""

import faulthandler
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from datacat.errors import DatacatError
from datacat.server.notify import Notifier
from datacat.store import Store
from datacat.worker import Worker

_log = logging.getLogger(__name__)

BEATS = 3
"""Beats in the time after which the manager strikes: two may be lost or late."""
SELF_LIMIT_S = 20.0
"""A process without a manager that watches ends itself when it could not prove work for so long."""
STALE_INTERVALS = 3
"""A job that has not ended for so many of its intervals hangs."""
STALE_S = 60.0
"""But a short interval is no reason to be called stale by one slow write."""
MAX_COMMIT_S = 5.0
"""A write that has waited longer for the disk hangs, as far as the watchdog is concerned."""


class Http(Protocol):
    """The part of httpd.Server that is needed here."""

    def probe(self, timeout_s: float) -> None:
        """Let a worker thread answer a request. Raises: OSError, RuntimeError when none does."""


class SelfCheck:
    """Asks every part that can hang. One thread; raises what is wrong."""

    def __init__(
        self, http: Http, store: Store, workers: Iterable[Worker], clock: Callable[[], float], limit_s: float
    ) -> None:
        self._http = http
        self._store = store
        self._workers = list(workers)
        self._clock = clock
        self._limit_s = limit_s

    def __call__(self) -> None:
        """Return when work is being done. Raises: StoreError, OSError, RuntimeError."""
        self._store.check_progress(min(MAX_COMMIT_S, self._limit_s / (BEATS + 1)))
        now = self._clock()
        for worker in self._workers:
            silent_s = now - worker.last_ended
            if silent_s > max(STALE_INTERVALS * worker.interval_s, STALE_S):
                raise RuntimeError(f"the job {worker.name} has not ended for {silent_s:.0f} s")
        self._http.probe(self._limit_s / BEATS)


class Watchdog:
    """Beats while the check passes. One thread starts and stops it; limit_s 0: nobody watches, nothing happens.

    kills_itself: the process ends when no beat came for limit_s. ends_in_s: so long a stop may take, then the process
    ends too; 0: as long as it likes.
    """

    def __init__(
        self,
        check: Callable[[], None],
        notifier: Notifier,
        limit_s: float,
        *,
        kills_itself: bool,
        ends_in_s: float = 0.0,
    ) -> None:
        self.limit_s = limit_s
        self._check = check
        self._notifier = notifier
        self.limit_s = limit_s
        self._kills_itself = kills_itself
        self._ends_in_s = ends_in_s
        self._good = True
        self._stopping = False
        self._worker = Worker("watchdog", limit_s / BEATS, self._beat) if limit_s else None

    @property
    def is_good(self) -> bool:
        """Whether the newest check found everything at work."""
        return self._good

    def start(self) -> None:
        """Begin to beat."""
        if self._worker is None:
            return
        if self._kills_itself:
            faulthandler.dump_traceback_later(self.limit_s, exit=True)
        self._worker.start()

    def stop(self) -> None:
        """Stop beating: the manager gives the stop a time of its own, and so do we."""
        self._stopping = True
        if self._ends_in_s:
            faulthandler.dump_traceback_later(self._ends_in_s, exit=True)
        if self._worker is not None:
            self._worker.stop()

    def close(self) -> None:
        """Let the process live; idempotent."""
        if self._ends_in_s or self._kills_itself:
            faulthandler.cancel_dump_traceback_later()

    def _beat(self) -> None:
        try:
            self._check()
        except (OSError, RuntimeError, DatacatError) as error:
            # Not the stack of this thread: the manager's SIGABRT shows those of all.
            _log.error("the watchdog does not beat: %s", error)
            self._good = False
            return
        if not self._good:
            _log.info("the watchdog beats again")
            self._good = True
        self._notifier.tell("WATCHDOG=1")
        if self._kills_itself and not self._stopping:
            # The timer is a thread of C: it strikes also when something keeps the interpreter's lock.
            faulthandler.dump_traceback_later(self.limit_s, exit=True)


def limit_s(environ: Mapping[str, str], pid: int) -> float:
    """Return after how many seconds without a beat the manager strikes (sd_watchdog_enabled(3)); 0: it does not."""
    text = environ.get("WATCHDOG_USEC", "")
    meant_for = environ.get("WATCHDOG_PID", "")
    if meant_for and meant_for != str(pid):
        return 0.0
    return int(text) / 1_000_000 if text.isascii() and text.isdigit() else 0.0
