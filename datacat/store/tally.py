"""What has happened since the store was opened, by product: counts that only grow, and two distributions. Pure.

For /metrics: what is counted from the sessions that are there would shrink whenever old ones are deleted.
"""

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field, replace

from datacat.store.ledger import Stream
from datacat.store.shelf import Facts

DURATION_BOUNDS_S = (60, 300, 900, 1800, 3600, 7200, 14_400, 28_800, 86_400)
HANG_BOUNDS_S = (1, 2, 5, 10, 30, 60, 120, 300, 900)
OUTCOMES = {"ended": "normal", "crashed": "crashed", "abnormal": "lost"}
_US = 1_000_000


@dataclass(slots=True)
class Distribution:
    """How many values were at most each bound, not added up; the last count is of those beyond all bounds."""

    bounds: tuple[int, ...]
    counts: list[int] = field(default_factory=list)
    sum: float = 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        self.counts = self.counts or [0] * (len(self.bounds) + 1)
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def copy(self) -> "Distribution":
        """Return another one that stays as it is."""
        return Distribution(self.bounds, list(self.counts), self.sum)


@dataclass(slots=True)
class Tally:
    """Counts of one product; ended by outcome: normal, crashed, lost. An end that is corrected counts once."""

    started: int = 0
    crashes: int = 0
    hangs: int = 0
    recoveries: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    durations: Distribution = field(default_factory=lambda: Distribution(DURATION_BOUNDS_S))
    recovered: Distribution = field(default_factory=lambda: Distribution(HANG_BOUNDS_S))

    def note(self, old: Facts | None, new: Facts) -> None:
        """Count what is new between two facts of a session; old None: it has just come."""
        if old is None:
            self.started += 1
        if new.end and (old is None or not old.end):
            self.ended[OUTCOMES.get(new.status, "normal")] += 1
            self.durations.add((new.end - new.created) / _US)
        if new.status == "crashed" and (old is None or old.status != "crashed"):
            self.crashes += 1
        if new.hangs == (old.hangs if old else ()):
            return
        known = {hang.start: hang for hang in old.hangs} if old else {}
        for hang in new.hangs:
            before = known.get(hang.start)
            self.hangs += before is None
            if hang.outcome == "recovered" and (before is None or before.outcome != "recovered"):
                self.recoveries += 1
                self.recovered.add((hang.end - hang.start) / _US)

    def copy(self) -> "Tally":
        """Return another one that stays as it is."""
        return replace(
            self, ended=Counter(self.ended), durations=self.durations.copy(), recovered=self.recovered.copy()
        )


def acknowledged(streams: dict[str, Stream]) -> int:
    """Return how many records of the journals are acknowledged."""
    return sum(stream.records for stream in streams.values())
