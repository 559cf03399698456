"""The check of a batch: the quick way and the careful way agree, and what passes can be read for ever."""

import json
import os
import time

import msgspec
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datacat.server.checking import checked
from datacat.server.problems import Refusal
from datacat.wire import lines
from datacat.wire.records import CUT_MARK, MAX_RECORD_BYTES, Close, Event, Open, StatePatch

MINUTES = 10
T = 1_800_000_000_000_000
EVENTS = [Event(T + i, f"event{i}", message="x" * 40, data={"path": [1, {"a": None}]}) for i in range(50)]


def bodied(*records):
    return b"".join(map(lines.encode, records))


def zipped(body, **options):
    return zstandard.ZstdCompressor(level=3, **options).compress(body)


def test_records_come_with_their_bytes_in_order():
    found = checked(bodied(*EVENTS))
    assert [line.raw + b"\n" for line in found] == [lines.encode(event) for event in EVENTS]
    assert [(line.record.t, line.record.name, line.record.data) for line in found] == [
        (event.t, event.name, event.data) for event in EVENTS
    ]
    assert (len(found), found[3].record.name, [line.raw for line in found[1:3]]) == (50, "event3", found.raws[1:3])


def test_a_whole_frame_is_handed_on_when_every_line_stays_as_it_came():
    for records in (EVENTS, [Open(T, "editor", "1"), *EVENTS, StatePatch(T, {"a": 1}), Close(T)]):
        body = bodied(*records)
        frame = zipped(body)
        assert checked(body, frame).frame is frame


@pytest.mark.parametrize(
    "body",
    [
        bodied(*EVENTS)[:-1],
        bodied(*EVENTS) + b"\n",
        b"\n" + bodied(*EVENTS),
        bodied(*EVENTS, Event(T, "n" * 300)),
    ],
)
def test_a_frame_that_says_something_else_is_not_handed_on(body):
    found = checked(body, zipped(body))
    assert found.frame is None
    assert len(found) >= 50


def test_a_frame_that_others_could_not_read_is_not_handed_on():
    body = bodied(*EVENTS)
    assert checked(body, zipped(body, write_content_size=False)).frame is None
    assert checked(body, body[: len(body) // 2 + 100]).frame is None


@pytest.mark.parametrize(
    ("raw", "pointer"),
    [
        (b'{"t":1,"k":"event","name":"a","of_a_later_version":[1e999]}', ""),
        (b'{"t":1,"k":"event","name":"a","of_a_later_version":"\xff"}', ""),
        (b'{"t":1,"k":"of_a_later_version","data":{"x":1e999}}', ""),
        (b'{"t":1,"k":"event","name":"a","data":{"x":"\xff"}}', ""),
        (b'{"t":1,"k":"event","name":"a","data":{"x":NaN}}', ""),
        (b'{"t":1,"k":"event","name":"a","data":{"x":"\\ud800"}}', ""),
        (b'{"t":1,"k":"event","name":"a"} {"t":1,"k":"event","name":"b"}', ""),
        (b'{"t":1,"k":"event","name":"a","k":"open","product":"a","version":"b"}', "/k"),
        (b'{"t":1,"k":"event","name":""}', "/name"),
        (b'{"t":-1,"k":"event","name":"a"}', "/t"),
        (b'{"t":1,"k":"event","name":"a","level":"loud"}', "/level"),
        (b'{"t":1,"k":"metric","name":"a","type":"odd"}', "/type"),
        (b"[" * 5000, ""),
        (b'{"t":1,"k":"event","name":"a","data":' + b'{"a":' * 3000 + b"1" + b"}" * 3001, ""),
    ],
)
def test_a_line_that_nobody_could_read_again_is_refused_and_named(raw, pointer):
    with pytest.raises(Refusal) as caught:
        checked(bodied(EVENTS[0]) + raw + b"\n" + bodied(EVENTS[1]))
    assert caught.value.status == 422
    assert [error["pointer"] for error in caught.value.errors] == [f"/1{pointer}"]


def test_the_last_of_two_members_with_one_name_counts_for_the_check_and_for_readers():
    line = checked(b'{"t":1,"t":2,"k":"event","name":"","name":"b"}')[0]
    members = lines.decode_object(line.raw)
    assert (line.record.t, line.record.name) == (members["t"], members["name"]) == (2, "b")
    with pytest.raises(Refusal):
        checked(b'{"t":1,"k":"event","name":"b","name":""}')


def test_what_is_deep_is_taken_and_what_is_too_deep_is_cut():
    deep, too_deep = (msgspec.json.decode(b'{"a":' * depth + b"1" + b"}" * depth) for depth in (20, 60))
    found = checked(
        bodied(Event(T, "deep", data=deep)) + msgspec.json.encode({"t": 1, "k": "event", "name": "x", "data": too_deep})
    )
    assert found[0].record.data == deep
    assert CUT_MARK.encode() in found[1].raw


def test_a_long_record_among_short_ones_is_cut_alone():
    found = checked(bodied(*EVENTS, Event(T, "long", message="m" * 2 * MAX_RECORD_BYTES)))
    assert found.raws[:50] == [lines.encode(event)[:-1] for event in EVENTS]
    assert len(found.raws[50]) < MAX_RECORD_BYTES


scalars = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=20)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
members = st.dictionaries(
    st.sampled_from(
        ["t", "k", "name", "level", "data", "value", "type", "tags", "metadata", "patch", "status", "zz", "product"]
    ),
    values | st.sampled_from(["event", "metric", "info", "gauge", "state", "open", 1, 10**15]),
)
good = st.fixed_dictionaries(
    {"t": st.integers(0, 2**52), "k": st.sampled_from(["event", "metric"]), "name": st.text(min_size=1, max_size=9)},
    optional={"data": st.dictionaries(st.text(max_size=4), values, max_size=3), "zz": values},
)


def text_of(value):
    return json.dumps(value).encode()


@st.composite
def bodies(draw):
    parts = draw(
        st.lists(
            good.map(text_of)
            | members.map(text_of)
            | st.binary(max_size=40)
            | st.sampled_from([b"", b"\r", b"{}", b"null"]),
            max_size=6,
        )
    )
    body = draw(st.sampled_from([b"\n", b"\n\n", b" "])).join(parts) + draw(st.sampled_from([b"", b"\n"]))
    for _ in range(draw(st.integers(0, 2))):
        if body:
            at = draw(st.integers(0, len(body) - 1))
            body = body[:at] + draw(st.binary(min_size=0, max_size=2)) + body[at + 1 :]
    return body


def readable(body):
    """Whatever the body is: refused, or stored as lines that every reader understands as the check did."""
    try:
        found = checked(body, zipped(body))
    except Refusal as refusal:
        if (refusal.status, bool(refusal.errors)) != (422, True):
            raise
        return
    for line in found:
        told = lines.decode_object(line.raw)
        assert b"\n" not in line.raw
        assert (told["t"], told["k"]) == (line.record.t, getattr(line.record, "k", told["k"]))
        again = lines.decode(line.raw)
        assert msgspec.to_builtins(again) == msgspec.to_builtins(line.record)
    if found.frame is not None:
        assert zstandard.ZstdDecompressor().decompress(found.frame).split(b"\n") == [*found.raws, b""]


@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(bodies())
def test_whatever_comes_is_refused_or_can_be_read_again(body):
    readable(body)


@pytest.mark.long
@pytest.mark.timeout(MINUTES * 60 + 120)
def test_whatever_comes_in_ten_minutes_is_refused_or_can_be_read_again():
    end = time.monotonic() + 60 * float(os.environ.get("DATACAT_FUZZ_MINUTES", MINUTES))
    some = settings(max_examples=5000, deadline=None, database=None, suppress_health_check=list(HealthCheck))(
        given(bodies())(readable)
    )
    while time.monotonic() < end:
        some()
