"""A connection that takes a request as it comes and holds no thread meanwhile.

What has come of a request waits in memory until it is whole; only then a worker thread reads it, and never waits for
the client. A deadline holds for a request's head, and one for its body, however they are cut into packets.
"""

import contextlib
import io
import re
import socket
import ssl
import sys
import time
from email.utils import formatdate
from functools import lru_cache
from typing import Any

from cheroot import server

from datacat.server import tls
from datacat.server.exchange import (
    FEW_CHUNKS,
    MAX_CHUNK_LINE_BYTES,
    MIN_CHUNK_BYTES,
    NAME,
    Request,
    chunk_size,
    error_answer,
    parse_headers,
)
from datacat.server.traffic import BUFFER_BYTES, RATE, WOULD_BLOCK, Whole, Writer, is_readable, never_wait, pending

LINGER_S = 2.0
"""After a refusal, so long what the client still sends is read: a close would take the answer from it."""
STICK_S = 0.002
"""A worker waits so long for the next request of a connection that has just been served, when nobody else waits."""
MAX_HEADER_BYTES = 16 * 1024
SMALL_BYTES = 16 * 1024
"""A request of at most this size is always taken; larger ones share Limits.buffer_bytes."""
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,12})[ \t]*\r\n", re.IGNORECASE)
_CODING = re.compile(rb"\r\ntransfer-encoding:", re.IGNORECASE)
_EXPECT = re.compile(rb"\r\nexpect:[ \t]*100-continue[ \t]*\r\n", re.IGNORECASE)
_HOT = re.compile(rb"POST (/api/sessions/[0-9A-Fa-f-]{36}/batches)\?([!-~]+) HTTP/1\.1")
_NOT_HOT = frozenset({b"Transfer-Encoding", b"Expect", b"Connection"})


class Connection(server.HTTPConnection):
    """One client. Its fields belong to the worker that serves it, or while it waits to the selector's thread."""

    RequestHandlerClass = Request
    is_first = False
    """Whether it waits for a thread in the first lane."""

    def __init__(self, http: Any, sock: Any, makefile: object = None) -> None:
        del makefile
        self.is_unread = False
        self.lingers = False
        self.deadline = float("inf")
        """When a request that has begun to come must be whole, or a lingering connection ends; monotonic s."""
        self.is_open = http.tls is None
        """Whether the handshake of TLS is done."""
        self._inbox = bytearray()
        self._head = 0
        self._need = 0
        self._scanned = 0
        self._chunks = 0
        self._held = 0
        self._ended = False
        self._counted = True
        http.count(1)
        super().__init__(http, sock, self._file)

    def _file(self, _sock: Any, mode: str, _bufsize: int) -> Any:
        return Whole() if "r" in mode else Writer(self)

    @property
    def is_partly_here(self) -> bool:
        """Whether a request, or the handshake of TLS, has begun to come."""
        return bool(self._inbox) or (isinstance(self.socket, ssl.SSLSocket) and not self.is_open)

    def communicate(self) -> bool:
        """Serve the requests that are there; True to wait for more."""
        is_first = self.is_first
        try:
            return self._communicate()
        finally:
            if not is_first:
                self.server.lanes.done()

    def _communicate(self) -> bool:
        if self.lingers:
            return self._drain()
        if not self.is_open and not self._shake_hands():
            return not self._ended
        while self._receive():
            if not self._inbox:
                return False  # the client has closed
            if not self._serve():
                return self.lingers
            if self._inbox:
                if self.server.lanes.waiting:
                    return True
            elif not self._sticks():
                return True
        return self.lingers or not self._ended

    def has_more(self) -> bool:
        """Return whether a next request may be in memory already; only after communicate() has left it there."""
        return self.is_open and ((bool(self._inbox) and self._is_whole()) or pending(self.socket))

    def close(self) -> None:
        """Close the socket and give back what was held."""
        self._hold(0)
        if self._counted:
            self._counted = False
            self.server.count(-1)
        if self.is_open:
            tls.say_goodbye(self.socket)
        with contextlib.suppress(OSError):  # a client may be gone while its socket is handed to TLS
            super().close()

    def give_up(self) -> None:
        """Tell a client whose request did not come in time, without waiting."""
        if self._inbox and not self.lingers:
            with contextlib.suppress(OSError):
                self.socket.settimeout(0)
                self.socket.send(error_answer(408, "the request did not come in time", "Request Timeout"))
            self.server.note_refusal(408, self.remote_addr)

    # --- receiving

    def _shake_hands(self) -> bool:
        """Go on with the handshake of TLS; True when it is done, _ended when it has failed."""
        try:
            if not isinstance(self.socket, ssl.SSLSocket):
                self.deadline = time.monotonic() + self.server.limits.head_s
                self.socket = self.server.tls.wrap(self.socket)
            self.is_open = tls.shake_hands(self.socket)
        except tls.PlainHttp:
            self._ended = True
            with contextlib.suppress(OSError):
                tls.send_plain(self.socket, error_answer(400, "this server speaks HTTPS", "Bad Request"))
        except OSError:
            self._ended = True
        return self.is_open

    def _receive(self) -> bool:
        """Take what has come; True when there is a whole request, or what can only be refused, or the end."""
        while not self._is_whole():
            try:
                never_wait(self.socket)
                part = self.socket.recv(max(BUFFER_BYTES, min(self._need - len(self._inbox), 4 * BUFFER_BYTES)))
            except WOULD_BLOCK:
                return False
            except OSError:
                self._inbox.clear()
                part = b""
            if not part:
                self._ended = True
                self._need = len(self._inbox)
                return True
            if not self._inbox:
                self.deadline = time.monotonic() + self.server.limits.head_s
            self._inbox += part
            if not self._hold(len(self._inbox)):
                self._refuse()
                return False
        return True

    def _is_whole(self) -> bool:
        inbox = self._inbox
        if not self._head:
            if not inbox:
                return False
            end = inbox.find(b"\r\n\r\n", max(0, self._scanned - 3))
            if end < 0:
                self._scanned = len(inbox)
                self._need = len(inbox)
                return len(inbox) > MAX_HEADER_BYTES  # the reader says which of its limits is passed
            self._measure(end + 4)
        if self._need < 0:
            self._scan()
        return 0 <= self._need <= len(inbox)

    def _measure(self, head: int) -> None:
        """Find out how long the request is whose head has come."""
        self._head = self._need = self._scanned = head
        text = bytes(self._inbox[:head])
        most = self.server.max_request_body_size
        length = _LENGTH.search(text)
        if length and int(length[1]) <= most and not _CODING.search(text):
            self._need = head + int(length[1])
        elif not length and _CODING.search(text):
            self._need = -1
        wanted = self._need - head if self._need > 0 else most
        if self._need != head and len(self._inbox) < head + wanted:
            self.deadline = time.monotonic() + self.server.limits.body_s + wanted / RATE
            if _EXPECT.search(text):
                with contextlib.suppress(OSError):
                    self.socket.settimeout(0)
                    self.socket.send(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _scan(self) -> None:
        """Follow the chunks; _need is told when the last one is here, or one that will be refused."""
        while True:
            end = self._inbox.find(b"\n", self._scanned, self._scanned + MAX_CHUNK_LINE_BYTES)
            if end < 0:
                if len(self._inbox) - self._scanned >= MAX_CHUNK_LINE_BYTES:
                    self._need = len(self._inbox)
                return
            self._chunks += 1
            so_far = self._scanned - self._head
            try:
                size = chunk_size(bytes(self._inbox[self._scanned : end + 1]))
            except ValueError:
                self._need = len(self._inbox)
                return
            if so_far + size > self.server.max_request_body_size + self._chunks * MAX_CHUNK_LINE_BYTES or (
                self._chunks > FEW_CHUNKS and so_far < self._chunks * MIN_CHUNK_BYTES
            ):
                self._need = len(self._inbox)
                return
            after = end + 1 + size + 2
            if len(self._inbox) < after:
                self._chunks -= 1
                return
            self._scanned = after
            if size == 0:
                self._need = after
                return

    def _hold(self, size: int) -> bool:
        """Count what the inbox holds beyond a small request; False when all connections hold too much together."""
        beyond = max(0, size - SMALL_BYTES)
        more, self._held = beyond - self._held, beyond
        return more == 0 or self.server.hold(more)

    # --- serving

    def _serve(self) -> bool:
        """Answer the request in the inbox; False when the connection is over, or lingers."""
        self.deadline = float("inf")
        self.wfile.begin()
        raw = bytes(self._inbox[: self._need]) if self._need < len(self._inbox) else bytes(self._inbox)
        del self._inbox[: len(raw)]
        head = self._head
        self._head = self._need = self._scanned = self._chunks = 0
        if not self._inbox:
            self._hold(0)
        keep = self._hot(raw, head) if self.server.hot is not None and head and raw.startswith(b"POST ") else None
        if keep is None:
            self.rfile = Whole(raw)
            keep = bool(super().communicate())  # type: ignore[no-untyped-call]  # cheroot has half of its types
        try:
            self.wfile.flush()
        except OSError:
            keep = False
        self.server.served += 1
        if keep and self._ended and not self._inbox:
            return False
        if self.is_unread:
            self._linger()
        return keep

    def _hot(self, raw: bytes, head: int) -> bool | None:
        """Answer a batch without cheroot's request, gateway and environment; None when it is not an ordinary one.

        They cost more than the batch does: 0.14 ms beside 0.26 ms were measured for a batch of 100 events.
        """
        lines = raw[: head - 4].split(b"\r\n")
        found = _HOT.fullmatch(lines[0])
        if found is None or head > MAX_HEADER_BYTES:
            return None
        try:
            headers = parse_headers(lines[1:])
        except ValueError:
            return None
        length = headers.get(b"Content-Length")
        if length is None or int(length) != len(raw) - head or not _NOT_HOT.isdisjoint(headers):
            return None
        source = io.BytesIO(raw)
        source.seek(head)
        environ: dict[str, Any] = {
            "REQUEST_METHOD": "POST",
            "PATH_INFO": found[1].decode("ascii"),
            "QUERY_STRING": found[2].decode("ascii"),
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": self.remote_addr or "",
            "REMOTE_PORT": str(self.remote_port or ""),
            "wsgi.url_scheme": "https" if self.server.tls is not None else "http",
            "wsgi.input": source,
            "wsgi.errors": sys.stderr,
        }
        for name, value in headers.items():
            environ["HTTP_" + name.decode("ascii").upper().replace("-", "_")] = value.decode("latin-1")
        environ["CONTENT_LENGTH"] = environ.pop("HTTP_CONTENT_LENGTH")
        if "HTTP_CONTENT_TYPE" in environ:
            environ["CONTENT_TYPE"] = environ.pop("HTTP_CONTENT_TYPE")
        told: list[Any] = []

        def start_response(status: str, answered: list[tuple[str, str]], *_: Any) -> None:
            told[:] = [status, answered]

        body = b"".join(self.server.hot(environ, start_response))
        keep = self.server.can_add_keepalive_connection
        lines_out = "".join([f"{name}: {value}\r\n" for name, value in told[1]])
        end = "\r\n" if keep else "Connection: close\r\n\r\n"
        self.wfile.write(
            f"HTTP/1.1 {told[0]}\r\n{lines_out}Date: {_date(int(time.time()))}\r\nServer: {NAME}\r\n{end}".encode(
                "latin-1"
            )
            + body
        )
        return bool(keep)

    def _sticks(self) -> bool:
        """Return whether the next request has come within a moment and nobody else waits for the thread."""
        if self.server.lanes.waiting or not self.server.can_add_keepalive_connection or self._ended:
            return False
        return pending(self.socket) or is_readable(self.socket, STICK_S)

    def _refuse(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.settimeout(0)
            self.socket.send(error_answer(503, "the server holds too many unfinished requests", "Service Unavailable"))
        self.server.note_refusal(503, self.remote_addr)
        self._linger()

    # --- ending

    def _linger(self) -> None:
        """Let go of what the client still sends, until it has seen that nothing more is answered."""
        self.lingers = True
        self._inbox.clear()
        self._hold(0)
        self.deadline = time.monotonic() + LINGER_S
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def _drain(self) -> bool:
        try:
            self.socket.settimeout(0)
            for _ in range(64):  # then others have their turn
                if not self.socket.recv(BUFFER_BYTES):
                    return False
        except WOULD_BLOCK:
            pass
        except OSError:
            return False
        return time.monotonic() < self.deadline


@lru_cache(maxsize=4)
def _date(now_s: int) -> str:
    """Return the value of the header Date (RFC 9110, 5.6.7)."""
    return formatdate(now_s, usegmt=True)
