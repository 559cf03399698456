"""What the machine knows: ids, clocks, folders, locks, disk blocks. The one choice of a platform stands here.

The platform modules offer the same functions; each can be imported everywhere and takes its roots as arguments, so
that canned trees test it. Errors of the operating system leave this room as HostError, ProcessGone, NotPermitted or
Busy. Processes are watched by host.process, which is not for the client.

    machine_id() -> str           hash of the machine's id, the same for every user; survives reboots
    boot_id() -> str              changes with every boot
    hostname() -> str, platform() -> str
    awake_ns() -> int             a clock that stops while the machine sleeps, ns, the same for all processes of a boot
    asleep_s() -> float           how long the machine has slept since its boot; 0.0 where that is unknown
    process_start(pid) -> int     the platform's own number; with pid and boot_id it names a process for good
    process_image(pid) -> str     changes when the process becomes another program by exec; empty where that is unseen
    pid_namespace() -> int        pids of different namespaces must not be compared; 0 where there are none
    allow_files(wanted) -> int    ask for so many open files; how many there may be
    preallocate(fd, size_bytes)   give a new file its blocks, so that writing to its mapping cannot fail later
    lock(path) -> Lock            exclusive among processes, let go by the kernel when its holder dies
    held(path) -> bool            whether somebody has that lock now
    state_dir() -> Path           of the user: journals
    state_dirs() -> list[Path]    state_dir and where to go when it cannot be written
    data_dir() -> Path            of the server
    needs_a_person(error) -> bool an OSError that trying again does not cure
"""

import sys
from pathlib import Path

from datacat.host import locks
from datacat.host.folders import data_dir, state_dir, state_dirs
from datacat.host.locks import Lock
from datacat.host.refusals import needs_a_person

if sys.platform == "win32":
    from datacat.host.windows import (
        allow_files,
        asleep_s,
        awake_ns,
        boot_id,
        hostname,
        machine_id,
        pid_namespace,
        platform,
        preallocate,
        process_image,
        process_start,
    )
    from datacat.host.windows import grab as _grab
else:
    from datacat.host.posix import allow_files, hostname, platform
    from datacat.host.posix import grab as _grab

    if sys.platform == "darwin":
        from datacat.host.macos import (
            asleep_s,
            awake_ns,
            boot_id,
            machine_id,
            pid_namespace,
            preallocate,
            process_image,
            process_start,
        )
    else:
        from datacat.host.linux import (
            asleep_s,
            awake_ns,
            boot_id,
            machine_id,
            pid_namespace,
            preallocate,
            process_image,
            process_start,
        )

__all__ = [
    "Lock",
    "allow_files",
    "asleep_s",
    "awake_ns",
    "boot_id",
    "data_dir",
    "held",
    "hostname",
    "lock",
    "machine_id",
    "needs_a_person",
    "pid_namespace",
    "platform",
    "preallocate",
    "process_image",
    "process_start",
    "state_dir",
    "state_dirs",
]


def lock(path: Path) -> Lock:
    """Take the lock at once or not at all. Raises: Busy with the holder's pid, HostError."""
    return locks.take(Path(path), _grab)


def held(path: Path) -> bool:
    """Return whether another process, or another Lock of this one, holds the lock at path."""
    return locks.is_held(Path(path), _grab)
