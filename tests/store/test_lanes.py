"""Lanes hold the same samples as bins, and add up to the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datacat.store import lanes, sketch
from datacat.store.cell import Cell

near = st.dictionaries(st.integers(40_000, 40_300), st.integers(1, 2**40), min_size=1, max_size=60)
zeros = st.integers(0, 5)


def with_zeros(bins, count):
    return {**bins, 0: count} if count else bins


@given(near, zeros, st.floats(0, 1))
def test_lanes_are_the_same_bins(bins, count, q):
    bins = with_zeros(bins, count)
    made = lanes.of_bins(bins)
    if made is not None:
        assert lanes.to_bins(made) == bins
        assert lanes.unpack(lanes.pack(made)) == made
        assert lanes.quantile(made, q) == pytest.approx(sketch.quantile(bins, q))


@given(st.lists(st.tuples(near, zeros, st.booleans(), st.sampled_from([1, -1])), min_size=1, max_size=6))
def test_cells_add_up_the_same_with_bins_with_lanes_and_with_both(parts):
    total = None
    expected = {}
    for bins, count, dense, sign in parts:
        some = with_zeros({sign * number: samples for number, samples in bins.items()}, count)
        sketch.add_bins(expected, some)
        made = lanes.of_bins(some) if dense else None
        cell = Cell(1, 0, 0, 0, 0, 0, dict(some) if made is None else made)
        if total is None:
            total = cell.copy()
        else:
            total.merge(cell)
        assert cell.bins == some, "what is merged stays as it is"
    assert total.bins == expected


def test_few_bins_far_apart_stay_a_dict():
    assert lanes.of_bins({40_000: 1, 41_000: 1}) is None
    assert lanes.of_bins({40_000 + number: 1 for number in range(3000)}) is None
    assert lanes.of_bins({-40_000: 1, 40_000: 1}) is None
    assert lanes.add(lanes.of_bins({40_000: 1}), lanes.of_bins({45_000: 1})) is None


def test_zeros_alone_are_samples_too():
    made = lanes.of_bins({0: 3})
    assert lanes.to_bins(made) == {0: 3}
    assert lanes.quantile(made, 0.5) == 0
    assert lanes.to_bins(lanes.add(made, lanes.of_bins({40_000: 1}))) == {0: 3, 40_000: 1}
    assert lanes.to_bins(lanes.add(lanes.of_bins({40_000: 1}), made)) == {0: 3, 40_000: 1}
