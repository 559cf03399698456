"""In what condition a process is, seen from outside: held by somebody, running or waiting, and what for.

Linux reads /proc (proc(5), and the kernel's cgroup-v2.rst and freezer-subsystem.rst), other systems ask psutil and know
less. Nothing here touches the process, but ask_for_stacks(), which sends a signal.
"""

import contextlib
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

from datacat import host
from datacat.errors import HostError

MAX_THREADS = 64
"""Of a process with more threads the first ones are looked at: the main one and the oldest."""
_FREEZER_WAITS = ("do_freezer_trap", "__refrigerator")
# Numbers of system calls for kernels that tell no wait channel: linux/arch/x86/entry/syscalls/syscall_64.tbl and
# include/uapi/asm-generic/unistd.h (arm64).
_SYSCALLS = {
    "x86_64": {
        0: "read", 1: "write", 7: "poll", 23: "select", 35: "nanosleep", 42: "connect", 43: "accept", 45: "recvfrom",
        47: "recvmsg", 61: "wait4", 72: "fcntl", 73: "flock", 202: "futex", 230: "clock_nanosleep", 232: "epoll_wait",
        247: "waitid", 270: "pselect6", 271: "ppoll", 281: "epoll_pwait", 288: "accept4",
    },
    "aarch64": {
        22: "epoll_pwait", 25: "fcntl", 32: "flock", 63: "read", 64: "write", 72: "pselect6", 73: "ppoll", 95: "waitid",
        98: "futex", 101: "nanosleep", 115: "clock_nanosleep", 202: "accept", 203: "connect", 207: "recvfrom",
        212: "recvmsg", 242: "accept4", 260: "wait4",
    },
}  # fmt: skip


_RESTARTED = ("futex", "read", "wait4", "waitid", "flock")
"""Calls that go on after a handler with SA_RESTART has run, with or without a time limit of their own (signal(7))."""


class Task(NamedTuple):
    """One thread as the kernel sees it: state is a letter of proc_pid_stat(5), switches are the voluntary ones.

    wait_channel is the kernel function in which it sleeps, syscall the name or number of the call that it is in; both
    are empty where they are not told.
    """

    tid: int
    name: str
    state: str
    cpu_s: float
    switches: int
    wait_channel: str
    syscall: str


class Condition(NamedTuple):
    """A process at one moment. cpu_s and major_faults count from its start. state is the main thread's, or empty.

    tasks has the main thread first; it is empty where the system does not tell about threads.
    """

    held: str
    state: str
    cpu_s: float
    thread_count: int
    major_faults: int
    tasks: tuple[Task, ...] = ()


def held(pid: int, root: str = "/") -> str:
    """Return why the process cannot go on by itself: stopped, traced (a debugger), frozen (its cgroup); else empty."""
    if sys.platform != "linux":
        return _held_by_psutil(pid)
    folder = Path(root) / f"proc/{pid}"
    fields = _status(folder)
    if fields.get("TracerPid", "0") not in ("", "0"):
        return "traced"
    if fields.get("State", "").startswith(("T", "t")):
        return "stopped"
    return "frozen" if fields and _is_frozen(folder, Path(root)) else ""


def condition(pid: int, root: str = "/") -> Condition | None:
    """Return the condition of a process; None when it is gone or may not be looked at."""
    if sys.platform != "linux":
        return _condition_by_psutil(pid)
    folder = Path(root) / f"proc/{pid}"
    try:
        fields = _stat(folder)
        tasks = tuple(
            task for tid in sorted(map(int, os.listdir(folder / "task")))[:MAX_THREADS]  # noqa: PTH208  names only
            if (task := _task(folder / f"task/{tid}", tid)) is not None
        )  # fmt: skip
    except (OSError, ValueError, IndexError):
        return None
    return Condition(
        held(pid, root), fields[0], _cpu_s(fields), int(fields[17]), int(fields[9]),
        tuple(sorted(tasks, key=lambda task: task.tid != pid)),
    )  # fmt: skip


def is_undisturbed_by_signals(task: Task) -> bool:
    """Return whether a handler can run in this waiting thread without ending its system call early: that goes on."""
    return task.state == "S" and (task.syscall in _RESTARTED or (not task.syscall and "futex" in task.wait_channel))


def ask_for_stacks(pid: int, start: int, signal: int, fd: int, path: Path, root: str = "/") -> bool:
    """Send the signal that makes a process write its main thread's stack to path; False when it may do anything else.

    So it must be the same process, it has a handler for the signal, the main thread is the one that gets it, and its
    descriptor fd is still the file path. Only Linux tells all that.
    """
    try:
        if sys.platform != "linux" or host.process_start(pid) != start:
            return False
        if not (_writes_to(pid, fd, path, root) and _main_takes(pid, signal, root)):
            return False
        os.kill(pid, signal)
    except (OSError, HostError):
        return False
    return True


def _main_takes(pid: int, signal: int, root: str) -> bool:
    """Return whether the process has a handler for a signal, and its main thread will run it.

    The kernel gives a signal to the main thread unless that blocks it, has ended, or has another one to see to first
    (linux/kernel/signal.c, complete_signal()).
    """
    fields = _status(Path(root) / f"proc/{pid}")
    with contextlib.suppress(ValueError):
        caught, blocked, its, shared = (
            int(fields.get(name, "0"), 16) for name in ("SigCgt", "SigBlk", "SigPnd", "ShdPnd")
        )
        bit = 1 << (signal - 1)
        waiting = (its | shared) & ~blocked
        return bool(caught & bit) and not (blocked & bit or waiting or fields.get("State", "").startswith(("Z", "X")))
    return False


def _writes_to(pid: int, fd: int, path: Path, root: str) -> bool:
    try:
        found, expected = (Path(root) / f"proc/{pid}/fd/{fd}").stat(), path.stat()
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == (expected.st_dev, expected.st_ino)


def _status(folder: Path) -> dict[str, str]:
    try:
        lines = (folder / "status").read_text("utf-8", "replace").splitlines()
    except OSError:
        return {}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _stat(folder: Path) -> list[str]:
    """Return the fields of stat from the third one on; the second is a name that may hold anything."""
    return (folder / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()


def _cpu_s(fields: list[str]) -> float:
    if sys.platform == "win32":
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _task(folder: Path, tid: int) -> Task | None:
    try:
        fields, status = _stat(folder), _status(folder)
        cpu_s, switches = _cpu_s(fields), int(status.get("voluntary_ctxt_switches", "0"))
    except (OSError, ValueError, IndexError):  # the thread has ended
        return None
    channel = _read(folder / "wchan")
    return Task(
        tid,
        status.get("Name", ""),
        fields[0],
        cpu_s,
        switches,
        "" if channel == "0" else channel,
        _syscall(_read(folder / "syscall")),
    )


def _syscall(text: str) -> str:
    number = text.split(" ", 1)[0]
    if sys.platform == "win32" or not number.isdigit():  # running, or not told
        return ""
    return _SYSCALLS.get(os.uname().machine, {}).get(int(number), number)


def _is_frozen(folder: Path, root: Path) -> bool:
    for line in _read(folder / "cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        below = path.lstrip("/")
        if number == "0":
            for base in ("sys/fs/cgroup", "sys/fs/cgroup/unified"):
                if "frozen 1" in _read(root / base / below / "cgroup.events").splitlines():
                    return True
        elif "freezer" in controllers.split(",") and (
            _read(root / "sys/fs/cgroup/freezer" / below / "freezer.state") == "FROZEN"
        ):
            return True
    return _read(folder / "wchan") in _FREEZER_WAITS  # in a container the files may be somewhere else


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace").strip()
    except OSError:
        return ""


def _held_by_psutil(pid: int) -> str:
    import psutil

    try:
        return "stopped" if psutil.Process(pid).status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP) else ""
    except psutil.Error:
        return ""


def _condition_by_psutil(pid: int) -> Condition | None:
    import psutil

    try:
        process = psutil.Process(pid)
        with process.oneshot():
            times = process.cpu_times()
            memory: Any = process.memory_info()
            # macOS counts pages that came from disk (pageins); Windows has page faults of both kinds only.
            from_disk = getattr(memory, "pageins", 0)
            cpu_s = times.user + times.system
            return Condition(_held_by_psutil(pid), "", cpu_s, process.num_threads(), from_disk)
    except (psutil.Error, OSError):
        return None
