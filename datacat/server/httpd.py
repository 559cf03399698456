"""cheroot's HTTP server with its known weaknesses closed; each class says which.

Measured against cheroot 11.1.2: silent connections block all of its worker threads, lengths such as -1 or +3 pass, two
Content-Length headers pass, a timeout per recv lets a slow client hold a thread for ever, only ten connections are kept
alive, and its reader is pure Python.
"""

import contextlib
import logging
import queue
import re
import socket
import ssl
import threading
import time
from typing import Any, NamedTuple

from cheroot import server, wsgi

from datacat.server import listen, tls
from datacat.server.bodies import MAX_REQUEST_BYTES, too_large
from datacat.server.connections import Connections, Waker
from datacat.server.probe import ask, own_address
from datacat.server.problems import problem
from datacat.server.traffic import BUFFER_BYTES, Raw, Reader, Writer

_log = logging.getLogger(__name__)

HEAD_S = 10.0
"""A request's line and headers must have come in this time, however they are cut into packets."""
BODY_S = 20.0
"""So much for the body, and a second more for every BODY_RATE bytes of it."""
BODY_RATE = 64 * 1024
LINGER_S = 2.0
"""After a refusal, so long what the client still sends is read: a close would take the answer from it."""
IDLE_S = 75.0
"""A connection without a request is closed after this; daemons write every 5 s."""
MAX_HEADER_BYTES = 16 * 1024
MAX_HEADERS = 100
MAX_CHUNK_LINE_BYTES = 64
MIN_CHUNK_BYTES = 64
"""Chunks may be smaller on average only while there are few: each costs as much time as some kilobytes."""
FEW_CHUNKS = 1000
DRAIN_S = 0.5
"""At a stop, so long every answer says that its connection ends; then the idle ones are closed."""
QUEUE_SIZE = 128
"""Requests that wait for a thread; more are told 503."""

_LENGTH = re.compile(rb"[0-9]{1,12}")
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_HEX = re.compile(rb"[0-9A-Fa-f]{1,8}")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_ONCE = frozenset(
    {
        b"Content-Length",
        b"Host",
        b"Transfer-Encoding",
        b"Authorization",
        b"Content-Type",
        b"Content-Encoding",
        b"Origin",
    }
)


class Limits(NamedTuple):
    """What one server allows."""

    threads: int = 8
    max_connections: int = 800
    head_s: float = HEAD_S
    body_s: float = BODY_S
    idle_s: float = IDLE_S
    drain_s: float = DRAIN_S


class _Headers(server.HeaderReader):
    """cheroot folds lines, takes the last of two lengths, and passes control characters; here all that is refused."""

    def __call__(self, rfile: Any, hdict: dict[bytes, bytes] | None = None) -> dict[bytes, bytes]:
        headers: dict[bytes, bytes] = {} if hdict is None else hdict
        for count in range(MAX_HEADERS + 1):
            line = rfile.readline()
            if line == b"\r\n":
                break
            if count == MAX_HEADERS:
                raise ValueError("there are too many headers")
            name, value = _header(line)
            if name in headers:
                if name in _ONCE:
                    raise ValueError(f"the header {name.decode()} stands twice")
                value = headers[name] + b", " + value
            headers[name] = value
        length, coding = headers.get(b"Content-Length"), headers.get(b"Transfer-Encoding")
        if length is not None and (coding is not None or not _LENGTH.fullmatch(length)):
            raise ValueError("Content-Length is not one whole number alone")
        if coding is not None and coding.lower() != b"chunked":
            raise ValueError("the only transfer encoding is chunked")
        return headers


def _header(line: bytes) -> tuple[bytes, bytes]:
    name, colon, value = line[:-2].partition(b":")
    if not line.endswith(b"\r\n") or not colon or not _TOKEN.fullmatch(name) or _CONTROL.search(value):
        raise ValueError("a header line is malformed")
    return name.title(), value.strip(b" \t")


class _Chunks(server.ChunkedRFile):
    """cheroot reads a chunk's size line without a limit, takes 0x3 and -1, and stops at a body that ends too early."""

    chunks = 0

    def _fetch(self) -> None:
        if self.closed:
            return
        line = self.rfile.readline(MAX_CHUNK_LINE_BYTES)
        digits = line.partition(b";")[0].strip()
        if not line.endswith(b"\r\n") or not _HEX.fullmatch(digits):
            raise ValueError("the size of a chunk is malformed")
        size = int(digits, 16)
        if size == 0:
            if self.rfile.readline(MAX_CHUNK_LINE_BYTES) != b"\r\n":
                raise ValueError("trailers are not taken")
            self.closed = True
            return
        self.chunks += 1
        self.bytes_read += size
        if self.bytes_read > self.maxlen:
            raise too_large(self.maxlen)
        if self.chunks > FEW_CHUNKS and self.bytes_read < self.chunks * MIN_CHUNK_BYTES:
            raise ValueError("the chunks are too small")
        chunk = self.rfile.read(size)
        if len(chunk) != size or self.rfile.read(2) != b"\r\n":
            raise ValueError("a chunk is cut off")
        self.buffer += chunk


class _Request(server.HTTPRequest):
    """Errors that are found before the application runs are problem documents; the body has a deadline."""

    header_reader = _Headers()

    def __init__(self, http: Any, conn: Any, **options: Any) -> None:
        super().__init__(http, conn, **options)
        if http.tls is not None:
            self.scheme = b"https"

    def read_request_headers(self) -> bool:
        """Read the headers; False when the request was answered with an error."""
        if not super().read_request_headers():  # type: ignore[no-untyped-call]  # cheroot has half of its types
            return False
        if self.response_protocol != "HTTP/1.1" and b"Transfer-Encoding" in self.inheaders:
            self.simple_response("400 Bad Request", "HTTP/1.0 has no transfer encodings")
            return False
        length = int(self.inheaders.get(b"Content-Length", 0))
        self.conn.deadline = time.monotonic() + self.server.limits.body_s + length / BODY_RATE
        self.conn.wfile.flush()  # "100 Continue": the client waits for it before it sends the body
        return True

    def respond(self) -> None:
        """Let the application answer."""
        if not self.chunked_read:
            super().respond()
            return
        body = self.rfile = _Chunks(self.conn.rfile, self.server.max_request_body_size)
        try:
            self.server.gateway(self).respond()
            self.ensure_headers_sent()
            if self.chunked_write:
                self.conn.wfile.write(b"0\r\n\r\n")
        finally:
            if not body.closed:  # what is left of the body must not be taken for the next request
                self.close_connection = self.conn.is_unread = True

    def simple_response(self, status: str | int, msg: str = "") -> None:
        """Answer with an error and close the connection."""
        self.close_connection = True
        code, _, phrase = str(status).partition(" ")
        self.conn.is_unread = code != "408"
        with contextlib.suppress(OSError):
            self.conn.wfile.write(_error(int(code), msg or phrase, phrase))


def _error(status: int, detail: str, phrase: str) -> bytes:
    told = problem(status if status != 501 else 400, detail)
    headers = {**told.headers, "Content-Length": str(len(told.body)), "Connection": "close", "Server": Server.NAME}
    lines = [f"HTTP/1.1 {told.status} {phrase}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + told.body


class _Connection(server.HTTPConnection):
    """A connection whose requests have deadlines as a whole, not one for each packet."""

    RequestHandlerClass = _Request
    rbufsize = BUFFER_BYTES
    is_unread = False

    def __init__(self, http: "Server", sock: socket.socket, makefile: object = None) -> None:
        del makefile
        self.deadline = 0.0
        self.is_open = http.tls is None
        self._shaken_by = time.monotonic() + http.limits.head_s
        super().__init__(http, sock, self._file)

    def _file(self, sock: socket.socket, mode: str, _bufsize: int) -> Any:
        return Reader(Raw(sock, self), BUFFER_BYTES) if "r" in mode else Writer(sock)

    def communicate(self) -> bool:
        """Serve one request, or go on with the handshake of TLS; True to keep the connection."""
        if not self.is_open:
            return self._shake_hands()
        self.deadline = time.monotonic() + self.server.limits.head_s
        keep = bool(super().communicate())  # type: ignore[no-untyped-call]  # cheroot has half of its types
        try:
            self.wfile.flush()
            if self.is_unread:
                self._linger()
        except OSError:
            return False
        finally:
            self.server.served += 1
        return keep

    def _shake_hands(self) -> bool:
        """Do what can be done without waiting: meanwhile the connection is in the selector, not in a worker thread."""
        try:
            if not isinstance(self.socket, ssl.SSLSocket):
                self.socket = self.server.tls.wrap(self.socket)
                self.rfile, self.wfile = self._file(self.socket, "rb", 0), self._file(self.socket, "wb", 0)
            self.is_open = tls.shake_hands(self.socket)
        except tls.PlainHttp:
            with contextlib.suppress(OSError):
                tls.send_plain(self.socket, _error(400, "this server speaks HTTPS", "Bad Request"))
            return False
        except OSError:
            return False
        return self.is_open or time.monotonic() < self._shaken_by

    def close(self) -> None:
        """Close the connection."""
        if self.is_open:
            tls.say_goodbye(self.socket)
        with contextlib.suppress(OSError):  # a client may be gone while its socket is handed to TLS
            super().close()

    def _linger(self) -> None:
        """Let go of what the client still sends, until it has seen that nothing more is answered."""
        self.socket.shutdown(socket.SHUT_WR)
        end = time.monotonic() + LINGER_S
        while (left := end - time.monotonic()) > 0:
            self.socket.settimeout(left)
            if not self.socket.recv(BUFFER_BYTES):
                return


class Server(wsgi.Server):
    """Serves a socket that is bound already; a new connection waits in the selector, not in a worker thread."""

    NAME = "datacat"
    expiration_interval = 2.0
    """How often idle connections are looked at, s; a stop does not wait for it."""
    ConnectionClass = _Connection
    keep_alive_conn_limit = None  # type: ignore[assignment]  # cheroot documents None as no limit
    max_request_header_size = MAX_HEADER_BYTES
    max_request_body_size = MAX_REQUEST_BYTES

    def __init__(self, sock: socket.socket, app: Any, limits: Limits, secure: tls.Tls | None = None) -> None:
        super().__init__(
            sock.getsockname()[:2],
            app,
            numthreads=limits.threads,
            server_name=self.NAME,
            max=limits.threads,
            request_queue_size=listen.BACKLOG,
            timeout=limits.idle_s,  # type: ignore[arg-type]  # it is only compared with times
            accepted_queue_size=QUEUE_SIZE,
            accepted_queue_timeout=0,
        )
        self.software = self.NAME
        self.limits = limits
        self.tls = secure
        self.served = 0
        self._bound = sock
        self._draining = False
        self._served_at_probe = -1

    def prepare(self) -> None:
        """Start the worker threads; cheroot would bind here, when it is too late to say that the port is taken."""
        self._interrupt = None
        self.socket = self._bound
        self.socket.settimeout(1)
        self._connections = Connections(self)
        self.requests.start()
        self.ready = True
        self._start_time = time.time()

    @property
    def can_add_keepalive_connection(self) -> bool:
        """Whether connections outlive their request."""
        return bool(self.ready) and not self._draining

    def stop(self) -> None:
        """Answer what has come, tell clients to connect again, close the connections; the socket stays open."""
        if not self.ready:
            return
        self._draining = True
        self._connections.accept_no_more()
        deadline, pause = time.monotonic() + self.limits.drain_s, threading.Event()
        while (self._connections.count or self._is_busy) and time.monotonic() < deadline:
            pause.wait(0.01)
        # cheroot would connect to it, and that connection would wait for the next process.
        self.socket = None
        super().stop()

    @property
    def _is_busy(self) -> bool:
        """Whether a worker thread has a connection, which may come back with a next request."""
        pool = self.requests
        return bool(pool.qsize or pool.idle < self.limits.threads)

    def probe(self, timeout_s: float) -> None:
        """Let a worker thread answer a request.

        It comes through the real socket, or through a pair of sockets when this process cannot reach its own.
        Raises: OSError when nobody answers in time, RuntimeError when the pool does not work.
        """
        status = 0
        if listen.is_reachable(self._bound):
            status = self._ask(socket.create_connection(own_address(self._bound), timeout_s), timeout_s)
        if status in (0, 503):
            # 503: there are too many connections or requests, and the thread that accepts has said so.
            mine, theirs = socket.socketpair()
            conn = _Connection(self, theirs)
            conn.remote_addr, conn.remote_port = "127.0.0.1", 0
            self.put_conn(conn)
            status = self._ask(mine, timeout_s)
        if status != 200 and self.served == self._served_at_probe:
            raise RuntimeError(f"the worker threads answer no requests (status {status})")
        self._served_at_probe = self.served

    def _ask(self, sock: socket.socket, timeout_s: float) -> int:
        return ask(sock, timeout_s, secure=self.tls is not None)

    def process_conn(self, conn: Any) -> None:
        """Give a connection to a worker thread, a new one to the selector, or say 503."""
        if isinstance(conn, Waker):
            return
        if conn.last_used is None:
            if self._connections.count >= self.limits.max_connections:
                self._refuse(conn, "there are too many connections")
            else:
                self.put_conn(conn)
            return
        try:
            self.requests.put(conn)
        except queue.Full:
            self._refuse(conn, "there are too many requests")

    def error_log(self, msg: str = "", level: int = logging.INFO, traceback: bool = False) -> None:
        """Pass cheroot's messages on."""
        _log.log(level, "%s", msg, exc_info=traceback)

    def _refuse(self, conn: Any, why: str) -> None:
        with contextlib.suppress(OSError):
            if not conn.is_open:
                raise BrokenPipeError  # an answer without TLS would say nothing to the client
            conn.socket.settimeout(0)  # this is the thread that accepts: it must not wait
            conn.socket.send(_error(503, why, "Service Unavailable"))
        with contextlib.suppress(OSError):
            conn.close()
