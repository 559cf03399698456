"""Kills for memory: the kernel's counter for a process's group, and to be the last one taken (Linux only)."""

import contextlib
from pathlib import Path


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
    if counter is None:
        return 0
    with contextlib.suppress(OSError, ValueError):
        for line in counter.read_text("ascii").splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    return 0


WITNESS_SCORE = -900
"""Added to a process's badness in thousandths of the memory (proc(5)); -1000 would forbid to kill it at all."""


def be_spared(root: str = "/") -> bool:
    """Ask the kernel to kill others of this process's group first; False where only root may ask, or nobody can."""
    try:
        Path(root, "proc/self/oom_score_adj").write_text(str(WITNESS_SCORE), "ascii")
    except OSError:
        return False
    return True
