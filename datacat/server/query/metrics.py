"""Metrics: their catalogue, over time, how they are distributed, and in one line."""

import fnmatch
from bisect import bisect_left
from collections.abc import Sequence

from datacat.server.problems import Refusal
from datacat.server.query.asked import Asked
from datacat.server.query.ground import Ground
from datacat.server.query.hangs import labels
from datacat.server.query.health import TIME, dimensions, filled
from datacat.server.query.ordering import ordered
from datacat.server.query.rolled import Found, biggest, cut, gather
from datacat.server.query.shape import Column, Result, Row
from datacat.server.query.spans import US, Buckets
from datacat.store import CatalogueQuery
from datacat.store.cell import Cell
from datacat.store.sketch import middle_of
from datacat.wire.records import METRIC_TYPES
from datacat.wire.times import rfc3339

AGGS = ("avg", "min", "max", "sum", "count", "last", "rate", "p50", "p90", "p95", "p99")
_ADD_UP = frozenset({"sum", "count", "rate"})
_BARS = 20
_TEXTS = {
    "avg": "mean of the samples", "min": "least sample", "max": "greatest sample", "sum": "sum of the samples",
    "count": "how many samples", "last": "newest sample", "rate": "a second: of counters their sum, else the samples",
    **{f"p{share}": f"{share} % of the samples are no greater" for share in (50, 90, 95, 99)},
}  # fmt: skip
AGG_COLUMNS = tuple(
    Column(name, "integer" if name == "count" else "number", _TEXTS[name], optional=name != "count") for name in AGGS
)
VALUE = Column("value", "number", "the first of agg", optional=True)
NAME = Column("name", "text", "the metric")
SERIES = Column("series", "text", "the dimensions of by in one text; the metric's name without any")
UNIT = Column("unit", "text", "its unit", optional=True)
CATALOGUE = (
    NAME,
    Column("type", "text", "gauge, counter, histogram or timer"),
    UNIT,
    Column("sessions", "integer", "sessions that logged it, ever; beyond 128 about 3 % wrong"),
    Column("points", "integer", "samples, ever"),
    Column("last", "number", "newest value", optional=True),
    Column("min", "number", "least value", optional=True),
    Column("max", "number", "greatest value", optional=True),
    Column("last_seen_at", "time", "when it was last logged"),
)
DISTRIBUTION = (
    Column("bucket", "text", "from and to"),
    Column("order", "integer", "the place of the bucket"),
    Column("le", "number", "its upper bound; null: none", optional=True),
    Column("count", "integer", "samples in it"),
    Column("share", "number", "part of all samples of the group", optional=True),
)


def metrics(asked: Asked, ground: Ground) -> Result:
    """Answer /api/query/metrics: the metrics that were logged in the span."""
    kinds = asked["type"] or METRIC_TYPES
    found: dict[tuple[str, str], Row] = {}
    for entry in ground.store.catalogue(CatalogueQuery(kinds=kinds, since_us=asked.span.start)):
        if not asked.sees_product(entry.product):
            continue
        if asked["name"] and not any(fnmatch.fnmatchcase(entry.name, pattern) for pattern in asked["name"]):
            continue
        row: Row = {
            "name": entry.name, "type": entry.kind, "unit": entry.unit, "sessions": entry.sessions,
            "points": entry.count, "last": entry.last, "min": entry.min, "max": entry.max,
            "last_seen_at": entry.last_seen,
        }  # fmt: skip
        known = found.get((entry.name, entry.kind))
        found[entry.name, entry.kind] = row if known is None else _joined(known, row)
    rows = [{**row, "last_seen_at": rfc3339(row["last_seen_at"])} for row in found.values()]
    return Result(CATALOGUE, ordered(rows, CATALOGUE, asked["sort"], ("name", "type"))[: asked["limit"]])


def _joined(one: Row, two: Row) -> Row:
    """Return a metric that two products have in one row."""
    newer = one if one["last_seen_at"] >= two["last_seen_at"] else two
    low = [row["min"] for row in (one, two) if row["min"] is not None]
    high = [row["max"] for row in (one, two) if row["max"] is not None]
    return {
        **newer,
        "unit": newer["unit"] or one["unit"] or two["unit"],
        "sessions": one["sessions"] + two["sessions"],
        "points": one["points"] + two["points"],
        "min": min(low, default=None),
        "max": max(high, default=None),
    }


def timeseries(asked: Asked, ground: Ground) -> Result:
    """Answer /api/query/metrics/timeseries."""
    dims = _dims(asked)
    aggs: Sequence[str] = asked["agg"]
    buckets = cut(asked)
    columns = [TIME, NAME, SERIES, *dimensions(dims), *(_COLUMNS[name] for name in aggs), VALUE]
    if not buckets.starts:
        return Result(columns, [])
    found = _gather(asked, ground, buckets)
    rows = []
    for start in buckets.starts:
        for group in found.groups:
            told = found.aggregate(start, group, aggs, buckets.interval_us / US)
            named = dict(zip(("name", *dims), group, strict=True))
            named["series"] = " ".join(group[1:]) or group[0]
            rows.append({"time": start // 1000, **named, **told, "value": told[aggs[0]]})
    partial = buckets.edges[-1] > asked.now_us or buckets.edges[-1] % buckets.interval_us != 0
    meta = {**found.meta, "interval_ms": buckets.interval_us // 1000, "partial_last": partial}
    return Result(columns, filled(rows, asked, [*aggs, "value"]), meta=meta)


def summary(asked: Asked, ground: Ground) -> Result:
    """Answer /api/query/metrics/summary: a row for each metric and group of the span."""
    dims = _dims(asked)
    aggs: Sequence[str] = asked["agg"]
    found = _gather(asked, ground, None)
    known = ground.store.catalogue(CatalogueQuery(kinds=METRIC_TYPES, names=asked["name"]))
    units = {entry.name: entry.unit for entry in known if entry.unit and asked.sees_product(entry.product)}
    seconds = max(1e-6, (min(asked.span.stop, asked.now_us) - asked.span.start) / US)
    rows = []
    for group in found.groups:
        told = found.aggregate(asked.span.start, group, aggs, seconds)
        named = dict(zip(("name", *dims), group, strict=True))
        rows.append({**named, "unit": units.get(group[0]), **told, "value": told[aggs[0]]})
    columns = [NAME, *dimensions(dims), UNIT, *(_COLUMNS[name] for name in aggs), VALUE]
    return Result(columns, ordered(rows, columns, "name", ("name", *dims)), meta=found.meta)


def distribution(asked: Asked, ground: Ground) -> Result:
    """Answer /api/query/metrics/distribution: histograms by their own buckets, others by equal steps."""
    dims = _dims(asked)
    found = _gather(asked, ground, None)
    rows = []
    for group in found.groups:
        cell = found.cells[asked.span.start, group]
        bounds, counts = cell.buckets() or _bars(cell)
        names = (
            labels(bounds, "") if all(bound >= 0 for bound in bounds) else [f"{bound:g}" for bound in bounds] + ["+Inf"]
        )
        named = dict(zip(("name", *dims), group, strict=True))
        whole = sum(counts)
        for at, (name, count) in enumerate(zip(names, counts, strict=True)):
            le = bounds[at] if at < len(bounds) else None
            share = count / whole if whole else None
            rows.append({**named, "bucket": name, "order": at, "le": le, "count": round(count), "share": share})
    return Result([NAME, *dimensions(dims), *DISTRIBUTION], rows, meta=found.meta)


class _Cells:
    """The cells of a question by bucket and group (name, dimensions); groups in order."""

    def __init__(self, found: Found, dims: int, top: int) -> None:
        sizes: dict[tuple[str, ...], float] = {}
        for (_, group), cell in found.cells.items():
            sizes[group[2:]] = sizes.get(group[2:], 0) + cell.count
        named = biggest(sizes, top) if dims else lambda group: group
        self.cells: dict[tuple[int, tuple[str, ...]], Cell] = {}
        self.meta = dict(found.meta)
        self._counters: set[tuple[str, ...]] = set()
        for (t, group), cell in sorted(found.cells.items(), key=lambda item: item[0]):
            key = (group[0], *named(group[2:]))
            if group[1] == "counter":
                self._counters.add(key)
            known = self.cells.get((t, key))
            if known is None:
                self.cells[t, key] = cell
            else:
                known.merge(cell)
        self.groups = sorted({group for _, group in self.cells})
        if any(cell.approximate for cell in self.cells.values()):
            self.meta["approx"] = True

    def aggregate(self, t: int, group: tuple[str, ...], aggs: Sequence[str], seconds: float) -> Row:
        """Return the aggregates of a cell; without samples 0 for what adds up, else null."""
        cell = self.cells.get((t, group))
        if cell is None or cell.count <= 0:
            return {name: (0 if name in _ADD_UP else None) for name in aggs}
        rate = (cell.sum if group in self._counters else cell.count) / seconds
        plain = {
            "avg": cell.mean, "min": cell.min, "max": cell.max, "sum": cell.sum, "count": cell.count,
            "last": cell.last, "rate": rate,
        }  # fmt: skip
        return {name: plain[name] if name in plain else cell.quantile(int(name[1:]) / 100) for name in aggs}


def _gather(asked: Asked, ground: Ground, buckets: Buckets | None) -> _Cells:
    dims = _dims(asked)
    needs_bins = "agg" not in asked.values or any(name.startswith("p") for name in asked["agg"])
    found = gather(
        asked, ground, METRIC_TYPES, asked["name"], ("name", "kind", *dims),
        bucketed=buckets, tags=asked["tag"], distributions=needs_bins,
    )  # fmt: skip
    return _Cells(found, len(dims), asked["top"])


def _dims(asked: Asked) -> list[str]:
    """Return the dimensions beside the name, which is always there. Raises: Refusal 400."""
    dims = [name for name in asked["by"] if name != "name"]
    for name in dims:
        if name not in BY and not (name.startswith("tag:") and len(name) > len("tag:")):
            raise Refusal(400, f"unknown by {name[:40]!r}", hint=f"use some of {', '.join(BY)}, tag:KEY")
    return dims


def _bars(cell: Cell) -> tuple[list[float], list[float]]:
    """Return bounds and counts of a gauge or timer: steps of equal length from the least to the greatest sample."""
    if not cell.bins or cell.max <= cell.min:
        return [float(cell.max)], [cell.count, 0]
    step = (cell.max - cell.min) / _BARS
    bounds = [float(f"{cell.min + step * number:.4g}") for number in range(1, _BARS + 1)]
    bounds = sorted(set(bounds))
    counts: list[float] = [0] * (len(bounds) + 1)
    for number, count in cell.bins.items():
        counts[bisect_left(bounds, middle_of(number))] += count
    if counts[-1]:  # the last bound was rounded down, or the middle of a bin lies above the greatest sample
        counts[-2] += counts[-1]
        counts[-1] = 0
    return bounds, counts


_COLUMNS = {column.name: column for column in AGG_COLUMNS}
BY = ("name", "product", "version", "hostname", "session", "machine", "environment", "status")
