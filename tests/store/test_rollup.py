"""Roll-ups: the same numbers however the records were cut into batches."""

from hypothesis import given
from hypothesis import strategies as st

from datacat.store.fold import Head, Transition
from datacat.store.rollup import MINUTE_US, Cell, RollupQuery, collect, from_rows, roll_up, to_rows
from datacat.wire.records import Close, Event, Metric

HEAD = Head(id="x", product="p", version="1")


def cells(*records, transitions=()):
    return roll_up(records, transitions)


def test_a_merged_metric_stands_for_all_its_samples():
    metric = Metric(
        t=5, name="ms", type="timer", value=60.0, metadata={"sum": 60.0, "count": 3, "min": 10.0, "max": 30.0}
    )
    assert cells(metric) == {(0, "timer", "ms"): Cell(3, 60.0, 10.0, 30.0, 60.0, 5)}
    gauge = Metric(t=5, name="g", value=9, metadata={"count": 4, "min": 1, "max": 9, "mean": 5.0})
    assert cells(gauge) == {(0, "gauge", "g"): Cell(4, 20.0, 1, 9, 9, 5)}


def test_a_counter_is_summed():
    total = cells(*(Metric(t=n, name="c", type="counter", value=n) for n in range(1, 5)))
    assert total == {(0, "counter", "c"): Cell(4, 10, 1, 4, 4, 4)}


def test_metadata_that_is_none_of_ours_is_not_believed():
    metric = Metric(t=5, name="g", value=2, metadata={"count": True, "min": "x", "sum": None})
    assert cells(metric) == {(0, "gauge", "g"): Cell(1, 2, 2, 2, 2, 5)}
    odd = Metric(t=5, name="g", type="timer", value=2, metadata={"count": 3, "min": "x", "sum": None})
    assert cells(odd) == {(0, "timer", "g"): Cell(3, 2, 2, 2, 2, 5)}


def test_events_and_changes_of_status_are_counted_by_the_minute():
    total = cells(
        Event(t=1, name="a"),
        Event(t=MINUTE_US, name="a"),
        Event(t=MINUTE_US + 1, name="a"),
        Close(t=9),
        transitions=[Transition(3, "active", None, None, "app"), Transition(4, "active", None, None, "app")],
    )
    assert {series: cell.count for series, cell in total.items()} == {
        (0, "event", "a"): 1,
        (1, "event", "a"): 2,
        (0, "status", "active"): 2,
    }


def test_rows_hold_everything():
    total = cells(Metric(t=5, name="m", value=2.5), Event(t=1, name="a"))
    assert from_rows(to_rows(total)) == total


metrics = st.lists(
    st.builds(
        Metric,
        t=st.integers(0, 3 * MINUTE_US),
        name=st.sampled_from("ab"),
        value=st.integers(-1000, 1000),
        type=st.sampled_from(["gauge", "counter"]),
    ),
    max_size=30,
)


@given(metrics, st.randoms(use_true_random=False))
def test_parts_merge_in_any_order_to_the_whole(records, random):
    whole = collect([(HEAD, roll_up(records, []))], RollupQuery())
    parts = [roll_up([record], []) for record in records]
    random.shuffle(parts)
    assert collect([(HEAD, part) for part in parts], RollupQuery()) == whole
