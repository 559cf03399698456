"""Records and NDJSON lines turn into each other; what is no record is named, never fatal."""

import pytest

from datacat.errors import WireError
from datacat.wire import lines
from datacat.wire.records import (
    MAX_DEPTH,
    Beat,
    Close,
    Closing,
    Dropped,
    Event,
    Gap,
    Metric,
    Open,
    StatePatch,
    Unknown,
    Verdict,
    kind_of,
)

RECORDS = [
    Open(1, "shop", "1.0", pid=7, state={"a": 1}),
    StatePatch(2, {"a": {"b": None}}),
    Event(3, "saved", level="error", labels=["x"], data={"n": [1, 2.5, None]}, stacktrace=["f"], source_line=3),
    Metric(4, "io:read", 2**63 - 1, "counter", unit="By", tags=["disk:a"]),
    Metric(5, "latency", 0.25, "histogram", metadata={"buckets": [{"le": "+Inf", "count": 1}]}),
    Closing(6, exit_code=3),
    Close(7, 0),
    Beat(8),
    Gap(9, "diverged", 10, {"product": "shop"}, {"a": 1}),
    Dropped(10, {"disk_full": 3}),
    Verdict(11, "crashed", "signal", exit_signal=11),
]


@pytest.mark.parametrize("record", RECORDS, ids=kind_of)
def test_a_record_read_back_from_its_line_is_the_same(record):
    line = lines.encode(record)

    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert lines.decode(line[:-1]) == record


def test_a_record_of_a_kind_from_the_future_is_kept_as_it_came():
    raw = b'{"t":5,"k":"hologram","depth":3}'

    assert lines.decode(raw) == Unknown(5, "hologram")
    assert lines.decode_lines(raw + b"\n")[0][0].raw == raw


def test_unknown_fields_do_not_hinder_reading():
    assert lines.decode(b'{"t":1,"k":"event","name":"n","mood":"good"}') == Event(1, "n")


@pytest.mark.parametrize(
    ("raw", "pointer"),
    [
        (b'{"t":"1","k":"event","name":"n"}', "/t"),
        (b'{"t":-1,"k":"event","name":"n"}', "/t"),
        (b'{"t":1000000000000000000,"k":"event","name":"n"}', "/t"),
        (b'{"t":1,"k":"event","name":5}', "/name"),
        (b'{"t":1,"k":"event"}', "/name"),
        (b'{"t":1,"k":"event","name":"n","level":"loud"}', "/level"),
        (b'{"t":1,"k":"event","name":"n","labels":["a",2]}', "/labels/1"),
        (b'{"t":1,"k":"metric","name":"m","value":"3"}', "/value"),
        (b'{"t":1,"k":"metric","name":"m","type":"speed"}', "/type"),
        (b'{"t":1,"k":"state","patch":[]}', "/patch"),
        (b'{"t":1,"k":"open","product":"p"}', "/version"),
    ],
)
def test_a_wrong_member_is_named_by_its_pointer(raw, pointer):
    with pytest.raises(WireError) as caught:
        lines.decode(raw)

    assert caught.value.pointer == pointer


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"t"',
        b"\xff\xfe",
        b'{"t":1,"k":"event","name":"\xc3"}',
        b'{"t":1,"k":"metric","name":"m","value":NaN}',
        b'{"t":1,"k":"metric","name":"m","value":Infinity}',
        b'{"t":1,"k":"event","name":"n"} {}',
        b'{"t":1}',
        b'{"k":"event","name":"n"}',
        b'{"t":1,"k":"event","name":"n","data":' + b"[" * 5000,
        b'{"t":1,"k":"event","name":"n","data":{"a":' + b"[" * 5000 + b"]" * 5000 + b"}}",
        b'{"t":1,"k":"event","name":"n","data":{"a":' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}}",
    ],
)
def test_what_is_no_record_is_refused_with_a_wire_error(raw):
    with pytest.raises(WireError):
        lines.decode(raw)


def test_many_brackets_that_are_not_deep_are_fine():
    raw = b'{"t":1,"k":"event","name":"n","data":{"a":[' + b",".join([b"[]"] * 500) + b'],"b":"[[[{{{"}}'

    assert isinstance(lines.decode(raw), Event)


def test_a_body_gives_its_records_in_order_and_names_the_lines_that_are_none():
    body = lines.encode(Event(1, "a")) + b"garbage\n\n" + lines.encode(Event(2, "b"))

    good, bad = lines.decode_lines(body)

    assert [line.record for line in good] == [Event(1, "a"), Event(2, "b")]
    assert [refused.raw for refused in bad] == [b"garbage"]


def test_a_body_torn_at_any_byte_loses_only_its_last_line():
    body = b"".join(lines.encode(Event(n, f"é{n}")) for n in range(5))
    for cut in range(len(body) + 1):
        whole, torn = lines.split_torn(body[:cut])

        assert whole + torn == body[:cut]
        good, bad = lines.decode_lines(whole)
        assert bad == []
        assert len(good) == body[:cut].count(b"\n")
