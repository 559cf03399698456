"""Look into a session's past: the conditions of a query that need its state or records, and the state at a moment."""

from collections.abc import Iterator
from typing import Any

import msgspec

from datacat.errors import Deleted, NotFound
from datacat.store import Query, RecordQuery, Store
from datacat.store.fold import Head, next_state, opening
from datacat.store.select import state_has
from datacat.wire.records import Gap, Open, StatePatch
from datacat.wire.state import merge

_STATE_KINDS: dict[str, type[Open | StatePatch | Gap]] = {"open": Open, "state": StatePatch, "gap": Gap}


def passes(store: Store, head: Head, query: Query) -> bool:
    """Return whether a session passes query.state, state_ever and event; one that was deleted meanwhile does not."""
    try:
        if query.state:
            state = store.state(head.id)
            if not all(state_has(state, path, value) for path, value in query.state):
                return False
        if query.event:
            events = RecordQuery(kinds=("event",), names=query.event, limit=1)
            if next(store.records(head.id, events), None) is None:
                return False
        return not query.state_ever or _ever(store, head.id, query.state_ever)
    except (NotFound, Deleted):
        return False


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
