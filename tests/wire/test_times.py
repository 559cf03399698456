"""Timestamps of every allowed form become Unix microseconds, and nothing else does."""

import pytest

from datacat.errors import WireError
from datacat.wire.times import rfc3339, to_us

NOON_US = 1_769_860_800_123_456


@pytest.mark.parametrize(
    "value",
    [
        "2026-01-31T12:00:00.123456Z",
        "2026-01-31T13:00:00.123456+01:00",
        "2026-01-31 12:00:00.123456+00:00",
        "2026-01-31t12:00:00.123456z",
        1_769_860_800.123456,
        1_769_860_800_123.456,
        NOON_US,
    ],
)
def test_every_form_of_one_moment_is_the_same_number(value):
    assert to_us(value) == NOON_US


def test_a_written_time_is_read_back():
    assert rfc3339(NOON_US) == "2026-01-31T12:00:00.123456Z"
    assert to_us(rfc3339(0)) == 0


def test_whole_seconds_and_milliseconds_are_exact():
    assert to_us(1_769_860_800) == 1_769_860_800_000_000
    assert to_us(1_769_860_800_001) == 1_769_860_800_001_000


@pytest.mark.parametrize(
    "value", ["", "noon", "2026-01-31", "2026-01-31T12:00:00", None, True, [], {}, -1, float("nan"), 1e300, 10**30]
)
def test_what_is_no_time_is_refused(value):
    with pytest.raises(WireError):
        to_us(value)
