"""Reading and writing a connection without waiting for its client, with TLS or without."""

import contextlib
import io
import select
import socket
import ssl
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
        sock.settimeout(0)
        with contextlib.suppress(*WOULD_BLOCK):
            data = data[sock.send(data) :]
        if not data:
            return
        # Few may be slow at once: a thread that waits for one serves nobody else.
        if not self._conn.server.slow.acquire(blocking=False):
            raise TimeoutError("too many clients are slow to read their answers")
        try:
            while data:
                left = self._end - time.monotonic()
                if left <= 0:
                    raise TimeoutError("timed out")
                sock.settimeout(min(left, SEND_S))
                data = data[sock.send(data) :]
        finally:
            self._conn.server.slow.release()


def pending(sock: Any) -> bool:
    """Return whether TLS has decrypted more than was asked for, which no selector sees."""
    return isinstance(sock, ssl.SSLSocket) and bool(sock.pending())


def is_readable(sock: socket.socket, wait_s: float) -> bool:
    """Return whether something comes, or has come, within wait_s."""
    if not hasattr(select, "poll"):  # Windows, whose select has no greatest descriptor
        return bool(select.select([sock], [], [], wait_s)[0])
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(wait_s * 1000))
