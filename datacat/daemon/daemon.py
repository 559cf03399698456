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
import socket
import time
import uuid
from pathlib import Path
from typing import Any

import msgspec

from datacat import __version__, host
from datacat.daemon import spool
from datacat.daemon.config import Config, adjusted
from datacat.daemon.served import Served
from datacat.daemon.shipping import Forget, Hurry, Report, Serve, Shipping
from datacat.daemon.streams import write_whole
from datacat.daemon.uplink import Uplink
from datacat.errors import Busy, HostError, JournalError, ProcessGone
from datacat.host import process
from datacat.host.process import UNKNOWN_EXIT, Exit, ExitWatch, Target
from datacat.wire import layout
from datacat.wire.layout import Meta, Shipper
from datacat.worker import Worker

_log = logging.getLogger(__name__)

SCAN_INTERVAL_S = 60.0
"""How often orphans of other processes are looked for."""
STOP_PATIENCE_S = 20.0
"""A daemon that is told to stop together with its app waits so long for the app's end."""
EMPTY_PATIENCE_S = 30.0
"""A daemon whose owner never showed a session leaves; the client starts another one when it needs it."""
LAST_CALL_S = 60.0
"""A daemon with a long backlog and a server that takes it stays up to so long after its work is over."""
CLOSED_S = 60.0
"""A session that said end() while its process goes on is put away after so long."""
HURRY_TICK_S = 0.5
_UNWATCHED_TICK_S = 1.0


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
        self._pid_namespace = host.pid_namespace()
        self._selector = selectors.DefaultSelector()
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._watches: dict[Target, ExitWatch] = {}
        self._exits: dict[Target, Exit] = {}
        self._owner_fd = owner_fd
        self._owner_lock: host.Lock | None = None
        self._port_file = port_file
        self._next_scan_s = 0.0
        self._next_tick_s = 0.0
        self._asleep_s = host.asleep_s()
        self._started_s = time.monotonic()
        self._told_s: float | None = None
        self._quiet_since_s: float | None = None
        identity = {
            "id": self.id,
            "hostname": host.hostname(),
            "machine_id": host.machine_id(),
            "boot_id": self._boot_id,
            "pid": os.getpid(),
            "version": __version__,
            "platform": host.platform(),
        }
        self._shipping = Shipping(identity, self._uplink, self._reported, max_records=config.max_batch_size)
        self._worker = Worker("uplink", 3600.0, self._shipping.work)  # the loop's ticks poke it

    # --- life

    def run(self) -> None:
        """Serve until there is nothing more to do. Raises: Busy when another daemon serves the owner already."""
        if self.owner is not None:
            self._owner_lock = host.lock(spool.owner_lock(self.spool, self.owner))
        self._open()
        try:
            self._scan(orphans=True)
            spool.clear(self.spool, time.time())
            self._worker.start()
            while not self._leaving():
                self._turn()
        finally:
            self._close()

    def wake(self) -> None:
        """Let the loop look at its queues; any thread."""
        with contextlib.suppress(OSError):
            self._wake_writer.send(b"w")

    def _open(self) -> None:
        for end in (self._wake_reader, self._wake_writer):
            end.setblocking(False)
        self._selector.register(self._wake_reader, selectors.EVENT_READ, None)
        with contextlib.suppress(ValueError):  # not the main thread: a test
            signal.set_wakeup_fd(self._wake_writer.fileno(), warn_on_full_buffer=False)
            for name in ("SIGTERM", "SIGINT", "SIGHUP"):
                if hasattr(signal, name):
                    signal.signal(getattr(signal, name), _noted)
            if hasattr(signal, "SIGPIPE"):
                signal.signal(signal.SIGPIPE, signal.SIG_IGN)

    def _close(self) -> None:
        self._worker.stop(min(3.0, self.config.linger_seconds + 1.0))
        self._drain()
        for served in list(self.served.values()):
            self._put_away(served)
        for served in self.served.values():
            served.release()
        for watching in self._watches.values():
            watching.close()
        if not self._worker.alive:
            self._shipping.close()
        with contextlib.suppress(ValueError):
            signal.set_wakeup_fd(-1)
        self._selector.close()
        self._wake_reader.close()
        self._wake_writer.close()
        if self._owner_lock is not None:
            self._owner_lock.release()

    def _leaving(self) -> bool:
        now = time.monotonic()
        if self.owner is None:
            return self._told_s is not None and (self._all_shipped() or now - self._told_s >= 4.0)
        if not self._is_quiet(now):
            self._quiet_since_s = None
            return False
        if self._quiet_since_s is None:
            self._quiet_since_s = now
        quiet_s = now - self._quiet_since_s
        if quiet_s < self.config.linger_seconds and self._told_s is None:
            return False
        if not self._all_shipped() and quiet_s < (2.0 if self._told_s is not None else self._last_call_s()):
            return False
        # First the lock, then a last look: a session that is registered now finds either us or a free lock.
        if self._owner_lock is not None:
            self._owner_lock.release()
            self._owner_lock = None
        if self._told_s is None and self._scan(orphans=False):
            try:
                self._owner_lock = host.lock(spool.owner_lock(self.spool, self.owner))
            except (Busy, HostError):
                return True
            self._quiet_since_s = None
            return False
        return True

    def _last_call_s(self) -> float:
        reached = all(served.reached for served in self.served.values() if not served.shipped)
        return LAST_CALL_S if reached else self.config.linger_seconds

    def _is_quiet(self, now: float) -> bool:
        """Whether nothing more can come: the owner is gone, or all its sessions have ended."""
        if self._told_s is not None and now - self._told_s >= STOP_PATIENCE_S:
            return True
        if self.owner in self._exits:
            return all(served.judged or served.facts.ended for served in self.served.values() if served.gone)
        if self.served:
            return all(served.ended for served in self.served.values())
        return now - self._started_s >= EMPTY_PATIENCE_S

    def _all_shipped(self) -> bool:
        return all(served.shipped for served in self.served.values())

    # --- one turn of the loop

    def _turn(self) -> None:
        now = time.monotonic()
        due_s = self._next_due(now)
        events = self._selector.select(max(0.0, due_s - now))
        late_s = max(0.0, time.monotonic() - due_s)
        for key, _ in events:
            if isinstance(key.data, Target):
                self._note_exit(key.data)
            elif isinstance(key.data, Served):
                self._woken(key.data)
        self._drain()
        for target, watching in list(self._watches.items()):
            if watching.fileno() is None:
                self._note_exit(target)
        if time.monotonic() >= due_s:
            self._tick(late_s)

    def _next_due(self, now: float) -> float:
        due_s = self._next_tick_s
        if self._quiet_since_s is not None or self._told_s is not None:
            due_s = min(due_s, now + HURRY_TICK_S)
        if any(watching.fileno() is None for watching in self._watches.values()):
            due_s = min(due_s, now + _UNWATCHED_TICK_S)
        awake_ns = host.awake_ns()
        for served in self.served.values():
            if (deadline_ns := served.hang_deadline_ns()) is not None:
                due_s = min(due_s, now + max(0.01, (deadline_ns - awake_ns) / 1e9 + 0.01))
        return due_s

    def _tick(self, late_s: float) -> None:
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
                served.facts.scan(all_streams=False)
                hung = served.look(now_us, now, late_s=late_s, slept_s=slept_s)
                self._hurry(served, at_once=hung)
            self._note_end(served, now)
            if served.shipped and served.ended_at_s and now - served.ended_at_s > CLOSED_S and len(self.served) > 1:
                self._put_away(served)
        self._worker.poke()

    def _woken(self, served: Served) -> None:
        """A client flushes, ends, or has made another session."""
        with contextlib.suppress(OSError):
            os.read(served.wake_fd, 4096)
        self._scan(orphans=False)
        with _logged(served):
            served.facts.scan(all_streams=False)
        self._note_end(served, time.monotonic())
        self._hurry(served, at_once=True)

    def _hurry(self, served: Served, *, at_once: bool) -> None:
        """Let the uplink's thread know how much we have written; at_once: now, whatever it is waiting for."""
        self._shipping.put(Hurry(served.meta.id, served.ticket, last=served.ended, at_once=at_once))
        if at_once:
            self._worker.poke()

    def _note_end(self, served: Served, now: float) -> None:
        if served.ended and not served.ended_at_s:
            served.ended_at_s = now
            served.ticket += 1
            self._hurry(served, at_once=True)

    def _note_exit(self, target: Target) -> None:
        watching = self._watches[target]
        seen = watching.wait(0.0)
        if seen is None:
            return
        fd = watching.fileno()
        if fd is not None:
            self._selector.unregister(fd)
        watching.close()
        del self._watches[target]
        self._exits[target] = seen
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
        try:
            noted = self._wake_reader.recv(4096)
        except OSError:
            noted = b""
        for number in noted.replace(b"w", b""):
            self._signalled(number)
        while not self.reports.empty():
            self._take(self.reports.get())

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
        served.shipped = report.done and report.ticket == served.ticket
        served.deleted = report.deleted
        served.unacked_bytes = report.unacked_bytes
        if report.acked != served.acked or report.done:
            served.acked = report.acked
            self._tell(served)

    def _tell(self, served: Served) -> None:
        """Write the file that tells the client, and tools, how far the session is shipped."""
        text = Shipper(
            pid=os.getpid(),
            port=self.port,
            daemon_id=self.id,
            acked=served.acked,
            status=served.status(),
            written_us=time.time_ns() // 1000,
        )
        with contextlib.suppress(JournalError):
            write_whole(served.folder / layout.SHIPPER_FILE, msgspec.json.encode(text))

    # --- sessions

    def _scan(self, *, orphans: bool) -> bool:
        """Take on the sessions of our owner that are new, and orphans; whether there were any of the owner's."""
        if orphans:
            self._next_scan_s = time.monotonic() + SCAN_INTERVAL_S
        new = False
        for found in spool.sessions(self.spool, frozenset(self.served)):
            mine = self.owner is not None and self.owner == Target(found.meta.pid, found.meta.process_start)
            if mine and found.meta.boot_id in ("", self._boot_id):
                new = self._take_on(found, orphan=False) or new
            elif orphans and spool.is_orphan(found, self._boot_id, self._pid_namespace, time.time()):
                self._take_on(found, orphan=True)
        return new

    def _take_on(self, found: spool.Found, *, orphan: bool) -> bool:
        try:
            lock = host.lock(found.folder / layout.LOCK_FILE)
        except (Busy, HostError):
            return False
        try:
            config = adjusted(self.config, found.meta.settings)
            served = Served(found.folder, found.meta, config, lock, orphan=orphan)
        except JournalError as error:
            _log.warning("session %s cannot be read: %s", found.meta.id, error)
            lock.release()
            return False
        self._add(served)
        return True

    def _add(self, served: Served) -> None:
        self.served[served.meta.id] = served
        self._shipping.put(Serve(served.folder, served.meta, last=served.orphan))
        self._tell(served)
        self._next_tick_s = min(self._next_tick_s, time.monotonic() + served.config.batch_interval_seconds)
        served.open_wake_pipe()
        if served.wake_fd >= 0:
            self._selector.register(served.wake_fd, selectors.EVENT_READ, served)
        if served.orphan:
            self._conclude(served, None)
        elif served.target is not None:
            self._watch(served.target)
            if served.target in self._exits:
                self._conclude(served, self._exits[served.target])
        self._worker.poke()

    def _watch(self, target: Target) -> None:
        if target in self._watches or target in self._exits:
            return
        fd, self._owner_fd = (self._owner_fd, -1) if target == self.owner else (-1, self._owner_fd)
        try:
            watching = process.watch(target, fd)
        except (ProcessGone, HostError):
            self._exits[target] = UNKNOWN_EXIT
            return
        self._watches[target] = watching
        if (number := watching.fileno()) is not None:
            self._selector.register(number, selectors.EVENT_READ, target)

    def _put_away(self, served: Served) -> None:
        """Shrink a session that is over and wholly shipped; one that is not waits for the next daemon."""
        if not served.shipped or not served.ended:
            return
        self._shipping.put(Forget(served.meta.id))
        if served.wake_fd >= 0:
            self._selector.unregister(served.wake_fd)
        served.release()
        del self.served[served.meta.id]
        if served.deleted:
            spool.remove(served.folder)
            return
        with _logged(served):
            spool.retire(served.folder, served.meta)

    # --- what the uplink's thread calls

    def _uplink(self, meta: Meta) -> Uplink:
        config = adjusted(self.config, meta.settings)
        return Uplink(
            meta.server_url or config.server_url,
            daemon_id=self.id,
            api_key=config.api_key,
            tls_verify=config.tls_verify,
            compress=config.enable_compression,
        )

    def _reported(self, report: Report) -> None:
        self.reports.put(report)
        self.wake()

    @property
    def port(self) -> int:
        """The port of the local endpoints; 0 before they listen."""
        return 0


def _noted(_number: int, _frame: Any) -> None:
    """Do nothing: the number has been written to the wake socket."""


@contextlib.contextmanager
def _logged(served: Served) -> Any:
    try:
        yield
    except JournalError as error:
        _log.warning("session %s: %s", served.meta.id, error)
