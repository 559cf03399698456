"""Bins of a sketch as the digits of one large integer, so that adding two sketches is one addition. Pure.

A lane is 64 bits: the count of one bin; lanes of neighbouring bins are neighbours. Merging a dict of 45 bins takes
about 3 us, merging 200 lanes 0.5 us. They are for values of one sign that lie near each other, and zeros apart; other
bins stay dicts.
"""

import math
import sys
from array import array
from bisect import bisect_right
from itertools import accumulate
from typing import NamedTuple, TypeAlias

from datacat.store import sketch

Bins: TypeAlias = dict[int, int]

MAX_LANES = 2048
_BITS = 64
_SPARSE = 32
"""Lanes for each bin that has samples, above which a dict is smaller."""


class Lanes(NamedTuple):
    """Samples: so many zeros, and lane n of total has the count of bin base + n."""

    zeros: int
    base: int
    total: int


Packed: TypeAlias = tuple[int, int, bytes]
"""Lanes with the total as little-endian bytes, 8 for each lane."""


def of_bins(bins: Bins) -> Lanes | None:
    """Return bins as lanes; None when they are better off as they are."""
    low, high = min(bins), max(bins)
    zeros = 0
    if low <= 0 <= high and 0 in bins:
        rest = [number for number in bins if number]
        zeros = bins[0]
        if not rest:
            return Lanes(zeros, 0, 0)
        low, high = min(rest), max(rest)
    span = high - low + 1
    if (
        span > MAX_LANES
        or span > _SPARSE * len(bins) + _SPARSE
        or max(bins.values()) >= 1 << 62
        or min(bins.values()) < 0
    ):
        return None
    counts = array("Q", bytes(8 * span))
    for number, count in bins.items():
        if number:
            counts[number - low] = count
    return Lanes(zeros, low, int.from_bytes(_little(counts).tobytes(), "little"))


def to_bins(lanes: Lanes) -> Bins:
    """Return lanes as bins."""
    bins = {lanes.base + index: count for index, count in enumerate(_counts(lanes)) if count}
    if lanes.zeros:
        bins[0] = lanes.zeros
    return bins


def add(one: Lanes, other: Lanes) -> Lanes | None:
    """Return the samples of both; None when they lie too far apart."""
    if not other.total or not one.total:
        some = one if one.total else other
        return Lanes(one.zeros + other.zeros, some.base, some.total)
    if one.base > other.base:
        one, other = other, one
    total = one.total + (other.total << _BITS * (other.base - one.base))
    if total.bit_length() > _BITS * MAX_LANES:
        return None
    return Lanes(one.zeros + other.zeros, one.base, total)


def pack(lanes: Lanes) -> Packed:
    """Return lanes as what MessagePack has."""
    return lanes.zeros, lanes.base, lanes.total.to_bytes(8 * _length(lanes), "little")


def unpack(packed: Packed) -> Lanes:
    """Return what pack() made."""
    return Lanes(packed[0], packed[1], int.from_bytes(packed[2], "little"))


def quantile(lanes: Lanes, q: float) -> float:
    """Return what sketch.quantile() returns for the same bins."""
    if lanes.base < 0 or not lanes.total:
        return sketch.quantile(to_bins(lanes), q)
    upto = list(accumulate(_counts(lanes), initial=lanes.zeros))
    rank = q * (upto[-1] - 1)
    low, high = math.floor(rank), math.ceil(rank)
    first, second = bisect_right(upto, low), bisect_right(upto, high)
    value = _middle(lanes.base, first)
    return value + (_middle(lanes.base, second) - value) * (rank - low) if second != first else value


def _middle(base: int, place: int) -> float:
    return sketch.middle_of(base + place - 1) if place else 0.0


def _counts(lanes: Lanes) -> "array[int]":
    counts = array("Q")
    counts.frombytes(lanes.total.to_bytes(8 * _length(lanes), "little"))
    return _little(counts)


def _length(lanes: Lanes) -> int:
    return (lanes.total.bit_length() + _BITS - 1) // _BITS


def _little(counts: "array[int]") -> "array[int]":
    if sys.byteorder == "big":
        counts.byteswap()
    return counts
