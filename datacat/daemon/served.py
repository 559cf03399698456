"""One session that this daemon serves: what it sees of the app, and what it writes about it. The main thread's."""

import contextlib
import logging
import os
import select
import sys
import threading
import time
from pathlib import Path
from typing import Any

import msgspec

from datacat import host
from datacat.daemon import dumps, evidence, lastwords, verdict, watch
from datacat.daemon.config import Config
from datacat.daemon.facts import STOP_EVENT, Facts
from datacat.daemon.metering import Meter
from datacat.daemon.notes import Notes, opening
from datacat.daemon.pulse import Pulse
from datacat.daemon.streams import write_whole
from datacat.errors import JournalError, WireError
from datacat.host import faults, oom, usage
from datacat.host.process import Exit, Target
from datacat.wire import layout
from datacat.wire.layout import Meta
from datacat.wire.records import Beat, Dropped, Event, Metric, Record, Verdict

_log = logging.getLogger(__name__)

PARENT_PATIENCE_S = 0.5
"""A parent that reaps its child and writes down its last lines needs some milliseconds."""
_PARENT_LOOK_S = 0.05
KILL_SIGNAL = 9
_CLOCKS_DIFFER_S = 5.0
"""The clock of the kernel's log may run beside CLOCK_MONOTONIC, and Unix time may have been set."""


class Served:
    """A session's folder, lock, facts, heartbeat watch, and the stream that we write.

    orphan: its process was gone before we came, so nobody saw how it ended. ticket grows with what there is to ship;
    shipped is true while the server has everything up to it. stream is the id of the stream that we write (a new one
    when empty). fresh: there is something new that is more than heartbeats and process metrics. trouble says why the
    server takes nothing.
    """

    def __init__(
        self, folder: Path, meta: Meta, config: Config, lock: host.Lock, *, orphan: bool = False, stream: str = ""
    ) -> None:
        """Read its journal. Raises: JournalError."""
        self.folder = folder
        self.meta = meta
        self.config = config
        self.orphan = orphan
        self.target = Target(meta.pid, meta.process_start) if meta.pid > 0 else None
        self.facts = Facts(folder, meta)
        self.facts.scan(all_streams=True)
        self.acked: dict[str, int] = {}
        self.boot = ""
        self._said: layout.Shipper | None = None
        self.unacked_bytes = 1
        self.ticket = 0
        self.shipped = False
        self.reached = False
        self.fresh = True
        self.trouble = ""
        self.given_up: dict[str, int] = {}
        self.wake_fd = -1
        self.deleted = False
        self.judged = False
        self.gone = orphan
        self.ended_at_s = 0.0
        self.beat = layout.unpack_beat(b"")
        self._oom_counter = Path(meta.oom_counter) if meta.oom_counter else None
        self._oom_above = oom.above(self._oom_counter)
        self._notes = Notes(folder, meta, lock, stream=stream)
        self._dropped = dict(self.facts.dropped)
        self._beat_us = 0
        self.read_beat()
        self._pulse = Pulse(folder, self.target, config, self.facts.newest, self.beat)
        self._metrics_due_s = 0.0
        self._meter: Meter | None = None
        if config.process_metrics and self.target is not None and meta.source in ("client", "run"):
            self._meter = Meter(self.target.pid, cpu_time=meta.source == "client")

    @property
    def dropped(self) -> dict[str, int]:
        """What could not be kept, by reason: by the client, or because the spool was full."""
        return {**self._dropped, **self.given_up}

    @property
    def stream(self) -> str:
        """The stream that we write."""
        return self._notes.stream

    @property
    def ended(self) -> bool:
        """Whether nothing more will come from the app."""
        return self.gone or self.facts.ended

    @property
    def waiting(self) -> bool:
        """Whether what we have to say waits for a disk that takes it."""
        return self._notes.waiting

    def open_wake_pipe(self) -> None:
        """Open the pipe through which the client wakes us, for writing too: so it never reads as ended."""
        if hasattr(os, "mkfifo"):
            with contextlib.suppress(OSError):
                self.wake_fd = os.open(
                    self.folder / layout.WAKE_FILE,
                    os.O_RDWR | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0),
                )

    def write(self, *records: Record) -> bool:
        """Append records to our stream; False when they wait for a disk that takes them."""
        self.ticket += len(records)
        self.shipped = self.shipped and not records
        self.fresh = self.fresh or not all(isinstance(record, (Beat, Metric)) for record in records)
        return self._notes.write(*records)

    def keep(self, line: bytes) -> None:
        """Append a line that came through the local endpoints. Raises: JournalError when it is not kept."""
        self.ticket += 1
        self.shipped = False
        self.fresh = True
        self._notes.keep(line)

    def set_beat(self, beat: layout.Beat) -> None:
        """Note a heartbeat that came through the local endpoints, where the next daemon will find it too."""
        self.beat = beat
        with contextlib.suppress(JournalError):
            slot = layout.pack_beat(beat).ljust(layout.BEAT_FILE_BYTES, b"\0")
            write_whole(self.folder / layout.BEAT_FILE, slot)

    def look(self, now_us: int, now_s: float, gaps: watch.Gaps) -> bool:
        """Look at the app once: heartbeat, drops, metrics; True when it has just been found hung."""
        if self._notes.make_again(opening(self.meta, ""), self.unacked_bytes):
            self.ticket += 1
            self.fresh = True
        self._notes.catch_up()
        self.read_beat()
        self._note_drops(now_us)
        if self.ended:
            return False
        if self._became_another_program(now_us):
            return False
        step = self._pulse.judge(self.beat, now_us, gaps)
        self.write(*step.records)
        if self.beat.on and self.beat.unix_us > self._beat_us:
            self._beat_us = self.beat.unix_us
            self.write(Beat(t=self._beat_us))
        if self._meter is not None and now_s >= self._metrics_due_s:
            self._metrics_due_s = now_s + self.config.process_metrics_interval_seconds
            self.write(*self._meter.look(now_us, now_s))
        return step.hung

    def read_beat(self) -> None:
        """Read the heartbeat that the app left in its folder."""
        with contextlib.suppress(OSError):
            self.beat = layout.unpack_beat(self._beat_file()[: layout.BEAT.size])

    def next_look_ns(self) -> int | None:
        """Return the awake time at which the app is to be looked at unless it beats; None when that can wait.

        The heartbeat is read again only when it would be due by the last one known.
        """
        if self.ended:
            return None
        due_ns = self._pulse.next_look_ns(self.beat)
        if due_ns is not None and due_ns <= host.awake_ns():
            self.read_beat()
            due_ns = self._pulse.next_look_ns(self.beat)
        return due_ns

    def conclude(self, now_us: int, seen: Exit | None, *, boot_id: str) -> None:
        """The process is gone: read its journal to the end, then write the verdict. Raises: JournalError."""
        self.gone = True
        if self.judged:
            return
        self._notes.make_again(opening(self.meta, ""), self.unacked_bytes)
        self.facts.scan(all_streams=self.orphan)
        if self.meta.source == "run" and not self.orphan:
            self._hear_parent()
        self.read_beat()
        self._note_drops(now_us)
        self.judged = True
        if self.facts.final is not None:
            return
        if self.facts.torn():
            self.write(Dropped(t=now_us, counts={"torn": 1}))
        rebooted = ""
        if self.orphan:
            now_us = max(self.facts.last_t, self.beat.unix_us, self.meta.created_us)
            if self.meta.boot_id and self.meta.boot_id != boot_id:
                rebooted = "reboot" if self.facts.told_to_stop else "power"
        dump = evidence.crash(self.folder)
        witness = verdict.Witness(
            t_us=now_us,
            close=self.facts.close,
            closing=self.facts.closing,
            observed=self.facts.observed,
            exit=seen,
            hung_s=watch.hang_s(self._pulse.watch, host.awake_ns()) if self._pulse.watch.status == "hung" else None,
            oom=self._killed_for_memory(seen),
            rebooted=rebooted,
            fatal=dump.fatal if dump else "",
            fatal_signal=dump.signal if dump else None,
            frames=tuple(dumps.traceback(dump.frames)) if dump else (),
        )
        if verdict.is_crash(witness):
            witness = self._with_last_words(witness, dump)
        faults.at("verdict.judged")
        self.write(*verdict.judge(witness))
        faults.at("verdict.written")

    def _became_another_program(self, now_us: int) -> bool:
        """Write the verdict when the app has called exec: nothing of it is left, though its pid lives on."""
        if self.target is None or not self.meta.process_image:
            return False
        if host.process_image(self.target.pid) in ("", self.meta.process_image):
            return False
        detail = f"it became another program by exec: {usage.program(self.target.pid)}"
        self.write(Verdict(t=now_us, status="ended", reason="closed", detail=detail.rstrip(": ")))
        self.refresh()
        return True

    def _killed_for_memory(self, seen: Exit | None) -> str:
        """Say why the kernel killed it for memory; empty when it did not, or ended in another way."""
        known = seen is not None and seen.known
        if self.target is None or (known and seen is not None and seen.signal != KILL_SIGNAL):
            return ""
        ago_s = time.time() - self.meta.created_us / 1e6 + _CLOCKS_DIFFER_S
        return oom.evidence(
            self._oom_counter, self.meta.oom_kills, self._oom_above, self.target.pid, time.monotonic() - ago_s
        )

    def _with_last_words(self, witness: verdict.Witness, dump: dumps.Dump | None) -> verdict.Witness:
        """Add what the app was doing, said, and knew."""
        found: dict[str, Any] = {"fatal": dump.fatal} if dump is not None else {}
        if self.beat.unix_us:
            found["last_heartbeat_us"] = self.beat.unix_us
        words = lastwords.of(self.folder, self.meta, dump.threads if dump else (), self.facts.stderr)
        frames = witness.frames
        if not frames and witness.closing is not None and witness.closing.exception_type:
            frames = words.traceback
        return witness._replace(last=found | words.members, frames=lastwords.stack(frames))

    def _hear_parent(self) -> None:
        """Let `datacat run` tell what its program said and how it ended: worth waiting for, but not for long."""
        deadline = time.monotonic() + PARENT_PATIENCE_S
        while self.facts.observed is None and (left := deadline - time.monotonic()) > 0:
            self._pause(min(left, _PARENT_LOOK_S))
            self.facts.scan(all_streams=False)

    def _pause(self, timeout_s: float) -> None:
        """Wait until the writer of the journal wakes us, or for so long."""
        if self.wake_fd < 0 or sys.platform == "win32":
            threading.Event().wait(timeout_s)
            return
        woken = select.poll()
        woken.register(self.wake_fd, select.POLLIN)
        if woken.poll(timeout_s * 1000):
            with contextlib.suppress(OSError):
                os.read(self.wake_fd, 4096)

    def told_to_stop(self, now_us: int) -> None:
        """Note that we were asked to stop while the app lives."""
        if not self.ended:
            self.write(Event(t=now_us, name=STOP_EVENT, level="info", category="lifecycle"))

    def release(self) -> None:
        """Let go of the session; idempotent."""
        self._pulse.close()
        fd, self.wake_fd = self.wake_fd, -1
        if fd >= 0:
            os.close(fd)
        self._notes.close()

    def status(self) -> str:
        """Return the word for the shipper file."""
        if self.facts.close is not None:
            return "ended"
        if self.facts.final is not None:
            return self.facts.final.status
        return "active"

    def tell(self, port: int, daemon_id: str) -> None:
        """Write the file that tells the client, and tools, how far the session is shipped; when that is news."""
        said = layout.Shipper(os.getpid(), port, daemon_id, self.acked, self.status(), boot=self.boot)
        if said == self._said:
            return
        self._said = said
        text = msgspec.json.encode(msgspec.structs.replace(said, written_us=time.time_ns() // 1000))
        with contextlib.suppress(JournalError):
            write_whole(self.folder / layout.SHIPPER_FILE, text)
            faults.at("shipper.told")

    def refresh(self) -> None:
        """Take in the verdict that we have just written."""
        with contextlib.suppress(JournalError):
            self.facts.scan(all_streams=True)

    def _beat_file(self) -> bytes:
        return (self.folder / layout.BEAT_FILE).read_bytes()

    def _note_drops(self, now_us: int) -> None:
        try:
            totals = layout.unpack_dropped(self._beat_file())
        except (OSError, WireError):
            return
        grown = {reason: count - self._dropped.get(reason, 0) for reason, count in totals.items()}
        grown = {reason: count for reason, count in grown.items() if count > 0}
        if grown and self.write(Dropped(t=now_us, counts=grown)):
            self._dropped |= totals
