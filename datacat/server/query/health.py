"""Release health over time: series of measures of sessions and hangs, by any dimensions."""

from collections.abc import Mapping, Sequence
from typing import Any

from datacat.server.query.asked import Asked
from datacat.server.query.cohorts import Cohort, Dims, biggest, cohorts
from datacat.server.query.columns import Columns
from datacat.server.query.ground import Ground
from datacat.server.query.measures import HANG_MEASURES, MEASURES, SHARES, How, Measure
from datacat.server.query.shape import Column, Result, Row


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
                columns = Columns(group.shelves, buckets.edges, asked.now_us)
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
        if any(Columns([shelf], limits, asked.now_us).present[0] for shelf in group.shelves)
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
