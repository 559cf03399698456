"""Build the index in memory from the entries of a store: which are alive, what the heads are, what is missing."""

from pathlib import Path

import msgspec

from datacat.errors import StoreError
from datacat.host import Lock, lock, needs_a_person
from datacat.store import durable, entry, version
from datacat.store.chunks import ROW_BYTES, Chunk, chunks_of, row_of
from datacat.store.descriptors import Descriptors
from datacat.store.fold import Head
from datacat.store.hints import Hint, decode_kept
from datacat.store.index import Index, Session, Tombstone
from datacat.store.repair import Distrust, Finding, open_segments
from datacat.store.sealed import Record
from datacat.store.segment import Known
from datacat.store.segments import Place, Segments, placed
from datacat.store.summary import Summary, head_of, share, summary_of

DAMAGED = "damaged"
"""The reason in Head.dropped under which batches are counted that were stored once and are not readable any more."""


class _Loaded(msgspec.Struct, gc=False):
    """What was seen of one session so far; rev, head and total are those of its newest entry."""

    rows: bytes = b""
    rev: int = 0
    head: Summary | msgspec.Raw | None = None
    total: int = 0


class Collector:
    """Takes in entries, read or told of by hints, in the order of the segments."""

    def __init__(self) -> None:
        self.sessions: dict[str, _Loaded] = {}
        self.tombstones: dict[str, Tombstone] = {}
        self.hinted: dict[int, int] = {}

    def visit(self, number: int, record: Record, payload: memoryview) -> None:
        """Take in an entry. Raises: StoreError."""
        opened = entry.whole(payload)
        front = opened.front
        place = Place(number, record.offset, record.end - record.offset)
        if front.deleted:
            self.tombstones[front.id] = Tombstone(front.rev, front.at_us, front.erase, *place)
            return
        session = self._session(front.id)
        chunk = entry.chunk_of(front, payload[opened.body_at :], has_state=opened.index_at > opened.state_at)
        session.rows += row_of(placed(chunk, place))
        if front.rev >= session.rev:
            # A copy: the head must not keep the whole segment in memory.
            session.rev, session.head, session.total = front.rev, msgspec.Raw(bytes(front.head)), front.chunks

    def visit_hint(self, number: int, hint: Hint) -> Known:
        """Take in what a hint tells; return which bytes it tells of."""
        for packed in hint.sessions:
            kept = decode_kept(packed)
            session = self._session(kept.id)
            session.rows += kept.rows
            newest = chunks_of(kept.rows[-ROW_BYTES:])[0].last
            if newest > session.rev or (newest == session.rev and kept.head is not None):
                session.rev, session.head, session.total = newest, kept.head and share(kept.head), kept.total
        for session_id, rev, at_us, erase, offset, size in hint.tombstones:
            self.tombstones[session_id] = Tombstone(rev, at_us, erase, number, offset, size)
        self.hinted[number] = hint.size
        return Known(hint.size, hint.seq)

    def _session(self, session_id: str) -> _Loaded:
        session = self.sessions.get(session_id)
        if session is None:
            session = self.sessions[session_id] = _Loaded()
        return session


def take(root: Path) -> Lock:
    """Return the lock of the folder, which is made when there is none. Raises: Busy, StoreError."""
    try:
        durable.make_dir(root)
    except OSError as error:
        raise StoreError(
            f"cannot create {root}: {error}",
            hint="check the path and its permissions",
            permanent=needs_a_person(error),
        ) from error
    return lock(root / "lock")


def load(root: Path, index: Index, segment_bytes: int, *, synced_later: bool = False) -> Segments:
    """Open a store's files and fill the index.

    An entry that lies in two segments, because moving it was interrupted, counts in the later one; one that was merged
    into another is dead, whether its segment is still there or not. When anything is not as it was written, every byte
    is read and hints are not believed. Raises: StoreError.
    """
    version.check(root)
    repaired: list[Finding] = []
    descriptors = Descriptors()
    try:
        seen = Collector()
        opened, findings = open_segments(root, descriptors, seen.visit, seen.visit_hint)
        if any(one.head is None for session_id, one in seen.sessions.items() if session_id not in seen.tombstones):
            raise Distrust(findings)
    except Distrust as distrust:
        repaired = distrust.findings
        seen, descriptors = Collector(), Descriptors()
        opened, findings = open_segments(root, descriptors, seen.visit)
    segments = Segments(root, opened, repaired + findings, segment_bytes, descriptors, synced_later=synced_later)
    for number, size in seen.hinted.items():
        segments.hinted(number, size)
    summaries: list[Summary] = []
    for session_id in list(seen.sessions):
        one = seen.sessions.pop(session_id)  # so that its memory is there for the next ones
        if session_id in seen.tombstones:
            continue
        summary = _summary(one)
        alive = alive_of(chunks_of(one.rows), one.rev)
        table = one.rows if len(alive) * ROW_BYTES == len(one.rows) == ROW_BYTES else b"".join(map(row_of, alive))
        missing = one.total - sum(chunk.batches for chunk in alive)
        if missing:
            summary = summary_of(_missing(summary, missing), summary)
        summaries.append(summary)
        index.sessions[summary.id] = Session(table, one.rev, one.total)
        for chunk in alive:
            segments.count(chunk.segment, chunk.size_bytes)
    index.heads.put_all(summaries)
    for session_id, tombstone in seen.tombstones.items():
        index.bury(session_id, tombstone)
        segments.count(tombstone.segment, tombstone.size_bytes)
    version.mark(root)
    return segments


def _summary(one: _Loaded) -> Summary:
    if isinstance(one.head, Summary):
        return one.head
    return summary_of(entry.head_of(one.head if isinstance(one.head, msgspec.Raw) else msgspec.Raw(b"null")))


def _missing(summary: Summary, count: int) -> Head:
    head = head_of(summary)
    head.dropped = {**head.dropped, DAMAGED: count}
    return head


def alive_of(chunks: list[Chunk], newest: int) -> list[Chunk]:
    """Return the chunks of a session that no other stands for, oldest first."""
    if len(chunks) == 1:
        return chunks
    # Of two copies the one in the later segment counts.
    chunks.sort(key=lambda chunk: (chunk.first, -chunk.last, -chunk.segment, -chunk.offset))
    alive = []
    covered = 0
    for chunk in chunks:
        if chunk.last <= covered:
            continue
        covered = chunk.last
        if chunk.batches or chunk.last == newest:
            alive.append(chunk)
    return alive
