"""The connections that wait for a request, and how they end so that no request is lost."""

import contextlib
import selectors
import socket
import threading
import time
from typing import Any

from cheroot.connections import ConnectionManager

SCAN_S = 0.25
"""How often the deadlines of unfinished requests are looked at while there are any."""
EVICT_S = 2.0
"""A connection that has waited without a request for so long makes room for a new one when there are too many."""


class Waker:
    """Stands among the connections of the selector to end its wait."""

    last_used = float("inf")

    def __init__(self) -> None:
        self.socket, self._other = socket.socketpair()
        self.socket.setblocking(False)
        self._other.setblocking(False)

    def wake(self) -> None:
        """Let the selector return."""
        with contextlib.suppress(OSError):
            self._other.send(b"x")

    def drain(self) -> None:
        """Take what wake() has sent."""
        with contextlib.suppress(OSError):
            self.socket.recv(4096)

    def close(self) -> None:
        """Let go of both ends."""
        self.socket.close()
        self._other.close()


class Connections(ConnectionManager):
    """Waits for all connections that no thread serves. put() may be called by any thread; the rest is the selector's.

    cheroot closes connections whose next request may just have come, and knows no deadlines.
    """

    _selector: Any

    def __init__(self, http_server: Any) -> None:
        super().__init__(http_server)
        self._others = 2
        self._waker = Waker()
        self._unfinished: set[Any] = set()
        self._moving = threading.Lock()
        self._selector.register(self._waker.socket.fileno(), selectors.EVENT_READ, data=self._waker)

    @property
    def count(self) -> int:
        """How many connections wait for a request."""
        return len(self._selector) - self._others

    def put(self, conn: Any) -> None:
        """Wait for the next request of a connection, or for the rest of one."""
        conn.last_used = time.time()
        if not conn.lingers and conn.has_more():
            self.server.process_conn(conn)
            return
        with self._moving:
            if conn.lingers or conn.is_partly_here:
                if not self._unfinished:
                    self._waker.wake()
                self._unfinished.add(conn)
            self._selector.register(conn.socket.fileno(), selectors.EVENT_READ, data=conn)

    def make_room(self) -> bool:
        """Close the connection that has been without a request for the longest time; False when none has for long."""
        for fd, conn in list(self._selector.connections)[: self._others + 16]:
            if conn is self.server or conn is self._waker or conn in self._unfinished:
                continue
            if conn.last_used < time.time() - EVICT_S:
                self._take(fd, conn)
                conn.close()
                return True
            return False
        return False

    def accept_no_more(self) -> None:
        """Leave new connections to the kernel, where they wait for whoever listens next."""
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(self.server.socket.fileno())
            self._others = 1

    def _run(self, expiration_interval: float) -> None:
        base: Any = self  # cheroot has half of its types
        looked = scanned = time.monotonic()
        while not self._stop_requested:
            try:
                active = list(self._selector.select(SCAN_S if self._unfinished else expiration_interval))
            except OSError:
                base._remove_invalid_sockets()  # noqa: SLF001
                continue
            for fd, conn in active:
                if conn is self.server:
                    new = base._from_server_socket(self.server.socket)  # noqa: SLF001
                    if new is not None:
                        self.server.process_conn(new)
                elif conn is self._waker:
                    self._waker.drain()
                else:
                    self._take(fd, conn)
                    self.server.process_conn(conn)
            self.server.relieve()
            now = time.monotonic()
            if now - scanned >= SCAN_S and self._unfinished:
                scanned = now
                self._end_late(now)
            if now - looked > expiration_interval:
                looked = now
                self._expire(time.time() - self.server.timeout)

    def _take(self, fd: int, conn: Any) -> None:
        """Wait no longer for a connection; from now on it is the caller's."""
        with self._moving:
            self._selector.unregister(fd)
            self._unfinished.discard(conn)

    def _end_late(self, now: float) -> None:
        with self._moving:
            late = [conn for conn in self._unfinished if conn.deadline <= now]
        for conn in late:
            self._take(conn.socket.fileno(), conn)
            conn.give_up()
            conn.close()

    def _expire(self, threshold: float) -> None:
        for fd, conn in list(self._selector.connections):
            if conn is not self.server and conn.last_used < threshold and conn not in self._unfinished:
                self._take(fd, conn)
                conn.close()

    def stop(self) -> None:
        """End the selector's thread; give what has come meanwhile to the workers and close the idle connections."""
        self._stop_requested = True
        self._waker.wake()
        super().stop()
        for fd, conn in list(self._selector.connections):
            if conn is self.server or conn is self._waker:
                continue
            self._selector.unregister(fd)
            if not conn.lingers and _has_data(conn.socket):
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
