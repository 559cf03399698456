"""Simple mode: straight to the server, through a bounded queue and one owned thread. It has no witness of the end.

It speaks the batches protocol like a daemon, with a stream of its own whose offsets count the bytes of its lines, so a
batch that is sent again is stored once. A batch in flight stays what it is until the server has answered: only a
definite no lets it go, and what is let go is counted.
"""

import gzip
import os
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from datacat import host
from datacat.client import live
from datacat.client.ports import Drops, Slots
from datacat.client.session import Session
from datacat.errors import WireError
from datacat.wire import ids, layout, lines, routes, state
from datacat.wire.records import Beat, Dropped, Gap, Open, StatePatch
from datacat.worker import Worker

QUEUE_BYTES = 8 * 1024 * 1024
"""What the app may log while the server is away; beyond it the newest records are dropped and counted."""
BATCH_BYTES = 1024 * 1024
INTERVAL_S = 1.0
DRAIN_S = 5.0
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
_COMPRESS_ABOVE = 1024
_AGAIN = frozenset({401, 403, 407, 408, 425, 429})
"""A no that may change: a key that is set right, a server that is less busy."""

TIMEOUT_S = 10.0
_LOOPBACK = ("localhost", "127.", "[::1]")


class Answer(NamedTuple):
    """Status (0: none came), the JSON object of the body, and how long the server asks to wait."""

    status: int
    body: dict[str, Any]
    retry_after_s: float | None = None


Ask = Callable[[str, str, bytes, dict[str, str]], Answer]
"""(method, path, body, headers) -> Answer"""


class Batch(NamedTuple):
    """Lines from an offset of the stream; taken_bytes of them came from the queue."""

    stream: str
    start: int
    body: bytes
    taken_bytes: int
    taken_records: int

    @property
    def end(self) -> int:
        """The offset behind it."""
        return self.start + len(self.body)


def session(meta: layout.Meta, first: Open, drops: Drops) -> Session:
    """Return a session in simple mode; its thread runs from now on."""
    server = Http(meta.server_url, meta.settings)
    direct = Direct(meta, first, drops, server.ask, settled=server.close)
    made = Session(meta, direct, direct, drops)
    made._put(first)  # noqa: SLF001  the first record of the stream
    live.at_exit(direct.drain)
    live.at_exit(server.close)
    direct.start()
    return made


class Direct:
    """Sink and carrier of simple mode. The queue is shared under one lock; everything else belongs to the thread."""

    def __init__(
        self,
        meta: layout.Meta,
        first: Open,
        drops: Drops,
        ask: Ask,
        *,
        clock_ns: Callable[[], int] = host.awake_ns,
        queue_bytes: int = QUEUE_BYTES,
        settled: Callable[[], None] = lambda: None,
    ) -> None:
        self.slots: Slots = [0, 0]
        self._meta = meta
        self._open = first
        self._drops = drops
        self._ask = ask
        self._clock_ns = clock_ns
        self._queue_bytes = queue_bytes
        self._settled = settled
        self._lock = threading.RLock()  # a signal handler may log while a call holds it
        self._queue: deque[bytes] = deque()
        self._taken_bytes = 0
        self._done_bytes = 0
        self._closed = ""
        self._idle = threading.Event()
        # The thread's own:
        self._stream = meta.stream
        self._offset = 0
        self._tail = b""
        self._state: dict[str, Any] = {**(first.state or {})}
        self._in_flight: Batch | None = None
        self._beat_told = 0
        self._drops_told: dict[str, int] = {}
        self._drops_in_flight: dict[str, int] = {}
        self._drops_refused: dict[str, int] = {}
        self._failures = 0
        self._not_before_ns = 0
        self._worker: Worker | None = Worker("direct", INTERVAL_S, self.ship)

    def start(self) -> None:
        """Start the thread."""
        if self._worker is not None:
            self._worker.start()

    # --- from the app's threads ------------------------------------------------------------------------------------

    def write(self, line: bytes) -> None:
        """Queue a line, or drop and count it when the queue is full or closed."""
        self.append(line)

    def append(self, line: bytes) -> bool:
        """Queue a line; False when it was dropped."""
        with self._lock:
            if not self._closed and self._taken_bytes - self._done_bytes + len(line) <= self._queue_bytes:
                self._queue.append(line)
                self._taken_bytes += len(line)
                self._idle.clear()
                return True
            reason = self._closed or "queue_full"
        self._drops.count(reason)
        return False

    def offset(self) -> int:
        """Return how many bytes were queued so far."""
        with self._lock:
            return self._taken_bytes

    def acked(self) -> int:
        """Return how many of the queued bytes are settled: stored, or refused and counted."""
        with self._lock:
            return self._done_bytes

    def close(self, reason: str = "ended") -> None:
        """Queue nothing more; what is queued is still sent."""
        with self._lock:
            self._closed = reason

    def wake(self) -> None:
        """Send now."""
        if self._worker is not None:
            self._worker.poke()

    def look(self) -> None:
        """Do nothing: the thread is there."""

    def watch(self, timeout_s: float, flags: int) -> None:
        """Do nothing: the server judges by its own timeout once a heartbeat has come."""

    def note_drops(self, totals: dict[str, int]) -> None:
        """Do nothing: the thread tells them with the next batch."""

    def details(self) -> dict[str, Any] | None:
        """Ask the server for the session object."""
        answer = self._ask("GET", routes.session_path(self._meta.id), b"", {})
        return answer.body if answer.status == 200 else None

    def drain(self) -> None:
        """Wait at the end of the interpreter until everything is sent, for at most DRAIN_S; then end the thread."""
        worker, self._worker = self._worker, None
        if worker is None:
            return
        if worker.alive:
            self._not_before_ns = 0
            worker.poke()
            self._idle.wait(DRAIN_S)
        worker.stop(timeout_s=0.1)

    def forget(self) -> None:
        """Send nothing from a forked child."""
        self._lock = threading.RLock()
        self._idle = threading.Event()
        self._queue = deque()
        self._closed = "forked"
        self._worker = None
        self._ask = _nobody  # the parent's thread may hold the lock of the connection for ever
        self.slots = [0, 0]

    # --- in the thread ---------------------------------------------------------------------------------------------

    def ship(self) -> bool:
        """Send one batch; True when there is more to send now."""
        if self._clock_ns() < self._not_before_ns:
            return False
        batch = self._in_flight or self._cut()
        if batch is None:
            return self._rest()
        self._in_flight = batch
        answer = self._send(batch)
        if not _is_definite(answer, batch):
            self._pause(answer.retry_after_s)
            return False
        self._failures = 0
        self._settle(batch, answer)
        return True

    def _rest(self) -> bool:
        """Say that everything is sent; True when it is not. The thread of a session that is over ends with that."""
        with self._lock:
            if self._queue:
                return True
            self._idle.set()
            over = bool(self._closed)
        if over:
            live.not_at_exit(self.drain)
            self._settled()
            if (worker := self._worker) is not None:
                worker.finish()
        return False

    def _cut(self) -> Batch | None:
        """Return the next batch: queued lines, and what is to be told of heartbeats and drops; None when nothing is."""
        with self._lock:
            taken: list[bytes] = []
            size = 0
            while self._queue and size + len(self._queue[0]) <= BATCH_BYTES:
                taken.append(self._queue.popleft())
                size += len(taken[-1])
        own = []
        beat_us = self.slots[1]
        if beat_us != self._beat_told:
            self._beat_told = beat_us
            own.append(lines.encode(Beat(beat_us)))
        totals = self._drops_in_flight = self._drops.totals()
        if totals != self._drops_told and (taken or totals != self._drops_refused):
            rise = {reason: count - self._drops_told.get(reason, 0) for reason, count in totals.items()}
            rise = {reason: count for reason, count in rise.items() if count}
            own.append(lines.encode(Dropped(time.time_ns() // 1000, rise)))
        if not taken and not own:
            return None
        return Batch(self._stream, self._offset, b"".join([*taken, *own]), size, len(taken))

    def _send(self, batch: Batch) -> Answer:
        crc = layout.tail_crc(self._tail)
        end_crc = layout.tail_crc(self._tail + batch.body)
        headers = {"Content-Type": routes.NDJSON}
        body = batch.body
        if len(body) > _COMPRESS_ABOVE:
            body = gzip.compress(body, 1)
            headers["Content-Encoding"] = "gzip"
        path = routes.batches_path(self._meta.id, batch.stream, batch.start, batch.end, crc, end_crc)
        return self._ask("POST", path, body, headers)

    def _settle(self, batch: Batch, answer: Answer) -> None:
        """Draw the consequence of a definite answer."""
        acked = answer.body.get("acked")
        if answer.status == 200 or (answer.status == 409 and acked == batch.end):
            self._drops_told = self._drops_in_flight
            self._offset = batch.end
            self._tail = (self._tail + batch.body)[-layout.TAIL_BYTES :]
            self._remember_state(batch.body)
            self._done(batch)
        elif answer.status == 410:
            self._drops.count("deleted", batch.taken_records)
            self._drops_refused = self._drops.totals()
            self._done(batch)
            self.close("deleted")
        elif answer.status in (404, 409) and not batch.body.startswith(b'{"k":"gap"'):
            self._begin_anew(batch)
        else:
            if batch.taken_records:
                self._drops.count("refused", batch.taken_records)
            else:  # it only told what was dropped: that goes with the next records
                self._drops_refused = self._drops_in_flight
            self._done(batch)

    def _begin_anew(self, batch: Batch) -> None:
        """Send the batch in a new stream, after a gap record that tells who this is and what the state was."""
        self._stream = os.urandom(ids.STREAM_ID_BYTES).hex()
        self._offset = 0
        self._tail = b""
        opened: dict[str, Any] = msgspec.to_builtins(self._open)
        gap = lines.encode(Gap(time.time_ns() // 1000, "server_lost", 0, opened, self._state))
        self._in_flight = batch._replace(stream=self._stream, start=0, body=gap + batch.body)

    def _done(self, batch: Batch) -> None:
        self._in_flight = None
        with self._lock:
            self._done_bytes += batch.taken_bytes

    def _remember_state(self, body: bytes) -> None:
        for raw in body.splitlines():
            if raw.startswith(b'{"k":"state"'):
                try:
                    record = lines.decode(raw)
                except WireError:
                    continue
                if isinstance(record, StatePatch):
                    self._state = state.merge(self._state, record.patch)

    def _pause(self, retry_after_s: float | None) -> None:
        self._failures += 1
        pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(self._failures - 1, 10)) * random.uniform(0.75, 1.25)
        self._not_before_ns = self._clock_ns() + int(max(pause_s, retry_after_s or 0.0) * 1e9)


class Http:
    """The server over HTTP, with requests, which is imported with the first question. One thread at a time asks.

    settings are api_key and tls_verify. Proxies of the environment are not used for a server on this machine.
    """

    def __init__(self, server_url: str, settings: dict[str, Any]) -> None:
        self._server_url = server_url
        self._settings = settings
        self._lock = threading.Lock()
        self._session: Any = None

    def ask(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> Answer:
        """Return the answer; never raises."""
        import requests

        try:
            with self._lock:
                if self._session is None:
                    self._session = requests.Session()
                    self._session.trust_env = not is_loopback(self._server_url)
                    self._session.verify = self._settings.get("tls_verify", True)
                    if key := self._settings.get("api_key"):
                        self._session.headers["Authorization"] = f"Bearer {key}"
                response = self._session.request(
                    method,
                    self._server_url + path,
                    data=body,
                    headers=headers,
                    timeout=TIMEOUT_S,
                    allow_redirects=False,  # a POST that is sent elsewhere arrives as a GET
                )
                retry_after_s = _seconds(response.headers.get("Retry-After"))
                return Answer(response.status_code, _object(response.content), retry_after_s)
        except (requests.RequestException, ValueError):
            return Answer(0, {})

    def close(self) -> None:
        """Close the connection while the interpreter is whole: finalizers at its end complain on standard error."""
        if self._lock.acquire(timeout=0.1):
            session, self._session = self._session, None
            if session is not None:
                session.close()
            self._lock.release()


def _nobody(_method: str, _path: str, _body: bytes, _headers: dict[str, str]) -> Answer:
    return Answer(0, {})


def _is_definite(answer: Answer, batch: Batch) -> bool:
    """Return whether an answer settles a batch: a yes that names its end, or a no. A login page says neither."""
    acked = answer.body.get("acked")
    if answer.status == 200:
        return type(acked) is int and acked >= batch.end
    if answer.status == 409:
        return type(acked) is int
    return 400 <= answer.status < 500 and answer.status not in _AGAIN


def is_loopback(url: str) -> bool:
    """Return whether the URL names this machine by a loopback name or address."""
    return url.partition("://")[2].lower().startswith(_LOOPBACK)


def _object(body: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except msgspec.DecodeError:
        return {}


def _seconds(text: str | None) -> float | None:
    """Return Retry-After in seconds; the form with a date is not used by our server."""
    try:
        return None if text is None else max(0.0, float(text))
    except ValueError:
        return None
