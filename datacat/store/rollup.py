"""Roll-ups: records -> per-minute aggregates of one session's metrics, events and changes of status. Pure.

A series is (minute, kind, name): minute is Unix time in minutes, kind a metric type, "event" or "status". Product and
version are the session's. Aggregates of the same series merge in any order to the same cell.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import msgspec

from datacat.store.fold import Head, Transition
from datacat.wire.records import Event, Metric, Record

MINUTE_US = 60_000_000

_Key = TypeVar("_Key")

Series: TypeAlias = tuple[int, str, str]
Rollup: TypeAlias = "dict[Series, Cell]"
Rollups: TypeAlias = "dict[tuple[str, str, int, str, str], Cell]"
"""Cells by product, version, minute, kind and name."""


@dataclass(frozen=True, slots=True)
class RollupQuery:
    """Which cells: minutes that begin in [from_us, to_us); tuples are alternatives, empty ones no condition."""

    from_us: int | None = None
    to_us: int | None = None
    product: tuple[str, ...] = ()
    version: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    def wants(self, product: str, version: str) -> bool:
        """Return whether sessions of this product and version count."""
        return (not self.product or product in self.product) and (not self.version or version in self.version)


class Cell(msgspec.Struct, array_like=True):
    """One minute of one series: how many samples, their sum, least, greatest, and the newest with its time (us).

    For events and changes of status only count means something; the rest is 0.
    """

    count: int
    sum: float
    min: float
    max: float
    last: float
    last_t: int


def roll_up(records: Iterable[Record], transitions: Iterable[Transition]) -> Rollup:
    """Return the aggregates of some records of one session and of the changes of status that they made."""
    cells: Rollup = {}
    records = list(records)
    happened = Counter([(record.t // MINUTE_US, record.name) for record in records if isinstance(record, Event)])
    changed = Counter([(transition.t // MINUTE_US, transition.status) for transition in transitions])
    for kind, counts in (("event", happened), ("status", changed)):
        for (minute, name), count in counts.items():
            cells[minute, kind, name] = Cell(count, 0, 0, 0, 0, 0)
    for record in records:
        if isinstance(record, Metric):
            _merge_cell(cells, (record.t // MINUTE_US, record.type, record.name), _sample(record))
    return cells


def collect(parts: Iterable[tuple[Head, Rollup]], query: RollupQuery) -> Rollups:
    """Return the merged cells of many sessions' roll-ups, as far as query asks for them."""
    total: Rollups = {}
    for head, rollup in parts:
        for (minute, kind, name), cell in rollup.items():
            t = minute * MINUTE_US
            if (query.from_us is not None and t < query.from_us) or (query.to_us is not None and t >= query.to_us):
                continue
            if (query.kinds and kind not in query.kinds) or (query.names and name not in query.names):
                continue
            _merge_cell(total, (head.product, head.version, minute, kind, name), cell)
    return total


def to_rows(cells: Rollup) -> list[list[Any]]:
    """Return a roll-up as JSON rows [minute, kind, name, count, sum, min, max, last, last_t]."""
    return [[*series, c.count, c.sum, c.min, c.max, c.last, c.last_t] for series, c in cells.items()]


def from_rows(rows: Iterable[list[Any]]) -> Rollup:
    """Return the roll-up that to_rows() wrote."""
    return {(row[0], row[1], row[2]): Cell(*row[3:]) for row in rows}


def _merge_cell(cells: dict[_Key, Cell], series: _Key, more: Cell) -> None:
    cell = cells.get(series)
    if cell is None:
        cells[series] = Cell(more.count, more.sum, more.min, more.max, more.last, more.last_t)
        return
    cell.count += more.count
    cell.sum += more.sum
    cell.min = min(cell.min, more.min)
    cell.max = max(cell.max, more.max)
    # Of two samples at the same time the greater one stays, so that the order of merging does not matter.
    if (more.last_t, more.last) > (cell.last_t, cell.last):
        cell.last, cell.last_t = more.last, more.last_t


def _sample(metric: Metric) -> Cell:
    """Return one metric as a cell; a merged one (metadata with count) stands for all its samples."""
    value = metric.value
    about = metric.metadata or {}
    count = about.get("count")
    if metric.type == "counter" or type(count) is not int or count < 1:
        return Cell(1, value, value, value, value, metric.t)
    total = _number(about, "mean", value) * count if metric.type == "gauge" else _number(about, "sum", value)
    return Cell(count, total, _number(about, "min", value), _number(about, "max", value), value, metric.t)


def _number(about: dict[str, Any], name: str, otherwise: float) -> float:
    value = about.get(name)
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else otherwise
