"""The batch loop: one thread that takes the batches of all connections, and one that waits for the disk.

A thread for each batch costs as much again as the batch: eight that share one interpreter changed twelve times for each
batch of 100 events. Here it is two changes for each group of batches that one fsync makes durable.
"""

import logging
import queue
import selectors
import threading
import time
from collections import deque
from http import HTTPStatus
from typing import Any

from datacat.errors import StoreError
from datacat.server.batches import Batches, Begun
from datacat.server.connections import Waker
from datacat.store import Store
from datacat.store.rounds import Round
from datacat.worker import Pump

_log = logging.getLogger(__name__)

SCAN_S = 0.25
"""How often connections are looked at that have sent nothing, or a part of a request."""
STAY_S = 0.5
"""A connection that has sent nothing for so long waits elsewhere for its next batch: a backlog comes without pauses."""
MOST_HELD = 32
GATHER_S = 0.01
"""A round begins when nobody else has sent something: the more are in it, the fewer there are. Measured with eight
connections: a sixth more than when it begins at once. With so many batches, or after so long, it begins in any case."""
STUCK_S = 0.5
"""When one batch takes the loop so long, the disk stands still below a write; others find another way."""


class BatchLoop:
    """Serves connections that send batches. take() and is_stuck() may be called by any thread; the rest is its own.

    A connection belongs to the loop from take() until it is given back: to the selector when it is silent, to the
    worker threads with a request that is no batch, or one that could keep the others waiting.
    """

    def __init__(self, server: Any, batches: Batches, store: Store) -> None:
        self._server = server
        self._batches = batches
        self._store = store
        self._selector = selectors.DefaultSelector()
        self._waker = Waker()
        self._selector.register(self._waker.socket, selectors.EVENT_READ, self._waker)
        self._come: deque[Any] = deque()
        self._last_s: dict[Any, float] = {}
        """All connections that are here, with when each sent something."""
        self._watched: set[Any] = set()
        self._held: dict[Any, Begun] = {}
        """What waits for a round, by connection."""
        self._syncing: dict[Any, Begun] = {}
        """What waits for the round that is under way."""
        self._round: Round | None = None
        self._held_since = 0.0
        self._is_synced = False
        self._may_begin = True
        self._busy_since = 0.0
        self._stopping = threading.Event()
        self._rounds: queue.SimpleQueue[Round | None] = queue.SimpleQueue()
        self._loop = Pump("batches", self._run, self._stop)
        self._sync = Pump("batches-sync", self._sync_rounds, lambda: self._rounds.put(None))

    @property
    def alive(self) -> bool:
        """Whether its threads run."""
        return self._loop.alive and self._sync.alive

    def start(self) -> None:
        """Start the threads."""
        self._sync.start()
        self._loop.start()

    def stop(self) -> None:
        """Answer what is held, give all connections back, and end the threads."""
        if self._loop.stop() and self._sync.stop():
            self._selector.close()
            self._waker.close()
        while self._come:  # they came when the thread had just ended
            self._server.put_conn(self._come.popleft())

    def take(self, conn: Any) -> bool:
        """Serve a connection from now on; False when that cannot be, and it is the caller's."""
        if self._stopping.is_set() or not self._loop.alive or self.is_stuck():
            return False
        self._come.append(conn)
        self._waker.wake()
        return True

    def is_stuck(self) -> bool:
        """Return whether it has not come back from one batch for long."""
        since = self._busy_since
        return since > 0 and time.monotonic() - since > STUCK_S

    # --- the thread that waits for the disk

    def _sync_rounds(self) -> None:
        while (began := self._rounds.get()) is not None:
            try:
                began.sync()
            finally:  # also when this thread ends by an error: nobody must wait for ever
                self._is_synced = True
                self._waker.wake()
            began.chores()

    # --- the thread that does all else

    def _stop(self) -> None:
        self._stopping.set()
        self._waker.wake()

    def _run(self) -> None:
        scanned = time.monotonic()
        while not self._stopping.is_set() or self._last_s or self._come:
            gathers = bool(self._held) and self._may_begin and self._round is None
            ready = self._selector.select(0 if gathers or self._come else SCAN_S if self._last_s else None)
            now = time.monotonic()
            if gathers and (not ready or now - self._held_since >= GATHER_S):
                self._begin_round()
            for key, _ in ready:
                if key.data is self._waker:
                    self._waker.drain()
                elif key.data in self._last_s:  # it may be gone since the selector told of it
                    self._serve(key.data, now)
            for _ in range(len(self._come)):
                self._serve(self._come.popleft(), now)
            if self._is_synced:
                self._end_round()
            if now - scanned >= SCAN_S or self._stopping.is_set():
                scanned = now
                self._scan(now)
            self._busy_since = 0.0

    def _serve(self, conn: Any, now: float) -> None:
        """Begin with what has come of a connection; whatever goes wrong with it ends it, and nothing else."""
        self._last_s[conn] = now
        try:
            if conn in self._held or conn in self._syncing:
                self._unwatch(conn)  # it sends more before it has its answer
            else:
                self._begin(conn)
        except Exception:
            _log.exception("a connection failed")
            self._close(conn)
        if self._is_synced:
            self._end_round()
        if len(self._held) >= MOST_HELD and self._may_begin and self._round is None:
            self._begin_round()

    def _begin(self, conn: Any) -> None:
        """Begin with one request, if a whole one is here."""
        self._busy_since = time.monotonic()
        is_whole = conn.receive()
        if is_whole is None:
            self._close(conn)
        elif is_whole:
            found = conn.batch()
            if found is None or not self._batches.is_quick(*found):
                self._forget(conn)
                self._server.serve_by_worker(conn)
                return
            conn.take_batch()
            batch = self._batches.begin(found[0])
            if batch.is_held:
                if not self._held:
                    self._held_since = self._busy_since
                self._held[conn] = batch
                self._watch(conn)
            else:
                self._answer(conn, batch, None)
        elif conn.lingers:
            self._give_back(conn)
        else:
            self._watch(conn)

    def _begin_round(self) -> None:
        """Let the other thread make everything durable that is held."""
        self._may_begin = False  # before it can be called back
        try:
            began = self._store.begin(max([batch.ticket for batch in self._held.values()]), self._ask_again)
        except StoreError as error:
            self._may_begin = True
            self._answer_all(self._held, error)
            return
        if began is None:
            return
        self._may_begin = True
        self._round, self._syncing, self._held = began, self._held, {}
        if began.waits:
            self._rounds.put(began)
        else:
            began.sync()
            self._end_round()

    def _ask_again(self) -> None:
        self._may_begin = True
        self._waker.wake()

    def _end_round(self) -> None:
        over, self._round, self._is_synced = self._round, None, False
        failure = None
        if over is not None:
            try:
                self._store.end(over)
            except StoreError as error:
                failure = error
        self._answer_all(self._syncing, failure)

    def _answer_all(self, batches: dict[Any, Begun], failure: StoreError | None) -> None:
        for conn, batch in list(batches.items()):
            del batches[conn]
            try:
                self._answer(conn, batch, failure)
            except Exception:
                _log.exception("a connection failed")
                self._close(conn)

    def _answer(self, conn: Any, batch: Begun, failure: StoreError | None) -> None:
        answer, headers, body = self._batches.end(batch, failure)
        reason = answer.reason or HTTPStatus(answer.status).phrase
        if not conn.answer(f"{answer.status} {reason}", headers, body):
            self._close(conn)
        elif conn not in self._watched or conn.has_more():
            self._come.append(conn)  # others have their turn before its next request

    # --- who is here

    def _scan(self, now: float) -> None:
        """Give back who is silent; when it stops, everybody who waits for no answer."""
        stops = self._stopping.is_set()
        for conn, last_s in list(self._last_s.items()):
            if (stops or now - last_s > STAY_S) and conn not in self._held and conn not in self._syncing:
                self._give_back(conn)

    def _watch(self, conn: Any) -> None:
        if conn not in self._watched:
            self._selector.register(conn.socket, selectors.EVENT_READ, conn)
            self._watched.add(conn)

    def _unwatch(self, conn: Any) -> None:
        if conn in self._watched:
            self._watched.discard(conn)
            self._selector.unregister(conn.socket)

    def _forget(self, conn: Any) -> None:
        self._unwatch(conn)
        self._last_s.pop(conn, None)
        self._held.pop(conn, None)
        self._syncing.pop(conn, None)

    def _give_back(self, conn: Any) -> None:
        self._forget(conn)
        self._server.put_conn(conn)

    def _close(self, conn: Any) -> None:
        self._forget(conn)
        conn.close()
