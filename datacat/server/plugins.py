"""What the bus starts and stops, in order, and what the service manager is told (sd_notify)."""

import http.client
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import sdnotify

from datacat.store import Store
from datacat.worker import Worker

_log = logging.getLogger(__name__)

# CherryPy's own numbers for HTTP are start 75 and stop 25; a lower number comes first.
START_WORKERS, START_HTTP, START_ANNOUNCE = 70, 75, 90
STOP_ANNOUNCE, STOP_HTTP, STOP_WORKERS, STOP_STORE = 5, 25, 60, 90

STALE_INTERVALS = 3
"""A job that has not succeeded for so many of its intervals hangs."""
STALE_S = 60.0
"""But a short interval is no reason to be called stale by one slow write."""
PROBE_TIMEOUT_S = 5.0


def own(
    bus: Any,
    name: str,
    start: tuple[int, Callable[[], object]] | None = None,
    stop: tuple[int, Callable[[], object]] | None = None,
) -> None:
    """Let the bus start and stop something: (priority, function) each; the first that stops has the lowest number.

    A stop function that fails is logged, because the bus would end the process without stopping the others.
    """
    if start is not None:
        bus.subscribe("start", start[1], start[0])
    if stop is not None:
        act = stop[1]

        def guarded() -> None:
            try:
                act()
            except Exception:
                _log.exception("stopping %s failed", name)

        bus.subscribe("stop", guarded, stop[0])


class ServiceManager:
    """Tells systemd READY, STOPPING and, while work is being done, WATCHDOG. Without NOTIFY_SOCKET it does nothing.

    The watchdog beats only while a request is answered, every job has succeeded lately and the store takes writes: a
    process that merely lives is restarted. address is called when the server listens.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        workers: Iterable[Worker],
        store: Store,
        address: Callable[[], tuple[str, int]],
        clock: Callable[[], float],
    ) -> None:
        self._notifier = sdnotify.SystemdNotifier() if environ.get("NOTIFY_SOCKET") else None
        self._workers = list(workers)
        self._store = store
        self._address = address
        self._clock = clock
        interval_s = watchdog_interval_s(environ)
        self._watchdog = Worker("watchdog", interval_s, self.beat) if self._notifier and interval_s else None

    def ready(self) -> None:
        """Tell that the service serves."""
        host, port = self._address()
        self._tell(f"READY=1\nSTATUS=serving on {host} port {port}")
        if self._watchdog:
            self._watchdog.start()

    def stopping(self) -> None:
        """Tell that the service stops."""
        self._tell("STOPPING=1")
        if self._watchdog:
            self._watchdog.stop()

    def close(self) -> None:
        """Let go of the socket."""
        if self._notifier and self._notifier.socket:
            self._notifier.socket.close()
            self._notifier.socket = None

    def beat(self) -> None:
        """Tell that work is being done. Raises when it is not."""
        self._store.check()
        now = self._clock()
        for worker in self._workers:
            if now - worker.last_ok > max(STALE_INTERVALS * worker.interval_s, STALE_S):
                raise RuntimeError(f"{worker.name} has not succeeded for {now - worker.last_ok:.0f} s")
        probe(*self._address())
        self._tell("WATCHDOG=1")

    def _tell(self, text: str) -> None:
        if self._notifier:
            self._notifier.notify(text)


def probe(host: str, port: int) -> None:
    """Ask the server for /livez over its own socket. Raises: OSError when it does not answer in time."""
    connection = http.client.HTTPConnection(host, port, timeout=PROBE_TIMEOUT_S)
    try:
        connection.request("GET", "/livez", headers={"Connection": "close"})
        connection.getresponse().read()
    finally:
        connection.close()


def watchdog_interval_s(environ: Mapping[str, str]) -> float:
    """Return half of the time in which systemd wants to hear of us (sd_watchdog_enabled(3)); 0: never."""
    text = environ.get("WATCHDOG_USEC", "")
    return int(text) / 2_000_000 if text.isascii() and text.isdigit() else 0.0
