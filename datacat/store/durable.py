"""The store's border to the disk: whole writes, reads at an offset, and what it takes that bytes and names survive.

Every function raises OSError as it comes; callers translate. Sources: fsync(2), rename(2), fcntl(2) of macOS.
"""

import contextlib
import os
import sys
import threading
from pathlib import Path

NEW_SUFFIX = ".new"
"""Files that are being made; one that is found at a start was left by a crash and is removed."""

if sys.platform == "win32":
    _seek = threading.Lock()
    OPEN_FLAGS = os.O_RDWR | os.O_APPEND | os.O_BINARY

    def read_at(fd: int, size: int, offset: int) -> bytes:
        """Return size bytes from offset on, fewer at the end of the file."""
        parts = []
        with _seek:
            os.lseek(fd, offset, os.SEEK_SET)
            while size and (part := os.read(fd, size)):
                parts.append(part)
                size -= len(part)
        return b"".join(parts)

    def sync_dir(path: Path) -> None:
        """Do nothing: NTFS keeps names in its own journal, and a folder cannot be flushed."""

else:
    OPEN_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC

    def read_at(fd: int, size: int, offset: int) -> bytes:
        """Return size bytes from offset on, fewer at the end of the file."""
        first = os.pread(fd, size, offset)
        if len(first) == size or not first:
            return first
        parts = [first]
        while (got := sum(map(len, parts))) < size and (part := os.pread(fd, size - got, offset + got)):
            parts.append(part)
        return b"".join(parts)

    def sync_dir(path: Path) -> None:
        """Make the names in a folder durable: what was created, renamed or removed in it."""
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def sync_file(fd: int) -> None:
    """Make everything that was written to fd durable."""
    if sys.platform == "darwin":
        import fcntl

        # fsync of macOS leaves the bytes in the drive's cache; file systems without F_FULLFSYNC have only fsync.
        with contextlib.suppress(OSError):
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
            return
    os.fsync(fd)


def open_to_read(path: Path) -> int:
    """Return a descriptor for read_at()."""
    return os.open(path, (OPEN_FLAGS & ~(os.O_APPEND | os.O_RDWR)) | os.O_RDONLY)


def close(fd: int) -> None:
    """Let go of a descriptor that was only read."""
    os.close(fd)


def write_all(fd: int, data: bytes) -> None:
    """Write all of data; os.write may take a part only. After an error an unknown part of it is in the file."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def make_dir(path: Path) -> None:
    """Make a folder and those above it that are missing, each of them durable; nothing when it is there."""
    if path.is_dir():
        return
    if not path.parent.is_dir():
        make_dir(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)
    sync_dir(path.parent)


def create(path: Path, data: bytes) -> None:
    """Make a file so that after any crash it is there whole, or not at all (or as it was before)."""
    new = path.with_name(path.name + NEW_SUFFIX)
    fd = os.open(new, (OPEN_FLAGS & ~os.O_APPEND) | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        write_all(fd, data)
        sync_file(fd)
    finally:
        os.close(fd)
    new.replace(path)
    sync_dir(path.parent)


def truncate(path: Path, size: int) -> None:
    """Cut a file and make that durable."""
    fd = os.open(path, OPEN_FLAGS)
    try:
        os.ftruncate(fd, size)
        sync_file(fd)
    finally:
        os.close(fd)
