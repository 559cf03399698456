"""A shelf: sessions as sorted columns, from which counts and time integrals of a span come without a loop.

Times are Unix us. Every column is sorted, so that a span is a slice; what happens to few sessions has own columns.
"""

import sys
from array import array
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, TypeAlias

from datacat.store.episodes import Hang, Suspension
from datacat.store.fold import Head
from datacat.store.summary import Summary
from datacat.wire.routes import OPEN_STATUSES

UNKNOWN_REASONS = frozenset({"unknown", "lost"})
"""Words of end_reason that say: nobody knows how it ended. Every rate stands beside their share."""


class Ended(NamedTuple):
    """A session that crashed, ended abnormally or in an unknown way."""

    created: int
    id: str
    machine: str
    end: int


class HangRow(NamedTuple):
    """A hang, and the machine of its session; end is 0 while it goes on, the group's texts are empty when unknown."""

    start: int
    id: str
    end: int
    outcome: str
    machine: str = ""
    signature: str = ""
    title: str = ""


class Facts(NamedTuple):
    """What a shelf needs to know of a session. end is 0 while it is open and never before created."""

    created: int
    id: str
    machine: str
    end: int
    status: str
    unknown: bool
    exceptions: int
    hung: bool
    hangs: tuple[HangRow, ...]
    suspensions: tuple[Suspension, ...]


Plain: TypeAlias = tuple[int, str, str, int]
"""The first four facts, created to end, of a session that ended as it should and has nothing that only few have."""


def machine_of(head: Head) -> str:
    """Return what tells machines apart: the machine's id, else the name of the host; empty when neither is known."""
    return head.machine_id or head.hostname or ""


def facts_of(head: Head) -> Facts:
    """Return the facts of a session; spans that a wrong clock put outside of its life are cut."""
    created = head.created_at
    end = max(head.ended_at, created) if head.ended_at else 0
    # Machines and groups of hangs are few: their texts are kept once, not with each session.
    machine = sys.intern(machine_of(head))
    return Facts(
        created,
        head.id,
        machine,
        end,
        head.status,
        bool(end) and head.end_reason in UNKNOWN_REASONS,
        head.counts.get("exceptions", 0),
        head.hang_count > 0,
        tuple([_hang_row(hang, head.id, machine) for hang in head.hangs]),
        tuple(_cut(head.suspensions, created, end)) if head.suspensions else (),
    )


def glanced_facts_of(seen: Summary) -> Facts | Plain:
    """Return the same of a session without exception, hang and suspension: its scalar attributes tell all."""
    created, end, status = seen.created_at, seen.ended_at, seen.status
    if end and end < created:
        end = created
    machine = seen.machine_id or seen.hostname or ""
    unknown = bool(end) and seen.end_reason in UNKNOWN_REASONS
    if status == "ended" and not unknown:
        return created, seen.id, machine, end
    return Facts(created, seen.id, machine, end, status, unknown, 0, False, (), ())


def _hang_row(hang: Hang, session_id: str, machine: str) -> HangRow:
    signature, title = sys.intern(hang.signature or ""), sys.intern(hang.title or "")
    return HangRow(hang.start_us, session_id, hang.end_us, hang.outcome, machine, signature, title)


def _cut(spans: Iterable[Suspension], created: int, end: int) -> Iterator[Suspension]:
    for start, stop in spans:
        low = max(start, created)
        high = (min(stop, end) if stop else end) if end else stop
        if not high or high > low:
            yield Suspension(low, high)


class Shelf:
    """The sessions of one product and version, or of any other set. Not thread-safe: the fleet's lock guards it.

    created, ids, machines and ends belong together, by (created, id); ends is 0 for open sessions. ended and durations
    belong together, by ended. open tells created and status of the open ones; paused whose the pauses are.
    """

    __slots__ = (
        "_durations",
        "abnormal",
        "abnormal_ends",
        "crash_ends",
        "crashed",
        "created",
        "durations",
        "ended",
        "ends",
        "exceptions",
        "hangs",
        "hung",
        "ids",
        "machines",
        "open",
        "paused",
        "pauses",
        "resumes",
        "unknown",
    )  # fmt: skip

    def __init__(self, rows: Iterable[Facts | Plain] = ()) -> None:
        ordered = sorted(rows)
        # By their places: names of facts cost more, and plain rows have none.
        closed = sorted([(row[3], row[3] - row[0]) for row in ordered if row[3]])
        self.created = array("q", [row[0] for row in ordered])
        self.ids = [row[1] for row in ordered]
        self.machines = [row[2] for row in ordered]
        self.ends = array("q", [row[3] for row in ordered])
        self.ended = array("q", [end for end, _ in closed])
        self.durations = array("q", [duration for _, duration in closed])
        self.open: dict[str, tuple[int, str]] = {}
        self._durations: list[tuple[tuple[int, int], list[int]]] = []
        # Absent until there is one: most shelves need none of these.
        self.crashed: list[Ended] | tuple[()] = ()
        self.abnormal: list[Ended] | tuple[()] = ()
        self.crash_ends: list[int] | tuple[()] = ()
        self.abnormal_ends: list[int] | tuple[()] = ()
        self.unknown: list[Ended] | tuple[()] = ()
        self.hung: list[Ended] | tuple[()] = ()
        self.exceptions: list[tuple[int, str, int]] | tuple[()] = ()
        self.hangs: list[HangRow] | tuple[()] = ()
        self.paused: list[str] | tuple[()] = ()
        self.pauses: list[int] | tuple[()] = ()
        self.resumes: list[int] | tuple[()] = ()
        for row in ordered:
            if isinstance(row, Facts):
                self._add_rare(row)

    def __len__(self) -> int:
        return len(self.created)

    def add(self, row: Facts) -> None:
        """Add a session."""
        at = self._place(row)
        self.created.insert(at, row.created)
        self.ids.insert(at, row.id)
        self.machines.insert(at, row.machine)
        self.ends.insert(at, row.end)
        if row.end:
            place = bisect_left(self.ended, row.end)
            self.ended.insert(place, row.end)
            self._durations = []
            self.durations.insert(place, row.end - row.created)
        self._add_rare(row)

    def remove(self, row: Facts) -> None:
        """Remove a session that was added with these facts."""
        at = self._place(row)
        del self.created[at], self.ids[at], self.machines[at], self.ends[at]
        if row.end:
            place = bisect_left(self.ended, row.end)
            while self.durations[place] != row.end - row.created:
                place += 1
            del self.ended[place], self.durations[place]
            self._durations = []
        self.open.pop(row.id, None)
        for name, value in _rare(row):
            column: list[Any] = getattr(self, name)
            del column[bisect_left(column, value)]

    def _place(self, row: Facts) -> int:
        at = bisect_left(self.created, row.created)
        while at < len(self.created) and self.created[at] == row.created and self.ids[at] < row.id:
            at += 1
        return at

    def _add_rare(self, row: Facts) -> None:
        if row.status in OPEN_STATUSES:
            self.open[row.id] = (row.created, row.status)
        for name, value in _rare(row):
            column = getattr(self, name)
            if column:
                insort(column, value)
            else:
                setattr(self, name, [value])

    def durations_between(self, start: int, stop: int) -> list[int]:
        """Return how long the sessions were open that ended in [start, stop), ascending; not to be changed.

        The two newest answers are kept: the same span a little later mostly has the same sessions.
        """
        places = bisect_left(self.ended, start), bisect_left(self.ended, stop)
        for known in self._durations:
            if known[0] == places:
                return known[1]
        found = sorted(self.durations[places[0] : places[1]])
        self._durations = [*self._durations[-1:], (places, found)]
        return found

    def overlapping(self, start: int, stop: int) -> Iterator[int]:
        """Yield the indexes of the sessions that began in [start, stop), or before and were open after start."""
        low = bisect_left(self.created, start)
        yield from range(low, bisect_left(self.created, stop))
        yield from self.straddling(start)

    def straddling(self, start: int) -> Iterator[int]:
        """Yield the indexes of the sessions that began before start and were open after it, newest first."""
        left = self.straddling_count(start)
        at = bisect_left(self.created, start)
        ends = self.ends
        while left:
            at -= 1
            if not ends[at] or ends[at] > start:
                left -= 1
                yield at

    def straddling_count(self, start: int) -> int:
        """Return how many sessions began before start and were open after it."""
        first, last = bisect_left(self.ended, start), bisect_right(self.ended, start)
        before = bisect_left(self.created, start) - last
        if first == last:
            return before
        # Those that began and ended at start itself are not among those that began before.
        return before + sum(not duration for duration in self.durations[first:last])


def _rare(row: Facts) -> Iterator[tuple[str, Any]]:
    """Yield (column, value) of what only few sessions have."""
    if row.status == "crashed":
        yield "crashed", Ended(row.created, row.id, row.machine, row.end)
        yield "crash_ends", row.end
    elif row.status == "abnormal":
        yield "abnormal", Ended(row.created, row.id, row.machine, row.end)
        yield "abnormal_ends", row.end
    if row.unknown:
        yield "unknown", Ended(row.created, row.id, row.machine, row.end)
    if row.hung:
        yield "hung", Ended(row.created, row.id, row.machine, row.end)
    if row.exceptions:
        yield "exceptions", (row.created, row.id, row.exceptions)
    for hang in row.hangs:
        yield "hangs", hang
    if row.suspensions:
        yield "paused", row.id
    for start, stop in row.suspensions:
        yield "pauses", start
        if stop:
            yield "resumes", stop
