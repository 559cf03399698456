"""In what condition a process is: real ones that run, wait, are stopped, traced and frozen, and canned trees."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import eventually

from datacat import host
from datacat.host.condition import Task, ask_for_stacks, condition, held, is_undisturbed_by_signals

FREEZERS = (Path("/sys/fs/cgroup/freezer"), Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))


@pytest.fixture
def child():
    """Start a process that says when it is there and then does what code says."""
    started = []

    def start(code="sys.stdin.read()"):
        code = f"import os, signal, sys, threading, time\nprint('up', flush=True)\n{code}"
        process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        started.append(process)
        process.stdout.readline()
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def frozen_group():
    """A control group that is frozen, or None; thawed and removed at the end."""
    for base in FREEZERS:
        group = base / f"datacat-test-{os.getpid()}"
        old = base.name == "freezer"
        try:
            group.mkdir()
        except OSError:
            continue
        switch = group / ("freezer.state" if old else "cgroup.freeze")
        if switch.exists():
            yield group, switch, ("FROZEN", "THAWED") if old else ("1", "0")
            switch.write_text("THAWED" if old else "0")
            with contextlib.suppress(OSError):
                eventually(lambda procs=group / "cgroup.procs": not procs.read_text())
                group.rmdir()
            return
        group.rmdir()
    pytest.skip("capability: no control group can be made and frozen here")


def test_of_a_process_that_is_gone_nothing_is_known():
    assert condition(2**22 + 1) is None
    assert held(2**22 + 1) == ""


def test_a_stopped_process_is_held_until_it_goes_on(child):
    process = child()
    assert held(process.pid) == ""
    process.send_signal(signal.SIGSTOP)
    assert eventually(lambda: held(process.pid)) == "stopped"
    process.send_signal(signal.SIGCONT)
    eventually(lambda: held(process.pid) == "")


def test_a_process_under_a_debugger_is_held(child):
    strace = shutil.which("strace")
    if not strace:
        pytest.skip("capability: there is no strace")
    process = child()
    tracer = subprocess.Popen(
        [strace, "-qq", "-o", "/dev/null", "-p", str(process.pid)], stderr=subprocess.PIPE, text=True
    )
    try:
        if tracer.poll() is None:
            eventually(lambda: held(process.pid) or tracer.poll() is not None)
        if tracer.poll() is not None:
            pytest.skip(f"capability: no process can be traced here: {tracer.stderr.read().strip()}")
        assert held(process.pid) == "traced"
    finally:
        tracer.terminate()
        tracer.communicate()
    eventually(lambda: held(process.pid) == "")


def test_a_process_in_a_frozen_group_is_held(child, frozen_group):
    group, switch, (frozen, thawed) = frozen_group
    process = child()
    (group / "cgroup.procs").write_text(str(process.pid))
    switch.write_text(frozen)
    assert eventually(lambda: held(process.pid)) == "frozen"
    switch.write_text(thawed)
    eventually(lambda: held(process.pid) == "")
    process.kill()
    process.wait(10)


@pytest.mark.parametrize(
    ("line", "file", "text"),
    [
        ("0::/app.slice", "sys/fs/cgroup/app.slice/cgroup.events", "populated 1\nfrozen 1\n"),
        ("0::/app.slice", "sys/fs/cgroup/unified/app.slice/cgroup.events", "frozen 1\n"),
        ("5:cpu,freezer:/app", "sys/fs/cgroup/freezer/app/freezer.state", "FROZEN\n"),
        ("0::/", "proc/7/wchan", "do_freezer_trap"),
    ],
)
def test_each_kind_of_freezer_is_known(tmp_path, line, file, text):
    folder = tmp_path / "proc/7"
    folder.mkdir(parents=True)
    (folder / "status").write_text("Name:\tx\nState:\tS (sleeping)\nTracerPid:\t0\n")
    (folder / "cgroup").write_text(line + "\n")
    assert held(7, root=str(tmp_path)) == ""
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(text)
    assert held(7, root=str(tmp_path)) == "frozen"
    (folder / "status").write_text("Name:\tx\nState:\tt (tracing stop)\nTracerPid:\t99\n")
    assert held(7, root=str(tmp_path)) == "traced"


def test_a_waiting_process_tells_what_it_waits_for_and_a_busy_one_its_time(child):
    process = child("threading.Lock().acquire(); lock = threading.Lock(); lock.acquire(); lock.acquire()")
    waiting = eventually(lambda: (seen := condition(process.pid)).tasks[0].state == "S" and seen)
    assert (waiting.held, waiting.state, waiting.thread_count) == ("", "S", 1)
    main = waiting.tasks[0]
    assert main.tid == process.pid
    assert (main.syscall in ("futex", "") and main.wait_channel.startswith("futex")) or main.syscall == "futex"
    busy = child("threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\nwhile True: pass")
    seen = eventually(lambda: (seen := condition(busy.pid)).cpu_s > 0.2 and len(seen.tasks) == 2 and seen)
    assert seen.state == "R"
    assert seen.tasks[0].cpu_s > 0.1 > seen.tasks[1].cpu_s


@pytest.mark.parametrize(
    ("state", "channel", "syscall", "undisturbed"),
    [
        ("R", "", "", False),
        ("R", "", "read", False),
        ("S", "futex_do_wait", "futex", True),
        ("S", "futex_do_wait", "", True),
        ("S", "unix_stream_read_generic", "read", True),
        ("S", "hrtimer_nanosleep", "clock_nanosleep", False),
        ("S", "do_epoll_wait", "epoll_wait", False),
        ("S", "unix_stream_read_generic", "recvfrom", False),
        ("D", "kernel_clone", "56", False),
        ("S", "", "", False),
    ],
)
def test_a_signal_disturbs_nobody_who_waits_in_a_call_that_goes_on(state, channel, syscall, undisturbed):
    assert is_undisturbed_by_signals(Task(7, "x", state, 0.0, 0, channel, syscall)) is undisturbed


def test_the_signal_is_sent_only_to_the_process_that_has_a_handler_and_still_has_the_file(child, tmp_path):
    stacks = tmp_path / "stacks"
    process = child(
        f"import faulthandler\nfile = open({str(stacks)!r}, 'ab', buffering=0)\n"
        "faulthandler.register(signal.SIGURG, file=file)\nos.write(1, b'%d\\n' % file.fileno())\nsys.stdin.read()"
    )
    fd, start = int(process.stdout.readline()), host.process_start(process.pid)
    other = tmp_path / "other"
    other.touch()
    assert not ask_for_stacks(process.pid, start + 1, signal.SIGURG, fd, stacks)
    assert not ask_for_stacks(process.pid, start, signal.SIGWINCH, fd, stacks)
    assert not ask_for_stacks(process.pid, start, signal.SIGURG, fd, other)
    assert not ask_for_stacks(process.pid, start, signal.SIGURG, 1, stacks)
    assert not ask_for_stacks(2**22 + 1, start, signal.SIGURG, fd, stacks)
    assert stacks.stat().st_size == 0
    assert ask_for_stacks(process.pid, start, signal.SIGURG, fd, stacks)
    eventually(lambda: stacks.stat().st_size > 0)


@pytest.mark.parametrize(
    ("fields", "sent"),
    [
        ({}, True),
        ({"SigPnd": "2000", "SigBlk": "2000"}, True),
        ({"SigCgt": "0"}, False),
        ({"SigBlk": "400000"}, False),
        ({"SigPnd": "2000"}, False),
        ({"ShdPnd": "400000"}, False),
        ({"State": "Z (zombie)"}, False),
        ({"SigBlk": "x"}, False),
    ],
)
def test_the_signal_is_sent_only_when_the_main_thread_will_get_it(tmp_path, monkeypatch, fields, sent):
    killed = []
    monkeypatch.setattr(os, "kill", lambda *args: killed.append(args))
    monkeypatch.setattr(host, "process_start", lambda pid: 70)
    (tmp_path / "proc/7/fd").mkdir(parents=True)
    (tmp_path / "stacks").touch()
    (tmp_path / "proc/7/fd/9").symlink_to(tmp_path / "stacks")
    said = {"State": "S (sleeping)", "SigPnd": "0", "ShdPnd": "0", "SigBlk": "0", "SigCgt": "400000"} | fields
    (tmp_path / "proc/7/status").write_text("".join(f"{name}:\t{value}\n" for name, value in said.items()))
    assert ask_for_stacks(7, 70, 23, 9, tmp_path / "stacks", root=str(tmp_path)) is sent
    assert killed == [(7, 23)] * sent


def test_elsewhere_psutil_tells_what_it_can(child, monkeypatch):
    import psutil  # noqa: F401  it looks at the platform itself

    process = child()
    monkeypatch.setattr(sys, "platform", "darwin")
    seen = condition(process.pid)
    assert (seen.held, seen.state, seen.tasks) == ("", "", ())
    assert seen.thread_count == 1
    process.send_signal(signal.SIGSTOP)
    assert eventually(lambda: held(process.pid)) == "stopped"
    assert condition(2**22 + 1) is None
