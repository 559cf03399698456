"""Reading and writing a connection: deadlines for the whole instead of each packet, and few system calls."""

import errno
import io
import socket
import ssl
import time
from typing import Any, Protocol

BUFFER_BYTES = 64 * 1024
SEND_S = 10.0
"""A client that takes nothing for so long is given up."""


class Until(Protocol):
    """Until when (time.monotonic) what is read now must have come."""

    deadline: float


class Raw(socket.SocketIO):
    """Reads from the socket until the connection's deadline, or not at all (hold)."""

    hold = False

    def __init__(self, sock: socket.socket, until: Until) -> None:
        super().__init__(sock, "rb")
        self._sock_ = sock
        self._until = until

    def readinto(self, buffer: Any) -> int | None:
        """Fill buffer with what the client has sent."""
        if self.hold:
            return None
        left = self._until.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self._sock_.settimeout(left)
        try:
            return super().readinto(buffer)
        except ssl.SSLError as error:
            raise _broken(error) from error

    @property
    def pending(self) -> int:
        """How many bytes were decrypted and not yet asked for: the selector does not see them."""
        return self._sock_.pending() if isinstance(self._sock_, ssl.SSLSocket) else 0


class Reader(io.BufferedReader):
    """The interpreter's buffered reader instead of cheroot's, which is the same in Python."""

    bytes_read = 0

    def has_data(self) -> bool:
        """Return whether a next request is already in the buffer."""
        raw: Any = self.raw
        raw.hold = True
        try:
            return bool(self.peek(1)) or raw.pending > 0
        finally:
            raw.hold = False


class Writer:
    """Collects the small parts of an answer and sends them at once."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._parts: list[bytes] = []
        self._size = 0
        self.bytes_written = 0
        self.closed = False

    def write(self, part: bytes) -> int:
        """Take a part; sends when enough has come together."""
        self._parts.append(part)
        self._size += len(part)
        if self._size > BUFFER_BYTES:
            self.flush()
        return len(part)

    def flush(self) -> None:
        """Send what was taken. Raises: OSError."""
        if self._parts:
            parts, self._parts, self._size = b"".join(self._parts), [], 0
            self._sock.settimeout(SEND_S)
            try:
                self._sock.sendall(parts)
            except ssl.SSLError as error:
                raise _broken(error) from error


def _broken(error: ssl.SSLError) -> ConnectionResetError:
    """Return an error of TLS as what it is for HTTP: the connection has ended."""
    return ConnectionResetError(errno.ECONNRESET, f"TLS failed: {error.reason or error}")
