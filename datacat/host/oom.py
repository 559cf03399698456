"""Kills for memory, as the kernel counts them per group and logs them; to be the last one taken. Linux only.

A group of cgroup v2 counts the kills in itself and below it (memory.events), one of v1 only its own
(memory.oom_control). The kernel counts a kill in the victim's own group, whichever limit was reached, also that of the
whole machine. A group may be removed with its last process, as systemd does; what those above it count still shows it.
"""

import contextlib
import os
import re
import time
from pathlib import Path

_INITIAL_PID_NAMESPACE = 0xEFFFFFFC
"""PROC_PID_INIT_INO (include/linux/proc_ns.h): only there the pids of the kernel's log are ours."""
_KILLED = re.compile(r"Killed process (\d+) ")
_LOG_RECORD_BYTES = 8192
"""A read of /dev/kmsg gives one record, or fails with EINVAL when the buffer is too small for it."""
_LOG_READ_S = 0.2
"""A whole log of 2 MB is read within 30 ms."""


def counter_of(pid: int, root: str = "/") -> Path | None:
    """Return the file that counts the kernel's kills for memory in the process's group; None without one.

    To be asked while the process lives: cgroup v2 has memory.events, v1 memory.oom_control (cgroups(7)).
    """
    try:
        lines = (Path(root) / f"proc/{pid}/cgroup").read_text("utf-8", "replace").splitlines()
    except OSError:
        return None
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            file = Path(root, "sys/fs/cgroup", path.lstrip("/"), "memory.events")
        elif "memory" in controllers.split(","):
            file = Path(root, "sys/fs/cgroup/memory", path.lstrip("/"), "memory.oom_control")
        else:
            continue
        if file.is_file():
            return file
    return None


def kills(counter: Path | None) -> int:
    """Return how often the kernel has killed for memory in that group; 0 when it cannot be read."""
    return _read(counter) or 0


def above(counter: Path | None) -> dict[Path, int]:
    """Return what the groups above that of counter count now, nearest first; only those that count below them (v2)."""
    found: dict[Path, int] = {}
    if counter is not None and counter.name == "memory.events":
        for folder in list(counter.parents)[1:]:
            count = _read(folder / counter.name)
            if count is None:
                break
            found[folder / counter.name] = count
    return found


def evidence(counter: Path | None, before: int, before_above: dict[Path, int], pid: int, started_s: float) -> str:
    """Return in words why a process was killed for memory; empty when nothing says so.

    before is what its group counted when it began, before_above what those above it did. started_s is when it began,
    in seconds since the boot (time.CLOCK_MONOTONIC): older lines of the log are about another process of that pid.
    """
    now = _read(counter)
    if now is not None and now <= before:
        return ""
    logged = logged_kills(started_s)
    if pid in logged:
        return "the kernel's log names it"
    if now is not None:
        # A log that names others, and not this one, says that another process of the group was the victim.
        return "" if logged else "the kernel killed for memory in its group"
    for file, count in before_above.items():
        if (now := _read(file)) is not None and now > count:
            return f"its group is gone, and the kernel killed for memory below {file.parent.name or '/'}"
    return ""


def logged_kills(since_s: float, path: str = "/dev/kmsg", pid_namespace: str = "/proc/self/ns/pid") -> set[int]:
    """Return the pids that the kernel's log says it killed for memory since then (seconds since the boot).

    Empty where the log cannot be read (dmesg_restrict) or its pids are not ours (a container).
    """
    try:
        if os.stat(pid_namespace).st_ino != _INITIAL_PID_NAMESPACE:  # noqa: PTH116  one look, no object
            return set()
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    except OSError:
        return set()
    found = set()
    deadline = time.monotonic() + _LOG_READ_S
    try:
        while time.monotonic() < deadline:
            try:
                record = os.read(fd, _LOG_RECORD_BYTES)
            except BrokenPipeError:  # that record was overwritten meanwhile; the next read goes on behind it
                continue
            except OSError:  # EAGAIN: its end
                break
            if not record:
                break
            # "priority,sequence,microseconds since boot,flags;text" (Documentation/ABI/testing/dev-kmsg)
            head, _, text = record.decode("utf-8", "replace").partition(";")
            fields = head.split(",")
            if (kill := _KILLED.search(text)) and len(fields) > 2 and float(fields[2]) / 1e6 >= since_s:
                found.add(int(kill[1]))
    finally:
        os.close(fd)
    return found


WITNESS_SCORE = -900
"""Added to a process's badness in thousandths of the memory (proc(5)); -1000 would forbid to kill it at all."""


def be_spared(root: str = "/") -> bool:
    """Ask the kernel to kill others of this process's group first; False where only root may ask, or nobody can."""
    try:
        Path(root, "proc/self/oom_score_adj").write_text(str(WITNESS_SCORE), "ascii")
    except OSError:
        return False
    return True


def _read(counter: Path | None) -> int | None:
    """Return the count in a file; None when there is none."""
    if counter is None:
        return None
    with contextlib.suppress(OSError, ValueError):
        for line in counter.read_text("ascii").splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    return None
