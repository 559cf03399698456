"""Processes seen from outside: real ones, children and others; macOS and Windows by canned answers."""

import os
import signal
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

from datacat import host
from datacat.errors import ProcessGone
from datacat.host import process
from datacat.host.process import (
    UNKNOWN_EXIT,
    Exit,
    HandleWatch,
    KqueueWatch,
    PidfdWatch,
    PollWatch,
    Target,
    alive,
    from_wait_status,
    signal_name,
    watch,
)

PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
print(child.pid, flush=True)
sys.stdin.readline()
child.stdin.close()
sys.stdin.readline()
child.wait()
print("reaped", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def stranger():
    """Start a process that is the child of another one; say("go") ends it, say("reap") lets its parent reap it."""
    parents = []

    def start(code):
        parent = subprocess.Popen(
            [sys.executable, "-c", PARENT, f"import sys; sys.stdin.read(); {code}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        parents.append(parent)
        pid = int(parent.stdout.readline())

        def say(word):
            parent.stdin.write(word + "\n")
            parent.stdin.flush()
            if word == "reap":
                assert parent.stdout.readline() == "reaped\n"

        return Target(pid, host.process_start(pid)), say

    yield start
    for parent in parents:
        parent.kill()
        parent.communicate()


@pytest.fixture
def child():
    started = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    yield started
    started.kill()
    started.communicate()


def target_of(child):
    return Target(child.pid, host.process_start(child.pid))


ENDS = [
    ("import os; os._exit(7)", Exit(7, None, core=False, known=True)),
    ("pass", Exit(0, None, core=False, known=True)),
    ("raise ValueError", Exit(1, None, core=False, known=True)),
    ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", Exit(None, 9, core=False, known=True)),
    ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", Exit(None, 15, core=False, known=True)),
]


@pytest.mark.parametrize(("code", "expected"), ENDS)
def test_how_a_strangers_process_ended_is_known_while_it_is_not_reaped(stranger, code, expected):
    target, say = stranger(code)
    watching = watch(target)
    assert watching.wait(0.0) is None
    say("go")
    assert watching.wait(10.0) == expected
    assert not alive(target)
    watching.close()
    watching.close()


@pytest.mark.parametrize(("code", "expected"), ENDS)
def test_how_a_strangers_process_ended_is_known_after_it_was_reaped(stranger, code, expected):
    if not tells_status_after_reaping():
        pytest.skip("capability: this kernel's pidfd does not tell the exit status")
    target, say = stranger(code)
    watching = watch(target)
    say("go")
    say("reap")
    assert watching.wait(10.0) == expected
    watching.close()


def test_how_a_process_ended_is_known_however_its_reaping_and_our_look_fall_together():
    if not tells_status_after_reaping():
        pytest.skip("capability: this kernel's pidfd does not tell the exit status")
    for number in range(60):
        process = subprocess.Popen(["/bin/sh", "-c", "read line; exit 5"], stdin=subprocess.PIPE)
        watching = watch(target_of(process))
        reaper = threading.Thread(target=process.wait)
        reaper.start()
        if number % 2:
            process.kill()
        process.stdin.close()
        seen = watching.wait(10.0)
        reaper.join()
        watching.close()
        assert seen.known
        assert (seen.signal, seen.code) == ((9, None) if number % 2 else (None, 5))


def test_a_process_that_is_being_reaped_is_waited_for_and_one_that_nobody_reaps_is_not(child):
    if not tells_status_after_reaping():
        pytest.skip("capability: this kernel's pidfd does not tell the exit status")
    target = target_of(child)
    # A root without /proc stands for one whose status may not be read there.
    blind = PidfdWatch(target, os.pidfd_open(child.pid), root="/nonexistent")
    child.kill()
    assert blind.wait(10.0) == UNKNOWN_EXIT
    child.wait()
    assert blind.wait(0.0) == Exit(None, 9, core=False, known=True)
    blind.close()


def tells_status_after_reaping():
    probe = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    watching = watch(target_of(probe))
    probe.wait()
    seen = watching.wait(10.0)
    watching.close()
    return seen == Exit(3, None, core=False, known=True)


def test_a_segfault_is_told_by_its_signal(stranger):
    target, say = stranger(
        "import resource, os, signal; resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); os.kill(os.getpid(), signal.SIGSEGV)"
    )
    watching = watch(target)
    say("go")
    seen = watching.wait(10.0)
    assert (seen.signal, seen.code, seen.known) == (signal.SIGSEGV, None, True)
    watching.close()


def test_an_own_child_that_is_a_zombie_is_not_alive(child):
    target = target_of(child)
    watching = watch(target)
    assert alive(target)
    child.stdin.close()
    assert watching.wait(10.0) == Exit(0, None, core=False, known=True)
    assert not alive(target)
    watching.close()


def test_an_inherited_pidfd_needs_no_second_look(child):
    target = target_of(child)
    fd = os.pidfd_open(child.pid)
    child.kill()
    watching = watch(target, fd)
    assert watching.wait(10.0) == Exit(None, 9, core=False, known=True)
    watching.close()


def test_a_later_owner_of_the_pid_is_another_process():
    mine = host.process_start(os.getpid())
    assert alive(Target(os.getpid(), mine))
    assert not alive(Target(os.getpid(), mine - 1))
    with pytest.raises(ProcessGone):
        watch(Target(os.getpid(), mine - 1))


def test_a_pid_that_nobody_has_is_gone():
    target = Target(2**22 + 1, 1)
    assert not alive(target)
    with pytest.raises(ProcessGone):
        watch(target)


def test_a_closed_watch_knows_nothing(child):
    watching = watch(target_of(child))
    watching.close()
    assert watching.fileno() is None
    assert watching.wait(0.0) == UNKNOWN_EXIT


def test_without_any_help_of_the_system_a_look_tells_that_it_ended(child):
    watching = PollWatch(target_of(child))
    assert watching.wait(0.0) is None
    assert watching.fileno() is None
    child.kill()
    child.wait()
    assert watching.wait(0.0) == UNKNOWN_EXIT
    watching.close()


def test_a_status_of_a_zombie_is_not_taken_from_another_process(tmp_path, child):
    stat = tmp_path / "proc" / str(child.pid)
    stat.mkdir(parents=True)
    fields = ["Z", *["0"] * 18, "999", *["0"] * 29, "256"]
    (stat / "stat").write_text(f"{child.pid} (a) b) {' '.join(fields)}\n")
    other = PidfdWatch(Target(child.pid, 998), -1, root=str(tmp_path))
    same = PidfdWatch(Target(child.pid, 999), -1, root=str(tmp_path))
    assert other._from_proc() is None
    assert from_wait_status(same._from_proc()) == Exit(1, None, core=False, known=True)


def test_wait_statuses_are_taken_apart():
    assert from_wait_status(7 << 8) == Exit(7, None, core=False, known=True)
    assert from_wait_status(9) == Exit(None, 9, core=False, known=True)
    assert from_wait_status(11 | 0x80) == Exit(None, 11, core=True, known=True)


def test_signals_have_names():
    assert (signal_name(9), signal_name(11), signal_name(99)) == ("SIGKILL", "SIGSEGV", "signal 99")


class FakeKqueue:
    """The part of the select module that macOS has; answers are put into results."""

    KQ_NOTE_EXIT = 0x80000000
    KQ_FILTER_PROC = -5
    KQ_EV_ADD = 1
    KQ_EV_ONESHOT = 16

    def __init__(self, refuse=None):
        self.refuse = refuse
        self.notes = []
        self.results = []
        self.closed = False

    def kqueue(self):
        return self

    def kevent(self, ident, kind, flags, fflags):
        return SimpleNamespace(ident=ident, fflags=fflags)

    def control(self, changes, count, timeout):
        for change in changes:
            if self.refuse and change.fflags & process.NOTE_EXITSTATUS:
                raise self.refuse
            self.notes.append(change.fflags)
        return [self.results.pop(0)] if count and self.results else []

    def fileno(self):
        return 42

    def close(self):
        self.closed = True


def test_macos_tells_the_status_of_a_process_that_we_may_signal(child):
    module = FakeKqueue()
    watching = KqueueWatch(target_of(child), module)
    assert watching.fileno() == 42
    assert watching.wait(0.0) is None
    module.results.append(SimpleNamespace(data=9))
    assert watching.wait(1.0) == Exit(None, 9, core=False, known=True)
    assert watching.fileno() is None
    assert watching.wait(0.0) == Exit(None, 9, core=False, known=True)
    watching.close()
    assert module.closed


def test_macos_without_the_right_to_the_status_still_tells_the_end(child):
    module = FakeKqueue(refuse=PermissionError())
    watching = KqueueWatch(target_of(child), module)
    module.results.append(SimpleNamespace(data=0))
    assert watching.wait(1.0) == UNKNOWN_EXIT


def test_macos_a_process_that_was_gone_before_is_seen(child):
    assert KqueueWatch(target_of(child), FakeKqueue(refuse=ProcessLookupError())).wait(0.0) == UNKNOWN_EXIT
    assert KqueueWatch(Target(2**22 + 1, 1), FakeKqueue()).wait(0.0) == UNKNOWN_EXIT


class FakeKernel32:
    def __init__(self, code=None, handle=7):
        self.code = code
        self.handle = handle
        self.closed = []

    def OpenProcess(self, access, inherit, pid):
        return self.handle

    def WaitForSingleObject(self, handle, timeout_ms):
        return 0 if self.code is not None else 0x102

    def GetExitCodeProcess(self, handle, pointer):
        pointer._obj.value = self.code
        return 1

    def CloseHandle(self, handle):
        self.closed.append(handle)


def test_windows_tells_the_exit_code_once_the_handle_is_signalled(child):
    kernel32 = FakeKernel32()
    watching = HandleWatch(target_of(child), kernel32)
    assert watching.fileno() is None
    assert watching.wait(0.0) is None
    kernel32.code = 0xC0000005
    assert watching.wait(0.0) == Exit(0xC0000005, None, core=False, known=True)
    watching.close()
    watching.close()
    assert kernel32.closed == [7]


def test_windows_a_pid_that_is_gone_or_given_away_is_refused(child):
    with pytest.raises(ProcessGone):
        HandleWatch(target_of(child), FakeKernel32(handle=0))
    kernel32 = FakeKernel32()
    with pytest.raises(ProcessGone):
        HandleWatch(Target(child.pid, 1), kernel32)
    assert kernel32.closed == [7]
