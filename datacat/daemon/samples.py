"""Merge metric samples: sums of counters, moments and buckets of histograms and timers, gauges per second. Pure."""

import bisect
import math
from collections.abc import Iterator
from typing import Any

import msgspec

from datacat.wire.lines import encode
from datacat.wire.records import DEFAULT_BOUNDS, Metric

WINDOW_US = 10_000_000
"""Longer than a batch usually is, short enough that an hour away does not become one point."""

_OWN_MEMBERS = frozenset({"sum", "count", "min", "max", "mean", "buckets"})
_INTEGERS = range(-(2**63), 2**64)


class Samples:
    """The metrics of one batch, by what they measure. add() in the order of the stream."""

    def __init__(self) -> None:
        self._series: dict[tuple[Any, ...], _Series] = {}
        self._alone: list[tuple[int, bytes]] = []
        self._first_t: int | None = None

    def add(self, metric: Metric, line: bytes, slot: int) -> None:
        """Take one sample; slot is its place in the batch."""
        if self._first_t is None:
            self._first_t = metric.t
        try:
            sample = _Sample(metric)
        except (TypeError, ValueError, KeyError, OverflowError):
            self._alone.append((slot, line))
            return
        span = metric.t // 1_000_000 if metric.type == "gauge" else (metric.t - self._first_t) // WINDOW_US
        key = (metric.type, metric.name, metric.unit, tuple(metric.tags or ()), sample.bounds, sample.extra, span)
        series = self._series.get(key)
        if series is None:
            self._series[key] = _Series(metric, sample, line, slot)
        elif not series.add(metric, sample, slot):
            self._alone.append((series.slot, series.line()))
            self._series[key] = _Series(metric, sample, line, slot)

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Yield the place and the line of each merged metric."""
        yield from self._alone
        for series in self._series.values():
            yield series.slot, series.line()


class _Sample:
    """One sample, or a few that somebody else merged: sum, count, min, max, counts per bucket.

    Raises: TypeError, ValueError, KeyError, OverflowError when the metadata is not of the known shape.
    """

    bounds: tuple[int | float, ...]
    counts: list[int]
    total: int | float
    low: int | float
    high: int | float

    def __init__(self, metric: Metric) -> None:
        given = metric.metadata or {}
        if metric.type == "counter":  # its metadata is all the app's
            self.count, self.total, self.low, self.high = 1, _number(metric.value), 0, 0
            self.others, self.bounds, self.counts = given, (), []
            self.extra = msgspec.json.encode(given, order="sorted") if given else b""
            return
        others = {name: value for name, value in given.items() if name not in _OWN_MEMBERS}
        self.extra = msgspec.json.encode(others, order="sorted") if others else b""
        self.others = others
        self.count = _natural(given.get("count", 1))
        self.total = _number(given.get("sum", metric.value))
        if metric.type == "gauge" and "mean" in given:
            self.total = _number(given["mean"]) * self.count
        self.low = _number(given.get("min", metric.value))
        self.high = _number(given.get("max", metric.value))
        self.bounds = ()
        self.counts = []
        if metric.type == "histogram":
            self._buckets(given.get("buckets"))
        elif "buckets" in given:
            raise ValueError("only histograms have buckets")

    def _buckets(self, given: Any) -> None:
        if not given:
            given = list(DEFAULT_BOUNDS)
        if isinstance(given[0], dict):
            if given[-1]["le"] != "+Inf":
                raise ValueError("the last bucket is not +Inf")
            self.bounds = tuple(_number(bucket["le"]) for bucket in given[:-1])
            running = [_natural(bucket["count"]) for bucket in given]
            self.counts = [now - before for now, before in zip(running, [0, *running[:-1]], strict=True)]
            if min(self.counts) < 0 or running[-1] != self.count:
                raise ValueError("bucket counts are not cumulative")
        else:
            self.bounds = tuple(_number(bound) for bound in given)
            if self.count != 1:
                raise ValueError("one sample was expected with bare bounds")
            self.counts = [0] * (len(self.bounds) + 1)
            self.counts[bisect.bisect_left(self.bounds, self.total)] = 1
        if any(low >= high for low, high in zip(self.bounds, self.bounds[1:], strict=False)):
            raise ValueError("bucket bounds do not ascend")


class _Series:
    def __init__(self, metric: Metric, sample: _Sample, line: bytes, slot: int) -> None:
        self.slot = slot
        self._metric = metric
        self._sum = sample
        self._line = line
        self._units: int | None = metric.count

    def add(self, metric: Metric, sample: _Sample, slot: int) -> bool:
        """Merge one sample; False when the sum cannot be written as a number any more, then nothing has changed."""
        total = self._sum.total + sample.total
        if isinstance(total, float) and not math.isfinite(total):
            return False
        if isinstance(total, int) and total not in _INTEGERS:
            total = float(total)
        merged = self._sum
        merged.total = total
        merged.count += sample.count
        merged.low = min(merged.low, sample.low)
        merged.high = max(merged.high, sample.high)
        merged.counts = [a + b for a, b in zip(merged.counts, sample.counts, strict=True)]
        if metric.count is not None:
            self._units = (self._units or 0) + metric.count
        self._metric = metric
        self._line = b""
        self.slot = slot
        return True

    def line(self) -> bytes:
        if self._line:
            return self._line
        merged = self._sum
        value = self._metric.value if self._metric.type == "gauge" else merged.total
        metadata: dict[str, Any] = dict(merged.others)
        if self._metric.type == "gauge":
            mean = merged.total / max(1, merged.count)
            metadata |= {"count": merged.count, "min": merged.low, "max": merged.high, "mean": mean}
        elif self._metric.type != "counter":
            metadata |= {"sum": merged.total, "count": merged.count, "min": merged.low, "max": merged.high}
        if self._metric.type == "histogram":
            running = 0
            buckets: list[dict[str, Any]] = []
            for le, count in zip([*merged.bounds, "+Inf"], merged.counts, strict=True):
                running += count
                buckets.append({"le": le, "count": running})
            metadata["buckets"] = buckets
        return encode(
            Metric(
                t=self._metric.t,
                name=self._metric.name,
                value=value,
                type=self._metric.type,
                count=self._units,
                unit=self._metric.unit,
                tags=self._metric.tags,
                metadata=metadata or None,
            )
        )


def _number(value: Any) -> int | float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError("not a number")
    return value


def _natural(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise TypeError("not a count")
    return value
