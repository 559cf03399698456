import math

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datacat.client import repair
from datacat.wire import lines, records
from datacat.wire.records import Close, Event, Metric, Open, StatePatch

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(codec=None), max_size=300)
    | st.binary(max_size=20)
    | st.builds(object),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner)
        | st.dictionaries(st.text(max_size=3) | st.integers() | st.none(), inner, max_size=4)
    ),
    max_leaves=30,
)


@settings(max_examples=300, deadline=None)
@given(st.lists(anything, min_size=13, max_size=13), st.sampled_from([Event, Metric, StatePatch, Open, Close]))
def test_whatever_is_in_a_record_its_line_is_accepted_everywhere(values, kind):
    members = len(kind.__struct_fields__) - 1
    line, changed = repair.encode(kind(7, *values[:members]))
    assert line.endswith(b"\n")
    assert len(line) <= records.MAX_RECORD_BYTES
    record = lines.decode(line[:-1])
    assert record.t == 7
    assert isinstance(changed, bool)


def test_a_good_record_is_left_as_it_is():
    event = Event(1, "x", "error", data={"a": None, "b": [1.5]}, labels=["l"])
    line, changed = repair.encode(event)
    assert not changed
    assert lines.decode(line[:-1]) == event


@pytest.mark.parametrize(
    ("word", "level"),
    [("WARN", "warning"), ("fatal", "critical"), ("Error", "error"), ("trace", "info"), (None, "info"), (3, "info")],
)
def test_levels_of_other_libraries_are_understood(word, level):
    assert repair.repaired(Event(1, "x", word), 100).level == level


def test_an_unknown_level_of_an_exception_is_error():
    assert repair.repaired(Event(1, "x", "?", exception_type="E"), 100).level == "error"


@pytest.mark.parametrize(
    ("given", "kept"),
    [(True, 1), ("1.5", 1.5), (2**70, float(2**70)), (math.nan, None), (None, None), ([], None), (10**400, None)],
)
def test_a_number_is_what_can_be_read_as_one(given, kept):
    metric = repair.repaired(Metric(1, "x", given), 100)
    if kept is None:
        assert isinstance(metric, Event)
    else:
        assert (metric.value, type(metric.value)) == (kept, type(kept))


def test_pairs_and_single_texts_become_tags():
    assert repair.repaired(Metric(1, "x", 1, tags={"a": 1}), 100).tags == ["a:1"]
    assert repair.repaired(Metric(1, "x", 1, tags="one"), 100).tags == ["one"]


def test_a_record_with_far_too_much_keeps_its_name_and_its_beginning():
    wide = {f"k{i}" * 40: {"n": ["v" * 500] * 500} for i in range(500)}
    line, changed = repair.encode(Event(1, "huge", data=wide, stacktrace=["s" * 5000] * 500, labels=["l" * 500] * 5000))
    assert changed
    record = lines.decode(line[:-1])
    assert record.name == "huge"
    assert len(line) <= records.MAX_RECORD_BYTES


def test_a_stack_given_as_one_text_is_split_into_lines():
    assert repair.repaired(Event(1, "x", stacktrace="a\nb"), 100).stacktrace == ["a", "b"]


def test_members_are_named_for_what_is_left():
    assert repair.record_members(Close(1, 2)) == {"t": 1, "exit_code": 2}
    assert msgspec.json.decode(repair.encode(Close(1, "x"))[0]) == {"k": "close", "t": 1}
