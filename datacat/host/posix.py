"""What every POSIX system does alike: its name, limits, and lock files by flock(2), which belong to the open file."""

import contextlib
import os
import sys

from datacat.errors import HostError


def hostname() -> str:
    """Return the name of the machine."""
    if sys.platform == "win32":
        return ""
    return os.uname().nodename


def platform() -> str:
    """Return system, release and machine in one line: Linux 6.1.0 x86_64."""
    if sys.platform == "win32":
        return ""
    system = os.uname()
    return f"{system.sysname} {system.release} {system.machine}"


def allow_files(wanted: int) -> int:
    """Ask for at least so many open files, and return how many this process may have now (0 wanted: only look)."""
    if sys.platform == "win32":
        return wanted
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limits in ((wanted, max(hard, wanted)), (min(wanted, hard), hard)):  # only root may raise the hard one
        if soft >= limits[0] or soft == resource.RLIM_INFINITY:
            break
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            soft = limits[0]
    return wanted if soft == resource.RLIM_INFINITY else soft


def grab(fd: int) -> bool:
    """Lock an open file at once or not at all. Raises: OSError."""
    if sys.platform == "win32":
        raise HostError("flock is not known here")
    import fcntl

    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
