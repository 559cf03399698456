"""The measures of sessions: one table of names, meanings and pure functions over columns.

Rates lie between 0 and 1 and are null, never 1, where there is nothing to divide by. Durations are seconds.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

from datacat.server.query.columns import Columns, quantile
from datacat.server.query.shape import Column
from datacat.server.query.spans import US

Value: TypeAlias = float | int | None


@dataclass(frozen=True, slots=True)
class How:
    """How to count. attribute: at the start of the session or at the event; failures: crash, hang.

    min_sessions: a rate of fewer sessions that started is null.
    """

    attribute: str = "start"
    failures: tuple[str, ...] = ("crash",)
    min_sessions: int = 0


Compute: TypeAlias = Callable[[Columns, How], Sequence[Value]]


@dataclass(frozen=True, slots=True)
class Measure:
    """One measure: its column, and the function that returns a value for each bucket."""

    column: Column
    compute: Compute


def crashed(columns: Columns, how: How) -> list[int]:
    """Return crashes by the start of the session, or when they happened."""
    return columns.began("crashed") if how.attribute == "start" else columns.finished("crashed")


def abnormal(columns: Columns, how: How) -> list[int]:
    """Return abnormal ends, likewise."""
    return columns.began("abnormal") if how.attribute == "start" else columns.finished("abnormal")


def ended(columns: Columns, how: How) -> list[int]:
    """Return the sessions that ended as they should, likewise."""
    rest = zip(crashed(columns, how), abnormal(columns, how), strict=True)
    if how.attribute == "start":
        over = [all_ - open_ for all_, open_ in zip(columns.started, columns.still_open, strict=True)]
    else:
        over = columns.ended
    return [all_ - crash - other for all_, (crash, other) in zip(over, rest, strict=True)]


def hung(columns: Columns, how: How) -> list[int]:
    """Return the sessions that hung at least once: by their start, or that had a hang begin in the bucket."""
    if how.attribute == "start":
        return columns.began("hung")
    return [len({hang.id for hang in bucket}) for bucket in columns.hangs]


def ratio(parts: Iterable[float], wholes: Iterable[float], at_least: float = 0) -> list[Value]:
    """Return part / whole, null where whole is 0 or less than at_least."""
    return [part / whole if whole and whole >= at_least else None for part, whole in zip(parts, wholes, strict=True)]


def free(columns: Columns, how: How, bad: Callable[[Columns, How], list[int]]) -> list[Value]:
    """Return the share of sessions without it: of those that started, or with attribute=event of those open then."""
    among = columns.started if how.attribute == "start" else columns.present
    return [None if share is None else 1 - share for share in ratio(bad(columns, how), among, how.min_sessions)]


def unknown_share(columns: Columns, how: How) -> list[Value]:
    """Return the share of the started sessions of which nobody knows how they ended."""
    return ratio(columns.began("unknown"), columns.started, how.min_sessions)


def hang_counts(columns: Columns, _how: How) -> list[int]:
    """Return the hangs that began."""
    return [len(bucket) for bucket in columns.hangs]


def hang_rate(columns: Columns, how: How) -> list[Value]:
    """Return hangs per 1000 hours of runtime."""
    hours = [runtime / US / 3600 / 1000 for runtime in columns.runtime_us]
    return ratio(hang_counts(columns, how), hours)


def mtbf(columns: Columns, how: How) -> list[Value]:
    """Return the mean runtime between failures; null when there was none."""
    failures = [0] * len(columns.runtime_us)
    if "crash" in how.failures:
        failures = [all_ + more for all_, more in zip(failures, columns.finished("crashed"), strict=True)]
    if "hang" in how.failures:
        failures = [all_ + len(more) for all_, more in zip(failures, columns.hangs, strict=True)]
    return ratio([runtime / US for runtime in columns.runtime_us], failures)


def active_avg(columns: Columns, _how: How) -> list[Value]:
    """Return how many sessions were open on average; null for what is still to come."""
    edges = [min(edge, columns.as_of) for edge in columns.edges]
    return ratio(columns.active_us, [high - low for low, high in pairwise(edges)])


def duration(share: float) -> Compute:
    """Return the function for a quantile of how long the sessions were open that ended."""

    def compute(columns: Columns, _how: How) -> list[Value]:
        return [None if q is None else q / US for q in columns.duration_quantile(share)]

    return compute


def recovery(columns: Columns) -> list[list[int]]:
    """Return how long the hangs took, in us, that began in each bucket and were recovered from, ascending."""
    return [sorted(hang.end - hang.start for hang in bucket if hang.outcome == "recovered") for bucket in columns.hangs]


def time_to_recover(share: float) -> Compute:
    """Return the function for a quantile of the time to recover."""

    def compute(columns: Columns, _how: How) -> list[Value]:
        return [None if (q := quantile(bucket, share)) is None else q / US for bucket in recovery(columns)]

    return compute


def hang_seconds(columns: Columns, _how: How) -> list[Value]:
    """Return how long the hangs took that began, those that go on until now."""
    return [
        sum((hang.end or max(columns.as_of, hang.start)) - hang.start for hang in bucket) / US
        for bucket in columns.hangs
    ]


def _measure(name: str, kind: str, text: str, compute: Compute) -> Measure:
    rare = kind == "number"
    return Measure(Column(name, kind, text, optional=rare), compute)


_OF_STARTED = "of the sessions that started (attribute=event: of those that were open), the share"

MEASURES: dict[str, Measure] = {
    measure.column.name: measure
    for measure in (
        _measure("started", "integer", "sessions that started", lambda c, _: c.started),
        _measure("sessions", "integer", "sessions that were open at some time", lambda c, _: c.present),
        _measure("ended", "integer", "sessions that ended as they should", ended),
        _measure("crashed", "integer", "sessions that crashed", crashed),
        _measure("abnormal", "integer", "sessions that ended with their machine, or were lost", abnormal),
        _measure("hung", "integer", "sessions that hung at least once", hung),
        _measure("hangs", "integer", "hangs that began", hang_counts),
        _measure("active_max", "integer", "most sessions open at once", lambda c, _: c.active_max),
        _measure("active_avg", "number", "sessions open on average over time", active_avg),
        _measure("crash_free_rate", "number", f"{_OF_STARTED} without a crash", lambda c, h: free(c, h, crashed)),
        _measure("hang_free_rate", "number", f"{_OF_STARTED} without a hang", lambda c, h: free(c, h, hung)),
        _measure(
            "abnormal_free_rate", "number", f"{_OF_STARTED} without an abnormal end", lambda c, h: free(c, h, abnormal)
        ),
        _measure("unknown_share", "number", "share of the started whose end is unknown", unknown_share),
        _measure("hang_rate", "number", "hangs per 1000 hours of runtime", hang_rate),
        _measure("mtbf_seconds", "number", "runtime between failures; null without one", mtbf),
        _measure("runtime_seconds", "number", "time open less time suspended", lambda c, _: _seconds(c.runtime_us)),
        _measure("machines", "integer", "machines with an open session", lambda c, _: c.machines),
        _measure("duration_p50", "number", "median duration of the sessions that ended", duration(0.5)),
        _measure("duration_p95", "number", "95 % of the sessions that ended took no longer", duration(0.95)),
        _measure("exceptions", "integer", "exceptions of the sessions that started", lambda c, _: c.exceptions),
    )
}

SHARES = {
    "share_sessions": ("started", Column("share_sessions", "number", "share of all that started", optional=True)),
    "share_machines": ("machines", Column("share_machines", "number", "share of all machines", optional=True)),
    "share_runtime": ("runtime_seconds", Column("share_runtime", "number", "share of all runtime", optional=True)),
}
"""Adoption: a group's part of the sum over all groups, by the measure that is compared."""

HANG_MEASURES: dict[str, Measure] = {
    measure.column.name: measure
    for measure in (
        _measure("count", "integer", "hangs that began", hang_counts),
        _measure("ttr_p50", "number", "median time to recover", time_to_recover(0.5)),
        _measure("ttr_p95", "number", "95 % of the recovered took no longer", time_to_recover(0.95)),
        _measure("ttr_max", "number", "longest time to recover", time_to_recover(1.0)),
        _measure(
            "unrecovered",
            "integer",
            "hangs that ended otherwise or go on",
            lambda c, _: [sum(hang.outcome != "recovered" for hang in bucket) for bucket in c.hangs],
        ),
    )
}


def _seconds(values: Iterable[int]) -> list[Value]:
    return [value / US for value in values]


def machines_free(columns: Columns, name: str) -> Value:
    """Return the share of the machines with a started session that had none in the column; null without machines."""
    whole = len(columns.machines_begun)
    return 1 - columns.machines_of(name) / whole if whole else None


def status_counts(columns: Columns) -> dict[str, int]:
    """Return how many of the sessions of a span have each status now; their sum is the measure sessions."""
    found = {"active": 0, "hung": 0, "suspended": 0}
    for shelf in columns.shelves:
        for created, status in shelf.open.values():
            if created < columns.stop:
                found[status] += 1
    for name in ("crashed", "abnormal"):
        found[name] = columns.there(name)
    found["ended"] = columns.present[0] - sum(found.values())
    return found
