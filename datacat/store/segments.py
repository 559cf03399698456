"""The segments of one store: where the next entry goes, one fsync for all who wait, and what is shown after it."""

import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeAlias

from datacat.errors import StoreError
from datacat.host import faults
from datacat.store import durable
from datacat.store.repair import Finding, make_segment, remove_segment
from datacat.store.sealed import Position
from datacat.store.segment import Segment

_log = logging.getLogger(__name__)

SEGMENT_BYTES = 64 * 1024 * 1024
"""Size after which a new segment begins: small enough to read whole at a start and to rewrite in the background."""
_PROBE_FILE = "probe"

Show: TypeAlias = Callable[[int], None]
"""Called with the segment's number once an entry is durable; by one thread at a time, in the order of writing."""


class Unhinted(NamedTuple):
    """A segment of which a hint is to be made: its bytes so far, and where the live values lie in them."""

    number: int
    folder: Path
    size: int
    time_ns: int
    seq: int
    places: dict[bytes, tuple[int, int]]


class Segments:
    """Append-only files with one that is written. Any thread may call.

    A write is visible to nobody until commit(): the first thread that waits becomes the leader, syncs for everyone who
    has written by then, shows their entries in order, and wakes them. The lock is not held during fsync.
    """

    def __init__(
        self, root: Path, opened: list[Segment], findings: list[Finding], segment_bytes: int = SEGMENT_BYTES
    ) -> None:
        """Take over segments that open_segments() has made sound."""
        self._root = root
        self._segment_bytes = segment_bytes
        self._lock = threading.Lock()
        self._synced = threading.Condition(self._lock)
        self._syncing = False
        self._written = 0
        self._durable = 0
        self._waiting: deque[tuple[int, Position, Show]] = deque()
        self._dirty: dict[int, Segment] = {}
        self._failed: StoreError | None = None
        self._troubled = False
        self.showing = Position(0, 0, 0)
        """Where the entry ends that is being shown, for who is called."""
        self.passed: Callable[[Position], None] = lambda _: None
        """Called when everything up to a position was shown."""
        self.may_remove: Callable[[Position], bool] = lambda _: True
        """Asked before a segment is removed that ends there."""
        self.findings = findings
        self._hinted: dict[int, int] = {}
        self._segments = {segment.number: segment for segment in opened}
        for finding in self.findings:
            _report(finding)
        self._active = opened[-1] if opened else self._begin()

    def write(self, key: bytes, payload: bytes, show: Show) -> tuple[int, int]:
        """Append an entry; return (ticket for commit, segment number). Raises: StoreError: then nothing happened."""
        with self._lock:
            self._refuse_if_failed()
            try:
                if self._active.size_bytes >= self._segment_bytes:
                    self._active = self._begin()
                self._active[key] = payload
            except StoreError as error:
                self._troubled = True
                self._failed = self._active.failed
                _log.warning("a batch was not stored: %s", error)
                raise
            self._troubled = False
            number = self._active.number
            self._dirty[number] = self._active
            self._written += 1
            self._waiting.append((self._written, self._active.end, show))
            return self._written, number

    def commit(self, ticket: int) -> None:
        """Return when the write with this ticket is durable and shown.

        Raises: StoreError when that failed; nothing is written any more then, until the store is opened again.
        """
        with self._synced:
            while self._durable < ticket:
                self._refuse_if_failed()
                if not self._syncing:
                    break
                self._synced.wait()
            else:
                return
            self._syncing = True
            goal = self._written
            dirty, self._dirty = list(self._dirty.values()), {}
        failure: StoreError | None = StoreError("a commit was interrupted", hint="restart the server")
        try:
            for segment in dirty:
                faults.at("store.written")
                segment.sync()
                faults.at("store.synced")
            self._show(goal)
            failure = None
        except StoreError as error:
            failure = error
            _log.error("the store takes no more writes: %s", error)
        finally:
            with self._synced:
                self._syncing = False
                self._failed = self._failed or failure
                if not failure:
                    self._durable = goal
                self._synced.notify_all()
        if failure:
            raise failure

    def read(self, number: int, key: bytes) -> bytes:
        """Return an entry. Raises: KeyError when it is not in that segment (any more); Corrupt, StoreError."""
        return self._segments[number][key]

    def start_of(self, number: int, key: bytes, size: int) -> bytes:
        """Return the first bytes of an entry, unchecked. Raises: KeyError, StoreError."""
        return self._segments[number].start_of(key, size)

    def forget(self, number: int, key: bytes) -> None:
        """Count an entry as dead."""
        with self._lock:
            segment = self._segments.get(number)
            if segment is not None:
                segment.forget(key)

    def mostly_dead(self) -> tuple[int, list[bytes]] | None:
        """Return (number, live keys) of the sealed segment with the greatest dead share; None below one half.

        The segment that is written is sealed first when it is mostly dead and large enough to be worth a new one.
        Raises: StoreError.
        """
        with self._lock:
            active = self._active
            if active.dead_bytes > active.live_bytes and active.size_bytes >= self._segment_bytes // 16:
                self._active = self._begin()
            candidates = [
                segment
                for segment in self._segments.values()
                if segment is not self._active and segment.dead_bytes > segment.live_bytes
            ]
            if not candidates:
                return None
            worst = max(candidates, key=lambda segment: segment.dead_bytes / segment.size_bytes)
            return worst.number, worst.keys()

    def lacking_hint(self, least_bytes: int) -> Unhinted | None:
        """Return a segment whose hint leaves out least_bytes or more, or anything of a sealed one; None: there is none.

        Only what is durable and shown is told of; the one that is written is left out while somebody waits for that.
        """
        with self._lock:
            if self._failed:
                return None
            for number, segment in self._segments.items():
                untold = segment.size_bytes - self._hinted.get(number, 0)
                busy = number in self._dirty or bool(self._waiting)
                if busy or untold < (least_bytes if segment is self._active else 1):
                    continue
                self._hinted[number] = segment.size_bytes
                return Unhinted(number, segment.folder, *segment.places())
        return None

    def remove_if_empty(self, number: int) -> bool:
        """Remove a sealed segment in which everything is dead; return whether it was. Raises: StoreError."""
        with self._lock:
            segment = self._segments[number]
            if (
                segment.live_bytes
                or segment is self._active
                or number in self._dirty
                or not self.may_remove(segment.end)
            ):
                return False
            del self._segments[number]
        remove_segment(segment)
        return True

    def opened(self) -> tuple[list[Segment], Position]:
        """Return the segments, oldest first, and where the log ends."""
        with self._lock:
            return sorted(self._segments.values(), key=lambda segment: segment.number), self._active.end

    def begin_behind(self, number: int) -> None:
        """Go on in a new segment with a number above that. Raises: StoreError."""
        with self._lock:
            self._active = self._begin(number)

    def check(self) -> None:
        """Raise StoreError when writes are not taken; after a failed write it tries one on a file of its own."""
        self._refuse_if_failed()
        if not self._troubled:
            return
        probe = self._root / _PROBE_FILE
        try:
            durable.create(probe, b"x" * 4096)
            probe.unlink()
        except OSError as error:
            raise StoreError(
                f"cannot write in {self._root}: {error}", hint="free some disk space or check the permissions"
            ) from error
        self._troubled = False

    def hinted(self, number: int, size: int) -> None:
        """Take note that a hint tells of the first size bytes of a segment."""
        self._hinted[number] = size

    def check_failed(self) -> None:
        """Raise StoreError when nothing is written any more until the store is opened again; takes no lock."""
        self._refuse_if_failed()

    def stats(self) -> dict[str, int]:
        """Return segments, size_bytes, dead_bytes, damaged_regions."""
        with self._lock:
            segments = list(self._segments.values())
        return {
            "segments": len(segments),
            "size_bytes": sum(segment.size_bytes for segment in segments),
            "dead_bytes": sum(segment.dead_bytes for segment in segments),
            "damaged_regions": sum(finding.reason != "torn" for finding in self.findings),
        }

    def flush(self) -> None:
        """Commit everything that is written. Raises: StoreError when that failed."""
        if not self._failed:
            self.commit(self._written)

    def close(self) -> None:
        """Commit what is written and let go of the files; idempotent. Raises: StoreError when the commit failed."""
        try:
            self.flush()
        finally:
            with self._lock:
                self._failed = self._failed or StoreError("the store is closed", permanent=True)
                for segment in self._segments.values():
                    segment.retire()

    def _refuse_if_failed(self) -> None:
        if self._failed:
            # A new one each time: an exception that is raised again and again collects tracebacks.
            raise StoreError(self._failed.message, hint=self._failed.hint, permanent=self._failed.permanent)

    def _begin(self, behind: int = 0) -> Segment:
        number = max([behind, *self._segments]) + 1
        segment = make_segment(self._root, number, int.from_bytes(os.urandom(4)))
        self._segments[number] = segment
        return segment

    def _show(self, goal: int) -> None:
        """Show everything up to goal; only the leader is here."""
        while self._waiting and self._waiting[0][0] <= goal:
            _, self.showing, show = self._waiting.popleft()
            show(self.showing.segment)
        self.passed(self.showing)


def _report(finding: Finding) -> None:
    if finding.kept is None:
        _log.warning("cut a torn tail path=%s offset=%d bytes=%d", *finding[:3])
    else:
        _log.error("%s records path=%s offset=%d bytes=%d kept=%s", finding.reason, *finding[:3], finding.kept)
