"""Build the index in memory from the entries of a store: which are alive, what the heads are, what is missing."""

from pathlib import Path

from datacat.errors import StoreError
from datacat.host import needs_a_person
from datacat.store import durable, entry
from datacat.store.chunks import Chunk
from datacat.store.fold import Head
from datacat.store.heads import Heads
from datacat.store.segments import Segments

FORMAT_FILE = "format"
FORMAT = b"datacat store 1\n"
DAMAGED = "damaged"
"""The reason in Head.dropped under which batches are counted that were stored once and are not readable any more."""


class Session:
    """One session of the store.

    The first group is about everything that was written and belongs to the session's stripe: the newest head (None
    before the first batch), the entries and those of them with records so far, the chunk with the newest state, the
    ticket of the newest write, whether a tombstone was written. The second is what readers see and belongs to the
    store's lock: the chunks in order of rev, the one with the state, and (rev, segment) of the newest entry when it has
    no records.
    """

    __slots__ = ("bare", "chunk_count", "chunks", "deleted", "newest_state", "rev", "state", "ticket", "written")

    def __init__(self) -> None:
        self.written: Head | None = None
        self.rev = 0
        self.chunk_count = 0
        self.newest_state: Chunk | None = None
        self.ticket = 0
        self.deleted = False
        self.chunks: list[Chunk] = []
        self.state: Chunk | None = None
        self.bare: tuple[int, int] | None = None


class _Loaded:
    """What was seen of one session so far."""

    __slots__ = ("bares", "chunks", "front", "state_rev")

    def __init__(self, front: entry.Front) -> None:
        self.front = front
        self.chunks: dict[int, Chunk] = {}
        self.bares: dict[int, int] = {}
        self.state_rev = 0


def load(
    root: Path, heads: Heads, segment_bytes: int
) -> tuple[dict[str, Session], dict[str, tuple[int, int]], Segments]:
    """Open a store's files and fill heads; return (sessions, tombstones with rev and segment, segments).

    An entry that lies in two segments, because moving it was interrupted, counts in the later one. Raises: StoreError.
    """
    _check_format(root)
    loaded: dict[str, _Loaded] = {}
    tombstones: dict[str, tuple[int, int]] = {}
    dead: list[tuple[int, bytes]] = []

    def visit(number: int, key: bytes, payload: memoryview) -> None:
        opened = entry.open_front(payload)
        if opened is None:
            raise StoreError(f"an entry in segment {number} has no front", permanent=True)
        front = opened.front
        if front.deleted:
            if front.id in tombstones:
                dead.append((tombstones[front.id][1], key))
            tombstones[front.id] = (front.rev, number)
            return
        session = loaded.setdefault(front.id, _Loaded(front))
        if front.rev >= session.front.rev:
            session.front = front
        chunk = entry.chunk_of(front, number)
        places = session.chunks if chunk is not None else session.bares
        if front.rev in places:
            earlier = places[front.rev]
            dead.append((earlier.segment if isinstance(earlier, Chunk) else earlier, key))
        if chunk is None:
            session.bares[front.rev] = number
            return
        session.chunks[front.rev] = chunk
        if opened.state_bytes:
            session.state_rev = max(session.state_rev, front.rev)

    segments = Segments(root, visit, segment_bytes)
    sessions: dict[str, Session] = {}
    for session_id, one in loaded.items():
        if session_id in tombstones:
            dead += [(chunk.segment, entry.key_of(session_id, rev)) for rev, chunk in one.chunks.items()]
            dead += [(number, entry.key_of(session_id, rev)) for rev, number in one.bares.items()]
            continue
        sessions[session_id] = _session(one, dead)
        written = sessions[session_id].written
        if written is not None:
            heads.put(written)
    for session_id in tombstones:
        heads.delete(session_id)
    for number, key in dead:
        segments.forget(number, key)
    return sessions, tombstones, segments


def _session(one: _Loaded, dead: list[tuple[int, bytes]]) -> Session:
    session = Session()
    front = one.front
    session.rev = front.rev
    session.chunk_count = front.chunks
    session.chunks = [one.chunks[rev] for rev in sorted(one.chunks)]
    session.state = session.newest_state = one.chunks.get(one.state_rev)
    for rev, number in one.bares.items():
        if rev == front.rev:
            session.bare = (rev, number)
        else:
            dead.append((number, entry.key_of(front.id, rev)))
    session.written = entry.head_of(front)
    missing = front.chunks - len(session.chunks)
    if missing:
        session.written.dropped = {**session.written.dropped, DAMAGED: missing}
    return session


def _check_format(root: Path) -> None:
    """Refuse a store of another version; write the version into a new one. Raises: StoreError."""
    path = root / FORMAT_FILE
    try:
        if not path.exists():
            durable.create(path, FORMAT)
        found = path.read_bytes()
    except OSError as error:
        raise StoreError(
            f"cannot read or write {path}: {error}",
            hint="check the path and its permissions",
            permanent=needs_a_person(error),
        ) from error
    if found != FORMAT:
        raise StoreError(
            f"{root} is of a version that this datacat does not know ({found[:40]!r})",
            hint="use the datacat that wrote it, or a later one",
            permanent=True,
        )
