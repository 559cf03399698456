import asyncio
import sys
import threading
import time
import types

import pytest
from client_helpers import run_app
from helpers import eventually

from datacat.client import loops
from datacat.client.loops import Drive, Monitor, Sample
from datacat.wire import layout
from datacat.wire.layout import Meta


class Beating:
    def __init__(self, folder=None):
        self.meta = Meta("id", "p", "1", "s", 0)
        self.journal_folder = folder
        self.beats = 0
        self.beaten_ns = 0

    def heartbeat(self):
        self.beats += 1


def beat_of(session):
    return layout.unpack_beat((session.journal_folder / layout.BEAT_FILE).read_bytes()).awake_ns


IDLE = Sample(5, ("f", "g", 2), idle=True)
STILL = Sample(5, ("f", "g", 2), idle=False)


@pytest.mark.parametrize(
    ("before", "now", "gets_on"),
    [
        (STILL, STILL, False),
        (STILL, IDLE, True),
        (STILL, STILL._replace(cpu_ns=6), True),
        (STILL, STILL._replace(place=("f", "g", 4)), True),
        (IDLE, STILL, False),
    ],
)
def test_progress_is_cpu_time_or_another_place_or_waiting_for_work(before, now, gets_on):
    assert loops.gets_on(before, now) is gets_on


@pytest.mark.parametrize(
    ("wchan", "waits"),
    [
        ("hrtimer_nanosleep", True),
        ("do_epoll_wait", True),
        ("unix_stream_read_generic", True),
        ("futex_do_wait", False),
        ("futex_wait_queue", False),
        ("0", False),
        ("", False),
    ],
)
def test_a_thread_that_sleeps_in_the_kernel_waits_unless_it_is_for_a_lock(wchan, waits):
    assert loops.is_input_wait(wchan) is waits


@pytest.mark.parametrize(("given", "used"), [(7, 7.0), ("3", 3.0), (0, 60.0), (-1, 60.0), ("x", 60.0), (None, 60.0)])
def test_a_timeout_that_is_no_number_above_zero_is_the_default(given, used):
    assert loops.timeout_s(given) == used


@pytest.mark.parametrize(
    ("timeout_s", "slow_s", "interval_s"),
    [(60, 0, 1.0), (60, 5, 1.0), (5, 5, 0.5), (0.1, 5, 0.05), (60, 2, 0.4), (60, 0.1, 0.05)],
)
def test_there_are_several_beats_in_a_timeout_and_before_an_app_is_slow(timeout_s, slow_s, interval_s):
    assert loops.interval_s(timeout_s, slow_s) == interval_s


@pytest.fixture
def samples(monkeypatch):
    """What the monitor sees of the main thread."""
    seen = [STILL]
    monkeypatch.setattr(loops, "sample_main", lambda: seen[-1])
    return seen


def test_the_thread_beats_only_while_the_main_thread_gets_on(samples):
    app = Beating()
    monitor = Monitor(app, 5.0)
    monitor.look()
    assert app.beats == 0
    samples.append(STILL._replace(cpu_ns=9))
    monitor.look()
    monitor.look()
    assert app.beats == 1


def test_until_its_loop_beats_and_after_its_loop_has_ended_the_thread_beats_in_its_place(samples):
    app = Beating()
    running = [True]
    monitor = Monitor(app, 5.0)
    monitor.driven_by("tk", Drive(lambda: None, lambda: running[0]))

    def get_on():
        samples.append(STILL._replace(cpu_ns=samples[-1].cpu_ns + 1))
        monitor.look()

    get_on()
    assert app.beats == 1
    monitor.loop_beat()
    get_on()
    assert app.beats == 2
    running[0] = False
    get_on()
    assert app.beats == 3


@pytest.mark.parametrize(
    ("timeout_s", "slow_s", "due_s"),
    [
        (60, 5, (3.8, 56.8, 57.8, 58.8)),
        (60, 0, (56.8, 57.8, 58.8)),
        (2, 5, (0.6, 1.1, 1.6)),
        (0.1, 5, (0.1, 0.1, 0.1)),
        (60, 0.3, (0.12, 57.74, 58.74, 59.74)),
    ],
)
def test_stacks_are_written_before_the_daemon_comes_for_them(timeout_s, slow_s, due_s):
    every_s = loops.interval_s(timeout_s, slow_s)
    assert loops.stacks_due_s(every_s, timeout_s, slow_s) == pytest.approx(due_s)


@pytest.fixture
def written(monkeypatch):
    """Which sessions had their stacks written."""
    found = []
    monkeypatch.setattr(loops.stacks, "write", found.append)
    return found


@pytest.mark.parametrize("beats", [True, False])
def test_the_stacks_of_a_hang_are_written_when_they_are_due_and_for_the_next_hang_again(
    samples, tmp_path, written, beats
):
    app, now = Beating(tmp_path), [0]
    monitor = Monitor(app, 60.0, beats=beats, clock_ns=lambda: now[0])

    def silent(since_s, *seconds):
        app.beaten_ns = int(since_s * 1e9)
        for second in seconds:
            now[0] = int((since_s + second) * 1e9)
            monitor.look()
            yield len(written)

    assert list(silent(0, 4, 60)) == [0, 0]  # it has not beaten yet
    assert list(silent(100, 1, 3.7, 3.9, 50, 56.9, 57, 57.9, 58.9, 59.9, 100)) == [0, 0, 1, 1, 2, 2, 3, 4, 4, 4]
    assert set(written) == {tmp_path}
    assert list(silent(300, 1, 56.9, 57.9, 58.9))[-1] == 7
    assert app.beats == 0


def test_an_app_that_beats_itself_and_seldom_is_looked_into_after_twice_as_long_a_silence(samples, written):
    app, now = Beating(), [0]
    monitor = Monitor(app, 60.0, beats=False, clock_ns=lambda: now[0])
    counts = []
    for beat in (10, 20, 30, 45, 80):
        app.beaten_ns = beat * 10**9
        for second in range(1, 10):
            now[0] = (beat + second) * 10**9
            monitor.look()
        counts.append(len(written))
    assert counts == [1, 1, 1, 1, 1]
    now[0] = 99 * 10**9
    monitor.look()
    assert len(written) == 2


def test_an_app_that_beats_itself_is_only_watched(session, samples):
    session.start_heartbeat_monitor(timeout=1, loop=None)
    first = beat_of(session)
    for _ in range(3):
        samples.append(STILL._replace(cpu_ns=samples[-1].cpu_ns + 1))
        session._monitor.look()
    assert beat_of(session) == first
    beat = layout.unpack_beat((session.journal_folder / layout.BEAT_FILE).read_bytes())
    assert (beat.on, beat.steady, beat.writes) == (True, False, True)
    session.start_heartbeat_monitor(timeout=1, loop="thread")
    beat = layout.unpack_beat((session.journal_folder / layout.BEAT_FILE).read_bytes())
    assert (beat.on, beat.steady, beat.writes) == (True, True, True)


def test_a_main_thread_that_waits_for_work_beats(session):
    session.start_heartbeat_monitor(timeout=1, loop="thread")
    first = beat_of(session)
    assert threading.Event().wait(0.5) is False  # Event.wait is where a program waits for work
    assert beat_of(session) > first


def test_a_main_thread_that_is_deadlocked_does_not_beat_and_says_where(tmp_path):
    app = run_app(
        """
        import os, threading, time
        import datacat
        from datacat.wire import layout
        session = datacat.create_session(product="p", version="1", state_dir=os.environ["STATE"])
        session.start_heartbeat_monitor(timeout=1)
        lock = threading.Lock()
        lock.acquire()
        def watch():
            started = time.monotonic_ns()
            threading.Event().wait(1.5)
            beat = layout.unpack_beat((session.journal_folder / "beat").read_bytes())
            stacks = (session.journal_folder / "stacks").read_text()
            print(beat.awake_ns < started + 600_000_000, "deadlock" in stacks, stacks.count("# at "))
            lock.release()
        def deadlock():
            lock.acquire()
        threading.Thread(target=watch).start()
        deadlock()
        """,
        tmp_path,
    )
    assert app.stdout == "True True 3\n", app.stderr


def test_a_busy_main_thread_beats(session):
    session.start_heartbeat_monitor(timeout=1, loop="thread")
    first = beat_of(session)
    until = time.monotonic() + 0.5
    while time.monotonic() < until:
        sum(range(1000))
    assert beat_of(session) > first


def test_an_asyncio_loop_beats_and_its_end_is_noticed(session):
    async def main():
        session.start_heartbeat_monitor(timeout=0.5)
        assert session._monitor.loop == "asyncio"
        first = beat_of(session)
        await asyncio.sleep(0.2)
        assert beat_of(session) > first
        return session._monitor._drive

    drive = asyncio.run(main())
    assert not drive.running()
    first = beat_of(session)
    eventually(lambda: sum(range(1000)) and beat_of(session) > first)


def test_an_asyncio_loop_that_is_blocked_does_not_beat(session):
    async def main():
        session.start_heartbeat_monitor(timeout=2)
        await asyncio.sleep(0.25)
        before = beat_of(session)
        until = time.monotonic() + 0.6
        while time.monotonic() < until:
            sum(range(1000))
        return before, beat_of(session)

    before, after = asyncio.run(main())
    assert before == after


class Signal:
    def __init__(self):
        self.slots = []

    def connect(self, slot):
        self.slots.append(slot)

    def emit(self):
        for slot in self.slots:
            slot()


def test_a_qt_application_beats_by_its_timer_until_it_quits(monkeypatch, samples):
    class Timer:
        def __init__(self, parent):
            self.parent, self.timeout, self.interval_ms = parent, Signal(), 0
            timers.append(self)

        def start(self, interval_ms):
            self.interval_ms = interval_ms

        def stop(self):
            self.interval_ms = 0

    timers = []
    application = types.SimpleNamespace(aboutToQuit=Signal())
    core = types.SimpleNamespace(QCoreApplication=types.SimpleNamespace(instance=lambda: application), QTimer=Timer)
    monkeypatch.setitem(sys.modules, "PySide6.QtCore", core)
    app = Beating()
    monitor = loops.start(app, "auto", 10)
    assert (monitor.loop, timers[0].interval_ms) == ("qt", 1000)
    timers[0].timeout.emit()
    assert app.beats == 1
    assert monitor._drive.running()
    application.aboutToQuit.emit()
    assert not monitor._drive.running()
    monitor.stop()
    assert timers[0].interval_ms == 0


def test_a_tk_root_beats_by_after_until_it_is_destroyed(monkeypatch, samples):
    class Root:
        def __init__(self):
            self.due, self.bound = [], {}

        def after(self, interval_ms, call):
            self.due.append((interval_ms, call))

        def bind(self, event, call, add):
            self.bound[event] = call

    root = Root()
    monkeypatch.setitem(sys.modules, "tkinter", types.SimpleNamespace(_default_root=root))
    app = Beating()
    monitor = loops.start(app, "tk", 10)
    for _ in range(3):
        interval_ms, call = root.due.pop()
        assert interval_ms == 1000
        call()
    assert app.beats == 3
    root.bound["<Destroy>"](types.SimpleNamespace(widget="a button"))
    assert monitor._drive.running()
    root.bound["<Destroy>"](types.SimpleNamespace(widget=root))
    assert not monitor._drive.running()
    monitor.stop()
    root.due.pop()[1]()
    assert app.beats == 3
    assert root.due == []


def test_without_any_loop_a_thread_beats(session):
    session.start_heartbeat_monitor(timeout=5)
    assert session._monitor.loop == "thread"
