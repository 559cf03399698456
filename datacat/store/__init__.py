"""Sessions that survive: the Store protocol, what is asked of it, and open_store(url).

Every change is an append of records to one stream of one session, also the server's own verdicts: one way to write, one
fold. A store keeps for each session a head (fold.Head), the whole state, and the records as they came.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from datacat.errors import ConfigError, Deleted, Mismatch
from datacat.store.catalogue import CatalogueQuery, Entry
from datacat.store.fleet import Fleet
from datacat.store.fold import Head
from datacat.store.pages import DEFAULT_AGES, Ages
from datacat.store.rollup_query import RollupQuery, Rollups
from datacat.store.summary import Summary
from datacat.wire.lines import Line

if TYPE_CHECKING:
    from datacat.store.chunks import Part
    from datacat.store.rounds import Round

__all__ = [
    "DEFAULT_AGES",
    "Ages",
    "Batch",
    "CatalogueQuery",
    "Entry",
    "Fleet",
    "Head",
    "Page",
    "Query",
    "RecordQuery",
    "RollupQuery",
    "Rollups",
    "Row",
    "Store",
    "Summary",
    "Written",
    "open_store",
]


@dataclass(frozen=True, slots=True)
class Batch:
    """The records of bytes start to end of one stream, in order.

    start None means: wherever the stream ends now; end is ignored then and the stream grows by the bytes of its lines
    (for records that the server itself writes, or takes from its simple endpoints). crc is compared with the end_crc of
    the batch before when both are given. records is how many records of the journal the lines stand for (None: as many
    as there are lines), pending how many follow them there; both are for the ledger.
    skew_us is how far the sender's clock was ahead of ours when it sent this; None: it did not say.
    """

    stream: str
    lines: Sequence[Line]
    start: int | None = None
    end: int = 0
    crc: int | None = None
    end_crc: int | None = None
    records: int | None = None
    pending: int = 0
    skew_us: int | None = None


class Written(NamedTuple):
    """A batch that is written, and what is told of it once its ticket is committed: the head, or what refuses it."""

    ticket: int
    told: Head | Mismatch | Deleted

    def outcome(self) -> Head:
        """Return the head afterwards, or raise what refuses the batch; only after a commit."""
        if isinstance(self.told, Head):
            return self.told
        raise self.told


@dataclass(frozen=True, slots=True)
class Query:
    """Which heads, in which order. Every tuple is a set of alternatives; empty means no condition.

    from_us (included), to_us (not included) and at say when: at is start (created in the span), end (ended in it) or
    overlap (open in it). q is a text in product, version, hostname or id. state and state_ever are (dotted path, JSON
    value) now, or at any time. event is a name. has is a subset of crash, hang, exception. sort is a head field with -
    for descending. cursor is what a Page gave; budget_s bounds the time that conditions on records may take.

    The sessions that ended before a time: Query(at="end", to_us=time, sort="created_at"); it looks only at sessions
    that were created before that time.
    """

    product: tuple[str, ...] = ()
    version: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    status: tuple[str, ...] = ()
    end_reason: tuple[str, ...] = ()
    hostname: tuple[str, ...] = ()
    machine: tuple[str, ...] = ()
    daemon: tuple[str, ...] = ()
    from_us: int | None = None
    to_us: int | None = None
    at: str = "start"
    q: str = ""
    state: tuple[tuple[str, Any], ...] = ()
    state_ever: tuple[tuple[str, Any], ...] = ()
    event: tuple[str, ...] = ()
    has: tuple[str, ...] = ()
    sort: str = "-created_at"
    limit: int = 100
    cursor: str = ""
    budget_s: float = 2.0


@dataclass(frozen=True, slots=True)
class Page:
    """Heads in the order asked for; next_cursor is empty at the end; truncated when the time budget cut it short."""

    heads: list[Head]
    next_cursor: str = ""
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class RecordQuery:
    """Which records of one session, ordered by t, then stream, then offset.

    kinds are words of records.KINDS; names (of events and metrics) and levels (of events) are alternatives; q is a text
    in name, message or exception. from_us is included, to_us not. newest_first reverses the order, so that a limit
    keeps the newest. after skips to behind a Row's position.
    """

    kinds: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    levels: tuple[str, ...] = ()
    from_us: int | None = None
    to_us: int | None = None
    q: str = ""
    newest_first: bool = False
    limit: int | None = None
    after: tuple[int, str, int, int] | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One stored record: its position (t, stream, start offset of its batch, index in the batch) and its members."""

    position: tuple[int, str, int, int]
    record: dict[str, Any] = field(compare=False)


class Store(Protocol):
    """Sessions that survive. Every method may be called from any thread; a reader sees whole batches only."""

    @property
    def fleet(self) -> Fleet:
        """Sorted columns of all sessions, for questions about many of them (fleet.py)."""

    def append(self, session_id: str, batch: Batch, *, received_us: int) -> Head:
        """Store a batch, its effect on head and state, and the stream's new offset in one atomic, durable write.

        A batch that ends at or before what is acknowledged changes nothing. State records that change nothing leave no
        trace. A session that does not exist is created when the first record is open, or a gap that carries open.
        received_us is when the server got it (it becomes last_seen). Returns the head afterwards.
        Raises: NotFound when it neither exists nor opens; Deleted; Mismatch (acked, reason offset or diverged);
        StoreError when nothing was stored.
        """

    def write(self, session_id: str, batch: Batch, *, received_us: int) -> Written:
        """Do what append() does but for the wait for the disk: it is neither durable nor seen before its commit.

        Raises: NotFound, StoreError, as append(); what else it raises is in the answer.
        """

    def commit(self, ticket: int) -> None:
        """Wait until what was written with this ticket is durable and seen. Raises: StoreError when that failed."""

    def begin(self, ticket: int, wake: Callable[[], object]) -> "Round | None":
        """Begin to commit this ticket, and all others, without waiting; for a thread that has more to do.

        The caller lets another thread call the round's sync(), and then ends it. None: another thread's round is under
        way; wake is called once, by that thread, when it is time to ask again. Raises: StoreError.
        """

    def end(self, over: "Round") -> None:
        """End a round that was synced; what was written up to its goal is seen. Raises: StoreError when it failed."""

    def head(self, session_id: str) -> Head:
        """Return the head. Raises: NotFound, Deleted."""

    def state(self, session_id: str) -> dict[str, Any]:
        """Return the whole current state; not to be changed by the caller. Raises: NotFound, Deleted."""

    def heads(self, query: Query) -> Page:
        """Return one page of heads. Raises: WireError when the cursor or the sort field is not one of ours."""

    def scan(self, query: Query) -> Iterator[Summary]:
        """Yield what is in memory of every session that passes the query's conditions on heads, oldest first.

        A Summary has every attribute of a Head; those that are seldom asked for cost more. Conditions on states
        and records, sort, limit, cursor and budget_s play no part. Sessions that come or go meanwhile are seen or not.
        """

    def records(self, session_id: str, query: RecordQuery) -> Iterator[Row]:
        """Yield the records that match, in order. Raises: NotFound, Deleted."""

    def snapshot(self, session_id: str, query: RecordQuery) -> tuple[dict[str, Any] | None, Iterator[Row]]:
        """Return a whole state and the matching records since then, oldest first, to tell the state before query.to_us.

        None: no such state is known, and the records are all that match. Raises: NotFound, Deleted.
        """

    def batches(self, session_id: str) -> Iterator[tuple["Part", list[bytes]]]:
        """Yield the stored batches in the order in which they came: their part, and their records as they came.

        What left no trace is missing, so streams have gaps. Raises: NotFound, Deleted; Corrupt, StoreError.
        """

    def rollups(self, query: RollupQuery) -> Rollups:
        """Return aggregates of metrics, events, changes of status and hangs, merged over sessions.

        rollup.py says what the kinds are, rollup_query.py what is asked and answered. Sessions that were deleted count
        on. Never reads records. Raises: WireError when the query is not as described there; Corrupt, StoreError.
        """

    def catalogue(self, query: CatalogueQuery) -> list[Entry]:
        """Return the names of metrics, events, categories, groups, exceptions and tags (catalogue.py), sorted."""

    def open_heads(self) -> list[Head]:
        """Return the heads of every session that has not ended, for the sweep."""

    def drop(self, session_id: str, *, at_once: bool = True) -> None:
        """Delete a session and leave a tombstone; nobody sees the session any more.

        What it took on disk is overwritten by the next tend() that has nothing more to do; with at_once False not
        before most of what lies around it is deleted too, which writes far less. Raises: NotFound, Deleted.
        """

    def tend(self, budget_s: float) -> bool:
        """Put the store in order for about that time: few large entries, no space for what was deleted.

        Returns whether there is more to do. Raises: StoreError.
        """

    def check(self) -> None:
        """Raise StoreError when the store cannot take writes."""

    def check_progress(self, limit_s: float) -> None:
        """Raise StoreError when only a restart can help: a write has waited for longer than limit_s, or a sync failed.

        A full disk is no such case: reading goes on, and writing does when there is space. Never waits for a lock.
        """

    def stats(self) -> dict[str, int]:
        """Return sessions, open_sessions, size_bytes, records (stored since it was opened), and what else it counts."""

    def close(self) -> None:
        """Make everything durable and let go of the files; idempotent."""


def open_store(url: str, *, ages: Ages = DEFAULT_AGES, sync_interval_s: float = 0.0) -> Store:
    """Open the store that url names: memory:, or semidbm:PATH (a plain path is the same).

    ages says when roll-ups grow coarser; in memory they stay as they are. sync_interval_s: see SemiStore.

    Raises: ConfigError for an unknown kind, Busy when another process has it, StoreError, Corrupt.
    """
    kind, colon, rest = url.partition(":")
    if kind == "memory" and not rest:
        from datacat.store.memory import MemoryStore

        return MemoryStore()
    # A colon behind one letter is a Windows drive, a separator before it is part of a path.
    is_path = bool(url) and (not colon or len(kind) == 1 or "/" in kind or "\\" in kind)
    if is_path or (kind == "semidbm" and rest):
        from datacat.store.semi import SemiStore

        return SemiStore(Path(url if is_path else rest), ages=ages, sync_interval_s=sync_interval_s)
    raise ConfigError("store", url, "memory: or semidbm:PATH")
