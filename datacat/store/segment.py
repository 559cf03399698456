"""One segment: a semidbm file that is safe to write, to read from many threads, and to open after any crash.

semidbm 0.5.1 gives the class and the file format; everything that touches bytes is replaced here, because its own way
loses data on a torn tail, a short write, concurrent reads, and in compact().
"""

import errno
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, NoReturn

from semidbm.db import _SemiDBM

from datacat.errors import Corrupt, StoreError
from datacat.host import needs_a_person
from datacat.store import durable
from datacat.store.sealed import MAX_KEY_BYTES, MAX_VALUE_BYTES, VALUE_START, Position, Record, record, unseal

DATA_FILE = "data"
"""semidbm's name for the file in its folder."""
_OVERHEAD = 12
"""Bytes of a record beside key and value: two lengths and a checksum."""


class Known(NamedTuple):
    """The first size bytes of a file: the number of the record that follows, and where the live values lie."""

    size: int
    seq: int
    places: dict[bytes, tuple[int, int]]


class Segment(_SemiDBM):
    """A dict of bytes in one file, appended to and never changed in place.

    Writing and forgetting belong to one thread at a time (the caller's lock); reading and sync() to any. After
    retire() readers that are under way finish, new ones get KeyError.
    """

    def __init__(
        self, folder: Path, number: int, salt: int, sound: Iterable[Record] = (), known: Known | None = None
    ) -> None:
        """Open the file; known tells of its first bytes, sound of the records behind them."""
        self.number = number
        self.folder = folder
        self.live_bytes = 0
        self.failed: StoreError | None = None
        self._salt = salt
        self._pins = 0
        self._guard = threading.Lock()
        self._retired = False
        self._sound = sound
        self._known = known or Known(8, 1, {})
        super().__init__(str(folder), None)

    @property
    def size_bytes(self) -> int:
        """The size of the file."""
        return int(self._current_offset)

    @property
    def dead_bytes(self) -> int:
        """How many bytes nobody needs any more."""
        return self.size_bytes - self.live_bytes

    @property
    def salt(self) -> int:
        """What its seals begin with."""
        return self._salt

    @property
    def end(self) -> Position:
        """The position behind its last record."""
        return Position(self.number, self._seq - 1, self.size_bytes)

    def _load_db(self) -> None:
        self._current_offset, self._seq, self._index = self._known
        self.live_bytes = sum(len(key) + size + _OVERHEAD for key, (_, size) in self._index.items())
        self._data_fd: int | None = None
        for one in self._sound:
            self._enter(one.key, one.payload - VALUE_START, one.end - 4 - one.payload + VALUE_START)
            self._seq, self._current_offset = one.seq + 1, one.end
        self._sound, self._known = (), Known(0, 0, {})
        try:
            self._data_fd = os.open(self._data_filename, durable.OPEN_FLAGS)
        except OSError as error:
            raise StoreError(
                f"cannot open {self._data_filename}: {error}",
                hint="check who owns it",
                permanent=needs_a_person(error),
            ) from error

    def __setitem__(self, key: bytes, payload: bytes) -> None:
        """Append a record; it is durable after the next sync(). Raises: StoreError, and then nothing was appended."""
        if not 0 < len(key) <= MAX_KEY_BYTES or len(payload) + VALUE_START > MAX_VALUE_BYTES:
            raise StoreError(f"a record of {len(key)} + {len(payload)} bytes is too large for a segment")
        if self.failed or self._data_fd is None:
            raise StoreError(f"{self._data_filename} takes no more records")
        blob = record(self._salt, self._seq, key, payload)
        try:
            durable.write_all(self._data_fd, blob)
        except OSError as error:
            self._roll_back(self._data_fd)
            raise _write_error(self._data_filename, error) from error
        self._enter(key, self._current_offset + 8 + len(key), len(payload) + VALUE_START)
        self._seq += 1
        self._current_offset += len(blob)

    def __getitem__(self, key: bytes) -> bytes:
        """Return a payload. Raises: KeyError; Corrupt when it is not what was written; StoreError."""
        offset, size = self._index[key]
        value = self._read(key, offset, size)
        payload = unseal(self._salt, key, value)
        if payload is None:
            raise Corrupt("a record is not what was written", path=str(self._data_filename), offset=offset)
        return payload

    def start_of(self, key: bytes, size: int) -> bytes:
        """Return the first size bytes of a payload, or all of a shorter one, without checking the seal.

        Raises: KeyError, StoreError.
        """
        offset, whole = self._index[key]
        return self._read(key, offset + VALUE_START, min(size, whole - VALUE_START))

    def forget(self, key: bytes) -> None:
        """Count a record as dead; what makes it dead for good is the caller's to write. Unknown keys do nothing."""
        place = self._index.pop(key, None)
        if place is not None:
            self.live_bytes -= len(key) + place[1] + _OVERHEAD

    def keys(self) -> list[bytes]:
        """Return the keys that are not forgotten, in the order in which they were written."""
        return list(self._index)

    def places(self) -> tuple[int, int, int, dict[bytes, tuple[int, int]]]:
        """Return size, time of the last change (ns), the next record's number, and (offset, size) of each live value.

        For the thread that may write. Raises: OSError, KeyError after retire().
        """
        fd = self._pin()
        try:
            changed_ns = os.fstat(fd).st_mtime_ns
        finally:
            self._unpin()
        return self._current_offset, changed_ns, self._seq, dict(self._index)

    def sync(self) -> None:
        """Make everything that was appended durable.

        Raises: StoreError; the segment takes no more then: after a failed fsync the kernel may have dropped the bytes
        and say success the next time.
        """
        fd = self._pin()
        try:
            durable.sync_file(fd)
        except OSError as error:
            self.failed = StoreError(
                f"cannot make {self._data_filename} durable: {error}",
                hint="check the disk, then restart the server; nothing that was acknowledged is lost",
            )
            raise self.failed from error
        finally:
            self._unpin()

    def retire(self) -> None:
        """Let go of the file as soon as no reader is in it; idempotent."""
        with self._guard:
            self._retired = True
            self._close_if_idle()

    def close(self, compact: bool = False) -> None:  # noqa: ARG002  # semidbm's signature
        """Let go of the file without syncing; idempotent."""
        self.retire()

    def __delitem__(self, key: bytes) -> NoReturn:
        """Refuse: semidbm's tombstones are not checked; a delete is a record of its own."""
        raise StoreError("segments have no deletes")

    def compact(self) -> NoReturn:
        """Refuse: semidbm's compaction can lose the whole file; the store moves live records instead."""
        raise StoreError("segments are not compacted")

    def _enter(self, key: bytes, offset: int, size: int) -> None:
        self.forget(key)
        self._index[key] = (offset, size)
        self.live_bytes += len(key) + size + _OVERHEAD

    def _read(self, key: bytes, offset: int, size: int) -> bytes:
        fd = self._pin(key)
        try:
            return durable.read_at(fd, size, offset)
        except OSError as error:
            raise StoreError(f"cannot read {self._data_filename}: {error}") from error
        finally:
            self._unpin()

    def _roll_back(self, fd: int) -> None:
        """Cut what a failed write left, so that the next record follows the last whole one."""
        try:
            os.ftruncate(fd, self._current_offset)
        except OSError as error:
            self.failed = StoreError(
                f"cannot take back a half-written record in {self._data_filename}: {error}",
                hint="check the disk, then restart the server",
            )

    def _pin(self, key: bytes = b"") -> int:
        with self._guard:
            if self._retired or self._data_fd is None:
                raise KeyError(key)
            self._pins += 1
            return self._data_fd

    def _unpin(self) -> None:
        with self._guard:
            self._pins -= 1
            self._close_if_idle()

    def _close_if_idle(self) -> None:
        if self._retired and not self._pins and self._data_fd is not None:
            fd, self._data_fd = self._data_fd, None
            os.close(fd)


def _write_error(path: str, error: OSError) -> StoreError:
    full = error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
    hint = "free some disk space; writing goes on by itself then" if full else "check the disk and its permissions"
    return StoreError(f"cannot write to {path}: {error}", hint=hint)
