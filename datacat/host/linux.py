"""Linux: /proc, /etc/machine-id, CLOCK_MONOTONIC (stops in sleep) and CLOCK_BOOTTIME (does not)."""

import hashlib
import os
import sys
import time
from pathlib import Path

from datacat.errors import HostError, NotPermitted, ProcessGone

_MACHINE_ID_FILES = ("etc/machine-id", "var/lib/dbus/machine-id")

awake_ns = time.monotonic_ns


def machine_id(root: str = "/") -> str:
    """Return a hash of the machine's id; the id itself is confidential (machine-id(5)). Empty when there is none."""
    for name in _MACHINE_ID_FILES:
        if text := _read(Path(root) / name):
            return hashlib.sha256(b"datacat " + text.encode()).hexdigest()[:32]
    return ""


def boot_id(root: str = "/") -> str:
    """Return the kernel's random id of this boot; empty when /proc is not there."""
    return _read(Path(root) / "proc/sys/kernel/random/boot_id")


def asleep_s() -> float:
    """Return the seconds that the machine has slept since its boot."""
    if sys.platform != "linux":
        return 0.0
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC))


def process_start(pid: int, root: str = "/") -> int:
    """Return when a process started, in clock ticks since boot (proc_pid_stat(5), field 22).

    A zombie still has one. Raises: ProcessGone, NotPermitted.
    """
    try:
        stat = (Path(root) / f"proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError) as error:
        raise ProcessGone(f"there is no process {pid}", permanent=True) from error
    except OSError as error:
        raise NotPermitted(f"cannot look at process {pid}: {error.strerror}") from error
    # The second field is the name in parentheses and may hold anything, spaces and parentheses too.
    return int(stat.rpartition(b")")[2].split()[19])


def process_image(pid: int, root: str = "/") -> str:
    """Return what changes when a process becomes another program by exec; empty where that cannot be seen.

    Pid and start time stay the same then; the addresses of code and stack (proc_pid_stat(5), fields 26 and 28) change,
    because the kernel places them anew. They read 0 for those who may not trace the process.
    """
    try:
        fields = (Path(root) / f"proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        code, stack = int(fields[23]), int(fields[25])
    except (OSError, ValueError, IndexError):
        return ""
    return f"{code:x}-{stack:x}" if code > 1 and stack > 1 else ""


def pid_namespace(root: str = "/") -> int:
    """Return the inode of this process's pid namespace; 0 when /proc is not there."""
    try:
        return (Path(root) / "proc/self/ns/pid").stat().st_ino
    except OSError:
        return 0


def preallocate(fd: int, size_bytes: int) -> None:
    """Give a new file its blocks and its size. Raises: HostError when the disk, a quota or a limit says no."""
    if sys.platform != "linux":
        raise HostError("posix_fallocate is not known here")
    try:
        os.posix_fallocate(fd, 0, size_bytes)
    except OSError as error:
        raise HostError(f"cannot allocate {size_bytes} bytes: {error.strerror}") from error


def _read(path: Path) -> str:
    try:
        return path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
