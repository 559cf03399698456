"""A lock file that is held, and the parts of taking one that are the same everywhere."""

import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Self

from datacat.errors import Busy, HostError
from datacat.host.refusals import needs_a_person

TRIES = 10
"""held() has the lock itself for some microseconds, or for milliseconds when it loses the processor meanwhile: one
refusal proves nothing, so a lock is tried so often."""
PAUSE_S = 0.002

_TEXT_BYTES = 64


class Lock:
    """A lock that is held: release() lets go, closing or dying does too. Use it as a context manager if you like."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self._fd: int | None = fd

    @property
    def fd(self) -> int | None:
        """The descriptor that holds the lock; None after release()."""
        return self._fd

    def release(self) -> None:
        """Let go; idempotent. The file stays where it is."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.release()


def take(path: Path, grab: Callable[[int], bool]) -> Lock:
    """Open path and lock it with grab(fd); the holder's pid is written into it.

    A file that was unlinked between opening and locking is a lock that nobody else can see: it is opened again.
    Raises: Busy with the holder's pid (empty when unknown), HostError when the file cannot be opened.
    """
    for _ in range(TRIES):
        fd = open_lock(path, create=True)
        mine = False
        try:
            mine = grab(fd) and _is_at(fd, path)
            if mine:
                with contextlib.suppress(OSError):  # on a full disk the lock holds all the same
                    os.ftruncate(fd, 0)
                    os.write(fd, str(os.getpid()).encode())
                return Lock(path, fd)
            holder = _holder(fd)
        except OSError as error:
            raise HostError(f"cannot lock {path}: {error.strerror}") from error
        finally:
            if not mine:
                os.close(fd)
        threading.Event().wait(PAUSE_S)
    raise Busy(f"{path} is held by another process", holder=holder, hint=f"pid {holder}" if holder else "")


def is_held(path: Path, grab: Callable[[int], bool]) -> bool:
    """Return whether another process, or another Lock of this one, holds the lock at path."""
    try:
        fd = open_lock(path, create=False)
    except (FileNotFoundError, HostError):
        return False
    try:
        return not grab(fd)
    finally:
        os.close(fd)


def open_lock(path: Path, *, create: bool) -> int:
    """Return a descriptor of the lock file. Raises: FileNotFoundError unless create, HostError."""
    try:
        return os.open(path, os.O_RDWR | getattr(os, "O_CLOEXEC", 0) | (os.O_CREAT if create else 0), 0o600)
    except FileNotFoundError:
        if not create:
            raise
        raise HostError(f"cannot lock {path}: its folder does not exist", permanent=True) from None
    except OSError as error:
        raise HostError(
            f"cannot lock {path}: {error.strerror}",
            hint="check who owns the folder and whether it can be written",
            permanent=needs_a_person(error),
        ) from error


def _is_at(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


def _holder(fd: int) -> str:
    with contextlib.suppress(OSError):
        os.lseek(fd, 0, os.SEEK_SET)
        return os.read(fd, _TEXT_BYTES).decode("ascii", "replace").strip()
    return ""
