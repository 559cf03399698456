"""Quantiles in little space: bins on a logarithmic scale, and counts in buckets that an app chose. Pure.

Bins hold values within 1 % of each other's middle, so a quantile is wrong by 1 % of its value at most (the mapping of
DDSketch: Masson, Rim, Lee, "DDSketch: a fast and fully-mergeable quantile sketch with relative-error guarantees", VLDB
2019). They are plain dicts {bin: count}, merge by adding counts in any order, and sort like the values they stand for.
"""

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import accumulate

RELATIVE_ERROR = 0.01
MAX_BINS = 2048
"""Above it the bins of the smallest magnitudes become one: 2048 bins span a factor of 10^17."""

_GAMMA = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_LOG_GAMMA = math.log(_GAMMA)
_PER_LOG = 1 / _LOG_GAMMA
_MIDDLE = math.log(2 / (1 + _GAMMA))
_BIAS = 40_000
"""Above every logarithm of a 64-bit float in units of _LOG_GAMMA (at most 37,222), so that the sign tells the sign."""
_MAX_LOG = math.log(1.7e308)


def bin_of(value: float) -> int:
    """Return the bin of a finite number: 0 for zero, negative for negative ones, ascending with the value."""
    if value > 0:
        return math.ceil(math.log(value) * _PER_LOG) + _BIAS
    if value < 0:
        return -math.ceil(math.log(-value) * _PER_LOG) - _BIAS
    return 0


def bins_of(values: Sequence[float], least: float) -> dict[int, int]:
    """Return the bins of finite numbers, of which least is the least."""
    if least > 0:
        log, ceil, per = math.log, math.ceil, _PER_LOG
        counts = Counter([ceil(log(value) * per) for value in values])
        return {number + _BIAS: count for number, count in counts.items()}
    return dict(Counter(map(bin_of, values)))


def middle_of(number: int) -> float:
    """Return the value that stands for a bin."""
    if not number:
        return 0.0
    value = math.exp(min((abs(number) - _BIAS) * _LOG_GAMMA + _MIDDLE, _MAX_LOG))
    return value if number > 0 else -value


def add_bins(into: dict[int, int], more: dict[int, int]) -> None:
    """Add the counts of more."""
    get = into.get
    for number, count in more.items():
        into[number] = get(number, 0) + count
    if len(into) > MAX_BINS:
        _collapse(into)


def quantile(bins: dict[int, int], q: float) -> float:
    """Return the quantile q, 0 <= q <= 1, as numpy's type 7 does: between two samples it is interpolated.

    There is at least one sample. Each of the two is right within RELATIVE_ERROR.
    """
    rank = q * (sum(bins.values()) - 1)
    low, high = math.floor(rank), math.ceil(rank)
    seen = 0
    found: list[float] = []
    for number in sorted(bins):
        seen += bins[number]
        while len(found) < 2 and seen > (high if found else low):
            found.append(middle_of(number))
        if len(found) == 2:
            break
    return found[0] + (found[1] - found[0]) * (rank - low)


def spread(count: int, total: float, low: float, high: float) -> list[tuple[float, int]]:
    """Return (value, count) of samples of which only count, sum, least and greatest are known.

    One is the least, one the greatest, the others are alike: right for up to three samples, and always in sum.
    """
    if count == 1:
        return [(total, 1)]
    if count == 2:
        return [(low, 1), (high, 1)]
    return [(low, 1), (min(max((total - low - high) / (count - 2), low), high), count - 2), (high, 1)]


def bins_of_spread(parts: Iterable[tuple[float, int]]) -> dict[int, int]:
    """Return the bins of weighted values."""
    bins: dict[int, int] = {}
    for value, count in parts:
        number = math.ceil(math.log(value) * _PER_LOG) + _BIAS if value > 0 else bin_of(value)
        bins[number] = bins.get(number, 0) + count
    return bins


def bucket_counts(bounds: Sequence[float], parts: Iterable[tuple[float, int]]) -> list[int]:
    """Return how many of the weighted values are in each bucket; the last one is that above every bound."""
    counts = [0] * (len(bounds) + 1)
    for value, count in parts:
        counts[bisect_left(bounds, value)] += count
    return counts


def bucket_quantile(bounds: Sequence[float], counts: Sequence[float], q: float) -> float | None:
    """Return the quantile q as Prometheus' histogram_quantile does; None without samples or finite bounds.

    Linear within a bucket; the first one begins at 0 when its bound is positive, else its bound is the answer; above
    the last bound the answer is that bound. (prometheus.io/docs/prometheus/latest/querying/functions)
    """
    total = sum(counts)
    if total <= 0 or not bounds:
        return None
    rank = q * total
    upto = list(accumulate(counts))
    index = min(bisect_left(upto, rank), len(counts) - 1)
    if index == len(bounds):
        return bounds[-1]
    high = bounds[index]
    if index == 0:
        if high <= 0:
            return high
        low, below = 0.0, 0.0
    else:
        low, below = bounds[index - 1], upto[index - 1]
    inside = counts[index]
    return low + (high - low) * ((rank - below) / inside) if inside else high


def join_layouts(
    layouts: Sequence[tuple[Sequence[float], Sequence[float]]],
) -> tuple[list[float], list[float]]:
    """Return (bounds, counts) of samples that were counted in different buckets: those of all bounds together.

    What one layout does not tell about a bound of another is interpolated linearly in its cumulative counts.
    """
    bounds = sorted({bound for own, _ in layouts for bound in own})
    upto = [0.0] * len(bounds)
    total = 0.0
    for own, counts in layouts:
        own_upto = list(accumulate(counts))
        total += own_upto[-1]
        for index, bound in enumerate(bounds):
            upto[index] += _below(own, own_upto, bound)
    return bounds, [now - before for now, before in zip([*upto, total], [0.0, *upto], strict=True)]


def _below(bounds: Sequence[float], upto: Sequence[float], at: float) -> float:
    """Return how many samples are at most at, which lies within a bucket."""
    index = bisect_left(bounds, at)
    if index == len(bounds):
        return upto[-2] if len(upto) > 1 else 0.0
    if bounds[index] == at:
        return upto[index]
    before = upto[index - 1] if index else 0.0
    low = bounds[index - 1] if index else min(0.0, at)
    if bounds[index] <= low:
        return before
    return before + (upto[index] - before) * (at - low) / (bounds[index] - low)


def _collapse(bins: dict[int, int]) -> None:
    by_magnitude = sorted(bins, key=abs)
    surplus = by_magnitude[: len(bins) - MAX_BINS]
    keeper = by_magnitude[len(surplus)]
    for number in surplus:
        bins[keeper] += bins.pop(number)
