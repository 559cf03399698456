"""Decide what one batch does to one session: continue its stream or refuse it, fold it, roll it up. Pure."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from datacat.errors import Mismatch, NotFound
from datacat.store import Batch
from datacat.store.chunks import Part, describe
from datacat.store.columns import columns_of
from datacat.store.fold import STATEFUL, Head, fold_columns, new_head, opening
from datacat.store.ledger import Stream
from datacat.store.rollup import Delta, roll_up
from datacat.wire.lines import Line, raws_of, records_of

CLOCK_STEP_US = 5_000_000
"""A measurement that differs by more is another clock, not another delay."""


class Applied(NamedTuple):
    """What is to be stored in one write. lines are those that leave a trace; part tells of them, None without any."""

    head: Head
    state: dict[str, Any]
    state_changed: bool
    lines: Sequence[Line]
    part: Part | None
    rollup: Delta


def apply(
    session_id: str,
    head: Head | None,
    batch: Batch,
    received_us: int,
    load_state: Callable[[], dict[str, Any]],
) -> Applied | None:
    """Return what batch does to the session; None when it is a repeat, which does nothing.

    head is None for a session that does not exist yet. load_state is called only when a record needs the state.
    Raises: NotFound when the session neither exists nor opens; Mismatch.
    """
    records = records_of(batch.lines)
    columns = columns_of(records)
    loaded: dict[str, Any] = {}
    if head is None:
        first = opening(records[0]) if records else None
        if first is None:
            raise NotFound(session_id)
        head = new_head(session_id, first)
    elif not STATEFUL.isdisjoint(columns.types):
        loaded = load_state()
    stream = head.streams.get(batch.stream) or Stream(0)
    if batch.start is None:
        start, end = stream.acked, stream.acked + sum(len(raw) + 1 for raw in raws_of(batch.lines))
    else:
        start, end = batch.start, batch.end
    if end <= stream.acked:
        return None
    if start != stream.acked:
        raise Mismatch(
            f"stream {batch.stream} ends at {stream.acked}, the batch begins at {start}",
            acked=stream.acked,
            reason="offset",
        )
    if batch.crc is not None and stream.end_crc is not None and batch.crc != stream.end_crc:
        raise Mismatch(
            f"stream {batch.stream} has other bytes before {start} than the batch's writer",
            acked=stream.acked,
            reason="diverged",
        )
    folded = fold_columns(head, loaded, columns)
    after = folded.head
    after.streams = {**head.streams, batch.stream: _moved(stream, batch, end)}
    after.last_seen = max(head.last_seen, received_us)
    after.skew_us = _skew(head.skew_us, batch.skew_us)
    # What leaves no trace has no part in a roll-up: it is no event and no metric.
    rollup = roll_up(head, columns, folded.transitions, folded.hang_ends, received_us)
    lines = batch.lines
    if folded.untraced:
        lines = [line for index, line in enumerate(lines) if index not in folded.untraced]
        columns = columns_of(records_of(lines))
    part = describe(batch.stream, start, end, columns) if lines else None
    return Applied(after, folded.state, folded.state_changed, lines, part, rollup)


def _moved(stream: Stream, batch: Batch, end: int) -> Stream:
    """Return the stream behind a batch. What the server itself writes came on no way, and is in no ledger."""
    if batch.start is None:
        return Stream(end, batch.end_crc)
    shipped = len(batch.lines)
    records = shipped if batch.records is None else batch.records
    return Stream(end, batch.end_crc, stream.records + records, stream.shipped + shipped, batch.pending)


def _skew(known_us: int, measured_us: int | None) -> int:
    """Return how far the machine's clock is ahead; the way here makes it look less. A large step is another clock."""
    if measured_us is None:
        return known_us
    return measured_us if abs(measured_us - known_us) > CLOCK_STEP_US else max(known_us, measured_us)
