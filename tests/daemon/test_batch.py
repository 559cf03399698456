"""A batch says what the app logged: folded in any cut, sums, samples, events and state stay what they were."""

import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datacat.daemon.batch import fold
from datacat.wire import state as law
from datacat.wire.lines import decode, encode
from datacat.wire.records import MAX_RECORD_BYTES, Beat, Close, Event, Metric, Open, StatePatch

T = 1_700_000_000_000_000


def lines(*records):
    return b"".join(map(encode, records))


def folded(data, **kwargs):
    return [json.loads(line) for line in fold(data, **kwargs).lines]


def counter(value, t=T, **kwargs):
    return Metric(t=t, name="n", value=value, type="counter", **kwargs)


def test_events_stay_byte_for_byte_and_in_order():
    data = b'{"k":"event","t":1,"name":"a","later":{"x":1}}\n' + lines(Event(t=2, name="b"), Event(t=1, name="c"))
    assert b"".join(fold(data).lines) == data


def test_an_unknown_kind_is_passed_on_as_it_came():
    data = b'{"t":1,"k":"span","x":[1]}\n'
    assert b"".join(fold(data).lines) == data


def test_a_thousand_counters_become_their_sum():
    (metric,) = folded(lines(*(counter(2, t=T + number) for number in range(1000))))
    assert (metric["value"], metric["type"], metric["t"]) == (2000, "counter", T + 999)


def test_counters_of_other_tags_units_and_metadata_stay_apart():
    rows = folded(lines(counter(1), counter(1, tags=["a"]), counter(1, unit="By"), counter(1, metadata={"host": "x"})))
    assert len(rows) == 4


def test_a_sum_that_is_no_number_any_more_is_not_made():
    rows = folded(lines(counter(1.7e308), counter(1.7e308)))
    assert [row["value"] for row in rows] == [1.7e308, 1.7e308]


def test_histogram_samples_merge_into_cumulative_buckets():
    samples = [
        Metric(t=T, name="h", value=value, type="histogram", metadata={"buckets": [1, 10]}) for value in (0.5, 1, 5, 50)
    ]
    (row,) = folded(lines(*samples))
    assert row["value"] == 56.5
    assert row["metadata"] == {
        "sum": 56.5,
        "count": 4,
        "min": 0.5,
        "max": 50,
        "buckets": [{"le": 1, "count": 2}, {"le": 10, "count": 3}, {"le": "+Inf", "count": 4}],
    }


def test_what_was_merged_before_merges_again():
    one = folded(lines(*(Metric(t=T, name="h", value=v, type="histogram") for v in (1, 20))))
    two = folded(lines(*(Metric(t=T, name="h", value=v, type="histogram") for v in (7, 9000, 3))))
    again = folded(b"".join(json.dumps(row).encode() + b"\n" for row in one + two))
    direct = folded(lines(*(Metric(t=T, name="h", value=v, type="histogram") for v in (1, 20, 7, 9000, 3))))
    assert again == direct


def test_timers_merge_by_their_moments_and_items():
    (row,) = folded(lines(*(Metric(t=T, name="t", value=v, type="timer", count=10, unit="seconds") for v in (1, 3))))
    assert (row["value"], row["count"], row["metadata"]) == (4, 20, {"sum": 4, "count": 2, "min": 1, "max": 3})


def test_a_gauge_keeps_one_point_a_second():
    rows = folded(lines(*(Metric(t=T + ms * 1000, name="g", value=ms) for ms in (0, 500, 900, 1500))))
    assert [(row["value"], row.get("metadata")) for row in rows] == [
        (900, {"count": 3, "min": 0, "max": 900, "mean": 1400 / 3}),
        (1500, None),
    ]


def test_a_long_time_away_does_not_become_one_point():
    rows = folded(lines(*(counter(1, t=T + second * 1_000_000) for second in range(60))))
    assert [row["value"] for row in rows] == [10] * 6


@pytest.mark.parametrize(
    "metadata",
    [
        {"buckets": [3, 1]},
        {"buckets": [{"le": 1, "count": 1}]},
        {"buckets": [{"le": 1, "count": 5}, {"le": "+Inf", "count": 1}], "count": 1},
        {"buckets": "many"},
        {"count": "x"},
    ],
)
def test_samples_of_an_odd_shape_are_sent_as_they_came(metadata):
    data = lines(*[Metric(t=T, name="h", value=1, type="histogram", metadata=metadata)] * 2)
    assert b"".join(fold(data).lines) == data


def test_updates_within_25_ms_become_one_and_others_keep_their_time():
    patches = [(0, {"a": 1}), (20_000, {"b": {"c": 2}}), (30_000, {"a": 3}), (300_000, {"a": 4})]
    rows = folded(lines(*(StatePatch(t=T + t, patch=patch) for t, patch in patches)))
    assert [(row["t"] - T, row["patch"]) for row in rows] == [
        (20_000, {"a": 1, "b": {"c": 2}}),
        (30_000, {"a": 3}),
        (300_000, {"a": 4}),
    ]


def test_updates_that_have_no_composition_stay_apart():
    rows = folded(lines(StatePatch(t=T, patch={"a": None}), StatePatch(t=T + 1, patch={"a": {"b": 1}})))
    assert [row["patch"] for row in rows] == [{"a": None}, {"a": {"b": 1}}]


def test_an_event_between_two_updates_keeps_its_place():
    rows = folded(lines(StatePatch(t=T, patch={"a": 1}), Event(t=T + 1, name="e"), StatePatch(t=T + 2, patch={"a": 2})))
    assert [row["k"] for row in rows] == ["state", "event", "state"]


def test_unchanged_state_is_dropped_when_the_state_is_known():
    opened = Open(t=T, product="p", version="1", state={"a": 1, "b": {"c": 2}})
    rows = folded(lines(opened, StatePatch(t=T, patch={"a": 1}), StatePatch(t=T, patch={"b": {"c": 2, "d": 3}})))
    assert [row.get("patch") for row in rows] == [None, {"b": {"d": 3}}]
    assert folded(lines(StatePatch(t=T, patch={"a": 1}))) != []
    assert folded(lines(StatePatch(t=T, patch={"a": 1})), state={"a": 1}) == []


def test_the_last_batch_keeps_every_record_on_its_own():
    data = lines(counter(1), counter(2), StatePatch(t=T, patch={"a": 1}), StatePatch(t=T, patch={"a": 1}), Close(t=T))
    assert b"".join(fold(data, last=True).lines) == data


def test_only_the_newest_heartbeat_is_sent():
    assert [row["t"] for row in folded(lines(*(Beat(t=t) for t in (1, 2, 3))))] == [3]


def test_an_open_record_learns_who_judges_the_session():
    (row,) = folded(lines(Open(t=T, product="p", version="1")), daemon_id="d1")
    assert row["daemon_id"] == "d1"
    (row,) = folded(lines(Open(t=T, product="p", version="1", daemon_id="d0")), daemon_id="d1")
    assert row["daemon_id"] == "d0"


@pytest.mark.parametrize(
    ("bad", "kept"),
    [
        (b"not json", None),
        (b"[1]", None),
        (b'{"t":1}', None),
        (b"\xff\xfe", None),
        (b'{"k":"event","name":"no time"}', {"name": "no time", "t": T}),
        (b'{"k":"event","t":5,"name":"n","level":"loud"}', {"name": "n", "bad_level": "loud"}),
        (b'{"k":"event","t":5,"name":7}', {"name": "7"}),
        (b'{"k":"event","t":5}', {"name": "unnamed"}),
        (b'{"k":"metric","t":5,"name":"m","value":"x"}', {"bad_value": "x"}),
        (b'{"k":"event","t":5,"name":"n","data":' + b'{"a":' * 40 + b"1" + b"}" * 41, {"name": "n"}),
    ],
)
def test_one_bad_line_is_mended_or_counted_and_never_stops_the_rest(bad, kept):
    rows = folded(lines(Event(t=T, name="before")) + bad + b"\n" + lines(Event(t=T, name="after")))
    assert (rows[0]["name"], rows[1 if kept is None else 2]["name"]) == ("before", "after")
    if kept is None:
        assert rows[2] == {"k": "dropped", "t": T, "counts": {"malformed": 1}}
    else:
        assert rows[1].items() >= kept.items()


def test_a_record_that_is_too_large_is_cut_with_a_mark():
    (row,) = folded(lines(Event(t=T, name="big", message="m" * 100_000)))
    assert row["message"].endswith("…[cut]")
    (line,) = fold(lines(Event(t=T, name="big", data={f"k{n}": "v" * 90 for n in range(2000)}))).lines
    assert len(line) <= MAX_RECORD_BYTES
    assert decode(line[:-1]).name == "big"


def test_an_unfinished_record_is_counted():
    assert fold(lines(Event(t=T, name="a")), torn=True).dropped == {"torn": 1}


names = st.sampled_from("ab")
values = st.integers(-1000, 1000)
patches = st.dictionaries(
    names, st.none() | values | st.dictionaries(names, st.none() | values, max_size=2), max_size=2
)
kinds = st.one_of(
    st.builds(lambda n, v: ("counter", n, v), names, values),
    st.builds(lambda n, v: ("histogram", n, v), names, values),
    st.builds(lambda n, v: ("timer", n, v), names, values),
    st.builds(lambda n: ("event", n, None), names),
    st.builds(lambda p: ("state", None, p), patches),
)


def record(t, kind, name, value):
    if kind == "event":
        return Event(t=t, name=name)
    if kind == "state":
        return StatePatch(t=t, patch=value)
    return Metric(t=t, name=name, value=value, type=kind)


def totals(rows):
    """What is to stay equal: sums and counts of metrics, events in order, the state at the end."""
    sums, counts, events, state = Counter(), Counter(), [], {}
    for row in rows:
        if row["k"] == "event":
            events.append((row["t"], row["name"]))
        elif row["k"] == "state":
            state = law.merge(state, row["patch"])
        elif row["k"] == "metric":
            key = row["type"], row["name"]
            metadata = row.get("metadata") or {}
            sums[key] += row["value"]
            counts[key] += 0 if row["type"] == "counter" else metadata.get("count", 1)
    return sums, counts, events, state


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 60_000), kinds), max_size=30),
    st.lists(st.integers(0, 30), max_size=4),
    st.booleans(),
)
def test_folding_in_any_cut_says_what_was_logged(logged, cuts, known):
    t, records = T, []
    for gap_us, kind in logged:
        t += gap_us
        records.append(record(t, *kind))
    rows, state, start = [], {} if known else None, 0
    for cut in [*sorted(min(cut, len(records)) for cut in cuts), len(records)]:
        batch = fold(lines(*records[start:cut]), state=state)
        state, start = batch.state if known else None, cut
        rows += [json.loads(line) for line in batch.lines]
    raw = [json.loads(line) for line in lines(*records).splitlines()]
    for row in raw:
        row.setdefault("value", 0)
        row.setdefault("patch", {})
    for row in rows:
        row.setdefault("value", 0)
        row.setdefault("patch", {})
    assert totals(rows) == totals(raw)


@settings(max_examples=100, deadline=None)
@given(st.lists(values, min_size=1, max_size=30), st.lists(st.integers(0, 30), max_size=3))
def test_buckets_folded_in_any_cut_are_those_of_the_samples(samples, cuts):
    records = [
        Metric(t=T, name="h", value=value, type="histogram", metadata={"buckets": [-10, 0, 10]}) for value in samples
    ]
    counts, start = Counter(), 0
    for cut in [*sorted(min(cut, len(records)) for cut in cuts), len(records)]:
        for row in folded(lines(*records[start:cut])):
            bounds = row["metadata"]["buckets"]
            if isinstance(bounds[0], dict):
                counts.update({bucket["le"]: bucket["count"] for bucket in bounds})
            else:
                value = row.get("value", 0)
                counts.update([le for le in bounds if value <= le] + ["+Inf"])
        start = cut
    expected = Counter({le: sum(value <= le for value in samples) for le in (-10, 0, 10)} | {"+Inf": len(samples)})
    assert +counts == +expected
