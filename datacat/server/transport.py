"""A connection that takes a request as it comes and holds no thread meanwhile.

What has come of a request waits in memory until it is whole; only then a worker thread reads it, and never waits for
the client. A deadline holds for a request's head, and one for its body, however they are cut into packets.
"""

import contextlib
import re
import socket
import ssl
import time
from collections.abc import Mapping
from typing import Any

from cheroot import server

from datacat.server import tls
from datacat.server.batch_request import MAX_HEADER_BYTES, environ_of, rendered
from datacat.server.exchange import (
    FEW_CHUNKS,
    MAX_CHUNK_LINE_BYTES,
    MIN_CHUNK_BYTES,
    Request,
    chunk_size,
    error_answer,
)
from datacat.server.traffic import BUFFER_BYTES, RATE, WOULD_BLOCK, Whole, Writer, is_readable, never_wait, pending

LINGER_S = 2.0
"""After a refusal, so long what the client still sends is read: a close would take the answer from it."""
STICK_S = 0.002
"""A worker waits so long for the next request of a connection that has just been served, when nobody else waits."""
SMALL_BYTES = 16 * 1024
"""A request of at most this size is always taken; larger ones share Limits.buffer_bytes."""
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,12})[ \t]*\r\n", re.IGNORECASE)
_CODING = re.compile(rb"\r\ntransfer-encoding:", re.IGNORECASE)
_EXPECT = re.compile(rb"\r\nexpect:[ \t]*100-continue[ \t]*\r\n", re.IGNORECASE)
_PEEK_BYTES = 1024
_BATCH = re.compile(rb"POST /api/sessions/[^/ ]{1,80}/batches\?")


class Connection(server.HTTPConnection):
    """One client. Its fields belong to the worker that serves it, or while it waits to the selector's thread."""

    RequestHandlerClass = Request
    is_first = False
    """Whether it waits for a thread in the first lane."""
    sends_batches = False
    """Whether its last request was a batch."""

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
            if self.sends_batches:
                return True  # the next one may be for the batch loop
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
        raw = self._taken()
        self.wfile.begin()
        self.sends_batches = bool(_BATCH.match(raw))
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

    def _taken(self) -> bytes:
        """Take the request out of the inbox."""
        self.deadline = float("inf")
        raw = bytes(self._inbox[: self._need]) if self._need < len(self._inbox) else bytes(self._inbox)
        del self._inbox[: len(raw)]
        self._head = self._need = self._scanned = self._chunks = 0
        if not self._inbox:
            self._hold(0)
        return raw

    # --- batches, for a thread that must not wait

    def starts_with_batch(self) -> bool:
        """Return whether what has come seems to be a batch; of an encrypted connection: whether it sent one before."""
        if self.server.tls is not None:
            return self.is_open and self.sends_batches
        return bool(_BATCH.match(bytes(self._inbox[:_PEEK_BYTES]) or self.peek()))

    def peek(self) -> bytes:
        """Return how the request begins that is here, or what comes next of it; what cannot be seen is empty."""
        if self._inbox and self._is_whole():
            return bytes(self._inbox[:_PEEK_BYTES])
        try:
            never_wait(self.socket)
            return bytes(self.socket.recv(_PEEK_BYTES, socket.MSG_PEEK))
        except (OSError, ValueError):  # nothing is there, or it is encrypted
            return b""

    def receive(self) -> bool | None:
        """Take what has come, without waiting; True when a whole request is here, None when the client is gone."""
        if not self._receive():
            return None if self._ended else False
        return True if self._inbox else None

    def batch(self) -> tuple[dict[str, Any], bytes] | None:
        """Return the WSGI environment and the body of the request that is here; None when it is no ordinary batch."""
        if not self._head:
            return None
        peer = (self.remote_addr or "", str(self.remote_port or ""))
        with memoryview(self._inbox) as inbox, inbox[: self._need] as request:
            return environ_of(request, self._head, peer, secure=self.server.tls is not None)

    def take_batch(self) -> None:
        """Take the request that batch() returned out of the inbox."""
        self._taken()
        self.sends_batches = True

    def answer(self, status: str, headers: Mapping[str, str], body: bytes) -> bool:
        """Send an answer without waiting; False when the connection is over."""
        keep = bool(self.server.can_add_keepalive_connection) and not (self._ended and not self._inbox)
        whole = rendered(status, headers, body, keep=keep)
        self.server.served += 1
        try:
            never_wait(self.socket)
            # A client that has left so many answers unread that one more finds no room reads none.
            return self.socket.send(whole) == len(whole) and keep
        except OSError:
            return False

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
