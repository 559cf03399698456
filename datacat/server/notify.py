"""What the service manager is told (sd_notify(3)): ready, reloading, stopping, how it goes, and sockets to keep."""

import logging
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sdnotify

_log = logging.getLogger(__name__)


class Notifier:
    """Tells systemd; without NOTIFY_SOCKET it does nothing. Any thread."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._notifier: Any = sdnotify.SystemdNotifier() if environ.get("NOTIFY_SOCKET") else None
        self._status = ""

    @property
    def heard(self) -> bool:
        """Whether there is a service manager that listens."""
        return self._notifier is not None and self._notifier.socket is not None

    def tell(self, text: str, fds: Sequence[int] = ()) -> None:
        """Send a text, with descriptors that the manager gets copies of."""
        if not self.heard:
            return
        if sys.platform == "win32" or not fds:
            self._notifier.notify(text)
            return
        try:
            # sdnotify cannot pass descriptors.
            socket.send_fds(self._notifier.socket, [text.encode()], list(fds))
        except OSError as error:
            _log.warning("the service manager does not keep the socket: %s", error)

    def ready(self, text: str) -> None:
        """Tell that the service serves."""
        self._status = text
        self.tell(f"READY=1\nSTATUS={text}")

    def reloading(self) -> None:
        """Tell that settings are read again; ready() ends it. Type=notify-reload wants the time of the beginning."""
        self.tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def status(self, text: str) -> None:
        """Tell how it goes, if that has changed."""
        if text != self._status:
            self._status = text
            self.tell(f"STATUS={text}")

    def stopping(self, text: str) -> None:
        """Tell that the service stops."""
        self._status = text
        self.tell(f"STOPPING=1\nSTATUS={text}")

    def close(self) -> None:
        """Let go of the manager's socket; idempotent."""
        if self.heard:
            self._notifier.socket.close()
            self._notifier.socket = None


class Rate:
    """How many a second since it was last asked, from a count that only grows. One thread."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._last = (clock(), 0)

    def of(self, count: int) -> float:
        """Return the rate since the last call."""
        (before, old), now = self._last, self._clock()
        self._last = (now, count)
        return (count - old) / (now - before) if now > before else 0.0


def how_it_goes(stats: Mapping[str, int], records_per_s: float) -> str:
    """Return the line that `systemctl status` shows: 12 sessions open, 340 records/s, store 1.2 GB."""
    count = stats.get("open_sessions", 0)
    rate = f"{records_per_s:.0f}" if records_per_s >= 10 or records_per_s == 0 else f"{records_per_s:.1f}"
    return (
        f"{count} session{'' if count == 1 else 's'} open, {rate} records/s, store {size(stats.get('size_bytes', 0))}"
    )


def size(count: int) -> str:
    """Return a number of bytes in the units of disk makers: 1.2 GB."""
    value = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.0f} {unit}" if unit == "bytes" or value >= 99.5 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"
