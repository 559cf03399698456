"""Open files, at most so many of them: those used last stay open, others are opened again when they are needed."""

import os
import threading
from collections import OrderedDict

from datacat.errors import StoreError
from datacat.host import needs_a_person
from datacat.store import durable

MOST_OPEN = 64
"""Beyond those that are being used or written; far below what systems allow a process (256 on macOS)."""


class _File:
    """A file: its descriptor (None: closed), who uses it now, whether it is to stay open."""

    __slots__ = ("fd", "kept", "users")

    def __init__(self) -> None:
        self.fd: int | None = None
        self.users = 0
        self.kept = False


class Descriptors:
    """Any thread may call; the lock is held while a file is opened or closed, never while it is read or written."""

    def __init__(self, most: int = MOST_OPEN) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._files: OrderedDict[str, _File] = OrderedDict()
        self._retired: set[str] = set()

    def use(self, path: str) -> "Use":
        """Lend the descriptor of a file for a block. Raises: KeyError after retire(), StoreError."""
        return Use(self, path)

    def lend(self, path: str) -> tuple[_File, int]:
        """Return a file and its descriptor, which stays open until take_back(). Raises: as use()."""
        with self._lock:
            if path in self._retired:
                raise KeyError(path)
            file = self._file(path)
            file.users += 1
            try:
                if file.fd is None:
                    file.fd = _opened(path)
            except BaseException:
                file.users -= 1
                raise
            self._files.move_to_end(path)
            self._close_some()
            return file, file.fd

    def take_back(self, path: str, file: _File) -> None:
        """End what lend() began."""
        with self._lock:
            file.users -= 1
            if path in self._retired and not file.users:
                self._drop(path, file)

    def keep(self, path: str, *, keep: bool) -> None:
        """Keep a file open from its next use on, or let it be closed when others need the place."""
        with self._lock:
            if path not in self._retired:
                self._file(path).kept = keep
                self._close_some()

    def retire(self, path: str) -> None:
        """Close a file for good, as soon as nobody uses it; idempotent."""
        with self._lock:
            self._retired.add(path)
            file = self._files.get(path)
            if file is not None and not file.users:
                self._drop(path, file)

    def count(self) -> int:
        """Return how many files are open."""
        with self._lock:
            return sum(file.fd is not None for file in self._files.values())

    def _file(self, path: str) -> _File:
        file = self._files.get(path)
        if file is None:
            file = self._files[path] = _File()
        return file

    def _close_some(self) -> None:
        excess = len(self._files) - self._most
        if excess <= 0:
            return
        idle = [path for path, file in self._files.items() if not file.users and not file.kept]
        for path in idle[:excess]:
            self._drop(path, self._files[path])

    def _drop(self, path: str, file: _File) -> None:
        self._files.pop(path, None)
        if file.fd is not None:
            fd, file.fd = file.fd, None
            os.close(fd)


class Use:
    """The block for which a descriptor is lent. Not a generator: those cost twice as much, and each batch has two."""

    __slots__ = ("_descriptors", "_file", "_path")

    def __init__(self, descriptors: Descriptors, path: str) -> None:
        self._descriptors = descriptors
        self._path = path

    def __enter__(self) -> int:
        self._file, fd = self._descriptors.lend(self._path)
        return fd

    def __exit__(self, *_: object) -> None:
        self._descriptors.take_back(self._path, self._file)


def _opened(path: str) -> int:
    try:
        return os.open(path, durable.OPEN_FLAGS)
    except OSError as error:
        raise StoreError(
            f"cannot open {path}: {error}", hint="check who owns it", permanent=needs_a_person(error)
        ) from error
