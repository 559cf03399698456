"""Count a batch of nothing but ordinary events and metrics, which nearly all are, without looking at each. Pure."""

from typing import NamedTuple

from datacat.store.columns import Columns
from datacat.wire import records as wire

JUDGED_EVENTS = frozenset(
    {
        wire.HUNG_EVENT,
        wire.RECOVERED_EVENT,
        wire.SLOW_EVENT,
        wire.SUSPENDED_EVENT,
        wire.RESUMED_EVENT,
        wire.CRASHED_EVENT,
    }
)
"""Events that tell of a verdict; they come from a judge and are no sign of life of the app."""
_ERRORS = frozenset({"error", "critical"})


class Counted(NamedTuple):
    """What a batch adds to the counts of a head, and its greatest t (us)."""

    counts: dict[str, int]
    t_max: int


def counted(columns: Columns) -> Counted | None:
    """Return the counts; None when there is anything that tells more than that it happened."""
    if not columns.records or len(columns.events) + len(columns.metrics) != len(columns.records):
        return None
    errors = 0
    for (name, level, _, exception), count in columns.event_counts.items():
        if exception or name in JUDGED_EVENTS:
            return None
        if level in _ERRORS:
            errors += count
    counts = {"events": len(columns.events), "errors": errors, "metrics": len(columns.metrics)}
    return Counted(counts, columns.t_max)
