"""Counting different things: exact when few, near when many, however they are merged."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datacat.store.distinct import EXACT, Distinct, hash_of


def counted(numbers):
    seen = Distinct()
    for number in numbers:
        seen.add(hash_of(str(number)))
    return seen


@given(st.lists(st.integers(0, EXACT - 1)))
def test_few_are_counted_exactly(numbers):
    assert counted(numbers).count() == len(set(numbers))


@pytest.mark.parametrize("size", [129, 500, 5_000, 100_000])
def test_many_are_counted_within_ten_percent(size):
    assert counted(range(size)).count() == pytest.approx(size, rel=0.1)


@pytest.mark.parametrize(("left", "right"), [(5, 100), (100, 500), (500, 100), (500, 600)])
def test_parts_merge_to_the_whole_and_survive_packing(left, right):
    one, other = counted(range(left)), counted(range(left // 2, left // 2 + right))
    whole = counted({*range(left), *range(left // 2, left // 2 + right)})
    one.merge(other)
    assert one.count() == whole.count()
    assert Distinct.unpack(one.pack()).count() == whole.count()
    assert Distinct.unpack(one.pack()).pack() == whole.pack()
