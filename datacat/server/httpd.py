"""cheroot's HTTP server with its known weaknesses closed; transport.py and exchange.py say which.

Measured against cheroot 11.1.2: silent connections block all of its worker threads, a timeout per recv lets a slow
client hold a thread for ever, and only ten connections are kept alive.
"""

import contextlib
import logging
import queue
import re
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from cheroot import wsgi

from datacat.server import listen, tls
from datacat.server.batch_loop import BatchLoop
from datacat.server.batch_request import MAX_HEADER_BYTES
from datacat.server.bodies import MAX_REQUEST_BYTES
from datacat.server.connections import Connections
from datacat.server.exchange import NAME, error_answer
from datacat.server.lanes import Lanes
from datacat.server.probe import ask, own_address
from datacat.server.transport import Connection

_log = logging.getLogger(__name__)

HEAD_S = 10.0
"""A request's line and headers must have come in this time, however they are cut into packets."""
BODY_S = 20.0
"""So much for the body, and a second more for every traffic.RATE bytes of it."""
IDLE_S = 75.0
"""A connection without a request is closed after this; daemons write every 5 s."""
DRAIN_S = 0.5
"""At a stop, so long every answer says that its connection ends; then the idle ones are closed."""
QUEUE_SIZE = 128
"""Requests of one lane that wait for a thread; more are told 503."""
BUFFER_BYTES = 32 * 1024 * 1024
"""So much all connections hold together of requests that have not come whole and are not small."""
_FIRST = re.compile(
    rb"(?:GET|HEAD) (?![^ ]*=all)(?!/api/(?:grafana|data)/sessions)"
    rb"|POST [^ ]*[?&]from=0[& ]|[^\0]*\r\ndatacat-priority: *first *\r\n",
    re.IGNORECASE,
)
"""How requests of the first lane begin: reads (not of whole sessions), what opens a stream, what is said urgent."""


class Limits(NamedTuple):
    """What one server allows."""

    threads: int = 10
    max_connections: int = 800
    head_s: float = HEAD_S
    body_s: float = BODY_S
    idle_s: float = IDLE_S
    drain_s: float = DRAIN_S
    buffer_bytes: int = BUFFER_BYTES


class Server(wsgi.Server):
    """Serves a socket that is bound already; a new connection waits in the selector, not in a worker thread.

    batch_loop makes what serves the connections that send batches; without it they are requests as all others. refused
    is told status and address of each request that is answered before it gets to an application. is_behind says whether
    batches are to be refused rather than to wait.
    """

    expiration_interval = 2.0
    """How often idle connections are looked at, s; a stop does not wait for it."""
    ConnectionClass = Connection
    keep_alive_conn_limit = None  # type: ignore[assignment]  # cheroot documents None as no limit
    max_request_header_size = MAX_HEADER_BYTES
    max_request_body_size = MAX_REQUEST_BYTES

    def __init__(
        self,
        sock: socket.socket,
        app: Any,
        limits: Limits,
        secure: tls.Tls | None = None,
        batch_loop: Callable[["Server"], BatchLoop] | None = None,
        refused: Callable[[int, str], None] | None = None,
        is_behind: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__(
            sock.getsockname()[:2],
            app,
            numthreads=limits.threads,
            server_name=NAME,
            max=limits.threads,
            request_queue_size=listen.BACKLOG,
            timeout=limits.idle_s,  # type: ignore[arg-type]  # it is only compared with times
            accepted_queue_size=QUEUE_SIZE,
            accepted_queue_timeout=0,
        )
        self.software = NAME
        self.limits = limits
        self.tls = secure
        self._batch_loop = batch_loop(self) if batch_loop else None
        self.served = 0
        self.open = 0
        self.slow = threading.BoundedSemaphore(max(1, limits.threads // 2))
        self._refused = refused
        self._is_behind = is_behind
        self._held = 0
        self._holding = threading.Lock()
        self._bound = sock
        self._draining = False
        self._served_at_probe = -1
        pool: Any = self.requests
        self.lanes = pool._queue = Lanes(QUEUE_SIZE, limits.threads)  # noqa: SLF001  cheroot has one lane
        pool.get = self.lanes.get

    def hold(self, more_bytes: int) -> bool:
        """Count what unfinished requests hold in memory; False, and nothing is counted, when it is too much."""
        with self._holding:
            if more_bytes > 0 and self._held + more_bytes > self.limits.buffer_bytes:
                return False
            self._held += more_bytes
            return True

    def count(self, step: int) -> None:
        """Count a connection that has come (1) or gone (-1)."""
        with self._holding:
            self.open += step

    def note_refusal(self, status: int, address: str | None) -> None:
        """Tell of a request that was answered before it got to an application."""
        if self._refused is not None:
            self._refused(status, address or "")

    def prepare(self) -> None:
        """Start the worker threads; cheroot would bind here, when it is too late to say that the port is taken."""
        self._interrupt = None
        self.socket = self._bound
        self.socket.settimeout(1)
        self._connections = Connections(self)
        self.requests.start()
        if self._batch_loop is not None:
            self._batch_loop.start()
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
        while self.open and time.monotonic() < deadline:
            pause.wait(0.01)
        if self._batch_loop is not None:
            self._batch_loop.stop()
        # cheroot would connect to it, and that connection would wait for the next process.
        self.socket = None
        super().stop()

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
            conn = Connection(self, theirs)
            conn.remote_addr, conn.remote_port = "127.0.0.1", 0
            self.put_conn(conn)
            status = self._ask(mine, timeout_s)
        if status != 200 and self.served == self._served_at_probe:
            raise RuntimeError(f"the worker threads answer no requests (status {status})")
        if self._batch_loop is not None and not self._batch_loop.alive:
            raise RuntimeError("the thread that takes batches has ended")
        self._served_at_probe = self.served

    def _ask(self, sock: socket.socket, timeout_s: float) -> int:
        return ask(sock, timeout_s, secure=self.tls is not None)

    def process_conn(self, conn: Any) -> None:
        """Give a connection to the batch loop or a worker thread, a new one to the selector, or say 503."""
        if conn.last_used is None:
            if self.open > self.limits.max_connections and not self._connections.make_room():
                self._refuse(conn, "there are too many connections")
            else:
                self.put_conn(conn)
            return
        if self._batch_loop is None or not conn.starts_with_batch() or not self._batch_loop.take(conn):
            self.serve_by_worker(conn)

    def serve_by_worker(self, conn: Any) -> None:
        """Give a connection to a worker thread, or say 503."""
        begins = conn.peek()
        # What cannot be seen is no batch of a daemon's backlog; who sends a request in parts passes nobody.
        conn.is_first = not begins or bool(_FIRST.match(begins))
        if not conn.is_first and self.lanes.is_full and self._is_behind():
            self._refuse(conn, "the store is behind")
            return
        try:
            self.requests.put(conn)
        except queue.Full:
            self._refuse(conn, "there are too many requests")

    def relieve(self) -> None:
        """Refuse the batches that wait for a thread while those before them wait for the store."""
        if self.lanes.is_full and self.lanes.waiting and self._is_behind():
            for conn in self.lanes.give_back():
                self._refuse(conn, "the store is behind")

    def error_log(self, msg: str = "", level: int = logging.INFO, traceback: bool = False) -> None:
        """Pass cheroot's messages on."""
        _log.log(level, "%s", msg, exc_info=traceback)

    def _refuse(self, conn: Any, why: str) -> None:
        with contextlib.suppress(OSError):
            if not conn.is_open:
                raise BrokenPipeError  # an answer without TLS would say nothing to the client
            conn.socket.settimeout(0)  # this is the thread that accepts: it must not wait
            conn.socket.send(error_answer(503, why, "Service Unavailable"))
        with contextlib.suppress(OSError):
            conn.close()
        self.note_refusal(503, conn.remote_addr)
