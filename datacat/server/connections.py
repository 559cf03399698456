"""The connections that wait for a request, and how they end so that no request is lost."""

import contextlib
import selectors
import socket
from typing import Any

from cheroot.connections import ConnectionManager


class Waker:
    """Stands among the connections of the selector to end its wait."""

    last_used = float("inf")

    def __init__(self) -> None:
        self.socket, self._other = socket.socketpair()

    def wake(self) -> None:
        """Let the selector return."""
        with contextlib.suppress(OSError):
            self._other.send(b"x")

    def close(self) -> None:
        """Let go of both ends."""
        self.socket.close()
        self._other.close()


class Connections(ConnectionManager):
    """Ends so that no request is lost; cheroot closes connections whose next request may just have come."""

    _selector: Any

    def __init__(self, http_server: Any) -> None:
        super().__init__(http_server)
        self._others = 2
        self._waker = Waker()
        self._selector.register(self._waker.socket.fileno(), selectors.EVENT_READ, data=self._waker)

    @property
    def count(self) -> int:
        """How many connections wait for a request."""
        return len(self._selector) - self._others

    def accept_no_more(self) -> None:
        """Leave new connections to the kernel, where they wait for whoever listens next."""
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(self.server.socket.fileno())
            self._others = 1

    def stop(self) -> None:
        """End the selector's thread; give what has come meanwhile to the workers and close the idle connections."""
        self._stop_requested = True
        self._waker.wake()
        super().stop()
        for fd, conn in list(self._selector.connections):
            if conn is self.server or conn is self._waker:
                continue
            self._selector.unregister(fd)
            if _has_data(conn.socket):
                self.server.process_conn(conn)
            else:
                conn.close()

    def close(self) -> None:
        """Let go of everything."""
        super().close()
        self._waker.close()


def _has_data(sock: socket.socket) -> bool:
    try:
        sock.settimeout(0)
        return bool(socket.socket.recv(sock, 1, socket.MSG_PEEK))  # of a TLS connection: encrypted bytes
    except OSError:
        return False
