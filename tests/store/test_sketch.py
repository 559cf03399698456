"""Quantiles: within 1 % of the exact ones, whatever the samples; buckets as Prometheus answers."""

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datacat.store import sketch

numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**63), 2**64)


def exact(values, q):
    ordered = sorted(values)
    rank = q * (len(ordered) - 1)
    low, high = ordered[math.floor(rank)], ordered[math.ceil(rank)]
    return low + (high - low) * (rank - math.floor(rank))


@given(numbers)
def test_a_bin_is_within_one_percent_of_its_values(value):
    middle = sketch.middle_of(sketch.bin_of(value))
    assert abs(middle - value) <= 0.010001 * abs(value) or abs(value) < 1e-307 or abs(value) > 1.69e308


@given(numbers, numbers)
def test_bins_sort_like_values(one, other):
    if one < other:
        assert sketch.bin_of(one) <= sketch.bin_of(other)


@given(st.lists(st.floats(1e-3, 1e9) | st.just(0.0), min_size=1, max_size=200), st.floats(0, 1))
def test_quantiles_of_values_of_one_sign_are_within_one_percent(values, q):
    bins = sketch.bins_of(values, min(values))
    assert sketch.quantile(bins, q) == pytest.approx(exact(values, q), rel=0.0101)
    negative = [-value for value in values]
    assert sketch.quantile(sketch.bins_of(negative, min(negative)), q) == pytest.approx(exact(negative, q), rel=0.0101)


def test_quantiles_of_mixed_signs():
    values = [*range(-500, 0), *range(1, 502)]
    bins = sketch.bins_of(values, min(values))
    assert sketch.quantile(bins, 0.25) == pytest.approx(-250, rel=0.015)
    assert sketch.quantile(bins, 0.75) == pytest.approx(251, rel=0.015)


def test_bins_merge_and_stay_few():
    into = {}
    for exponent in range(-300, 300):
        sketch.add_bins(into, sketch.bins_of([10.0**exponent * step for step in range(1, 10)], 10.0**exponent))
    assert len(into) == sketch.MAX_BINS
    assert sum(into.values()) == 5400
    assert sketch.quantile(into, 0.95) == pytest.approx(1e270, rel=10)


def test_samples_of_which_little_is_known_keep_count_and_sum():
    assert sketch.spread(1, 5, 5, 5) == [(5, 1)]
    assert sketch.spread(2, 5, 1, 4) == [(1, 1), (4, 1)]
    assert sketch.spread(5, 20, 1, 10) == [(1, 1), (3, 3), (10, 1)]
    assert sketch.spread(4, 1000, 1, 10) == [(1, 1), (10, 2), (10, 1)], "a sum that cannot be stays between the ends"


def test_bucket_quantiles_are_those_of_prometheus():
    bounds, counts = [1, 2, 4], [10, 10, 20, 0]
    assert sketch.bucket_quantile(bounds, counts, 0.25) == 1
    assert sketch.bucket_quantile(bounds, counts, 0.125) == pytest.approx(0.5)
    assert sketch.bucket_quantile(bounds, counts, 0.75) == pytest.approx(3)
    assert sketch.bucket_quantile(bounds, [1, 0, 0, 9], 0.9) == 4, "above every bound it is the last one"
    assert sketch.bucket_quantile([-1, 2], [4, 0, 0], 0.5) == -1, "a first bound that is not positive"
    assert sketch.bucket_quantile([1], [0, 0], 0.5) is None
    assert sketch.bucket_quantile([], [3], 0.5) is None


def test_layouts_are_joined_on_all_bounds():
    bounds, counts = sketch.join_layouts([((10,), [4, 1]), ((5, 20), [2, 2, 0])])
    assert bounds == [5, 10, 20]
    assert counts == pytest.approx([2 + 2, 2 + 2 / 3, 2 * 2 / 3, 1])
    assert sum(counts) == pytest.approx(9)


def test_large_samples_of_a_known_distribution():
    values = [statistics.NormalDist(100, 15).inv_cdf((n + 0.5) / 10_000) for n in range(10_000)]
    bins = sketch.bins_of(values, min(values))
    for q in (0.01, 0.5, 0.9, 0.99):
        assert sketch.quantile(bins, q) == pytest.approx(exact(values, q), rel=0.01)
