"""Look into a session's past: the conditions of a query that need its state or records, and the state at a moment."""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from datacat.errors import Deleted, NotFound
from datacat.store import Query, RecordQuery, Store
from datacat.store.chunks import IN_ORDER, Chunk
from datacat.store.fold import next_state, opening
from datacat.store.select import state_has
from datacat.wire.records import Gap, Open, StatePatch
from datacat.wire.state import merge

_STATE_KINDS: dict[str, type[Open | StatePatch | Gap]] = {"open": Open, "state": StatePatch, "gap": Gap}


def passes(store: Store, session_id: str, query: Query) -> bool:
    """Return whether a session passes query.state, state_ever and event; one that was deleted meanwhile does not."""
    try:
        if query.state:
            state = store.state(session_id)
            if not all(state_has(state, path, value) for path, value in query.state):
                return False
        if query.event:
            events = RecordQuery(kinds=("event",), names=query.event, limit=1)
            if next(store.records(session_id, events), None) is None:
                return False
        return not query.state_ever or _ever(store, session_id, query.state_ever)
    except (NotFound, Deleted):
        return False


def snapshot_chunk(chunks: Sequence[Chunk], to_us: int | None) -> int:
    """Return the index of the chunk from whose first record on the state before to_us is to be told; 0: from the start.

    It is the last one that begins before to_us, if the state before it is known: it is a merged one, and until there
    records that can change the state came in the order of their times.
    """
    found = 0
    before = newest = -1
    in_order = True
    for index, chunk in enumerate(chunks):
        if chunk.s_max < chunk.s_min:
            continue
        if chunk.s_min <= before:
            return 0  # it came late, and belongs before what was found
        in_order = in_order and bool(chunk.tier) and chunk.s_min > newest
        if in_order and (to_us is None or chunk.s_min < to_us):
            found, before = index, newest
        in_order = in_order and bool(chunk.flags & IN_ORDER)
        newest = max(newest, chunk.s_max)
    return found


def state_at(store: Store, session_id: str, to_us: int | None) -> dict[str, Any]:
    """Return the whole state before to_us; {} when the session began later. Raises: NotFound, Deleted."""
    query = RecordQuery(kinds=tuple(_STATE_KINDS), to_us=to_us)
    state, rows = store.snapshot(session_id, query)
    if state is None:
        for _, state in states(store, session_id, to_us=to_us):  # noqa: B007  the last one counts
            pass
        return state or {}
    for row in rows:
        state = next_state(state, msgspec.convert(row.record, _STATE_KINDS[row.record["k"]]), fresh=False)
    return state


def states(store: Store, session_id: str, *, to_us: int | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (t, whole state) after each record that set or changed the state, oldest first, before to_us.

    Raises: NotFound, Deleted.
    """
    head = store.head(session_id)
    state: dict[str, Any] = {"product": head.product, "version": head.version}
    is_open = False
    for row in store.records(session_id, RecordQuery(kinds=tuple(_STATE_KINDS), to_us=to_us)):
        record = msgspec.convert(row.record, _STATE_KINDS[row.record["k"]])
        if is_open or opening(record) is None:
            after = next_state(state, record, fresh=False)
        else:
            after = next_state({}, record, fresh=True)
            if isinstance(record, Open):
                # Patches may carry an earlier time than what opened the session; they came after it all the same.
                after = merge(after, state)
            is_open = True
        if after is not state:
            state = after
            yield row.position[0], state


def _ever(store: Store, session_id: str, wanted: tuple[tuple[str, Any], ...]) -> bool:
    """Return whether each (path, value) held at some time, not necessarily at the same one."""
    missing = list(wanted)
    for _, state in states(store, session_id):
        missing = [(path, value) for path, value in missing if not state_has(state, path, value)]
        if not missing:
            return True
    return False
