"""Append records to the session's stream so that they survive the death of the app: wire/layout.py has the format.

The hot path is one C call, `journal.write(line)`: the write method of a shared mapping. It copies the bytes and moves
the position without letting go of the GIL, so it is atomic among threads; what it copied is in the kernel's page cache
when it returns, so SIGKILL does not lose it. (docs/journal.md has the measurements.) It raises ValueError
when the segment is full, and then append() opens the next one under a lock that is taken only then. A free-threaded
interpreter takes a lock for each write.
"""

import contextlib
import errno
import mmap
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from datacat import host
from datacat.client.folder import create_file
from datacat.errors import HostError, JournalError
from datacat.wire import layout

RETRY_NS = 1_000_000_000
"""A disk that was full is asked again after so long."""
VOLATILE_MARK = b',"volatile":true}\n'
"""Ends every record of a journal that lies in memory: it does not survive a reboot."""

# These say that blocks cannot be had; anything else says that this file system cannot allocate or map at all.
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.ENOENT})
_POPULATE_WRITE = 23
"""madvise(2), Linux 5.14: fault all pages in for writing. One by one on the hot path it costs twice as much in all."""

Write = Callable[[bytes], object]


class Journal:
    """One stream, written by one process. write() and append() may be called from any thread.

    write is the hot path and changes with every segment: look it up for each call. It raises ValueError when the line
    did not fit or the journal is closed, OSError when the disk is full; append() then is the way on. dropped() is
    called with a reason for every line that could not be kept.
    """

    def __init__(
        self,
        folder: Path,
        dropped: Callable[[str], None],
        *,
        segment_bytes: int = layout.SEGMENT_BYTES,
        volatile: bool = False,
        preallocate: Callable[[int, int], None] = host.preallocate,
        clock_ns: Callable[[], int] = host.awake_ns,
    ) -> None:
        """Open segment 0 in an empty folder. Raises: JournalError when it cannot be made."""
        self.folder = folder
        self.segment_bytes = segment_bytes
        self.write: Write = _refuse
        self._dropped = dropped
        self._volatile = volatile
        self._preallocate = preallocate
        self._clock_ns = clock_ns
        self._lock = threading.RLock()
        self._rotating = False
        self._late: list[bytes] = []
        self._segment: _Mapped | _Appended | None = None
        self._next_number = 0
        self._asked_ns = 0
        self._closed = ""
        self._end: int | None = None
        self._open_next()

    def append(self, line: bytes) -> bool:
        """Write line, into a new segment when it must be; False when it was dropped and counted."""
        while True:
            write = self.write
            try:
                write(line)
                return True
            except ValueError:
                pass
            except OSError:
                self._dropped("disk_full")
                return False
            if len(line) > self.segment_bytes:
                self._dropped("too_large")
                return False
            with self._lock:
                if self._rotating:  # a signal handler of this thread logs while it rotates
                    self._late.append(line)
                    return True
                if self._closed:
                    self._dropped(self._closed)
                    return False
                if self.write is not write:  # another thread has opened the next one
                    continue
                if not self._rotate():
                    self._dropped("disk_full")
                    return False

    def offset(self) -> int:
        """Return how many bytes the stream has, fillers included."""
        with self._lock:
            if self._end is not None:
                return self._end
            if self._segment is None:
                return self._next_number * self.segment_bytes
            return (self._next_number - 1) * self.segment_bytes + self._segment.tell()

    def close(self, reason: str = "ended") -> None:
        """Let go of the segment; later lines are dropped for this reason. Idempotent."""
        with self._lock:
            if self._closed:
                return
            self._end = self.offset()  # what is behind it is no record: nobody acknowledges it
            self._closed = reason
            self._seal()

    def forget(self) -> None:
        """Become harmless in a forked child: the parent's stream is not touched again, its locks are not asked."""
        self._lock = threading.RLock()
        self._closed = "forked"
        self._segment = None
        self.write = _refuse

    def _rotate(self) -> bool:
        now = self._clock_ns()
        if self._segment is None and now - self._asked_ns < RETRY_NS:
            return False
        self._rotating = True
        try:
            self._seal()
            self._asked_ns = now
            self._open_next()
        except JournalError:
            return False
        finally:
            self._rotating = False
            late, self._late = self._late, []
            for line in late:
                self.append(line)
        return True

    def _seal(self) -> None:
        segment, self._segment = self._segment, None
        self.write = _refuse
        if segment is not None:
            segment.close()

    def _open_next(self) -> None:
        """Open the next segment. It gets its name when it has its blocks, so that no reader sees half of one."""
        path = self.folder / layout.segment_name(self._next_number)
        temporary = path.with_suffix(".new")
        try:
            fd = create_file(temporary, os.O_RDWR | os.O_TRUNC)
        except OSError as error:
            raise JournalError(f"cannot create {temporary}: {error.strerror}") from error
        try:
            segment = self._map_or_append(fd)
            temporary.rename(path)
        except (HostError, OSError) as error:
            os.close(fd)
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise JournalError(f"cannot open segment {path}: {error}") from error
        self._segment = segment
        self._next_number += 1
        self.write = self._marked(segment.write) if self._volatile else segment.write

    def _map_or_append(self, fd: int) -> "_Mapped | _Appended":
        try:
            self._preallocate(fd, self.segment_bytes)
            mapping = mmap.mmap(fd, self.segment_bytes)
        except (HostError, OSError) as error:
            cause = error.__cause__ if isinstance(error, HostError) else error
            if getattr(cause, "errno", None) in _NO_SPACE:
                raise
            return _Appended(fd, self.segment_bytes)
        os.close(fd)
        if sys.platform == "linux":
            with contextlib.suppress(OSError):  # an older kernel
                mapping.madvise(_POPULATE_WRITE)
        return _Mapped(mapping)

    @staticmethod
    def _marked(write: Write) -> Write:
        return lambda line: write(line[:-2] + VOLATILE_MARK)


class _Mapped:
    """A segment that is mapped. Closing it seals it: a thread that still has its write gets ValueError."""

    def __init__(self, mapping: mmap.mmap) -> None:
        self._mapping = mapping
        self.write: Write = mapping.write if _gil() else _locked(mapping.write)

    def tell(self) -> int:
        return self._mapping.tell()

    def close(self) -> None:
        self._mapping.close()


class _Appended:
    """A segment on a file system that cannot allocate or map: plain writes, four times as slow, as safe.

    Sealing gives the file its full size, so that the offsets of the stream stay physical.
    """

    def __init__(self, fd: int, size_bytes: int) -> None:
        os.ftruncate(fd, 0)
        self._fd = fd
        self._size_bytes = size_bytes
        self._end = 0
        self._lock = threading.Lock()

    def write(self, line: bytes) -> None:
        with self._lock:
            if self._fd < 0 or self._end + len(line) > self._size_bytes:
                raise ValueError("segment is full")
            done = os.write(self._fd, line)
            if done < len(line):  # a full disk takes a part: take it back, or the next record would be glued to it
                with contextlib.suppress(OSError):
                    os.ftruncate(self._fd, self._end)
                    os.lseek(self._fd, self._end, os.SEEK_SET)
                raise OSError(errno.ENOSPC, "disk is full")
            self._end += done

    def tell(self) -> int:
        return self._end

    def close(self) -> None:
        with self._lock, contextlib.suppress(OSError):
            fd, self._fd = self._fd, -1
            try:
                os.ftruncate(fd, self._size_bytes)
            finally:
                os.close(fd)


def _gil() -> bool:
    return bool(getattr(sys, "_is_gil_enabled", lambda: True)())


def _locked(write: Write) -> Write:
    lock = threading.Lock()

    def locked(line: bytes) -> None:
        with lock:
            write(line)

    return locked


def _refuse(_line: bytes) -> object:
    raise ValueError("no segment is open")
