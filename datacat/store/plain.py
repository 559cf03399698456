"""Count batches of nothing but ordinary events and metrics, which nearly all are, without a loop in Python. Pure.

One pass in C for each question is several times as fast as one loop that asks them all.
"""

from collections.abc import Sequence
from operator import attrgetter
from typing import NamedTuple

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
_time = attrgetter("t")
_name = attrgetter("name")
_level = attrgetter("level")
_exception = attrgetter("exception_type")


class Counted(NamedTuple):
    """What a batch adds to the counts of a head, and its greatest t (us)."""

    counts: dict[str, int]
    t_max: int


def counted(records: Sequence[wire.Record]) -> Counted | None:
    """Return the counts; None when there is anything that tells more than that it happened."""
    types = set(map(type, records))
    if not types or not all(issubclass(one, (wire.Event, wire.Metric)) for one in types):
        return None
    events = records
    if any(issubclass(one, wire.Metric) for one in types):
        events = [record for record in records if isinstance(record, wire.Event)]
    if any(map(_exception, events)) or not JUDGED_EVENTS.isdisjoint(map(_name, events)):
        return None
    levels = list(map(_level, events))
    errors = levels.count("error") + levels.count("critical")
    counts = {"events": len(events), "errors": errors, "metrics": len(records) - len(events)}
    return Counted(counts, max(map(_time, records)))
