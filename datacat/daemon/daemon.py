"""The daemon: composition, and the one loop that owns all state. Everything else talks to it through queues.

The main thread waits on one selector: the watched processes, the sessions' wake pipes, the wake socket (signals,
reports of the uplink's thread, requests of the local endpoints), and the next due time.
"""

import contextlib
import logging
import os
import queue
import selectors
import signal
import time
import uuid
from pathlib import Path
from typing import Any

from datacat import host
from datacat.daemon import departure, pace, reads, spool, watch
from datacat.daemon.config import Config
from datacat.daemon.desk import Ask, Desk, health
from datacat.daemon.exits import Exits
from datacat.daemon.intake import Intake
from datacat.daemon.notes import opening
from datacat.daemon.scout import Scout, take_on
from datacat.daemon.served import Served
from datacat.daemon.shipping import Forget, Hurry, Report, Serve, Shipping, identity
from datacat.daemon.streams import write_whole
from datacat.daemon.uplink import Uplink, uplink_of
from datacat.daemon.wakeup import Wakeup
from datacat.errors import HostError, JournalError
from datacat.host import faults
from datacat.host.process import Exit, Target
from datacat.wire import layout
from datacat.wire.layout import Meta
from datacat.wire.lines import encode
from datacat.worker import Worker

_log = logging.getLogger(__name__)

SCAN_INTERVAL_S = 60.0
"""How often orphans of other processes are looked for."""
CLOSED_S = 60.0
"""A session that said end() while its process goes on is put away after so long."""
HURRY_TICK_S = 0.5
_UNWATCHED_TICK_S = 0.5


class Daemon:
    """Serve the sessions of one process (owner), or of HTTP clients until SIGTERM (no owner)."""

    def __init__(
        self,
        config: Config,
        spool_folder: Path,
        *,
        owner: Target | None = None,
        owner_fd: int = -1,
        port_file: str = "",
    ) -> None:
        self.config = config
        self.spool = spool_folder
        self.owner = owner
        self.id = str(uuid.uuid4())
        self.served: dict[str, Served] = {}
        self.reports: queue.SimpleQueue[Report] = queue.SimpleQueue()
        self._boot_id = host.boot_id()
        self._scout = Scout(spool_folder, owner, self._boot_id)
        self._selector = selectors.DefaultSelector()
        self._wakeup = Wakeup(self._selector)
        self.exits = Exits(self._selector, owner, owner_fd)
        self.asks: queue.SimpleQueue[Ask] = queue.SimpleQueue()
        self.desk = Desk(self.served, self._register, lambda served: self._hurry(served, at_once=True), self._health)
        self.intake: Intake | None = None
        self._owner_lock: host.Lock | None = None
        self._port_file = port_file
        self._next_scan_s = 0.0
        self._next_tick_s = 0.0
        self._asleep_s = host.asleep_s()
        self._started_s = time.monotonic()
        self._told_s: float | None = None
        self._quiet_since_s: float | None = None
        self._shipping = Shipping(
            spool_folder,
            identity(self.id),
            self._uplink,
            self._reported,
            max_records=config.max_batch_size,
            max_spool_bytes=config.max_spool_bytes,
        )
        self._worker = Worker("uplink", 3600.0, self._shipping.work)  # the loop's ticks poke it

    # --- life

    def run(self) -> None:
        """Serve until there is nothing more to do. Raises: Busy when another daemon serves the owner already."""
        if self.owner is not None:
            self._owner_lock = host.lock(spool.owner_lock(self.spool, self.owner))
        self._wakeup.take_signals()
        try:
            self._listen()
            if self.owner is not None:
                self.exits.watch(self.owner)
            self._scan(orphans=True)
            spool.clear(self.spool, time.time())
            self._worker.start()
            while not self._leaving():
                self._turn()
        finally:
            self._close()

    def _listen(self) -> None:
        """Open the local endpoints. A client's daemon does without when it must. Raises: HostError."""
        try:
            self.intake = Intake(self.config.daemon_port, self._asked, self._read)
        except HostError as error:
            if self.owner is None:
                raise
            _log.warning("no local endpoints: %s", error)
            return
        self.intake.start()
        if self._port_file:
            write_whole(Path(self._port_file), f"{self.intake.port}\n".encode())

    def _close(self) -> None:
        if self.intake is not None:
            self.intake.stop()
        self._worker.stop(min(3.0, self.config.linger_seconds + 1.0))
        self._drain()
        for served in list(self.served.values()):
            self._put_away(served)
        for served in self.served.values():
            served.release()
        self.exits.close()
        if not self._worker.alive:
            self._shipping.close()
        self._selector.close()
        self._wakeup.close()
        if self._owner_lock is not None:
            self._owner_lock.release()

    def _leaving(self) -> bool:
        work = self._work()
        if not departure.is_quiet(work):
            self._quiet_since_s = None
            return False
        if self._quiet_since_s is None:
            self._quiet_since_s = work.now_s
        if not departure.is_time_to_leave(work, self._quiet_since_s, self.config.linger_seconds):
            return False
        if self.owner is None or self._owner_lock is None:
            return True
        # First the lock, then a last look: a session that is registered now finds either us or a free lock.
        self._owner_lock.release()
        self._owner_lock = None
        if self._told_s is not None or not self._scan(orphans=False):
            return True
        try:
            self._owner_lock = host.lock(spool.owner_lock(self.spool, self.owner))
        except HostError:
            return True
        return False

    def _work(self) -> departure.Work:
        everyone = self.served.values()
        return departure.Work(
            now_s=time.monotonic(),
            started_s=self._started_s,
            told_s=self._told_s,
            owned=self.owner is not None,
            owner_gone=self.exits.gone(self.owner),
            sessions=len(self.served),
            ended=all(served.ended for served in everyone),
            shipped=all(served.shipped for served in everyone),
            taking=all(served.reached for served in everyone if not served.shipped),
        )

    # --- one turn of the loop

    def _turn(self) -> None:
        nap = self._next_nap()
        events = self._selector.select(nap.wait_s)
        late_s, paused_s = nap.late_s(time.monotonic()), nap.paused_s(host.awake_ns())
        for key, _ in events:
            if isinstance(key.data, Target):
                self._note_exit(key.data)
            elif isinstance(key.data, Served):
                self._woken(key.data)
        self._drain()
        for target in self.exits.unselected:
            self._note_exit(target)
        if nap.is_over(time.monotonic()) or pace.is_due(self._looks_ns(), host.awake_ns()):
            self._tick(late_s, paused_s)

    def _next_nap(self) -> pace.Nap:
        now = time.monotonic()
        hurry = self._quiet_since_s is not None or self._told_s is not None
        sooner_s = (
            now + HURRY_TICK_S if hurry else None,
            now + _UNWATCHED_TICK_S if self.exits.unselected else None,
            self.desk.due_s(),
        )
        return pace.nap(self._next_tick_s, sooner_s, self._looks_ns(), now, host.awake_ns())

    def _looks_ns(self) -> list[int | None]:
        return [served.next_look_ns() for served in self.served.values()]

    def _tick(self, late_s: float, paused_s: float) -> None:
        now, now_us = time.monotonic(), time.time_ns() // 1000
        slept_s, self._asleep_s = host.asleep_s() - self._asleep_s, host.asleep_s()
        self._next_tick_s = now + min(
            (served.config.batch_interval_seconds for served in self.served.values() if not served.ended),
            default=self.config.batch_interval_seconds,
        )
        scan_all = now >= self._next_scan_s
        self._scan(orphans=scan_all)
        for served in list(self.served.values()):
            with _logged(served):
                served.fresh = served.facts.scan(all_streams=False) or served.fresh
                hung = served.look(now_us, now, watch.Gaps(late_s, slept_s, paused_s))
                self._hurry(served, at_once=hung)
            self._note_end(served, now)
            over = served.ended_at_s and now - served.ended_at_s > CLOSED_S
            if over and (self.owner is None or len(self.served) > 1):
                self._put_away(served)
        self._worker.poke()

    def _woken(self, served: Served) -> None:
        """A client flushes, ends, or has made another session."""
        with contextlib.suppress(OSError):
            os.read(served.wake_fd, 4096)
        self._scan(orphans=False)
        with _logged(served):
            served.facts.scan(all_streams=False)
        served.read_beat()
        self._note_end(served, time.monotonic())
        self._hurry(served, at_once=True)

    def _hurry(self, served: Served, *, at_once: bool) -> None:
        """Let the uplink's thread know how much we have written; at_once: now, whatever it is waiting for."""
        upkeep = not (at_once or served.fresh or served.ended)
        served.fresh = False
        self._shipping.put(Hurry(served.meta.id, served.ticket, served.ended, at_once, upkeep))
        if at_once:
            self._worker.poke()

    def _note_end(self, served: Served, now: float) -> None:
        if served.ended and not served.ended_at_s:
            served.ended_at_s = now
            served.ticket += 1
            self._hurry(served, at_once=True)

    def _note_exit(self, target: Target) -> None:
        seen = self.exits.ask(target)
        if seen is None:
            return
        self._scan(orphans=False)
        for served in self.served.values():
            if served.target == target:
                self._conclude(served, seen)

    def _conclude(self, served: Served, seen: Exit | None) -> None:
        with _logged(served):
            served.conclude(time.time_ns() // 1000, seen, boot_id=self._boot_id)
        served.refresh()
        served.ticket += 1
        served.ended_at_s = served.ended_at_s or time.monotonic()
        self._hurry(served, at_once=True)

    def _drain(self) -> None:
        for number in self._wakeup.drain():
            self._signalled(number)
        while not self.asks.empty():
            self.desk.answer(self.asks.get())
        while not self.reports.empty():
            self._take(self.reports.get())
        self.desk.settle(time.monotonic())

    def _signalled(self, number: int) -> None:
        if number != signal.SIGTERM and self.owner is not None:
            return  # the terminal of the app is not ours
        if number == getattr(signal, "SIGHUP", None) or self._told_s is not None:
            return
        self._told_s = time.monotonic()
        for served in self.served.values():
            served.told_to_stop(time.time_ns() // 1000)
            self._hurry(served, at_once=True)

    def _take(self, report: Report) -> None:
        served = self.served.get(report.session_id)
        if served is None:
            return
        served.reached = report.reached
        served.shipped = report.done and report.ticket == served.ticket and not served.waiting
        served.deleted = report.deleted
        served.unacked_bytes = report.unacked_bytes
        served.acked, served.boot = report.acked, report.boot
        served.trouble, served.given_up = report.trouble, report.given_up
        served.tell(self.port, self.id)

    # --- sessions

    def _scan(self, *, orphans: bool) -> bool:
        """Take on the sessions of our owner that are new, and orphans; whether there were any of the owner's."""
        if orphans:
            self._next_scan_s = time.monotonic() + SCAN_INTERVAL_S
        new = False
        for found, whose in self._scout.look(self.served.keys(), time.time(), orphans=orphans):
            served = take_on(found, self.config, orphan=whose == "orphan", daemon_id=self.id)
            if served is not None:
                self._add(served)
                new = new or whose == "own"
        return new

    def _add(self, served: Served) -> None:
        self.served[served.meta.id] = served
        self._shipping.put(Serve(served.folder, served.meta, last=served.orphan))
        served.tell(self.port, self.id)
        self._next_tick_s = min(self._next_tick_s, time.monotonic() + served.config.batch_interval_seconds)
        served.open_wake_pipe()
        served.read_beat()
        if served.wake_fd >= 0:
            self._selector.register(served.wake_fd, selectors.EVENT_READ, served)
        if served.orphan:
            self._conclude(served, None)
        elif served.target is not None:
            seen = self.exits.watch(served.target)
            if seen is not None:
                self._conclude(served, seen)
        self._worker.poke()

    def _put_away(self, served: Served) -> None:
        """Shrink a session that is over and wholly shipped; one that is not waits for the next daemon."""
        if not served.shipped or not served.ended:
            return
        self._shipping.put(Forget(served.meta.id))
        with _logged(served):
            spool.remove(served.folder) if served.deleted else spool.retire(served.folder, served.meta)
        if served.wake_fd >= 0:
            self._selector.unregister(served.wake_fd)
        served.release()
        del self.served[served.meta.id]
        if served.target is not None and all(other.target != served.target for other in self.served.values()):
            self.exits.forget(served.target)

    def _register(self, meta: Meta) -> Served:
        """Make a session for a client of the local endpoints. Raises: JournalError, Busy."""
        folder = spool.make(self.spool, meta)
        faults.at("session.made")
        served = Served(folder, meta, self.config, host.lock(folder / layout.LOCK_FILE), stream=meta.stream)
        served.keep(encode(opening(meta, self.id)))
        self._add(served)
        return served

    def _health(self) -> dict[str, Any]:
        own = {"status": "ok", "port": self.port, "pid": os.getpid(), "server": self.config.server_url}
        return {**own, **health(list(self.served.values()))}

    # --- what other threads call

    def _asked(self, ask: Ask) -> None:
        self.asks.put(ask)
        self._wakeup.wake()

    def _read(self, name: str, query: dict[str, str]) -> dict[str, Any]:
        if self.intake is None:
            raise HostError("the daemon is ending")
        if name == "session":
            return reads.session(query, self.intake.ask, self._uplink)
        return reads.sessions(self.intake.ask, self._uplink, has_key=bool(self.config.api_key))

    def _uplink(self, meta: Meta | None) -> Uplink:
        return uplink_of(self.config, meta, self.id)

    def _reported(self, report: Report) -> None:
        self.reports.put(report)
        self._wakeup.wake()

    @property
    def port(self) -> int:
        """The port of the local endpoints; 0 when there are none."""
        return self.intake.port if self.intake is not None else 0


@contextlib.contextmanager
def _logged(served: Served) -> Any:
    try:
        yield
    except JournalError as error:
        _log.warning("session %s: %s", served.meta.id, error)
