"""The server's own stream of each session: records of the simple endpoints and the verdicts that it makes itself."""

import threading
import time
import zlib
from collections.abc import Callable, Iterable

from datacat.store import Batch, Head, Store
from datacat.wire import lines
from datacat.wire.lines import Line
from datacat.wire.records import Record

_STRIPES = 64


def now_us() -> int:
    """Return Unix us; only to stamp records and to compare with such stamps."""
    return time.time_ns() // 1000


def line_of(record: Record) -> Line:
    """Return a record with its bytes."""
    return Line(record, lines.encode(record)[:-1])


class OwnStream:
    """Writes records that this server makes. Any thread; what reads a head and then writes holds lock(session_id).

    boot is random for every start of the server and the id of the stream: it has one writer.
    """

    def __init__(self, store: Store, boot: str, clock_us: Callable[[], int] = now_us) -> None:
        self.store = store
        self.boot = boot
        self.clock_us = clock_us
        self._locks = tuple(threading.Lock() for _ in range(_STRIPES))

    def lock(self, session_id: str) -> threading.Lock:
        """Return the lock that orders the server's own decisions about a session."""
        return self._locks[zlib.crc32(session_id.encode()) % _STRIPES]

    def write(self, session_id: str, written: Iterable[Line], *, received_us: int | None = None) -> Head:
        """Store lines durably and return the head afterwards; received_us None: a client sent them now.

        Raises: NotFound, Deleted, StoreError.
        """
        received = self.clock_us() if received_us is None else received_us
        return self.store.append(session_id, Batch(self.boot, list(written)), received_us=received)
