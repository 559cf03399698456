"""Heartbeats that mean something: driven by the app's own event loop, or by a thread that looks whether main gets on.

A thread that only beats proves nothing: it beats on while the main thread is deadlocked. So the loop of Qt, Tk or
asyncio beats, when there is one. Else a thread beats, but only while the main thread makes progress: it used CPU time,
it is at another instruction, or it waits where programs wait for work. A main thread that is blocked on a lock is none
of these. What this cannot see is a loop that spins without doing anything; an app that can hang so beats itself.

The thread runs in every mode: until the loop has beaten for the first time it beats in its place, and when beats stop
it writes the stacks of all threads to the session's stacks file, without any signal. Of an app that beats itself it
does nothing else.
"""

import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from datacat import host
from datacat.client import guard, stacks
from datacat.wire import hangs
from datacat.wire.layout import Meta
from datacat.worker import Worker

LONGEST_INTERVAL_S = 1.0
SHORTEST_INTERVAL_S = 0.05
BEATS_PER_TIMEOUT = 10
"""A busy machine may cost some beats; all of ten it does not."""
BEATS_PER_SLOW = 5
QT_BINDINGS = ("PySide6", "PyQt6", "PyQt5", "PySide2")

# Where the main thread of a program waits for work, by the file and function of its innermost Python frame.
_IDLE_FRAMES = frozenset(
    {
        ("selectors.py", "select"),
        ("threading.py", "wait"),
        ("threading.py", "join"),
        ("threading.py", "_wait_for_tstate_lock"),
        ("threading.py", "_shutdown"),
        ("queue.py", "get"),
        ("socket.py", "accept"),
        ("subprocess.py", "_try_wait"),
        ("subprocess.py", "_wait"),
        ("windows_events.py", "_poll"),
    }
)
# Linux tells where in the kernel a thread sleeps: a futex is a lock, everything else is input, output or a timer.
_LOCK_WAITS = ("futex",)


class Beating(Protocol):
    """What a monitor needs of a session."""

    meta: Meta

    @property
    def journal_folder(self) -> Path | None:
        """Where the stacks go."""

    @property
    def beaten_ns(self) -> int:
        """The awake time of the last heartbeat, whoever made it; 0 when there is none."""

    def heartbeat(self) -> None:
        """Beat once."""


class Sample(NamedTuple):
    """What is seen of the main thread: CPU time, where its innermost frame is, whether it waits for work."""

    cpu_ns: int
    place: tuple[str, str, int]
    idle: bool


class Drive(NamedTuple):
    """A timer in the app's loop: how to end it, and whether the loop still runs."""

    cancel: Callable[[], None]
    running: Callable[[], bool]


def timeout_s(value: object) -> float:
    """Return a usable timeout; what is no number above 0 becomes 60 s."""
    try:
        seconds = float(value)  # type: ignore[arg-type]  # tried, not known
    except (TypeError, ValueError, OverflowError):
        return 60.0
    return seconds if 0 < seconds < 1e9 else 60.0


def interval_s(timeout_s: float, slow_s: float = 0.0) -> float:
    """Return how often to beat for a timeout, and for a silence that is slow already (0: there is none)."""
    every_s = timeout_s / BEATS_PER_TIMEOUT
    if slow_s:
        every_s = min(every_s, slow_s / BEATS_PER_SLOW)
    return min(LONGEST_INTERVAL_S, max(SHORTEST_INTERVAL_S, every_s))


def stacks_due_s(every_s: float, timeout_s: float, slow_s: float) -> tuple[float, ...]:
    """Return after how much silence stacks are written: so early that the daemon finds those that it comes for.

    every_s is how often that is looked at.
    """
    ahead_s = every_s + 2 * hangs.lead_s(timeout_s)
    return tuple(max(2 * every_s, point_s - ahead_s) for point_s in hangs.points_s(timeout_s, slow_s))


def gets_on(before: Sample, now: Sample) -> bool:
    """Return whether the main thread made progress between two samples, or waits where there is nothing to do."""
    return now.cpu_ns != before.cpu_ns or now.place != before.place or now.idle


def start(session: Beating, loop: str | None, timeout_s: float) -> "Monitor":
    """Start beating with the named loop, or with the one that is found for auto. Call it in the loop's own thread.

    None beats with nothing: the app does, and only its silence is watched.
    """
    monitor = Monitor(session, timeout_s, beats=loop is not None)
    for name, drive in _DRIVES.items():
        if loop in ("auto", name):
            driven = drive(monitor.loop_beat, monitor.every_s)
            if driven is not None:
                monitor.driven_by(name, driven)
                break
    monitor.start()
    return monitor


class Monitor:
    """Owns the thread that watches the main thread, and the timer in the app's loop. Started and stopped once.

    beats: beats are made here, by the loop or the thread; else the app makes them.
    """

    def __init__(
        self, session: Beating, timeout_s: float, *, beats: bool = True, clock_ns: Callable[[], int] = host.awake_ns
    ) -> None:
        self.beats = beats
        self.loop = "thread"
        self._session = session
        self._clock_ns = clock_ns
        self._drive: Drive | None = None
        self._loop_has_beaten = False
        self._timeout_s = timeout_s
        self._slow_s = hangs.slow_s(session.meta.settings, os.environ)
        self.every_s = interval_s(timeout_s, self._slow_s)
        self._due_s = stacks_due_s(self.every_s, timeout_s, self._slow_s)
        self._beaten_ns = 0
        self._written = 0
        self._sample = sample_main()
        self._worker = Worker("heartbeat", self.every_s, self.look)

    def start(self) -> None:
        """Start the thread."""
        self._worker.start()

    def does(self) -> tuple[bool, bool]:
        """Return whether it beats, and whether it writes stacks."""
        return self.beats, stacks.writes(self._session.journal_folder)

    def driven_by(self, loop: str, drive: Drive) -> None:
        """Note which loop beats."""
        self.loop = loop
        self._drive = drive

    def stop(self) -> None:
        """End timer and thread; idempotent."""
        drive, self._drive = self._drive, None
        if drive is not None:
            try:
                drive.cancel()
            except Exception as error:  # a loop that is closed already has no timer any more
                guard.swallowed(error)
        self._worker.stop()

    def loop_beat(self) -> None:
        """Beat from the app's loop."""
        self._loop_has_beaten = True
        self._session.heartbeat()

    def look(self) -> None:
        """Beat when the main thread gets on and no loop does it; write the stacks when nothing beats.

        A loop that does not run yet, or not any more, does not beat.
        """
        if self.beats:
            now = sample_main()
            drive = self._drive
            loop_beats = drive is not None and self._loop_has_beaten and drive.running()
            if not loop_beats and gets_on(self._sample, now):
                self._session.heartbeat()
            self._sample = now
        self._write_when_due()

    def _write_when_due(self) -> None:
        beaten_ns = self._session.beaten_ns
        if beaten_ns != self._beaten_ns:
            self._had_been_silent((beaten_ns - self._beaten_ns) / 1e9 if self._beaten_ns else 0.0)
            self._beaten_ns, self._written = beaten_ns, 0
        silent_s = (self._clock_ns() - beaten_ns) / 1e9 if beaten_ns else 0.0
        due = sum(silent_s >= due_s for due_s in self._due_s)
        if due > self._written:
            self._written = due
            stacks.write(self._session.journal_folder)

    def _had_been_silent(self, for_s: float) -> None:
        """Call an app that beats itself, and seldom, slow after twice as long a silence only, as the daemon does."""
        if not self.beats and self._slow_s and self._written and 2 * for_s > self._slow_s:
            self._due_s = stacks_due_s(self.every_s, self._timeout_s, 2 * for_s)


def sample_main() -> Sample:
    """Look at the main thread."""
    found = stacks.main_frame()
    if found is None:  # it has ended, and the other threads go on
        return Sample(0, ("", "", 0), idle=True)
    file, function, _, at = found
    idle = (os.path.basename(file), function) in _IDLE_FRAMES or _waits_for_input()  # noqa: PTH119
    return Sample(_cpu_ns(threading.main_thread()), (file, function, at), idle)


def is_input_wait(wchan: str) -> bool:
    """Return whether the name of a kernel function (proc_pid_wchan(5)) is a wait for anything but a lock.

    "0" means that the thread runs, or that the kernel does not tell.
    """
    return bool(wchan) and wchan != "0" and not wchan.startswith(_LOCK_WAITS)


def _cpu_ns(thread: threading.Thread) -> int:
    if sys.platform == "win32" or thread.ident is None or not hasattr(time, "pthread_getcpuclockid"):
        return 0
    try:
        return time.clock_gettime_ns(time.pthread_getcpuclockid(thread.ident))
    except OSError:
        return 0


def _waits_for_input() -> bool:
    """Return whether the main thread (its id is the pid, on Linux) sleeps in the kernel, but not for a lock."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/wchan", encoding="ascii") as file:  # noqa: PTH123  it must be cheap
            return is_input_wait(file.read())
    except OSError:
        return False


def _drive_asyncio(beat: Callable[[], None], every_s: float) -> Drive | None:
    """Beat from the asyncio loop that runs in this thread; None when none does."""
    asyncio = sys.modules.get("asyncio")
    loop = asyncio._get_running_loop() if asyncio is not None else None  # noqa: SLF001  the one that raises nothing
    if loop is None:
        return None
    ended = threading.Event()

    def tick() -> None:
        if not ended.is_set():
            beat()
            loop.call_later(every_s, tick)

    tick()
    return Drive(ended.set, loop.is_running)


def _drive_qt(beat: Callable[[], None], every_s: float) -> Drive | None:
    """Beat from the Qt application; None when there is none."""
    for binding in QT_BINDINGS:
        core = sys.modules.get(f"{binding}.QtCore")
        application = core.QCoreApplication.instance() if core is not None else None
        if core is None or application is None:
            continue
        return _qt_timer(core, application, beat, every_s)
    return None


def _qt_timer(core: Any, application: Any, beat: Callable[[], None], every_s: float) -> Drive:
    quits = threading.Event()
    timer = core.QTimer(application)
    timer.timeout.connect(beat)
    timer.start(int(every_s * 1000))
    application.aboutToQuit.connect(quits.set)
    return Drive(timer.stop, lambda: not quits.is_set())


def _drive_tk(beat: Callable[[], None], every_s: float) -> Drive | None:
    """Beat from the Tk root window; None when there is none."""
    root = getattr(sys.modules.get("tkinter"), "_default_root", None)
    if root is None:
        return None
    ended, gone = threading.Event(), threading.Event()

    def tick() -> None:
        if not ended.is_set():
            beat()
            root.after(int(every_s * 1000), tick)

    def destroyed(event: Any) -> None:
        if event.widget is root:
            gone.set()

    root.bind("<Destroy>", destroyed, add="+")
    root.after(int(every_s * 1000), tick)
    return Drive(ended.set, lambda: not gone.is_set())


_DRIVES = {"asyncio": _drive_asyncio, "qt": _drive_qt, "tk": _drive_tk}
