"""Lock files by flock(2), for every POSIX system. The lock belongs to the open file, not to the process."""

import os
import sys
from pathlib import Path

from datacat.errors import HostError
from datacat.host.locks import Lock, open_lock, take


def lock(path: Path) -> Lock:
    """Take the lock at once or not at all. Raises: Busy with the holder's pid, HostError."""
    return take(Path(path), _grab)


def held(path: Path) -> bool:
    """Return whether another process, or another Lock of this one, holds the lock at path."""
    try:
        fd = open_lock(Path(path), create=False)
    except (FileNotFoundError, HostError):
        return False
    try:
        return not _grab(fd)
    finally:
        os.close(fd)


def _grab(fd: int) -> bool:
    if sys.platform == "win32":
        raise HostError("flock is not known here")
    import fcntl

    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
