"""Release health of a span in one row, or one for each group: counts, rates, adoption, hangs, durations."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from datacat.server.query.asked import Asked
from datacat.server.query.cohorts import Cohort, Dims, cohorts
from datacat.server.query.columns import Columns
from datacat.server.query.ground import Ground
from datacat.server.query.health import dimensions
from datacat.server.query.measures import (
    MEASURES,
    SHARES,
    How,
    machines_free,
    ratio,
    recovery,
    status_counts,
    time_to_recover,
)
from datacat.server.query.ordering import ordered
from datacat.server.query.shape import Column, Result, Row
from datacat.server.query.spans import US, Span
from datacat.wire.times import rfc3339

_TIMES = (
    Column("first_seen_at", "time", "when the first session began", optional=True),
    Column("last_seen_at", "time", "when the server last got anything", optional=True),
    Column("ingest_age_seconds", "number", "how long ago that was", optional=True),
)

SUMMARY = (
    Column("sessions", "integer", "sessions that were open at some time in the span"),
    Column("started", "integer", "sessions that started in it; the rates are of these"),
    Column("open", "integer", "sessions that have not ended: active, hung or suspended"),
    Column("active", "integer", "of the sessions, those that are active now"),
    Column("hung_now", "integer", "of the sessions, those that hang now"),
    Column("suspended", "integer", "of the sessions, those that are suspended now"),
    Column("ended", "integer", "of the sessions, those that ended as they should"),
    Column("crashed", "integer", "of the sessions, those that crashed"),
    Column("abnormal", "integer", "of the sessions, those that ended with their machine, or were lost"),
    Column("hung", "integer", "sessions in which a hang began in the span"),
    Column("crash_free_rate", "number", "share of the started that did not crash", optional=True),
    Column("hang_free_rate", "number", "share of the started that never hung", optional=True),
    Column("abnormal_free_rate", "number", "share of the started without an abnormal end", optional=True),
    Column("crash_rate", "number", "share of the started that crashed", optional=True),
    Column("unknown_share", "number", "share of the started whose end is unknown", optional=True),
    Column("crash_free_machines", "number", "share of the machines of the started without a crash", optional=True),
    Column("hang_free_machines", "number", "the same for hangs", optional=True),
    Column("abnormal_free_machines", "number", "the same for abnormal ends", optional=True),
    Column("unknown_share_machines", "number", "share of the machines with an end that is unknown", optional=True),
    Column("hangs", "integer", "hangs that began"),
    Column("hang_rate", "number", "hangs per 1000 hours of runtime", optional=True),
    Column("hang_seconds", "number", "how long they took, those that go on until now"),
    Column("recovered", "integer", "hangs that were recovered from"),
    Column("ttr_p50", "number", "median time to recover", optional=True),
    Column("ttr_p95", "number", "95 % of the recovered took no longer", optional=True),
    Column("mtbf_seconds", "number", "runtime between failures; null without one", optional=True),
    Column("runtime_seconds", "number", "time open less time suspended"),
    Column("duration_p50", "number", "median duration of the sessions that ended", optional=True),
    Column("duration_p95", "number", "95 % of the sessions that ended took no longer", optional=True),
    Column("machines", "integer", "machines with an open session"),
    Column("versions", "integer", "versions with an open session"),
    Column("exceptions", "integer", "exceptions of the sessions that started"),
    *(column for _, column in SHARES.values()),
    *_TIMES,
)  # fmt: skip
_COMPARED = tuple(
    Column(f"prev_{column.name}", column.kind, f"{column.name} of the span before", optional=True)
    for column in SUMMARY
    if column not in _TIMES
)
SUMMARY_COLUMNS = (*SUMMARY, *_COMPARED)


class _Group:
    """One group in one span; what is asked of it is computed once, and only then."""

    def __init__(self, asked: Asked, cohort: Cohort, span: Span) -> None:
        self.cohort = cohort
        self.columns = Columns(cohort.shelves, (span.start, span.stop), asked.now_us)
        self.how = How(failures=asked["failures"], min_sessions=asked["min_sessions"])
        self.now_us = asked.now_us
        self._status: dict[str, int] | None = None
        self._known: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._known:
            self._known[name] = _CELLS[name](self)
        return self._known[name]

    @property
    def has_any(self) -> bool:
        """Whether any session was there."""
        return bool(self.cohort.versions) or any(self[name] for name in ("sessions", "hangs", "open"))

    def status(self, *names: str) -> int:
        """Return how many sessions have one of these statuses now."""
        if self._status is None:
            self._status = status_counts(self.columns)
        return sum(self._status[name] for name in names)

    def versions(self) -> int:
        """Return how many versions had a session in the span."""
        edges = self.columns.edges
        found = set(self.cohort.versions)
        for name, shelf in zip(self.cohort.names, self.cohort.shelves, strict=True):
            if name is not None and name not in found and Columns([shelf], edges, self.now_us).present[0]:
                found.add(name)
        return len(found)

    def first_seen(self) -> str | None:
        """Return when the first session began."""
        first = min((shelf.created[0] for shelf in self.cohort.shelves if len(shelf)), default=None)
        return None if first is None else rfc3339(first)

    def hang_seconds(self) -> float:
        """Return how long the hangs took that began in the span."""
        as_of = self.columns.as_of
        return sum((hang.end or max(as_of, hang.start)) - hang.start for hang in self.columns.hangs[0]) / US

    def unknown_machines(self) -> float | None:
        """Return the share of the machines of the started with an end that nobody knows."""
        known = machines_free(self.columns, "unknown")
        return None if known is None else 1 - known


def _measured(name: str) -> Callable[[_Group], Any]:
    return lambda group: MEASURES[name].compute(group.columns, group.how)[0]


_CELLS: dict[str, Callable[[_Group], Any]] = {
    **{
        name: _measured(name)
        for name in (
            "sessions", "started", "crash_free_rate", "hang_free_rate", "abnormal_free_rate", "unknown_share", "hangs",
            "hang_rate", "mtbf_seconds", "runtime_seconds", "duration_p50", "duration_p95", "machines", "exceptions",
        )
    },
    "open": lambda group: group.status("active", "hung", "suspended"),
    "active": lambda group: group.status("active"),
    "hung_now": lambda group: group.status("hung"),
    "suspended": lambda group: group.status("suspended"),
    "ended": lambda group: group.status("ended"),
    "crashed": lambda group: group.columns.there("crashed"),
    "abnormal": lambda group: group.columns.there("abnormal"),
    "hung": lambda group: len({hang.id for hang in group.columns.hangs[0]}),
    "crash_rate": lambda group: ratio(
        group.columns.began("crashed"), group.columns.started, group.how.min_sessions
    )[0],
    "crash_free_machines": lambda group: machines_free(group.columns, "crashed"),
    "hang_free_machines": lambda group: machines_free(group.columns, "hung"),
    "abnormal_free_machines": lambda group: machines_free(group.columns, "abnormal"),
    "unknown_share_machines": _Group.unknown_machines,
    "hang_seconds": _Group.hang_seconds,
    "recovered": lambda group: len(recovery(group.columns)[0]),
    "ttr_p50": lambda group: time_to_recover(0.5)(group.columns, group.how)[0],
    "ttr_p95": lambda group: time_to_recover(0.95)(group.columns, group.how)[0],
    "versions": _Group.versions,
    "first_seen_at": _Group.first_seen,
    "last_seen_at": lambda group: rfc3339(group.cohort.heard) if group.cohort.heard else None,
    "ingest_age_seconds": lambda group: (
        max(0, group.now_us - group.cohort.heard) / US if group.cohort.heard else None
    ),
}  # fmt: skip


class _Table:
    """The groups of one span, with their shares of the whole."""

    def __init__(self, asked: Asked, groups: Mapping[Dims, Cohort], span: Span) -> None:
        if not asked["by"] and not groups:
            groups = {(): Cohort()}
        self.groups = {dims: _Group(asked, cohort, span) for dims, cohort in groups.items()}
        self.nothing = _Group(asked, Cohort(), span)
        self._all = _Group(asked, Cohort([shelf for cohort in groups.values() for shelf in cohort.shelves]), span)
        self._wholes: dict[str, float] = {}

    def value(self, dims: Dims, name: str) -> Any:
        """Return the value of a column."""
        group = self.groups.get(dims, self.nothing)
        if name not in SHARES:
            return group[name]
        base = SHARES[name][0]
        if name not in self._wholes:
            # The machines of groups add up to more than there are; all else is counted once for all.
            parts = self.groups.values() if base == "machines" else [self._all]
            self._wholes[name] = sum(one[base] for one in parts)
        return group[base] / self._wholes[name] if self._wholes[name] else None


def summary(asked: Asked, ground: Ground) -> Result:
    """Answer /api/query/summary: one row, or one for each group; only groups that are shown are computed whole."""
    return chosen(asked, ground, ())


def chosen(asked: Asked, ground: Ground, names: Sequence[str]) -> Result:
    """Return the same with these columns alone, beside the dimensions; and the one to sort by; (): all."""
    by = asked["by"]
    fleet = ground.store.fleet
    wanted = {*names, asked["sort"].removeprefix("-")} if names else {column.name for column in SUMMARY}
    measured = [column for column in SUMMARY if column.name in wanted]
    columns = [*dimensions(by), *measured, *(_COMPARED if asked["compare"] else ())]
    with fleet.reading() as shelves:
        now = _Table(asked, cohorts(asked, fleet, shelves, asked.span), asked.span)
        before = None
        if asked["compare"]:
            before = _Table(asked, cohorts(asked, fleet, shelves, asked.span.before), asked.span.before)

        def value(dims: Dims, name: str) -> Any:
            if name in by:
                return dims[by.index(name)]
            if name.startswith("prev_") and before is not None:
                return before.value(dims, name.removeprefix("prev_"))
            return now.value(dims, name)

        shown = list(now.groups)
        if by and not asked["zero"]:
            shown = [dims for dims in shown if now.groups[dims].has_any]
        field = asked["sort"].removeprefix("-")
        known = field in {column.name for column in columns}
        keys: list[Row] = [
            {**dict(zip(by, dims, strict=True)), **({field: value(dims, field)} if known else {}), "": dims}
            for dims in shown
        ]
        page = ordered(keys, columns, asked["sort"], by)[: asked["limit"]]
        rows = [{column.name: value(key[""], column.name) for column in columns} for key in page]
    return Result(columns, rows)
