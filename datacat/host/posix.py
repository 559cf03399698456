"""What every POSIX system does alike: its name, and lock files by flock(2), which belong to the open file."""

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
