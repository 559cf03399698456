"""Session: what an app calls. Every call is serialised at once, never raises, and waits for nobody.

The hot path of each call is the same four steps: build a record, encode it, look whether any border would refuse it,
write it with one C call. Whatever does not go through (a full segment, an argument of the wrong type, NaN) goes to
_put(), which repairs and counts.
"""

import itertools
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import msgspec

from datacat import host
from datacat.client import guard, hooks, live, repair, stacks
from datacat.client.ports import Carrier, Drops, Sink, fits, texts, wait_acked, with_bounds
from datacat.client.timing import Timer
from datacat.wire import layout, records
from datacat.wire.layout import Meta
from datacat.wire.records import Close, Event, Metric, Record, StatePatch

LOOK_EVERY_US = 5_000_000
"""At most one look in so long whether anybody ships the session."""
_LEVELS = frozenset(records.LEVELS)
_TYPES = frozenset(records.METRIC_TYPES)
_BEAT_STEP_NS = 100_000_000
"""The Unix time in the beat slot is renewed when this much has passed: reading one clock is half the price of two."""
_MAX_BYTES = records.MAX_RECORD_BYTES
_MAX_NAME = records.MAX_NAME_CHARS

_encode = msgspec.json.Encoder().encode  # lines.encode without its call
_now_ns = time.time_ns
_awake_ns = host.awake_ns


class Session:
    """One run of the app. Made by create_session(); every method may be called from any thread and never raises.

    As a context manager it ends well when the block does. When the block is left by an exception, the exception is
    recorded and the session stays open: how the process goes on decides how the session ended.
    """

    def __init__(self, meta: Meta, sink: Sink, carrier: Carrier, drops: Drops) -> None:
        self.id = meta.id
        self.meta = meta
        self._sink = sink
        self._carrier = carrier
        self._drops = drops
        self._slots = carrier.slots
        self._written = itertools.count().__next__  # counts and is atomic: a sum would lose some among threads
        self._repaired: dict[str, int] = {}
        self._lock = threading.RLock()  # a signal handler may call any method while another one runs
        self._looking = threading.Lock()
        self._looked_us, self._look_at_us = meta.created_us, 0  # a clock set back must not put the next look off
        self._ended, self._written_asked, self._renew_ns = False, 0, 0
        self._watched = (0.0, False, False)
        self._monitor: Any = None
        self.fatal: BaseException | None = None
        """The exception that ends the main thread, noted by the hooks for the closing record."""

    @property
    def session_id(self) -> str:
        """The session's id, a UUID."""
        return self.id

    @property
    def beaten_ns(self) -> int:
        """The awake time of the last heartbeat; 0 before the first one."""
        return self._slots[0]

    @property
    def journal_folder(self) -> Path | None:
        """The session's folder in the spool; None in simple mode."""
        return getattr(self._carrier, "folder", None)

    def update_state(self, state: dict[str, Any]) -> None:
        """Merge state into the session's state (RFC 7396): objects merge, null deletes, all else replaces."""
        t = _now_ns() // 1000
        if not self._looked_us <= t < self._look_at_us:
            self._look(t)
        try:
            line = _encode(StatePatch(t, state)) + b"\n"
            if len(line) <= _MAX_BYTES and fits(state, line):
                self._sink.write(line)
                self._written()
                return
        except Exception:  # _put finds out what it was
            pass
        self._put(StatePatch(t, cast(Any, state)))

    def log_event(
        self,
        name: str,
        category: str | None = None,
        group: str | None = None,
        labels: list[str] | None = None,
        message: str | None = None,
        data: dict[str, Any] | None = None,
        stacktrace: list[str] | None = None,
        level: str | None = None,
    ) -> None:
        """Record that something happened. level is debug, info, warning, error or critical.

        A category that is one of these words sets the level when none is given.
        """
        t = _now_ns() // 1000
        if not self._looked_us <= t < self._look_at_us:
            self._look(t)
        try:
            if level is None:
                level = "info" if category is None else records.event_level(None, category, has_exception=False)
            line = _encode(Event(t, name, level, category, group, labels, message, data, stacktrace)) + b"\n"
            if (
                type(name) is str
                and 0 < len(name) <= _MAX_NAME
                and level in _LEVELS
                and (category is None or type(category) is str)
                and (group is None or type(group) is str)
                and (message is None or type(message) is str)
                and (labels is None or texts(labels))
                and (stacktrace is None or texts(stacktrace))
                and (data is None or fits(data, line))
                and len(line) <= _MAX_BYTES
            ):
                self._sink.write(line)
                self._written()
                return
        except Exception:  # _put finds out what it was
            pass
        self._put(Event(t, name, cast(Any, level), category, group, labels, message, data, stacktrace))

    def log_metric(
        self,
        name: str,
        value: float | None = None,
        tags: list[str] | None = None,
        metric_type: str = "gauge",
        count: int | None = None,
        unit: str | None = None,
        metadata: dict[str, Any] | None = None,
        delta: float | None = None,
    ) -> None:
        """Record one measurement of a gauge, counter, histogram or timer; a counter's delta stands for its value."""
        t = _now_ns() // 1000
        if not self._looked_us <= t < self._look_at_us:
            self._look(t)
        if delta is not None:
            value = delta
        try:
            line = _encode(Metric(t, name, value, metric_type, count, unit, tags, metadata)) + b"\n"  # type: ignore[arg-type]  # looked at below
            if (
                (type(value) is float or type(value) is int)
                and value - value == 0  # false for NaN and infinities
                and type(name) is str
                and 0 < len(name) <= _MAX_NAME
                and metric_type in _TYPES
                and (count is None or type(count) is int)
                and (unit is None or type(unit) is str)
                and (tags is None or texts(tags))
                and (metadata is None or fits(metadata, line))
                and len(line) <= _MAX_BYTES
            ):
                self._sink.write(line)
                self._written()
                return
        except Exception:  # _put finds out what it was
            pass
        self._put(Metric(t, name, cast(Any, value), metric_type, count, unit, tags, metadata))

    def log_gauge(self, name: str, value: float, unit: str | None = None, tags: list[str] | None = None) -> None:
        """Record the current value of something that goes up and down."""
        self.log_metric(name, value, tags, "gauge", None, unit)

    def log_counter(self, name: str, delta: float = 1, tags: list[str] | None = None) -> None:
        """Record that something happened delta times more."""
        self.log_metric(name, delta, tags, "counter")

    def log_histogram(
        self,
        name: str,
        value: float,
        unit: str | None = None,
        tags: list[str] | None = None,
        buckets: Iterable[float] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Record one observation; buckets are the upper bounds to count it in, without the infinite one."""
        if buckets is not None:
            metadata = with_bounds(metadata, buckets)
        self.log_metric(name, value, tags, "histogram", None, unit, metadata)

    def log_timer(
        self,
        name: str,
        value: float,
        unit: str = "seconds",
        tags: list[str] | None = None,
        count: int | None = None,
    ) -> None:
        """Record how long something took that the app measured itself; count is how much was done in it."""
        self.log_metric(name, value, tags, "timer", count, unit)

    def timer(self, name: str, count: int | None = None, tags: list[str] | None = None, unit: str = "seconds") -> Timer:
        """Return a context manager, also a decorator, that records how long its block takes."""
        return Timer(self.log_timer, name, count, tags, unit)

    def log_exception(self, exc_info: object = None, extra_data: dict[str, Any] | None = None) -> None:
        """Record an exception: the one being handled in this thread, or the given one or sys.exc_info() triple."""
        try:
            from datacat.client import exceptions

            self._put(exceptions.handled(_now_ns() // 1000, exc_info, extra_data))
        except Exception as error:
            guard.swallowed(error)

    def heartbeat(self) -> None:
        """Say that the app is alive. The first call makes the session one that can be called hung."""
        now = _awake_ns()
        slots = self._slots
        if now >= self._renew_ns:
            self._beat_slowly(now)
        slots[0] = now

    def start_heartbeat_monitor(self, timeout: float = 60, loop: str | None = "auto") -> None:
        """Beat by itself from now on; without a beat for timeout seconds the session is called hung.

        loop says what beats: qt, tk, asyncio (call it where that loop runs), thread (beats while the main thread makes
        progress), auto (the first of these that is there), or None (the app calls heartbeat() itself).
        """
        try:
            from datacat.client import loops

            self.stop_heartbeat_monitor()
            timeout_s = loops.timeout_s(timeout)
            self.heartbeat()
            with self._lock:
                if not self._ended and (loop is not None or stacks.writes(self.journal_folder)):
                    self._monitor = loops.start(self, loop, timeout_s)
            self._watch(timeout_s, on=True, paused=False)  # now it is known what the thread does
        except Exception as error:
            guard.swallowed(error)

    def stop_heartbeat_monitor(self) -> None:
        """Beat no more and be watched no more."""
        try:
            with self._lock:
                monitor, self._monitor = self._monitor, None
            if monitor is not None:
                monitor.stop()
            if self._watched[1]:
                self._watch(self._watched[0], on=False, paused=False)
        except Exception as error:
            guard.swallowed(error)

    def pause_heartbeat_monitoring(self) -> None:
        """Be not called hung until resumed: before something that is known to block."""
        self._watch(self._watched[0], on=self._watched[1], paused=True)

    def resume_heartbeat_monitoring(self) -> None:
        """Be watched again; the clock starts anew."""
        if self._watched[1]:
            self._renew_ns = 0
            self.heartbeat()
        self._watch(self._watched[0], on=self._watched[1], paused=False)

    def flush(self, timeout_s: float = 5.0) -> bool:
        """Wait until the server has everything logged so far; False when it has not within timeout_s seconds."""
        try:
            goal = self._sink.offset()
            self._carrier.look()
            return wait_acked(self._carrier, goal, timeout_s)
        except Exception as error:
            guard.swallowed(error)
        return False

    def end(self, exit_code: int | None = None) -> None:
        """Say that the session is over and went well; final, idempotent, returns at once. Later calls are counted."""
        try:
            self.stop_heartbeat_monitor()
            with self._lock:
                if self._ended:
                    return
                self._ended = True
            self._put(Close(_now_ns() // 1000, exit_code))
            live.remove(self)
            hooks.remove(self)
            self._sink.close("ended")
            self._slots = [0, 0]
            self._carrier.wake()
            self._carrier.look()
            self._carrier.close()
        except Exception as error:
            guard.swallowed(error)

    def get_details(self) -> dict[str, Any]:
        """Return the session object as the server, or the daemon, has it now; what is known here when neither answers.

        Asks over the network, for at most a few seconds.
        """
        try:
            if details := self._carrier.details():
                return details
        except Exception as error:
            guard.swallowed(error)
        status = "ended" if self._ended else "active"
        return {"id": self.id, "product": self.meta.product, "version": self.meta.version, "status": status}

    def stats(self) -> dict[str, Any]:
        """Return written (records), repaired and dropped (by reason), and faults (mistakes of ours, swallowed)."""
        with self._lock:
            written = self._written() - self._written_asked
            self._written_asked += 1
        return {
            "written": written,
            "repaired": dict(self._repaired),
            "dropped": self._drops.totals(),
            "faults": guard.faults,
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        if error is None or (isinstance(error, SystemExit) and error.code in (None, 0)):
            self.end()
        elif isinstance(error, Exception):
            self.log_exception(error)

    def _put(self, record: Record) -> None:
        """Write a record the slow way: repaired when a border would refuse it, into the next segment when it must."""
        try:
            line, changed = repair.encode(record)
            if changed:
                kind = records.kind_of(record)
                self._repaired[kind] = self._repaired.get(kind, 0) + 1
            if self._sink.append(line):
                self._written()
        except Exception as error:
            self._drops.count("fault")
            guard.swallowed(error)

    def _look(self, t: int) -> None:
        """See, at most every LOOK_EVERY_US, that somebody ships the session."""
        if not self._looking.acquire(blocking=False):
            return
        try:
            self._looked_us, self._look_at_us = t, t + LOOK_EVERY_US
            if not self._ended:
                self._carrier.look()
                hooks.watch_asyncio()  # the app may have imported it since
        except Exception as error:
            guard.swallowed(error)
        finally:
            self._looking.release()

    def _watch(self, timeout_s: float, *, on: bool, paused: bool) -> None:
        try:
            if not self._ended:
                self._watched = (timeout_s, on, paused)
                steady, writes = self._monitor.does() if self._monitor is not None else (False, False)
                self._carrier.watch(timeout_s, layout.beat_flags(on=on, paused=paused, steady=steady, writes=writes))
        except Exception as error:
            guard.swallowed(error)

    def _beat_slowly(self, now_ns: int) -> None:
        try:
            self._slots[1] = t = _now_ns() // 1000
            self._slots[0], self._renew_ns = now_ns, now_ns + _BEAT_STEP_NS
            if not self._watched[1]:
                self._watch(self._watched[0], on=True, paused=self._watched[2])
            if not self._looked_us <= t < self._look_at_us:
                self._look(t)
        except Exception as error:
            guard.swallowed(error)

    def _closing(self) -> None:
        """Record that the interpreter ends, and which exception ended it; called at exit."""
        from datacat.client import exceptions

        self.stop_heartbeat_monitor()
        self._put(exceptions.closing(_now_ns() // 1000, self.fatal))
        self._carrier.wake()
        self._carrier.look()  # who sees how the process ends must be there before it does

    def _forget(self) -> None:
        """Become inert in a forked child."""
        self._ended = True
        self._lock = threading.RLock()
        self._looking = threading.Lock()
        self._slots = [0, 0]
        self._monitor = None
        self._drops.forget()
        self._sink.forget()
        self._carrier.forget()
