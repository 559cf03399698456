"""The stream that a daemon writes about one session, also when the disk is full, read-only or gone. The main thread's.

What the disk does not take now is kept in memory and tried again with what comes next; of too much only the count
stays. A folder that was removed under us is made again: what was not shipped is lost, a gap says so, and the session
goes on.
"""

import logging
import time
from collections import deque
from pathlib import Path

import msgspec

from datacat import host
from datacat.daemon import mend
from datacat.daemon.streams import Writer, write_whole
from datacat.errors import HostError, JournalError
from datacat.host import faults
from datacat.wire import layout
from datacat.wire.layout import Meta
from datacat.wire.lines import encode
from datacat.wire.records import MAX_RECORD_BYTES, Dropped, Gap, Open, Record

_log = logging.getLogger(__name__)

MAX_LATE = 500
"""Records that wait in memory for a disk that takes them."""


class Notes:
    """Appends to a stream of our own (stream: its id, a new one when empty) and holds the session's lock."""

    def __init__(self, folder: Path, meta: Meta, lock: host.Lock, *, stream: str = "") -> None:
        self.lock = lock
        self._folder = folder
        self._meta = meta
        self._writer = Writer(folder, stream=stream, segment_bytes=meta.segment_bytes)
        self._late: deque[bytes] = deque()
        self._missed = 0
        self._said = ""

    @property
    def stream(self) -> str:
        """The id of the stream."""
        return self._writer.id

    @property
    def waiting(self) -> bool:
        """Whether something waits for a disk that takes it."""
        return bool(self._late or self._missed)

    def write(self, *records: Record) -> bool:
        """Append records; False when they wait for a disk that takes them."""
        for record in records:
            line = encode(record)
            if len(line) > MAX_RECORD_BYTES:
                found = mend.read(line[:-1], record.t)
                line = b"" if isinstance(found, str) else found[1] + b"\n"
            if len(self._late) < MAX_LATE:
                self._late.append(line)
            else:
                self._missed += 1
        return self.catch_up()

    def keep(self, line: bytes) -> None:
        """Append a line that came through the local endpoints. Raises: JournalError when it is not kept."""
        if not self.catch_up():
            self._missed += 1
            raise JournalError(self._said)
        try:
            self._writer.append(line)
        except JournalError:
            self._missed += 1
            raise
        faults.at("record.kept")

    def catch_up(self) -> bool:
        """Write what waits; whether nothing waits any more."""
        try:
            while self._late:
                self._writer.append(self._late[0])
                self._late.popleft()
            if self._missed:
                counts = {"disk_full": self._missed}
                self._writer.append(encode(Dropped(t=time.time_ns() // 1000, counts=counts)))
                self._missed = 0
        except JournalError as error:
            if str(error) != self._said:
                _log.warning("session %s: %s; what the daemon has to say waits in memory", self._meta.id, error)
            self._said = str(error)
            return False
        if self._said:
            self._said = ""
            _log.warning("session %s: its folder can be written again", self._meta.id)
        return True

    def make_again(self, opened: Open, lost_bytes: int) -> bool:
        """Make the session's folder again if it is gone, with a gap in a new stream; whether that was so."""
        if self._folder.exists():
            return False
        try:
            self._folder.mkdir(mode=0o700, parents=True)
            lock = host.lock(self._folder / layout.LOCK_FILE)
            write_whole(self._folder / layout.META_FILE, msgspec.json.encode(self._meta))
        except (OSError, HostError, JournalError) as error:
            if str(error) != self._said:
                _log.warning("session %s: its folder was removed and cannot be made again: %s", self._meta.id, error)
            self._said = str(error)
            return False
        _log.warning(
            "session %s: its folder %s was removed; up to %d bytes that were not shipped are lost, a gap says so",
            self._meta.id,
            self._folder,
            lost_bytes,
        )
        self.lock.release()
        self.lock = lock
        self._writer.close()
        self._writer = Writer(self._folder, segment_bytes=self._meta.segment_bytes)
        members = msgspec.to_builtins(opened)
        gap = Gap(t=time.time_ns() // 1000, reason="removed", lost_bytes=lost_bytes, open=members)
        self._late.appendleft(encode(gap))
        self.catch_up()
        return True

    def close(self) -> None:
        """Close the stream and let go of the session; idempotent."""
        self._writer.close()
        self.lock.release()


def opening(meta: Meta, daemon_id: str) -> Open:
    """Return the open record of a session that came through the local endpoints."""
    return Open(
        t=meta.created_us,
        product=meta.product,
        version=meta.version,
        id=meta.id,
        environment=meta.environment,
        hostname=meta.hostname,
        machine_id=meta.machine_id,
        boot_id=meta.boot_id,
        pid=meta.pid or None,
        process_start=meta.process_start or None,
        platform=meta.platform,
        daemon_id=daemon_id or None,
    )
