"""Wake a loop that waits on a selector: from other threads, and by signals. A handler only writes one byte."""

import contextlib
import selectors
import signal
import socket
from typing import Any

_CALL = b"w"  # 119: no signal has this number
_NOTED_SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP")


class Wakeup:
    """A pair of sockets; the reading end is in the selector. wake() from any thread, the rest from the loop's."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._reader, self._writer = socket.socketpair()
        for end in (self._reader, self._writer):
            end.setblocking(False)
        selector.register(self._reader, selectors.EVENT_READ, None)

    def take_signals(self) -> None:
        """Let SIGTERM, SIGINT and SIGHUP wake the loop, and ignore SIGPIPE; only in the main thread."""
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for name in _NOTED_SIGNALS:
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), _noted)
        if hasattr(signal, "SIGPIPE"):
            signal.signal(signal.SIGPIPE, signal.SIG_IGN)

    def wake(self) -> None:
        """Let the loop look at its queues."""
        with contextlib.suppress(OSError):  # full: it is awake already; closed: it has ended
            self._writer.send(_CALL)

    def drain(self) -> list[int]:
        """Return the numbers of the signals that came since the last call."""
        try:
            return list(self._reader.recv(4096).replace(_CALL, b""))
        except OSError:
            return []

    def close(self) -> None:
        """Give the signals back and close the sockets."""
        with contextlib.suppress(ValueError):
            signal.set_wakeup_fd(-1)
        self._reader.close()
        self._writer.close()


def _noted(_number: int, _frame: Any) -> None:
    """Do nothing: the number has been written to the socket."""
