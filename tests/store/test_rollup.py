"""Roll-ups: the same numbers however the records were cut into batches."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datacat.errors import WireError
from datacat.store.cell import Cell
from datacat.store.columns import columns_of
from datacat.store.entry import delta_of, front_of
from datacat.store.fold import Head, fold
from datacat.store.rollup import FUTURE_US, MINUTE_US, PAST_US, from_old_rows, roll_up
from datacat.store.rollup_query import RollupQuery, collect, tag_value
from datacat.wire.records import DEFAULT_BOUNDS, Close, Event, Gap, Metric, Open, Verdict

HEAD = Head(id="x", product="p", version="1", updated_at=1)
NEW = Head(id="x", product="p", version="1")


def delta(*records, before=HEAD, received_us=1000):
    folded = fold(before, {}, records)
    return roll_up(before, columns_of(records), folded.transitions, folded.hang_ends, received_us)


def cells(*records, **more):
    return {tuple(row[:4]): row[4] for row in delta(*records, **more).rows}


def counts(*records, **more):
    return {(row[0], row[2]): row[4].count for row in delta(*records, **more).rows}


def only(*records):
    (cell,) = cells(*records).values()
    return cell


def test_a_merged_metric_stands_for_all_its_samples():
    timer = only(
        Metric(t=5, name="ms", type="timer", value=60.0, metadata={"sum": 60.0, "count": 3, "min": 10.0, "max": 30.0})
    )
    assert (timer.count, timer.sum, timer.min, timer.max, timer.last, timer.last_t) == (3, 60.0, 10.0, 30.0, 60.0, 5)
    assert [timer.quantile(q) for q in (0, 0.5, 1)] == [10, pytest.approx(20, rel=0.01), 30]
    gauge = only(Metric(t=5, name="g", value=9, metadata={"count": 4, "min": 1, "max": 9, "mean": 5.0}))
    assert (gauge.count, gauge.sum, gauge.min, gauge.max, gauge.last, gauge.mean) == (4, 20.0, 1, 9, 9, 5)
    assert sum(gauge.bins.values()) == 4


def test_a_counter_is_summed_and_keeps_no_distribution():
    total = only(*(Metric(t=n, name="c", type="counter", value=n) for n in range(1, 5)))
    assert total == Cell(4, 10, 1, 4, 4, 4)


def test_whole_sums_stay_exact_and_endless_ones_finite():
    assert only(*(Metric(t=n, name="c", type="counter", value=2**53 + 1) for n in (1, 2))).sum == 2**54 + 2
    assert only(*(Metric(t=n, name="c", type="counter", value=2**63 - 1) for n in (1, 2))).sum == pytest.approx(2.0**64)
    huge = delta(*(Metric(t=n, name="c", type="counter", value=1.7e308) for n in (1, 2)))
    assert delta_of(front_of(HEAD, 1, None, 0, huge)).rows[0][4].sum == 1.7e308


def test_metadata_that_is_none_of_ours_is_not_believed():
    metric = Metric(t=5, name="g", value=2, metadata={"count": True, "min": "x", "sum": None})
    assert only(metric).sum == 2
    odd = only(Metric(t=5, name="g", type="timer", value=2, metadata={"count": 3, "min": "x", "sum": None}))
    assert (odd.count, odd.sum, odd.min, odd.max) == (3, 2, 2, 2)
    for buckets in ("x", [1, "a"], [{"le": 1}], [{"le": 3, "count": 2}, {"le": "+Inf", "count": 1}], [2, 1], [None]):
        assert only(Metric(t=5, name="h", type="histogram", value=2, metadata={"buckets": buckets})).layouts == [
            (DEFAULT_BOUNDS, [0, 1, *[0] * (len(DEFAULT_BOUNDS) - 1)])
        ]


def test_buckets_of_a_histogram_are_kept_and_added():
    merged = {"buckets": [{"le": 1, "count": 2}, {"le": 10, "count": 5}, {"le": "+Inf", "count": 6}]}
    known = {"sum": 40, "count": 6, "min": 0.5, "max": 20}
    cell = only(
        Metric(t=5, name="h", type="histogram", value=40, metadata={**merged, **known}),
        Metric(t=6, name="h", type="histogram", value=5, metadata={"buckets": [1, 10]}),
    )
    assert cell.layouts == [((1, 10), [2, 4, 1])]
    assert cell.buckets() == ([1, 10], [2, 4, 1])
    assert cell.quantile(0.5) == pytest.approx(1 + 9 * 1.5 / 4)
    assert not cell.approximate


def test_histograms_with_other_buckets_are_joined():
    cell = only(
        Metric(t=5, name="h", type="histogram", value=5, metadata={"buckets": [10]}),
        Metric(t=6, name="h", type="histogram", value=15, metadata={"buckets": [20]}),
    )
    assert cell.approximate
    assert cell.buckets() == ([10, 20], [1.5, 0.5, 0])


def test_iterations_of_a_timer_count_each():
    cell = only(Metric(t=5, name="ms", type="timer", value=60, count=3))
    assert (cell.count, cell.sum, cell.min, cell.max) == (3, 60, 20, 20)


def test_tags_make_series_whatever_their_order():
    found = cells(
        Metric(t=1, name="m", value=1, tags=["b:2", "a:1"]),
        Metric(t=1, name="m", value=1, tags=["a:1", "b:2"]),
        Metric(t=1, name="m", value=1),
    )
    assert {series[3]: cell.count for series, cell in found.items()} == {("a:1", "b:2"): 2, (): 1}


def test_events_are_counted_by_the_minute_level_category_and_exception():
    found = cells(
        Event(t=7, name="a"),
        Event(t=3, name="a"),
        Event(t=MINUTE_US, name="a", level="error", category="db", exception_type="OSError"),
    )
    assert found == {
        (0, "event", "a", ("category:info", "level:info")): Cell(2, 0, 0, 0, 0, 7),
        (1, "event", "a", ("category:db", "exception:OSError", "level:error")): Cell(1, 0, 0, 0, 0, MINUTE_US),
    }
    mixed = cells(Event(t=9, name="a"), Event(t=3, name="b"), Event(t=5, name="a"), Event(t=8, name="b"))
    assert {series[2]: cell.last_t for series, cell in mixed.items()} == {"a": 9, "b": 8}


def test_changes_of_status_are_told_apart():
    story = [
        Open(t=1, product="p", version="1"),
        Verdict(t=2, status="hung"),
        Verdict(t=3, status="active", hang_s=1.5),
        Verdict(t=4, status="suspended"),
        Verdict(t=5, status="active"),
        Verdict(t=6, status="crashed", reason="unknown", hang_s=2.0),
    ]
    assert counts(*story, before=NEW) == {
        (0, word): count
        for word, count in [
            ("started", 1), ("hung", 1), ("recovered", 1), ("suspended", 1), ("resumed", 1), ("crashed", 1),
        ]
    }  # fmt: skip
    hangs = {series[2]: cell.sum for series, cell in cells(*story, before=NEW).items() if series[1] == "hang"}
    assert hangs == {"recovered": 1.5, "crashed": 2.0}


def test_an_end_that_is_corrected_counts_once():
    first = [Open(t=1, product="p", version="1"), Verdict(t=MINUTE_US, status="crashed", reason="unknown")]
    before = fold(NEW, {}, first).head
    assert counts(*first, before=NEW)[1, "crashed"] == 1
    assert counts(Close(t=2 * MINUTE_US), before=before) == {(1, "crashed"): -1, (2, "ended"): 1}


def test_impossible_times_count_as_of_receiving():
    received = 10 * PAST_US
    odd = [Metric(t=received - PAST_US - 2 * MINUTE_US, name="m", value=1), Metric(t=received, name="m", value=2)]
    (cell,) = cells(*odd, Metric(t=received + FUTURE_US + MINUTE_US, name="m", value=3), received_us=received).values()
    assert (cell.count, cell.sum, cell.last_t) == (3, 6, received)


def test_units_and_groups_are_told_once():
    told = delta(Metric(t=1, name="m", value=1, unit="ms"), Event(t=1, name="e", group="g"), Gap(t=1))
    assert (told.units, told.groups) == ({"m": "ms"}, {"g": 1})


def test_a_front_holds_everything_of_a_delta():
    told = delta(
        Metric(t=5, name="m", value=2.5, tags=["a"]),
        Metric(t=5, name="h", type="histogram", value=1),
        Event(t=1, name="a"),
    )
    assert delta_of(front_of(HEAD, 1, None, 0, told)) == told
    assert delta_of(front_of(HEAD, 1, None, 0, delta())) is None


def test_rows_of_an_early_version_are_read():
    old = [
        [0, "gauge", "g", 3, 6.0, 1, 3, 3, 9],
        [1, "event", "e", 2, 0, 0, 0, 0, 0],
        [1, "status", "active", 1, 0, 0, 0, 0, 0],
    ]
    told = from_old_rows(
        "p", "1", [*old, [0, "histogram", "h", 1, 6, 6, 6, 6, 9], [0, "counter", "c", 1, 6, 6, 6, 6, 9]]
    )
    assert [(row[1], row[2], row[4].count) for row in told.rows] == [
        ("gauge", "g", 3), ("event", "e", 2), ("status", "resumed", 1), ("histogram", "h", 1), ("counter", "c", 1),
    ]  # fmt: skip
    assert told.rows[0][4].quantile(0.5) == pytest.approx(2, rel=0.01)
    assert told.rows[3][4].buckets()[1][2] == 1


def test_groups_and_buckets_of_an_answer():
    parts = [
        delta(Metric(t=minute * MINUTE_US + 1, name=name, value=minute, tags=[f"room:{room}"]))
        for minute in range(6)
        for name in "ab"
        for room in ("x", "y")
    ]
    query = RollupQuery(interval_s=180, by=("name", "tag:room"), names=("a",), to_us=5 * MINUTE_US)
    answer = collect(parts, query).cells
    assert {key: cell.sum for key, cell in answer.items()} == {
        (0, ("a", "x")): 3, (0, ("a", "y")): 3, (3 * MINUTE_US, ("a", "x")): 7, (3 * MINUTE_US, ("a", "y")): 7,
    }  # fmt: skip
    whole = collect(parts, RollupQuery(from_us=MINUTE_US, tags=("room:x",), distributions=False)).cells
    assert {key: (cell.sum, cell.bins) for key, cell in whole.items()} == {(MINUTE_US, ()): (30, None)}


@pytest.mark.parametrize("query", [RollupQuery(interval_s=0), RollupQuery(interval_s=90), RollupQuery(by=("session",))])
def test_what_cannot_be_answered_is_refused(query):
    with pytest.raises(WireError):
        collect([], query)


def test_values_of_tags():
    tags = ("a", "room:kitchen", "size=3", "roommate:x")
    assert [tag_value(tags, key) for key in ("a", "room", "size", "roo", "b")] == ["", "kitchen", "3", None, None]


metrics = st.lists(
    st.builds(
        Metric,
        t=st.integers(0, 3 * MINUTE_US),
        name=st.sampled_from("ab"),
        value=st.integers(-1000, 1000),
        type=st.sampled_from(["gauge", "counter", "histogram", "timer"]),
        tags=st.none() | st.lists(st.sampled_from(["x:1", "x:2", "y"]), max_size=2),
        metadata=st.none()
        | st.fixed_dictionaries(
            {}, optional={name: st.none() | st.integers(-9, 9) for name in ("count", "min", "max", "mean", "sum")}
        ),
    ),
    max_size=30,
)


@given(metrics, st.randoms(use_true_random=False))
def test_parts_merge_in_any_order_to_the_whole(records, random):
    query = RollupQuery(interval_s=60, by=("kind", "name", "tags"))
    whole = collect([delta(*records)], query)
    parts = [delta(record) for record in records]
    random.shuffle(parts)
    assert collect(parts, query) == whole
