"""The safe form of a value is accepted at every border; limits are what the module says."""

import datetime as dt
import math

import msgspec
import pytest

from datacat.wire.records import (
    CUT_MARK,
    MAX_DEPTH,
    MAX_TEXT_CHARS,
    cut_text,
    depth_of,
    event_level,
    is_finite_json,
    safe_form,
)


class Broken:
    def __repr__(self):
        raise RuntimeError("no words")


CYCLE = []
CYCLE.append(CYCLE)
WILD = [
    math.nan,
    math.inf,
    -math.inf,
    2**64,
    -(2**63) - 1,
    "\ud800",
    {"\ud800": 1, 5: 2, None: 3, (1, 2): 4},
    {1, 2, 3},
    b"\xff",
    object(),
    Broken(),
    dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
    CYCLE,
    "x" * (MAX_TEXT_CHARS * 2),
    {"n" * 500: 1},
]


@pytest.mark.parametrize("value", WILD, ids=lambda value: type(value).__name__)
def test_the_safe_form_of_anything_survives_a_round_trip_through_json(value):
    safe = safe_form({"value": value})

    assert msgspec.json.decode(msgspec.json.encode(safe)) == safe
    assert is_finite_json(safe)
    assert depth_of(safe) <= MAX_DEPTH


@pytest.mark.parametrize("value", [None, True, 1, 1.5, 2**64 - 1, -(2**63), "ä", [1, [None]], {"a": {"b": "c"}}])
def test_the_safe_form_of_plain_json_is_itself(value):
    assert safe_form(value) == value


def test_a_text_that_is_cut_says_so_and_keeps_the_limit():
    assert cut_text("x" * 300, 200) == "x" * (200 - len(CUT_MARK)) + CUT_MARK
    assert cut_text("short", 200) == "short"


def test_depth_counts_nested_objects_and_arrays():
    assert [depth_of(value) for value in (1, [], {}, [1, {"a": [2]}], {"a": {"b": {}}, "c": 1})] == [0, 1, 1, 3, 3]


@pytest.mark.parametrize(
    ("level", "category", "has_exception", "expected"),
    [
        ("warning", "error", True, "warning"),
        (None, "error", False, "error"),
        (None, "network", False, "info"),
        (None, "network", True, "error"),
        (None, None, False, "info"),
    ],
)
def test_a_level_is_as_given_else_by_category_else_by_exception(level, category, has_exception, expected):
    assert event_level(level, category, has_exception) == expected


def test_how_deep_a_value_is_nested_does_not_matter_to_the_search_for_nan():
    deep, bad = 1.0, float("nan")
    for _ in range(5_000):
        deep, bad = {"a": [deep]}, [{"a": bad}]
    assert is_finite_json(deep)
    assert not is_finite_json(bad)
