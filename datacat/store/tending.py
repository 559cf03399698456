"""What a store does beside requests, in small steps: merge entries, empty segments, forget what was deleted."""

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import partial

from datacat.errors import Corrupt
from datacat.store import entry
from datacat.store.chunks import Chunk, chunks_of, has_any, has_many, lies_in, state_of
from datacat.store.index import Index, Tombstone
from datacat.store.merging import merge, plan
from datacat.store.segment import Segment
from datacat.store.segments import Place, Segments, placed
from datacat.wire.routes import OPEN_STATUSES

_log = logging.getLogger(__name__)

QUIET_S = 60.0
"""A session that ended and got nothing for so long is merged into few entries."""
TOMBSTONE_US = 30 * 24 * 3600 * 1_000_000
"""For so long it is known that a session was deleted; a daemon keeps what it could not ship for 14 days at most."""
_AT_ONCE = 64
"""Merged entries that one sync makes durable."""
_OLD_INTERVAL_S = 3600.0
"""How often it is looked for tombstones that are old enough."""


class Tending:
    """One thread at a time calls step(); note() and erase() any. clock is monotonic, now_ns tells Unix time."""

    def __init__(
        self,
        index: Index,
        segments: Segments,
        clock: Callable[[], float],
        now_ns: Callable[[], int],
        *,
        quiet_s: float = QUIET_S,
    ) -> None:
        self._index = index
        self._segments = segments
        self._clock = clock
        self._quiet_s = quiet_s
        self._now_ns = now_ns
        self._lock = threading.Lock()
        self._recent: OrderedDict[str, float] = OrderedDict()
        self._many: dict[str, None] = {}
        self._moving: Iterator[tuple[str, Chunk | Tombstone]] | None = None
        self._moving_from = 0
        self._erasing: Iterator[None] | None = None
        self._erased_at = clock()
        self._to_erase = {name for name, one in index.tombstones.items() if one.erase}
        for session_id, session in index.sessions.items():
            if has_any(session.table):
                self.note(session_id, session.table)

    def note(self, session_id: str, table: bytes) -> None:
        """Note that a session got an entry; table is what it has now."""
        with self._lock:
            self._recent[session_id] = self._clock()
            self._recent.move_to_end(session_id)
            if has_many(table):
                self._many[session_id] = None

    def erase(self, session_id: str) -> None:
        """Let the next steps rewrite the segments that hold entries of a deleted session."""
        with self._lock:
            self._to_erase.add(session_id)

    def step(self, deadline: float) -> bool:
        """Work until the clock reaches the deadline; return whether there is more to do. Raises: StoreError."""
        return self._merge(deadline) or self._look_for_deleted(deadline) or self._empty(deadline)

    # merging ----------------------------------------------------------------------------------------------------------

    def _merge(self, deadline: float) -> bool:
        """Merge session after session; some are written before one sync shows them all."""
        ticket = 0
        under_way: set[str] = set()
        while True:
            found = self._next_to_merge(under_way)
            if found is not None:
                session_id, noted = found
                try:
                    written = self._merge_next(session_id, done=noted is not None)
                except Corrupt as error:
                    _log.error("a session is not merged: %s", error)
                    written = 0
                if written:
                    ticket = written
                    under_way.add(session_id)
                else:
                    self._forget_noted(session_id, noted)
            over = self._clock() >= deadline
            if over or found is None or len(under_way) >= _AT_ONCE:
                self._segments.commit(ticket)
                if over or (found is None and not under_way):
                    return found is not None or bool(under_way)
                under_way.clear()

    def _next_to_merge(self, but: set[str]) -> tuple[str, float | None] | None:
        """Return a session with many entries, or one that ended and is quiet, with when it was noted; none of those."""
        with self._lock:
            for session_id in self._many:
                if session_id not in but:
                    return session_id, None
            over = []
            found = None
            for session_id, noted in self._recent.items():
                if self._clock() - noted < self._quiet_s:
                    break
                if session_id in but:
                    continue
                summary = self._index.heads.summary(session_id)
                if summary is not None and summary.status not in OPEN_STATUSES:
                    found = session_id, noted
                    break
                over.append(session_id)
            for session_id in over:
                del self._recent[session_id]
            return found

    def _forget_noted(self, session_id: str, noted: float | None) -> None:
        with self._lock:
            if noted is None:
                self._many.pop(session_id, None)
            elif self._recent.get(session_id) == noted:
                del self._recent[session_id]

    def _merge_next(self, session_id: str, *, done: bool) -> int:
        """Write what is to be merged next of a session; return the ticket, 0 when there is nothing."""
        while chunks := self._index.chunks(session_id):
            wanted = plan(chunks, done=done)
            if wanted is None:
                return 0
            old = chunks[wanted.start : wanted.stop]
            before = state_of(chunks[: wanted.start])
            try:
                state = entry.state_text(self._read(session_id, before)) if before is not None else b""
                payloads = [self._read(session_id, chunk) for chunk in old]
            except KeyError:
                continue  # moved meanwhile, or deleted
            payload, chunk = merge(session_id, payloads, state, wanted.tier)
            key = entry.key_of(session_id, chunk.first, chunk.last)
            ticket, _ = self._segments.write(key, payload, partial(self._show_merged, session_id, chunk), merged=True)
            return ticket
        return 0

    def _show_merged(self, session_id: str, chunk: Chunk, place: Place) -> None:
        dead = self._index.replace(session_id, placed(chunk, place))
        for one in [place] if dead is None else dead:
            self._segments.forget(one)

    # emptying segments ------------------------------------------------------------------------------------------------

    def _empty(self, deadline: float) -> bool:
        while True:
            if self._moving is None:
                self._moving_from = self._segments.to_move()
                if not self._moving_from:
                    return False
                self._moving = self._alive_in(self._moving_from)
            for session_id, one in self._moving:
                try:
                    self._move(session_id, one)
                except Corrupt as error:
                    _log.error("segment %d is not emptied: %s", self._moving_from, error)
                    self._segments.leave(self._moving_from)
                    break
                # Looked at after a move, so that the smallest budget makes progress.
                if self._clock() >= deadline:
                    self._segments.sync()
                    return True
            self._moving = None
            self._segments.sync()
            if self._segments.may_be_moved(self._moving_from) and not self._segments.remove_if_empty(self._moving_from):
                # Something was written to it a moment ago and is not shown yet.
                return True
            if self._clock() >= deadline:
                return True

    def _alive_in(self, number: int) -> Iterator[tuple[str, Chunk | Tombstone]]:
        index = self._index
        for session_id, session in list(index.sessions.items()):
            if lies_in(session.table, number):
                for chunk in chunks_of(session.table):
                    if chunk.segment == number:
                        yield session_id, chunk
        for session_id, tombstone in list(index.tombstones.items()):
            if tombstone.segment == number:
                yield session_id, tombstone

    def _move(self, session_id: str, one: Chunk | Tombstone) -> None:
        """Write an entry again, into the newest segment of merged entries, unless it is dead by now."""
        try:
            payload = self._read(session_id, one)
        except KeyError:
            return
        if isinstance(one, Chunk):
            key = entry.key_of(session_id, one.first, one.last)
            copy = entry.without_delta(payload)
            self._segments.write(key, copy, partial(self._show_merged, session_id, one), merged=True)
        else:
            key = entry.key_of(session_id, one.rev, one.rev)
            self._segments.write(key, payload, partial(self._show_moved, session_id, one), merged=True)

    def _show_moved(self, session_id: str, old: Tombstone, place: Place) -> None:
        new = Tombstone(old.rev, old.at_us, old.erase, *place)
        self._segments.forget(old if self._index.move_tombstone(session_id, old, new) else new)

    def _read(self, session_id: str, one: Chunk | Tombstone) -> bytes:
        first = one.first if isinstance(one, Chunk) else one.rev
        last = one.last if isinstance(one, Chunk) else one.rev
        place = Place(one.segment, one.offset, one.size_bytes)
        return self._segments.read(entry.key_of(session_id, first, last), place)

    # what was deleted -------------------------------------------------------------------------------------------------

    def _look_for_deleted(self, deadline: float) -> bool:
        if self._erasing is None:
            with self._lock:
                due = self._clock() - self._erased_at >= _OLD_INTERVAL_S
                if not due and not self._to_erase:
                    return False
                wanted, self._to_erase = self._to_erase, set()
                self._erased_at = self._clock()
            self._erasing = self._look(wanted)
        for _ in self._erasing:
            if self._clock() >= deadline:
                return True
        self._erasing = None
        return False

    def _look(self, wanted: set[str]) -> Iterator[None]:
        """Mark segments that hold entries of wanted sessions, and forget tombstones that are old enough."""
        old_us = self._now_ns() // 1000 - TOMBSTONE_US
        tombstones = dict(self._index.tombstones)
        old = {session_id for session_id, one in tombstones.items() if 0 < one.at_us < old_us}
        left: set[str] = set()
        for segment in self._segments.with_dead() if wanted or old else ():
            here = set(self._deleted_in(segment, wanted | old, tombstones))
            left |= here
            if here & wanted:
                self._segments.empty(segment.number)
            yield
        for session_id in old - left:
            # Only now: while an entry is left somewhere, the tombstone keeps the session from coming back.
            if self._index.forget_tombstone(session_id, tombstones[session_id]):
                self._segments.forget(tombstones[session_id])

    def _deleted_in(self, segment: Segment, wanted: set[str], tombstones: dict[str, Tombstone]) -> Iterator[str]:
        try:
            for key, _ in segment.places():
                session_id = entry.session_of(key)
                if session_id in wanted and key != _tombstone_key(session_id, tombstones.get(session_id)):
                    yield session_id
        except KeyError:
            return  # it was removed
        except Corrupt as error:
            _log.error("what was deleted may be left in segment %d: %s", segment.number, error)
            yield from wanted


def _tombstone_key(session_id: str, tombstone: Tombstone | None) -> bytes:
    return b"" if tombstone is None else entry.key_of(session_id, tombstone.rev, tombstone.rev)
