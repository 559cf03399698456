"""Shelves -> what happened in each bucket of a span: counts, concurrency, time integrals, distinct machines. Pure.

edges are the ascending limits of the buckets in Unix us; bucket i is [edges[i], edges[i+1]). Everything is exact.
"""

import operator
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import pairwise, repeat
from typing import TypeAlias

from datacat.store.shelf import Ended, HangRow, Shelf

Column: TypeAlias = Sequence[int]
_ENDS = {"crashed": "crash_ends", "abnormal": "abnormal_ends"}


class Columns:
    """Some shelves, seen in the buckets of one span. as_of is now: nothing that goes on is counted beyond it."""

    def __init__(self, shelves: Sequence[Shelf], edges: Sequence[int], as_of: int) -> None:
        self.shelves = shelves
        self.edges = edges
        self.as_of = as_of

    @property
    def start(self) -> int:
        """Where the first bucket begins."""
        return self.edges[0]

    @property
    def stop(self) -> int:
        """Where the last bucket ends."""
        return self.edges[-1]

    @cached_property
    def started(self) -> list[int]:
        """Sessions that began in each bucket."""
        return self._count([shelf.created for shelf in self.shelves])

    @cached_property
    def still_open(self) -> list[int]:
        """Those of them that have not ended."""
        began = sorted(
            created for shelf in self.shelves for created, _ in shelf.open.values() if self.start <= created < self.stop
        )
        return counts(began, self.edges)

    def began(self, name: str) -> list[int]:
        """Sessions that began in each bucket and are in the column crashed, abnormal, unknown or hung."""
        return counts(sorted(row.created for row in self._rows(name)), self.edges)

    def finished(self, name: str) -> list[int]:
        """Sessions of the column crashed or abnormal that ended in each bucket."""
        return self._count([getattr(shelf, _ENDS[name]) for shelf in self.shelves])

    def there(self, name: str) -> int:
        """Return how many sessions of the column crashed or abnormal were there in the whole span."""
        found = 0
        for shelf in self.shelves:
            rows: list[Ended] = getattr(shelf, name)
            if rows:
                at_start = rows[bisect_left(rows, (self.start,)) : bisect_left(rows, (self.start + 1,))]
                found += bisect_left(rows, (self.stop,)) - bisect_right(getattr(shelf, _ENDS[name]), self.start)
                found += sum(row.end == self.start for row in at_start)
        return found

    @cached_property
    def ended(self) -> list[int]:
        """Sessions that ended in each bucket, however."""
        return self._count([shelf.ended for shelf in self.shelves])

    @cached_property
    def present(self) -> list[int]:
        """Sessions that were open at some time in each bucket."""
        before = [sum(shelf.straddling_count(edge) for shelf in self.shelves) for edge in self.edges[:-1]]
        return [already + new for already, new in zip(before, self.started, strict=True)]

    @cached_property
    def active_us(self) -> list[int]:
        """The time in us that sessions were open, summed, in each bucket."""
        starts, ends = [s.created for s in self.shelves], [s.ended for s in self.shelves]
        return self._integral(starts, ends)

    @cached_property
    def runtime_us(self) -> list[int]:
        """The same without the time that they were suspended."""
        pauses: list[Column] = [s.pauses for s in self.shelves if s.pauses]
        if not pauses:
            return self.active_us
        suspended = self._integral(pauses, [s.resumes for s in self.shelves if s.resumes])
        return [whole - away for whole, away in zip(self.active_us, suspended, strict=True)]

    @cached_property
    def active_max(self) -> list[int]:
        """The greatest number of sessions that were open at once, in each bucket."""
        stop = min(self.stop, self.as_of)
        now = sum(bisect_right(s.created, self.start) - bisect_right(s.ended, self.start) for s in self.shelves)
        ups = self._merged([shelf.created for shelf in self.shelves], self.start + 1, stop)
        downs = self._merged([shelf.ended for shelf in self.shelves], self.start + 1, stop)
        # It can only rise where a session begins; an end at the same time counts first, for spans are half-open.
        level = list(map(operator.sub, range(now + 1, now + 1 + len(ups)), map(bisect_right, repeat(downs), ups)))
        greatest = []
        for low, high in pairwise(self.edges):
            if low >= self.as_of:
                greatest.append(0)
                continue
            first, last = bisect_right(ups, low), bisect_left(ups, high)
            before = now + first - bisect_right(downs, low)
            greatest.append(max(before, max(level[first:last], default=0)))
        return greatest

    @cached_property
    def hangs(self) -> list[list[HangRow]]:
        """The hangs that began in each bucket, in order."""
        found: list[HangRow] = []
        for shelf in self.shelves:
            rows = shelf.hangs
            found += rows[bisect_left(rows, (self.start,)) : bisect_left(rows, (self.stop,))]
        found.sort()
        starts = [hang.start for hang in found]
        places = [bisect_left(starts, edge) for edge in self.edges]
        return [found[low:high] for low, high in pairwise(places)]

    @cached_property
    def exceptions(self) -> list[int]:
        """The exceptions of sessions that began in each bucket."""
        rows = []
        for shelf in self.shelves:
            part = shelf.exceptions
            for created, _, count in part[bisect_left(part, (self.start,)) : bisect_left(part, (self.stop,))]:
                rows.append((created, count))
        rows.sort()
        places = [bisect_left(rows, (edge,)) for edge in self.edges]
        return [sum(count for _, count in rows[low:high]) for low, high in pairwise(places)]

    @cached_property
    def durations(self) -> list[list[int]]:
        """How long the sessions were open that ended in each bucket, in us, ascending."""
        found: list[list[int]] = [[] for _ in range(len(self.edges) - 1)]
        for shelf in self.shelves:
            places = _places(shelf.ended, self.edges)
            for index, (low, high) in enumerate(pairwise(places)):
                if low < high:
                    found[index] += shelf.durations[low:high]
        for bucket in found:
            bucket.sort()
        return found

    def duration_quantile(self, share: float) -> list[float | None]:
        """Return a quantile of the durations, in us, for each bucket."""
        if len(self.edges) > 2:
            return [quantile(bucket, share) for bucket in self.durations]
        runs = [run for shelf in self.shelves if (run := shelf.durations_between(self.start, self.stop))]
        if not runs:
            return [None]
        place = (sum(map(len, runs)) - 1) * share
        low = kth(runs, int(place))
        high = kth(runs, int(place) + 1) if place > int(place) else low
        return [low + (high - low) * (place - int(place))]

    @cached_property
    def machines(self) -> list[int]:
        """The machines that had an open session in each bucket."""
        begun: list[tuple[int, str, bool]] = []
        over: list[tuple[int, str]] = []
        here: dict[str, int] = {}
        if len(self.edges) == 2:
            over_start = {shelf.machines[at] for shelf in self.shelves for at in shelf.straddling(self.start)}
            return [len((self.machines_begun | over_start) - {""})]
        for shelf in self.shelves:
            for at in shelf.straddling(self.start):
                here[shelf.machines[at]] = here.get(shelf.machines[at], 0) + 1
                if shelf.ends[at]:
                    over.append((shelf.ends[at], shelf.machines[at]))
            low, high = bisect_left(shelf.created, self.start), bisect_left(shelf.created, self.stop)
            rows = list(zip(shelf.created[low:high], shelf.machines[low:high], shelf.ends[low:high], strict=True))
            begun += [(created, machine, end != created) for created, machine, end in rows]
            over += [(end, machine) for created, machine, end in rows if end > created]
        return _distinct(sorted(begun), sorted(over), here, self.edges)

    @cached_property
    def machines_begun(self) -> set[str]:
        """The machines on which a session began in the whole span."""
        found: set[str] = set()
        for shelf in self.shelves:
            low, high = bisect_left(shelf.created, self.start), bisect_left(shelf.created, self.stop)
            found.update(shelf.machines[low:high])
        found.discard("")
        return found

    def machines_of(self, name: str) -> int:
        """Return on how many machines a session of a column of rare ones began in the whole span."""
        return len({row.machine for row in self._rows(name)} - {""})

    def _rows(self, name: str) -> Iterable[Ended]:
        """Return the rows of a column of rare sessions that began in the span."""
        for shelf in self.shelves:
            rows: list[Ended] = getattr(shelf, name)
            if rows:
                yield from rows[bisect_left(rows, (self.start,)) : bisect_left(rows, (self.stop,))]

    def _count(self, columns: Sequence[Column]) -> list[int]:
        if len(self.edges) == 2:
            return [sum(bisect_left(column, self.stop) - bisect_left(column, self.start) for column in columns)]
        return counts(self._merged(columns, self.start, self.stop), self.edges)

    def _merged(self, columns: Sequence[Column], start: int, stop: int) -> Column:
        parts: list[int] = []
        for column in columns:
            parts += column[bisect_left(column, start) : bisect_left(column, stop)]
        parts.sort()
        return parts

    def _integral(self, starts: Sequence[Column], ends: Sequence[Column]) -> list[int]:
        """Return, for each bucket and not beyond as_of, the integral of how many starts there were less the ends."""
        edges = [min(edge, self.as_of) for edge in self.edges]
        if len(edges) == 2:
            return [_area(starts, *edges) - _area(ends, *edges)]
        level = sum(bisect_left(c, edges[0]) for c in starts) - sum(bisect_left(c, edges[0]) for c in ends)
        ups, downs = self._merged(starts, edges[0], edges[-1]), self._merged(ends, edges[0], edges[-1])
        up, down = _places(ups, edges), _places(downs, edges)
        found = []
        for index, (low, high) in enumerate(pairwise(edges)):
            more, fewer = ups[up[index] : up[index + 1]], downs[down[index] : down[index + 1]]
            found.append(level * (high - low) + len(more) * high - sum(more) - len(fewer) * high + sum(fewer))
            level += len(more) - len(fewer)
        return found


def _area(columns: Iterable[Column], low: int, high: int) -> int:
    """Return the integral from low to high of how many values were passed."""
    area = 0
    for column in columns:
        first, last = bisect_left(column, low), bisect_left(column, high)
        area += first * (high - low) + (last - first) * high - sum(column[first:last])
    return area


def kth(runs: Sequence[Sequence[int]], place: int) -> int:
    """Return the value at a place of all values in ascending order; each run is sorted."""
    low, high = min(run[0] for run in runs), max(run[-1] for run in runs)
    while low < high:
        middle = (low + high) // 2
        if sum(bisect_right(run, middle) for run in runs) > place:
            high = middle
        else:
            low = middle + 1
    return low


def counts(column: Column, edges: Sequence[int]) -> list[int]:
    """Return how many values of a sorted column lie in each bucket."""
    return [high - low for low, high in pairwise(_places(column, edges))]


def quantile(ordered: Sequence[float], share: float) -> float | None:
    """Return a quantile by linear interpolation between the values (Hyndman and Fan's type 7); None for no values."""
    if not ordered:
        return None
    place = (len(ordered) - 1) * share
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def _places(column: Column, edges: Sequence[int]) -> list[int]:
    return [bisect_left(column, edge) for edge in edges]


def _distinct(
    begun: Sequence[tuple[int, str, bool]],
    over: Sequence[tuple[int, str]],
    here: dict[str, int],
    edges: Sequence[int],
) -> list[int]:
    """Return how many different machines are there in each bucket.

    begun has when, where and whether it lasted at all; here counts the sessions at the start by their machine.
    """
    found = []
    up = down = 0
    for low, high in pairwise(edges):
        while down < len(over) and over[down][0] <= low:
            machine = over[down][1]
            here[machine] -= 1
            if not here[machine]:
                del here[machine]
            down += 1
        seen: set[str] = set()
        while up < len(begun) and begun[up][0] < high:
            _, machine, lasted = begun[up]
            seen.add(machine)
            if lasted:
                here[machine] = here.get(machine, 0) + 1
            up += 1
        found.append(len((here.keys() | seen) - {""}))
    return found
