"""The local HTTP endpoints, on 127.0.0.1 only: for programs in every language that have no journal of their own.

No browser is served: a request with an Origin, or for a Host that is not this machine, is refused, so that no web page
can reach it. A few threads accept, one connection each; what they are asked is done by the main thread, except what
asks the server, which they do themselves.
"""

import errno
import gzip
import io
import logging
import queue
import selectors
import socket
import time
import zlib
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import SplitResult, parse_qs, urlsplit

import msgspec

from datacat import host
from datacat.daemon.config import AUTO_PORT
from datacat.daemon.desk import Answer, Ask
from datacat.errors import Busy, Deleted, HostError, JournalError, NotFound, WireError
from datacat.wire import routes
from datacat.wire.records import MAX_BATCH_BYTES
from datacat.worker import Pump

_log = logging.getLogger(__name__)

HOST = "127.0.0.1"
THREADS = 6
"""Each may wait for the server up to some seconds; one is enough for everything else."""
FILES = 64
"""Open files that endpoints and their requests may take; a daemon that has fewer needs them for its sessions."""
REQUEST_TIMEOUT_S = 5.0
"""For the whole of a request, and again for the answer."""
ANSWER_TIMEOUT_S = 70.0
MAX_BODY_BYTES = MAX_BATCH_BYTES
PORTS_TRIED = 100
COMPRESS_FROM_BYTES = 1024
_SERVER_PORT = urlsplit(routes.SERVER_URL).port
_OWN_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})

POSTS = (
    "register", "state", "event", "metric", "heartbeat", "pause_heartbeat", "resume_heartbeat", "end",
)  # fmt: skip
GETS = ("health", "session", "sessions")

Read = Callable[[str, dict[str, str]], dict[str, Any]]
"""Answer session or sessions; runs in a thread of the intake. Raises: DatacatError."""


class Intake:
    """Listen on one port. submit gives an ask to the main thread; read answers what needs the server."""

    def __init__(self, port: int, submit: Callable[[Ask], None], read: Read) -> None:
        """Bind and listen. port may be AUTO_PORT. Raises: HostError when the port is taken, or files are scarce."""
        if host.allow_files(0) < FILES:
            raise HostError(f"fewer than {FILES} open files are allowed", hint="raise the limit: ulimit -n")
        self.submit = submit
        self.read = read
        self._listener = listen(port)
        self.port = int(self._listener.getsockname()[1])
        self._stop_reader, self._stop_writer = socket.socketpair()
        self._pumps = [Pump(f"intake-{number}", self._accept, self._end) for number in range(THREADS)]

    def start(self) -> None:
        """Start the threads."""
        for pump in self._pumps:
            pump.start()

    def stop(self) -> None:
        """Stop listening and join the threads; requests in work are finished. Idempotent."""
        self._end()
        for pump in self._pumps:
            pump.stop(1.0)
        self._listener.close()
        if not any(pump.alive for pump in self._pumps):
            self._stop_reader.close()
        self._stop_writer.close()

    def ask(self, name: str, members: dict[str, Any]) -> dict[str, Any]:
        """Let the main thread answer. Raises: DatacatError, HostError when it does not in time."""
        reply: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        self.submit(Ask(name, members, reply))
        try:
            answer = reply.get(timeout=ANSWER_TIMEOUT_S)
        except queue.Empty:
            raise HostError("the daemon is ending", hint="try again") from None
        if isinstance(answer, dict):
            return answer
        raise answer

    def _end(self) -> None:
        # Readable for every thread, for good: nobody reads it.
        try:
            self._stop_writer.send(b"s")
        except OSError:
            return

    def _accept(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._stop_reader, selectors.EVENT_READ)
            while all(key.fileobj is self._listener for key, _ in selector.select()):
                try:
                    connection, address = self._listener.accept()
                except OSError:  # another thread was faster, or the caller has gone
                    continue
                with connection:
                    connection.settimeout(REQUEST_TIMEOUT_S)
                    self._serve(connection, address)

    def _serve(self, connection: socket.socket, address: object) -> None:
        try:
            _Handler(connection, address, self)  # type: ignore[arg-type]  # it only passes its server through
        except (OSError, ValueError) as error:
            _log.debug("a request was not finished: %s", error)


def listen(port: int) -> socket.socket:
    """Return a listening socket; AUTO_PORT takes DAEMON_PORT or the next free one. Raises: HostError."""
    if port != AUTO_PORT:
        return _bind(port)
    for candidate in range(routes.DAEMON_PORT, routes.DAEMON_PORT + PORTS_TRIED):
        if candidate == _SERVER_PORT:  # the server of this machine may start later
            continue
        try:
            return _bind(candidate)
        except HostError:
            continue
    return _bind(0)


def _bind(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        if hasattr(socket, "SO_EXCLUSIVEADDRUSE"):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:  # only lets us take a port whose last connections are still closing
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        listener.listen(128)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        taken = error.errno == errno.EADDRINUSE
        raise HostError(
            f"cannot listen on {HOST}:{port}: {error.strerror}", hint="use another --daemon-port" if taken else ""
        ) from error
    return listener


class _Problem(Exception):
    def __init__(self, status: int, detail: str, *, pointer: str = "", headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.pointer = pointer
        self.headers = headers or {}


class _Handler(BaseHTTPRequestHandler):
    """One connection with one request. A connection that stays open would keep one of the few threads."""

    server_version = "datacat-daemon"
    sys_version = ""
    protocol_version = "HTTP/1.1"
    server: Any

    def setup(self) -> None:
        """Read the whole request against one deadline: a client that drips must not keep one of the few threads."""
        super().setup()
        self.rfile = io.BufferedReader(_Until(self.connection, time.monotonic() + REQUEST_TIMEOUT_S))

    def handle(self) -> None:
        self.close_connection = True
        self.handle_one_request()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the name is given
        _log.debug(format, *args)

    def __getattr__(self, name: str) -> Any:
        """Take every method: the base class looks for do_<METHOD>."""
        if name.startswith("do_"):
            return self._run
        raise AttributeError(name)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer what the base class refuses (a malformed request line, headers that are too long) as a problem."""
        del explain
        self.close_connection = True
        self._problem(_Problem(code, message or HTTPStatus(code).phrase))

    def _run(self) -> None:
        try:
            self._refuse_browsers()
            url = _split(self.path)
            name = url.path.strip("/")
            answer = self._dispatch(name, {k: v[-1] for k, v in parse_qs(url.query).items()})
        except _Problem as problem:
            self._problem(problem)
        except WireError as error:
            self._problem(_Problem(422, str(error), pointer=error.pointer))
        except (NotFound, Deleted) as error:
            self._problem(_Problem(404 if isinstance(error, NotFound) else 410, str(error), pointer="/session_id"))
        except Busy as error:
            self._problem(_Problem(409, str(error), pointer="/id"))
        except JournalError as error:
            self._problem(_Problem(507, str(error)))
        except HostError as error:
            self._problem(_Problem(503, str(error), headers={"Retry-After": "1"}))
        else:
            self._send(200, answer, routes.JSON, {})

    def _refuse_browsers(self) -> None:
        if "Origin" in self.headers or self.headers.get("Sec-Fetch-Site", "none") != "none":
            raise _Problem(403, "this is no place for a browser")
        name = (self.headers.get("Host") or "").strip().lower()
        port = name.rpartition(":")[2]
        if (name.removesuffix(f":{port}") if port.isdigit() else name) not in _OWN_NAMES:
            raise _Problem(403, "the Host of this request is not this machine")

    def _dispatch(self, name: str, query: dict[str, str]) -> dict[str, Any]:
        allowed = "POST" if name in POSTS else "GET, HEAD" if name in GETS else ""
        if not allowed:
            raise _Problem(404, f"there is no /{name}")
        if self.command not in allowed.split(", "):
            raise _Problem(405, f"/{name} takes {allowed}", headers={"Allow": allowed})
        if name in POSTS:
            answer: dict[str, Any] = self.server.ask(name, self._body())
        elif name == "health":
            answer = self.server.ask(name, {})
        else:
            answer = self.server.read(name, query)
        return answer

    def _body(self) -> dict[str, Any]:
        kind = self.headers.get("Content-Type", routes.JSON).partition(";")[0].strip().lower()
        if kind != routes.JSON and not kind.endswith("+json"):
            raise _Problem(415, f"send {routes.JSON}")
        if "Transfer-Encoding" in self.headers:
            raise _Problem(411, "send a Content-Length")
        length = self.headers.get("Content-Length", "0").strip()
        if not (length.isascii() and length.isdigit()):
            raise _Problem(400, "Content-Length is no number")
        if int(length) > MAX_BODY_BYTES:
            raise _Problem(413, f"larger than {MAX_BODY_BYTES} bytes")
        try:
            body = self.rfile.read(int(length))
        except TimeoutError:
            raise _Problem(408, "the body did not come in time") from None
        if len(body) < int(length):
            raise _Problem(400, "the body is shorter than its Content-Length")
        body = _unpacked(body, self.headers.get("Content-Encoding", ""))
        try:
            document = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise _Problem(400, f"not JSON: {error}") from None
        if not isinstance(document, dict):
            raise _Problem(422, "not a JSON object")
        return document

    def _problem(self, problem: _Problem) -> None:
        try:
            title = HTTPStatus(problem.status).phrase
        except ValueError:
            title = "Error"
        document: dict[str, Any] = {
            "type": "about:blank",
            "title": title,
            "status": problem.status,
            "detail": problem.detail,
        }
        if problem.pointer:
            document["errors"] = [{"pointer": problem.pointer, "detail": problem.detail}]
        self._send(problem.status, document, routes.PROBLEM, problem.headers)

    def _send(self, status: int, document: dict[str, Any], kind: str, headers: dict[str, str]) -> None:
        self.connection.settimeout(REQUEST_TIMEOUT_S)
        body = msgspec.json.encode(document)
        given = getattr(self, "headers", None)
        if len(body) >= COMPRESS_FROM_BYTES and given and "gzip" in given.get("Accept-Encoding", "").lower():
            body = gzip.compress(body, 5, mtime=0)
            headers = {**headers, "Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if getattr(self, "command", "") != "HEAD":
            self.wfile.write(body)


class _Until(io.RawIOBase):
    """What a connection receives until a monotonic time; reading later raises TimeoutError."""

    def __init__(self, connection: socket.socket, until_s: float) -> None:
        self._connection = connection
        self._until_s = until_s

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left_s = self._until_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        self._connection.settimeout(left_s)
        return self._connection.recv_into(buffer)


def _split(target: str) -> SplitResult:
    try:
        return urlsplit(target)
    except ValueError as error:
        raise _Problem(400, f"not a path: {error}") from None


def _unpacked(body: bytes, encoding: str) -> bytes:
    """Return a body without its compression, never more than MAX_BODY_BYTES of it."""
    encoding = encoding.strip().lower()
    try:
        if encoding in ("", "identity"):
            return body
        if encoding == "gzip":
            unpacker = zlib.decompressobj(16 + zlib.MAX_WBITS)
            body = unpacker.decompress(body, MAX_BODY_BYTES + 1)
        elif encoding == "zstd":
            import zstandard

            try:
                body = zstandard.ZstdDecompressor().stream_reader(body).read(MAX_BODY_BYTES + 1)
            except zstandard.ZstdError as error:
                raise _Problem(400, "the body is no zstd") from error
        else:
            raise _Problem(415, "use gzip, zstd or no Content-Encoding", headers={"Accept-Encoding": "gzip, zstd"})
    except zlib.error as error:
        raise _Problem(400, "the body is no gzip") from error
    if len(body) > MAX_BODY_BYTES:
        raise _Problem(413, f"larger than {MAX_BODY_BYTES} bytes when unpacked")
    return body
