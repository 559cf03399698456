"""Release health: the summary of a span and the time series of sessions, each by any dimensions."""

from collections.abc import Mapping, Sequence
from typing import Any

from datacat.server.query.asked import Asked
from datacat.server.query.cohorts import Cohort, Dims, biggest, cohorts
from datacat.server.query.columns import Columns
from datacat.server.query.ground import Ground
from datacat.server.query.measures import (
    HANG_MEASURES,
    MEASURES,
    SHARES,
    How,
    Measure,
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

_FROM_MEASURES = (
    "sessions", "started", "crash_free_rate", "hang_free_rate", "abnormal_free_rate", "unknown_share", "hangs",
    "hang_rate", "mtbf_seconds", "runtime_seconds", "duration_p50", "duration_p95", "machines", "exceptions",
)  # fmt: skip
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


def summary(asked: Asked, ground: Ground) -> Result:
    """Answer /api/query/summary: one row, or one for each group."""
    by: Sequence[str] = asked["by"]
    before = asked.span.before if asked["compare"] else None
    fleet = ground.store.fleet
    with fleet.reading() as shelves:
        rows = _summaries(asked, cohorts(asked, fleet, shelves, asked.span), asked.span)
        if before is not None:
            groups = cohorts(asked, fleet, shelves, before)
            earlier = _summaries(asked, groups, before)
            nothing = _compared(_summary(asked, Cohort(), before))
            for dims, row in rows.items():
                row.update(_compared(earlier[dims]) if dims in earlier else nothing)
    if by and not asked["zero"]:
        rows = {dims: row for dims, row in rows.items() if row["sessions"] or row["hangs"] or row["open"]}
    table = [dict(zip(by, dims, strict=True)) | row for dims, row in rows.items()]
    columns = [*dimensions(by), *SUMMARY, *(_COMPARED if before else ())]
    return Result(columns, ordered(table, columns, asked["sort"] or "-sessions", by)[: asked["limit"]])


def timeseries(asked: Asked, ground: Ground) -> Result:
    """Answer /api/query/sessions/timeseries."""
    named = asked["measures"]
    wanted = {name: MEASURES[name] for name in named if name in MEASURES}
    bases = {name: MEASURES[SHARES[name][0]] for name in named if name in SHARES}
    result = series(asked, ground, {**wanted, **bases}, How(
        asked["attribute"], asked["failures"], asked["min_sessions"] or 0
    ))  # fmt: skip
    _share(result.rows, bases)
    rows = filled(result.rows, asked, [*wanted, *bases])
    told = {**{name: MEASURES[name].column for name in wanted}, **{name: SHARES[name][1] for name in bases}}
    dims = result.columns[: 1 + len(asked["by"])]
    return Result([*dims, *(told[name] for name in named)], rows, meta=result.meta)


def hangs_timeseries(asked: Asked, ground: Ground) -> Result:
    """Answer /api/query/hangs/timeseries."""
    result = series(asked, ground, {name: HANG_MEASURES[name] for name in asked["measures"]}, How())
    return Result(result.columns, filled(result.rows, asked, asked["measures"]), meta=result.meta)


def series(asked: Asked, ground: Ground, measures: Mapping[str, Measure], how: How) -> Result:
    """Return a row for each bucket and group, with every measure: by time, then dimensions."""
    by: Sequence[str] = asked["by"]
    buckets = asked.buckets()
    fleet = ground.store.fleet
    rows: list[Row] = []
    if buckets.starts:
        with fleet.reading() as shelves:
            groups = cohorts(asked, fleet, shelves, asked.span)
            if by:
                groups = biggest(_present(groups, asked), asked["top"], asked.span, asked.now_us)
            elif not groups:
                groups = {(): Cohort()}
            for dims, group in sorted(groups.items()):
                columns = Columns(list(group.shelves.values()), buckets.edges, asked.now_us)
                values = [measure.compute(columns, how) for measure in measures.values()]
                head = dict(zip(by, dims, strict=True))
                for start, *some in zip(buckets.starts, *values, strict=True):
                    rows.append({"time": start // 1000, **head, **dict(zip(measures, some, strict=True))})
    rows.sort(key=lambda row: row["time"])
    shown = [TIME, *dimensions(by), *(measure.column for measure in measures.values())]
    return Result(shown, rows, meta=bucket_meta(asked, buckets.interval_us, buckets.edges))


TIME = Column("time", "time_ms", "when the bucket begins")


def bucket_meta(asked: Asked, interval_us: int, edges: Sequence[int]) -> dict[str, Any]:
    """Return the members of meta that tell about buckets."""
    partial = bool(edges) and (edges[-1] > asked.now_us or edges[-1] % interval_us != 0)
    return {"interval_ms": interval_us // 1000, "partial_last": partial}


def filled(rows: list[Row], asked: Asked, measures: Sequence[str]) -> list[Row]:
    """Return rows as fill says: as they are, with null for 0 where nothing happened, or without such rows."""
    if asked["fill"] == "zero":
        return rows
    if asked["fill"] == "none":
        return [row for row in rows if any(row[name] for name in measures)]
    return [row if any(row[name] for name in measures) else row | dict.fromkeys(measures) for row in rows]


def dimensions(by: Sequence[str]) -> list[Column]:
    """Return the columns of the dimensions by which is grouped."""
    return [Column(name, "text", f"the {name}; empty when a session has none") for name in by]


def _present(groups: dict[Dims, Cohort], asked: Asked) -> dict[Dims, Cohort]:
    """Return the groups that have a session in the span."""
    limits = (asked.span.start, asked.span.stop)
    return {
        dims: group
        for dims, group in groups.items()
        if any(Columns([shelf], limits, asked.now_us).present[0] for shelf in group.shelves.values())
    }


def _share(rows: list[Row], bases: Mapping[str, Measure]) -> None:
    """Turn the bases of shares into shares of the sum over the groups of each bucket."""
    for name in bases:
        totals: dict[int, float] = {}
        for row in rows:
            totals[row["time"]] = totals.get(row["time"], 0) + row[name]
        for row in rows:
            whole = totals[row["time"]]
            row[name] = row[name] / whole if whole else None


def _summaries(asked: Asked, groups: dict[Dims, Cohort], span: Span) -> dict[Dims, Row]:
    if not asked["by"] and not groups:
        groups = {(): Cohort()}
    rows = {dims: _summary(asked, group, span) for dims, group in groups.items()}
    for share, (base, _) in SHARES.items():
        whole = sum(row[base] for row in rows.values())
        for row in rows.values():
            row[share] = row[base] / whole if whole else None
    return rows


def _summary(asked: Asked, group: Cohort, span: Span) -> Row:
    edges = (span.start, span.stop)
    columns = Columns(list(group.shelves.values()), edges, asked.now_us)
    how = How(failures=asked["failures"])
    row: Row = dict.fromkeys(column.name for column in SUMMARY)
    row |= {name: MEASURES[name].compute(columns, how)[0] for name in _FROM_MEASURES}
    status = status_counts(columns)
    row |= {
        "open": status["active"] + status["hung"] + status["suspended"],
        "active": status["active"],
        "hung_now": status["hung"],
        "suspended": status["suspended"],
        "ended": status["ended"],
        "crashed": status["crashed"],
        "abnormal": status["abnormal"],
        "hung": len({hang.id for hang in columns.hangs[0]}),
        "crash_rate": ratio(columns.began("crashed"), columns.started)[0],
        "crash_free_machines": machines_free(columns, "crashed"),
        "hang_free_machines": machines_free(columns, "hung"),
        "abnormal_free_machines": machines_free(columns, "abnormal"),
        "hang_seconds": _hang_seconds(columns),
        "recovered": len(recovery(columns)[0]),
        "ttr_p50": time_to_recover(0.5)(columns, how)[0],
        "ttr_p95": time_to_recover(0.95)(columns, how)[0],
        "versions": len(
            {
                version.rstrip("\0")
                for (_, version), shelf in group.shelves.items()
                if Columns([shelf], edges, asked.now_us).present[0]
            }
        ),
    }
    known = machines_free(columns, "unknown")
    row["unknown_share_machines"] = None if known is None else 1 - known
    first = min((shelf.created[0] for shelf in group.shelves.values() if len(shelf)), default=None)
    row["first_seen_at"] = None if first is None else rfc3339(first)
    row["last_seen_at"] = rfc3339(group.heard) if group.heard else None
    row["ingest_age_seconds"] = max(0, asked.now_us - group.heard) / US if group.heard else None
    return row


def _hang_seconds(columns: Columns) -> float:
    return sum((hang.end or max(columns.as_of, hang.start)) - hang.start for hang in columns.hangs[0]) / US


def _compared(row: Row) -> Row:
    return {column.name: row[column.name.removeprefix("prev_")] for column in _COMPARED}
