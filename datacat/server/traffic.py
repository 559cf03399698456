"""Reading and writing a connection without waiting for its client, with TLS or without."""

import errno
import io
import math
import select
import socket
import ssl
import sys
import time
from typing import Any

BUFFER_BYTES = 64 * 1024
RATE = 64 * 1024
"""A body has a second more for so many bytes of it, an answer too."""
SEND_S = 10.0
"""A client that takes nothing for so long is given up."""
WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Whole(io.BytesIO):
    """The bytes of one request as cheroot's reader."""

    bytes_read = 0


class Writer:
    """Collects the small parts of an answer and sends them at once."""

    def __init__(self, conn: Any) -> None:
        self._conn = conn
        self._parts: list[bytes] = []
        self._size = 0
        self._end = 0.0
        self.bytes_written = 0
        self.closed = False

    def write(self, part: bytes) -> int:
        """Take a part; sends when enough has come together."""
        self._parts.append(part)
        self._size += len(part)
        if self._size > BUFFER_BYTES:
            self.flush()
        return len(part)

    def begin(self) -> None:
        """Begin an answer: its time runs from now, and its bytes are counted."""
        self._end = time.monotonic() + SEND_S
        self.bytes_written = 0

    def flush(self) -> None:
        """Send what was taken. Raises: OSError."""
        if not self._parts:
            return
        data = memoryview(b"".join(self._parts))
        self._parts, self._size = [], 0
        self.bytes_written += len(data)
        self._end += len(data) / RATE
        sock = self._conn.socket
        never_wait(sock)
        try:
            data = data[sock.send(data) :]
        except WOULD_BLOCK:
            pass
        except ssl.SSLError as error:
            raise ConnectionResetError(errno.ECONNRESET, f"TLS failed: {error.reason or error}") from error
        if not data:
            return
        # Few may be slow at once: a thread that waits for one serves nobody else.
        if not self._conn.server.slow.acquire(blocking=False):
            raise ConnectionResetError(errno.ECONNRESET, "too many clients are slow to read their answers")
        try:
            while data:
                left = self._end - time.monotonic()
                if left <= 0:
                    raise ConnectionResetError(errno.ECONNRESET, "the client is too slow to read its answer")
                sock.settimeout(min(left, SEND_S))
                try:
                    data = data[sock.send(data) :]
                except (TimeoutError, ssl.SSLError) as error:
                    raise ConnectionResetError(errno.ECONNRESET, "the client takes no more of its answer") from error
        finally:
            self._conn.server.slow.release()


def never_wait(sock: socket.socket) -> None:
    """Let a socket's calls return at once; one that does so already costs no system call."""
    if sock.gettimeout() != 0:
        sock.settimeout(0)


def pending(sock: Any) -> bool:
    """Return whether TLS has decrypted more than was asked for, which no selector sees."""
    return isinstance(sock, ssl.SSLSocket) and bool(sock.pending())


def is_readable(sock: socket.socket, wait_s: float) -> bool:
    """Return whether something comes, or has come, within wait_s."""
    # Not epoll: that is three system calls more. Not select, whose greatest descriptor is 1023; Windows has only that.
    if sys.platform == "win32":
        return bool(select.select([sock], (), (), wait_s)[0])
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(math.ceil(wait_s * 1000)))
