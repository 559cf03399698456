"""The segments of one store: where the next entry goes, one fsync for all who wait, and what is shown after it."""

import contextlib
import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeAlias

from datacat.errors import StoreError
from datacat.store import durable
from datacat.store.chunks import Chunk
from datacat.store.descriptors import Descriptors
from datacat.store.index import Tombstone
from datacat.store.repair import Finding, make_segment, remove_segment
from datacat.store.rounds import Round, Sleepers
from datacat.store.sealed import HEADER, Position
from datacat.store.segment import Segment

_log = logging.getLogger(__name__)

SEGMENT_BYTES = 64 * 1024 * 1024
"""Size after which a new segment begins: small enough to read whole at a start and to rewrite in the background."""
_PROBE_FILE = "probe"


class Place(NamedTuple):
    """Where an entry lies: the number of the segment, offset and size in its file."""

    segment: int
    offset: int
    size_bytes: int


def placed(chunk: Chunk, place: Place) -> Chunk:
    """Return a chunk that lies there."""
    return chunk._replace(segment=place.segment, offset=place.offset, size_bytes=place.size_bytes)


Show: TypeAlias = Callable[[Place], None]
"""Called with the entry's place once it is durable; by one thread at a time, in the order of writing."""


class Unhinted(NamedTuple):
    """A segment of which a hint is to be made: its bytes so far."""

    number: int
    folder: Path
    size: int
    time_ns: int
    seq: int


class Segments:
    """Append-only files of two kinds, one of each that is written. Any thread may call.

    Batches go into the one, what was merged of them or moved into the other: what is rewritten once is not rewritten
    again because batches around it die. The first kind is the log: it has each batch once, in the order of commits.

    A write is visible to nobody until commit(): the first thread that waits becomes the leader of a round, syncs for
    everyone who has written by then, shows their entries in order, and wakes them. Whoever must not wait begins and
    ends a round and lets another thread sync. The lock is not held during fsync. With an interval the leader does not
    sync; sync() does, which is to be called so often.
    """

    def __init__(
        self,
        root: Path,
        opened: list[Segment],
        findings: list[Finding],
        segment_bytes: int,
        descriptors: Descriptors,
        *,
        synced_later: bool = False,
    ) -> None:
        """Take over segments that open_segments() has made sound."""
        self._root = root
        self._segment_bytes = segment_bytes
        self._descriptors = descriptors
        self._synced_later = synced_later
        self._lock = threading.Lock()
        self._sleepers = Sleepers()
        self._syncing = False
        self._written = 0
        self._written_bytes = 0
        self._durable = 0
        self._waiting: deque[tuple[int, Place, Position | None, Show]] = deque()
        self._dirty: dict[int, Segment] = {}
        self._failed: StoreError | None = None
        self._troubled = False
        self.showing = Position(0, 0, 0)
        """Where in the log the entry of a batch ends that is being shown, for who is called."""
        self.passed: Callable[[Position], None] = lambda _: None
        """Called when everything in the log up to a position was shown."""
        self.may_remove: Callable[[Position], bool] = lambda _: True
        """Asked before a segment of the log is removed that ends there."""
        self._emptied: set[int] = set()
        self._left: set[int] = set()
        self.findings = findings
        self._hinted: dict[int, int] = {}
        self._segments = {segment.number: segment for segment in opened}
        for finding in self.findings:
            _report(finding)
        self._active: dict[bool, Segment] = {}
        for segment in opened:
            self._active[segment.merged] = segment
        for segment in self._active.values():
            segment.keep_open(True)
        if False not in self._active:
            self._active[False] = self._begin(merged=False)

    def write(self, key: bytes, payload: bytes, show: Show, *, merged: bool = False) -> tuple[int, Place]:
        """Append an entry; return the ticket for commit and its place. Raises: StoreError: then nothing happened."""
        with self._lock:
            self._refuse_if_failed()
            active = self._active.get(merged)
            try:
                if active is None or active.size_bytes >= self._segment_bytes:
                    active = self._begin(merged=merged)
                offset, size = active.append(key, payload)
            except StoreError as error:
                self._troubled = True
                self._failed = active.failed if active else None
                _log.warning("a batch was not stored: %s", error)
                raise
            self._troubled = False
            place = Place(active.number, offset, size)
            self._dirty[active.number] = active
            self._written += 1
            self._written_bytes += size
            self._waiting.append((self._written, place, None if merged else active.end, show))
            return self._written, place

    def commit(self, ticket: int) -> None:
        """Return when the write with this ticket is durable (with an interval: written) and shown.

        Raises: StoreError when that failed; nothing is written any more then, until the store is opened again.
        """
        self._commit(ticket, sync=not self._synced_later)

    def sync(self) -> None:
        """Make everything that is written durable. Raises: StoreError when that failed, as commit() does."""
        with self._lock:
            ticket = self._written if self._dirty or self._waiting else 0
        if ticket:
            self._commit(ticket, sync=True, force=True)

    def _commit(self, ticket: int, *, sync: bool, force: bool = False) -> None:
        while force or self._durable < ticket:
            woken = threading.Lock()
            woken.acquire()
            began = self._begin_round(ticket, woken.release, sync=sync)
            if began is not None:
                try:
                    began.sync()
                except BaseException:
                    with contextlib.suppress(StoreError):  # whoever waits is told; this thread has its own error
                        self.end(began)
                    raise
                self.end(began)
                return
            woken.acquire()

    def begin(self, ticket: int, wake: Callable[[], object]) -> Round | None:
        """Return the round that commits the write with this ticket, and all others; the caller syncs and ends it.

        None: another thread's round is under way. wake is called once, by that thread, when it is time to ask again.
        Raises: StoreError when nothing is written any more.
        """
        return self._begin_round(ticket, wake, sync=not self._synced_later)

    def _begin_round(self, ticket: int, wake: Callable[[], object], *, sync: bool) -> Round | None:
        with self._lock:
            self._refuse_if_failed()
            if self._syncing:
                self._sleepers.add(ticket, wake)
                return None
            self._syncing = True
            dirty: list[Segment] = []
            if sync:
                dirty, self._dirty = list(self._dirty.values()), {}
            return Round(self._written, dirty)

    def end(self, over: Round) -> None:
        """Show what a round made durable and wake who waits for that. Raises: StoreError when the round failed."""
        failure = over.failure
        try:
            if failure is None:
                failure = StoreError("a commit was interrupted", hint="restart the server")
                self._show(over.goal)
                failure = None
        except StoreError as error:
            failure = error
        finally:
            if failure:
                _log.error("the store takes no more writes: %s", failure)
            with self._lock:
                self._syncing = False
                self._failed = self._failed or failure
                if not failure:
                    self._durable = over.goal
                    for segment in over.segments:
                        if self._active[segment.merged] is not segment and segment.number not in self._dirty:
                            segment.keep_open(False)
                self._sleepers.wake(self._durable, everybody=bool(failure))
        if failure:
            raise failure

    def read(self, key: bytes, place: Place) -> bytes:
        """Return an entry. Raises: KeyError when it is not in that segment (any more); Corrupt, StoreError."""
        return self._segments[place.segment].read(key, place.offset, place.size_bytes)

    def forget(self, place: Place | Chunk | Tombstone) -> None:
        """Count an entry as dead."""
        with self._lock:
            segment = self._segments.get(place.segment)
            if segment is not None:
                segment.live_bytes -= place.size_bytes

    def count(self, segment: int, size_bytes: int) -> None:
        """Count an entry that was found at the start as alive."""
        self._segments[segment].live_bytes += size_bytes

    def with_dead(self) -> list[Segment]:
        """Return the segments in which something is dead, oldest first."""
        with self._lock:
            return [one for one in self._segments.values() if one.dead_bytes > len(HEADER)]

    def empty(self, number: int) -> None:
        """Let what lives in a segment be moved elsewhere, whatever share of it is dead."""
        with self._lock:
            if number in self._segments:
                self._emptied.add(number)

    def leave(self, number: int) -> None:
        """Move nothing out of a segment any more until the store is opened again: something in it cannot be read."""
        self._left.add(number)

    def may_be_moved(self, number: int) -> bool:
        """Return whether leave() was not told of a segment."""
        return number not in self._left

    def to_move(self) -> int:
        """Return the number of the segment out of which to move what lives; 0 when there is none.

        That is one that is to be emptied, or the one with the greatest dead share from one half on. The segment that is
        written is closed first when it is mostly dead and large enough to be worth a new one. Raises: StoreError.
        """
        with self._lock:
            for merged, active in list(self._active.items()):
                worth = active.dead_bytes > active.live_bytes and active.size_bytes >= self._segment_bytes // 16
                if worth or active.number in self._emptied:
                    self._begin(merged=merged)
            candidates = [
                segment
                for segment in self._segments.values()
                if self._active[segment.merged] is not segment
                and segment.number not in self._left
                and (segment.dead_bytes > segment.live_bytes or segment.number in self._emptied)
            ]
            if not candidates:
                return 0
            worst = max(candidates, key=lambda segment: segment.dead_bytes / segment.size_bytes)
            return worst.number

    def lacking_hint(self, least_bytes: int) -> Unhinted | None:
        """Return a segment whose hint leaves out least_bytes or more, or anything of one that is full; None: none does.

        Only what is durable and shown is told of; those with writes that somebody waits for are left out.
        """
        with self._lock:
            if self._failed:
                return None
            for number, segment in self._segments.items():
                untold = segment.size_bytes - self._hinted.get(number, 0)
                busy = number in self._dirty or self._syncing or bool(self._waiting)
                if busy or untold < (least_bytes if self._active[segment.merged] is segment else 1):
                    continue
                self._hinted[number] = segment.size_bytes
                return Unhinted(number, segment.folder, *segment.position())
        return None

    def remove_if_empty(self, number: int) -> bool:
        """Remove a segment in which everything is dead; return whether it was. Raises: StoreError."""
        with self._lock:
            segment = self._segments[number]
            waited_for = any(place.segment == number for _, place, _, _ in self._waiting)
            written = self._active[segment.merged] is segment
            if segment.live_bytes > 0 or written or number in self._dirty or waited_for or self._syncing:
                return False
            if not segment.merged and not self.may_remove(segment.end):
                return False
            del self._segments[number]
            self._emptied.discard(number)
        remove_segment(segment)
        return True

    def log(self) -> tuple[list[Segment], Position]:
        """Return the segments of batches as they came, oldest first, and where the log ends that they are."""
        with self._lock:
            segments = [one for one in self._segments.values() if not one.merged]
            return sorted(segments, key=lambda segment: segment.number), self._active[False].end

    def begin_behind(self, number: int) -> None:
        """Let the log go on in a new segment with a number above that. Raises: StoreError."""
        with self._lock:
            self._begin(merged=False, behind=number)

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
        """Return segments, size_bytes, dead_bytes, written_bytes (since it was opened), open_files, damaged_regions."""
        with self._lock:
            segments = list(self._segments.values())
        return {
            "segments": len(segments),
            "size_bytes": sum(segment.size_bytes for segment in segments),
            "dead_bytes": sum(segment.dead_bytes for segment in segments),
            "written_bytes": self._written_bytes,
            "open_files": self._descriptors.count(),
            "damaged_regions": sum(finding.reason != "torn" for finding in self.findings),
        }

    def flush(self) -> None:
        """Commit everything that is written. Raises: StoreError when that failed."""
        if not self._failed:
            self.sync()

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

    def _begin(self, *, merged: bool, behind: int = 0) -> Segment:
        """Let the next writes of that kind go into a new segment; the caller holds the lock."""
        number = max([behind, *self._segments]) + 1
        before = self._active.get(merged)
        if before is not None and before.number in self._dirty:
            # What a power cut leaves of the new one must not tell of records that it took from this one.
            try:
                before.sync()
            except StoreError as error:
                self._failed = self._failed or error
                raise
        segment = make_segment(self._root, number, int.from_bytes(os.urandom(4)), self._descriptors, merged=merged)
        if before is not None and before.number not in self._dirty:
            before.keep_open(False)
        segment.keep_open(True)
        self._segments[number] = self._active[merged] = segment
        return segment

    def _show(self, goal: int) -> None:
        """Show everything up to goal; only the leader is here."""
        while self._waiting and self._waiting[0][0] <= goal:
            _, place, end, show = self._waiting.popleft()
            self.showing = end or self.showing
            show(place)
        self.passed(self.showing)


def _report(finding: Finding) -> None:
    if finding.kept is None:
        _log.warning("cut a torn tail path=%s offset=%d bytes=%d", *finding[:3])
    else:
        _log.error("%s records path=%s offset=%d bytes=%d kept=%s", finding.reason, *finding[:3], finding.kept)
