"""One segment: a semidbm file that is safe to write, to read from many threads, and to open after any crash.

semidbm 0.5.1 gives the class and the file format; everything that touches bytes is replaced here, because its own way
loses data on a torn tail, a short write, concurrent reads, and in compact(). Its index of keys is not kept in memory
either: the store knows where its entries lie.
"""

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, NoReturn

from semidbm.db import _SemiDBM

from datacat.errors import Corrupt, StoreError
from datacat.store import durable
from datacat.store.descriptors import Descriptors, Use
from datacat.store.sealed import (
    HEADER,
    MAX_KEY_BYTES,
    MAX_VALUE_BYTES,
    VALUE_START,
    Position,
    examine,
    lengths_of,
    record,
    record_bytes,
    unseal_record,
)

DATA_FILE = "data"
"""semidbm's name for the file in its folder."""
MERGED = "-merged"
"""Behind the folder's name of a segment of merged and moved entries; the others have those of batches as they came."""
_HEADER_BYTES = len(HEADER)
_LENGTHS_BYTES = 8


class Known(NamedTuple):
    """The first size bytes of a file, and the number of the record that follows."""

    size: int
    seq: int


NOTHING = Known(_HEADER_BYTES, 1)


class Segment(_SemiDBM):
    """Values of bytes in one file, appended to and never changed in place; each has an offset and a size in bytes.

    Writing and counting belong to one thread at a time (the caller's lock); reading and sync() to any. After retire()
    readers that are under way finish, new ones get KeyError.
    """

    def __init__(self, folder: Path, number: int, salt: int, descriptors: Descriptors, known: Known = NOTHING) -> None:
        """Take over a file whose sound bytes are known."""
        self.number = number
        self.folder = folder
        self.merged = folder.name.endswith(MERGED)
        self.live_bytes = 0
        self.failed: StoreError | None = None
        self._salt = salt
        self._known = known
        self._durable_seq = 0
        self._syncing = threading.Lock()
        self._descriptors = descriptors
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
        self._current_offset, self._seq = self._known

    def append(self, key: bytes, payload: bytes) -> tuple[int, int]:
        """Append a record; return its offset and size. It is durable after the next sync().

        Raises: StoreError, and then nothing was appended.
        """
        if not 0 < len(key) <= MAX_KEY_BYTES or len(payload) + VALUE_START > MAX_VALUE_BYTES:
            raise StoreError(f"a record of {len(key)} + {len(payload)} bytes is too large for a segment")
        if self.failed:
            raise StoreError(f"{self._data_filename} takes no more records")
        offset = self.size_bytes
        blob = record(self._salt, self._seq, key, payload, self._seq - 1 - self._durable_seq)
        with self._open() as fd:
            try:
                durable.write_all(fd, blob)
            except OSError as error:
                self._roll_back(fd)
                raise _write_error(self._data_filename, error) from error
        self._seq += 1
        self._current_offset += len(blob)
        self.live_bytes += len(blob)
        return offset, len(blob)

    def read(self, key: bytes, offset: int, size: int) -> bytes:
        """Return the payload of the record there. Raises: KeyError, StoreError; Corrupt when it is another one."""
        payload = unseal_record(self._salt, key, self._read(offset, size))
        if payload is None:
            raise Corrupt("a record is not what was written", path=str(self._data_filename), offset=offset)
        return payload

    def start_of(self, key: bytes, offset: int, size: int) -> bytes:
        """Return the first size bytes of a payload, or more, unchecked. Raises: KeyError, StoreError."""
        return self._read(offset + _LENGTHS_BYTES + len(key) + VALUE_START, size)

    def places(self) -> Iterator[tuple[bytes, int]]:
        """Yield (key, offset) of each record, as the lengths tell. Raises: Corrupt when they tell nonsense."""
        offset, end = _HEADER_BYTES, self.size_bytes
        while offset < end:
            start = self._read(offset, _LENGTHS_BYTES + MAX_KEY_BYTES)
            lengths = lengths_of(start)
            if lengths is None or offset + record_bytes(*lengths) > end:
                raise Corrupt("a record has no length", path=str(self._data_filename), offset=offset)
            yield start[_LENGTHS_BYTES : _LENGTHS_BYTES + lengths[0]], offset
            offset += record_bytes(*lengths)

    def keys(self) -> list[bytes]:
        """Return the keys of the sound records in the file, in order; reads it whole."""
        return [one.key for one in examine(self._read(0, self.size_bytes), self._salt)[0]]

    def __getitem__(self, key: bytes) -> bytes:
        """Return the newest payload under a key; reads the file whole. Raises: KeyError."""
        data = self._read(0, self.size_bytes)
        for one in reversed(examine(data, self._salt)[0]):
            if one.key == key:
                return data[one.payload : one.end - 4]
        raise KeyError(key)

    def position(self) -> tuple[int, int, int]:
        """Return size, time of the last change (ns), and the next record's number.

        For the thread that may write. Raises: OSError, KeyError after retire().
        """
        with self._open() as fd:
            return self.size_bytes, os.fstat(fd).st_mtime_ns, self._seq

    def sync(self) -> None:
        """Make everything that was appended durable.

        Raises: StoreError; the segment takes no more then: after a failed fsync the kernel may have dropped the bytes
        and say success the next time.
        """
        # One at a time: the kernel tells of a failure once, to one of those who wait for it.
        with self._syncing, self._open() as fd:
            if self.failed:
                raise StoreError(self.failed.message, hint=self.failed.hint)
            written = self._seq - 1
            try:
                durable.sync_file(fd)
            except OSError as error:
                self.failed = StoreError(
                    f"cannot make {self._data_filename} durable: {error}",
                    hint="check the disk, then restart the server; nothing that was acknowledged is lost",
                )
                raise self.failed from error
            self._durable_seq = written

    def keep_open(self, keep: bool) -> None:
        """Keep the file open, or let it be closed when others need the descriptor.

        It stays open while it is written: a descriptor that was opened later may not tell of a write that failed.
        """
        self._descriptors.keep(self._data_filename, keep=keep)

    def retire(self) -> None:
        """Let go of the file as soon as no reader is in it; idempotent."""
        self._descriptors.retire(self._data_filename)

    def close(self, compact: bool = False) -> None:  # noqa: ARG002  # semidbm's signature
        """Let go of the file without syncing; idempotent."""
        self.retire()

    def __setitem__(self, key: bytes, payload: bytes) -> None:
        """Append a record."""
        self.append(key, payload)

    def __delitem__(self, key: bytes) -> NoReturn:
        """Refuse: semidbm's tombstones are not checked; a delete is a record of its own."""
        raise StoreError("segments have no deletes")

    def compact(self) -> NoReturn:
        """Refuse: semidbm's compaction can lose the whole file; the store moves live records instead."""
        raise StoreError("segments are not compacted")

    def _open(self) -> Use:
        return self._descriptors.use(self._data_filename)

    def _read(self, offset: int, size: int) -> bytes:
        with self._open() as fd:
            try:
                return durable.read_at(fd, size, offset)
            except OSError as error:
                raise StoreError(f"cannot read {self._data_filename}: {error}") from error

    def _roll_back(self, fd: int) -> None:
        """Cut what a failed write left, so that the next record follows the last whole one."""
        try:
            os.ftruncate(fd, self._current_offset)
        except OSError as error:
            self.failed = StoreError(
                f"cannot take back a half-written record in {self._data_filename}: {error}",
                hint="check the disk, then restart the server",
            )


def _write_error(path: str, error: OSError) -> StoreError:
    full = error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
    hint = "free some disk space; writing goes on by itself then" if full else "check the disk and its permissions"
    return StoreError(f"cannot write to {path}: {error}", hint=hint)
