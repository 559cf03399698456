"""The index of a semidbm store: where the entries of every session lie, and which sessions were deleted."""

import threading
from typing import NamedTuple

import msgspec

from datacat.store.chunks import ROW_BYTES, Chunk, chunks_of, is_bare, newest_first, row_of
from datacat.store.fold import Head
from datacat.store.heads import Heads


class Tombstone(NamedTuple):
    """That a session was deleted: its last rev, when (Unix us, 0: not known), and where the entry lies that says so.

    erase: what other segments still hold of the session is to be erased, and not only when they are mostly dead.
    """

    rev: int
    at_us: int
    erase: bool
    segment: int
    offset: int
    size_bytes: int


class Pending(NamedTuple):
    """What was written of a session and is not shown yet: its newest head, the ticket, the chunk with its state."""

    head: Head
    ticket: int
    state: Chunk | None


class Session(msgspec.Struct, gc=False):
    """One session of the store.

    table is what readers see and belongs to the index's lock: the rows of its chunks (chunks.py) in the order of rev;
    an entry without records is among them only while it is the newest. rev counts the entries that were written,
    batches those of them with records; these, pending (None when all is shown) and deleted (a tombstone was written,
    with that ticket) belong to the session's stripe, and are changed under the index's lock as well.
    """

    table: bytes = b""
    rev: int = 0
    batches: int = 0
    pending: Pending | None = None
    deleted: int = 0


class Index:
    """Any thread may call; lock is held for short moments and guards what readers see.

    The heads' own lock is taken inside of it, so that a head and the chunks that it tells of are shown at once.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.heads = Heads()
        self.sessions: dict[str, Session] = {}
        self.tombstones: dict[str, Tombstone] = {}

    def chunks(self, session_id: str) -> list[Chunk] | None:
        """Return the chunks of a session, oldest first; None when there is no such session."""
        session = self.sessions.get(session_id)
        return None if session is None else chunks_of(session.table)

    def find(self, session_id: str, first: int, last: int) -> Chunk | None:
        """Return the visible chunk that is just those entries, or that they were merged into; None: there is none."""
        session = self.sessions.get(session_id)
        if session is None:
            return None
        return next(
            (chunk for chunk in newest_first(session.table) if chunk.first <= first and last <= chunk.last), None
        )

    def show(self, session: Session, head: Head, chunk: Chunk) -> Chunk | None:
        """Show an entry that is durable, and the head after it; return the chunk that is dead by that."""
        with self.lock:
            table, dead = session.table, None
            if table and is_bare(table):
                table, dead = table[:-ROW_BYTES], next(newest_first(table))
            session.table = table + row_of(chunk)
            if session.rev == chunk.last:
                session.pending = None
            self.heads.put(head)
        return dead

    def bury(self, session_id: str, tombstone: Tombstone) -> list[Chunk]:
        """Show that a session was deleted; return its chunks, which are dead by that."""
        with self.lock:
            self.heads.delete(session_id)
            self.tombstones[session_id] = tombstone
            session = self.sessions.pop(session_id, None)
            if session is None:
                return []
            dead = chunks_of(session.table)
            session.table = b""
            return dead

    def replace(self, session_id: str, chunk: Chunk) -> list[Chunk] | None:
        """Show an entry in the place of those that it stands for; return them. None: some of them are not there.

        Entries that a later one made dead meanwhile may be missing at the end.
        """
        with self.lock:
            session = self.sessions.get(session_id)
            chunks = chunks_of(session.table) if session is not None else []
            old = [one for one in chunks if chunk.first <= one.first and one.last <= chunk.last]
            if session is None or sum(one.batches for one in old) != chunk.batches or not old:
                return None
            at = chunks.index(old[0])
            chunks[at : at + len(old)] = [chunk]
            session.table = b"".join(map(row_of, chunks))
            return old

    def move_tombstone(self, session_id: str, old: Tombstone, new: Tombstone) -> bool:
        """Show that a tombstone lies elsewhere; return whether it was still the one."""
        with self.lock:
            if self.tombstones.get(session_id) != old:
                return False
            self.tombstones[session_id] = new
            return True

    def forget_tombstone(self, session_id: str, tombstone: Tombstone) -> bool:
        """Forget that a session was deleted; return whether that was still the tombstone."""
        with self.lock:
            if self.tombstones.get(session_id) != tombstone:
                return False
            del self.tombstones[session_id]
            self.heads.forget_deleted(session_id)
            return True
