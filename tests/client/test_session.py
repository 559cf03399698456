import dataclasses
import datetime as dt
import decimal
import itertools
import math
import pathlib
import sys
import threading
import uuid

import msgspec
import pytest
from client_helpers import BrokenDict, sessions, written

import datacat
from datacat.client import loops
from datacat.client import session as client_session
from datacat.wire import layout, records
from datacat.wire.records import Close, Event, Metric, Open, StatePatch


def logged(session):
    """The records behind the first one, which is Open."""
    first, *rest = written(session.journal_folder)
    assert isinstance(first, Open)
    return rest


def only(session):
    (record,) = logged(session)
    return record


class Unprintable:
    def __repr__(self):
        raise RuntimeError("no repr")

    __str__ = __repr__


class FloatChild(float):
    pass


DEEP = {"a": 1}
for _ in range(60):
    DEEP = {"a": [DEEP]}
LOOP = {}
LOOP["self"] = LOOP


def test_a_session_begins_with_who_it_is(tmp_path):
    session = datacat.create_session(
        "http://server:1/", product="editor", version="1.2", environment="beta", state={"a": 1}, state_dir=tmp_path
    )
    session.end()
    first = written(session.journal_folder)[0]
    assert (first.product, first.version, first.environment, first.state) == ("editor", "1.2", "beta", {"a": 1})
    assert first.id == session.id == session.session_id == session.journal_folder.name
    assert first.pid
    assert first.process_start
    meta = session.meta
    assert (meta.server_url, meta.pid, meta.boot_id) == ("http://server:1", first.pid, first.boot_id)


def test_what_identifies_the_session_stands_before_it_can_be_found(session):
    folder = session.journal_folder
    assert sessions(folder.parents[1]) == [folder]
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / layout.META_FILE).stat().st_mode & 0o777 == 0o600
    assert (folder / layout.WAKE_FILE).is_fifo()


def test_an_event_keeps_all_that_was_said(session):
    session.log_event(
        "opened", "file", "io", ["a", "b"], "hello", {"size": 2**63, "x": [1, 2.5, None, True]}, ["f1", "f2"], "warning"
    )
    event = only(session)
    assert msgspec.to_builtins(event) == {
        "k": "event",
        "t": event.t,
        "name": "opened",
        "category": "file",
        "group": "io",
        "labels": ["a", "b"],
        "message": "hello",
        "data": {"size": 2**63, "x": [1, 2.5, None, True]},
        "stacktrace": ["f1", "f2"],
        "level": "warning",
    }


@pytest.mark.parametrize(
    ("level", "category", "means"),
    [(None, None, "info"), (None, "error", "error"), (None, "disk", "info"), ("debug", "error", "debug")],
)
def test_the_level_is_the_one_given_else_a_category_that_is_one(session, level, category, means):
    session.log_event("x", category=category, level=level)
    assert only(session).level == means


def test_metrics_of_every_type_keep_their_members(session):
    session.log_gauge("fps", 59.5, unit="Hz", tags=["a"])
    session.log_counter("saves")
    session.log_counter("bytes", 2**40, tags=["b"])
    session.log_histogram("size", 3, unit="B", buckets=[10, 1, math.inf], metadata={"why": "x"})
    session.log_timer("load", 0.25, count=3)
    session.log_metric("hits", metric_type="counter", delta=5)
    session.log_metric("free:disk", 1, metadata={"a": [1]}, count=2)
    t = 0
    assert [msgspec.structs.replace(metric, t=t) for metric in logged(session)] == [
        Metric(t, "fps", 59.5, "gauge", None, "Hz", ["a"]),
        Metric(t, "saves", 1, "counter"),
        Metric(t, "bytes", 2**40, "counter", None, None, ["b"]),
        Metric(t, "size", 3, "histogram", None, "B", None, {"why": "x", "buckets": [1.0, 10.0]}),
        Metric(t, "load", 0.25, "timer", 3, "seconds"),
        Metric(t, "hits", 5, "counter"),
        Metric(t, "free:disk", 1, "gauge", 2, None, None, {"a": [1]}),
    ]


def test_data_is_serialised_at_the_call(session):
    data = {"a": [1]}
    session.log_event("x", data=data)
    session.update_state(data)
    data["a"].append(2)
    event, patch = logged(session)
    assert event.data == {"a": [1]}
    assert patch.patch == {"a": [1]}


def test_a_null_in_the_state_deletes_and_costs_no_repair(session):
    session.update_state({"a": None, "b": {"c": None}, "d": [None]})
    assert only(session).patch == {"a": None, "b": {"c": None}, "d": [None]}
    assert session.stats()["repaired"] == {}


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, [math.nan], {"x": {"y": math.nan}}, {math.nan}, (1, math.inf)]
)
def test_what_json_has_no_number_for_never_becomes_null(session, value):
    session.update_state({"a": value, "b": 1})
    session.log_event("x", data={"a": value, "b": 1})
    patch, event = logged(session)
    for kept in (patch.patch, event.data):
        assert "null" not in msgspec.json.encode(kept).decode()
        assert kept["b"] == 1
        assert any(word in str(kept["a"]).lower() for word in ("nan", "inf"))
    assert session.stats()["repaired"] == {"state": 1, "event": 1}


def test_integers_beyond_64_bits_keep_their_digits(session):
    session.update_state({"a": 2**70})
    assert int(only(session).patch["a"]) == 2**70


def test_types_that_have_a_natural_form_in_json_take_it(session):
    @dataclasses.dataclass
    class Point:
        x: int

    session.log_event(
        "x",
        data={
            "when": dt.datetime(2026, 1, 2, tzinfo=dt.UTC),
            "id": uuid.UUID(int=1),
            "price": decimal.Decimal("1.5"),
            "point": Point(1),
            "set": {3},
        },
    )
    data = only(session).data
    assert data["when"] == "2026-01-02T00:00:00Z"
    assert data["point"] == {"x": 1}
    assert data["set"] == [3]
    assert session.stats()["repaired"] == {}


BAD_VALUES = [
    None,
    True,
    0,
    -1.5,
    math.nan,
    2**80,
    "",
    "x" * 100_000,
    "\ud800 lone",
    "zero \0 byte",
    b"bytes",
    [1, None, "a"],
    ["\ud800"],
    (1, 2),
    {1: 2},
    {("a", 1): object()},
    {"a": object()},
    {"long": ["y" * 1000] * 1000},
    {str(i): i for i in range(20_000)},
    {"k" * 5000: 1},
    DEEP,
    LOOP,
    object(),
    Unprintable(),
    {"u": Unprintable()},
    FloatChild(1.5),
    print,
    Exception("x"),
    pathlib.Path("/x"),
]


@pytest.mark.parametrize("value", BAD_VALUES, ids=lambda value: type(value).__name__)
def test_any_argument_anywhere_gives_a_record_that_the_language_accepts(session, value):
    calls = [
        lambda: session.update_state(value),
        lambda: session.update_state({"a": value}),
        lambda: session.log_event(value),
        *[
            lambda name=name: session.log_event("named", **{name: value})
            for name in ("category", "group", "labels", "message", "data", "stacktrace", "level")
        ],
        lambda: session.log_event("named", labels=[value], data={"a": value}),
        lambda: session.log_metric(value, 1),
        lambda: session.log_metric("named", value),
        *[
            lambda name=name: session.log_metric("named", 1, **{name: value})
            for name in ("tags", "metric_type", "count", "unit", "metadata", "delta")
        ],
        lambda: session.log_gauge("named", value, value, value),
        lambda: session.log_counter("named", value, value),
        lambda: session.log_histogram("named", value, buckets=value if isinstance(value, (list, tuple)) else [1]),
        lambda: session.log_timer("named", value, value, value, value),
        lambda: session.log_exception(value, value),
    ]
    for call in calls:
        call()
    with session.timer(value, value, value, value):
        pass
    found = logged(session)
    assert len(found) == len(calls) + 1
    assert session.stats()["written"] == len(found) + 1
    assert session.stats()["dropped"] == {}
    assert session.stats()["faults"] == 0


def test_calls_that_are_no_records_take_any_argument(session):
    for value in BAD_VALUES:
        session.start_heartbeat_monitor(timeout=value, loop="none of these")
        session.stop_heartbeat_monitor()
    for value in BAD_VALUES[2:]:
        if isinstance(value, (int, float)) and value < 1:
            session.flush(value)
    session.end(exit_code=object())
    assert isinstance(logged(session)[-1], Close)


def test_a_text_that_is_too_long_is_cut_with_a_mark_and_the_rest_stays(session):
    session.log_event("x", message="m" * 100_000, data={"keep": 1})
    event = only(session)
    assert event.message.startswith("mmm")
    assert event.message.endswith(records.CUT_MARK)
    assert event.data == {"keep": 1}
    assert session.stats()["repaired"] == {"event": 1}


def test_a_metric_that_is_no_number_is_told_as_an_event_instead_of_a_made_up_number(session):
    session.log_gauge("fps", "fast")
    event = only(session)
    assert isinstance(event, Event)
    assert event.name == "datacat_bad_metric"
    assert event.data == {"name": "fps", "value": "fast"}


def test_the_end_is_the_last_record_and_later_calls_are_counted(session):
    session.log_event("before")
    session.end(exit_code=3)
    session.end(exit_code=4)
    session.log_event("after")
    session.update_state({"a": 1})
    session.heartbeat()
    session.pause_heartbeat_monitoring()
    session.start_heartbeat_monitor()
    found = logged(session)
    assert [type(record) for record in found] == [Event, Close]
    assert found[-1].exit_code == 3
    assert session.stats()["dropped"] == {"ended": 2}


def test_a_block_that_ends_well_ends_the_session(tmp_path):
    with datacat.create_session(product="p", version="1", state_dir=tmp_path) as session:
        session.log_event("x")
    assert [type(record) for record in logged(session)] == [Event, Close]


def test_a_block_that_raises_records_it_and_leaves_the_verdict_to_the_process(tmp_path):
    session = datacat.create_session(product="p", version="1", state_dir=tmp_path)
    with pytest.raises(ValueError, match="boom"), session:
        raise ValueError("boom")
    event = only(session)
    assert (event.name, event.exception_type, event.exception_msg) == ("exception", "ValueError", "boom")


@pytest.mark.parametrize(("code", "ends"), [(None, True), (0, True), (3, False), ("text", False)])
def test_a_block_left_by_sys_exit_ends_the_session_only_when_that_says_success(tmp_path, code, ends):
    session = datacat.create_session(product="p", version="1", state_dir=tmp_path)
    with pytest.raises(SystemExit), session:
        sys.exit(code)
    assert [type(record) for record in logged(session)] == ([Close] if ends else [])


def test_log_exception_captures_at_the_call_what_is_being_handled(session):
    def deep():
        raise KeyError("missing")

    try:
        try:
            deep()
        except KeyError as error:
            raise RuntimeError("outer") from error
    except RuntimeError:
        session.log_exception(extra_data={"job": 7})
    event = only(session)
    assert (event.level, event.exception_type, event.exception_msg) == ("error", "RuntimeError", "outer")
    assert event.data == {"job": 7}
    text = "\n".join(event.stacktrace)
    assert text.index("KeyError: 'missing'") < text.index("caused this:") < text.index("RuntimeError: outer")
    assert event.source_file == __file__
    assert event.source_function.startswith("test_log_exception")


def test_log_exception_works_in_any_thread_and_with_any_form(session):
    def work():
        try:
            raise OSError("in thread")
        except OSError:
            session.log_exception()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    session.log_exception(ValueError("given"))
    try:
        raise TypeError("triple")
    except TypeError:
        triple = sys.exc_info()
    session.log_exception(triple)
    session.log_exception()
    assert [event.exception_msg for event in logged(session)] == ["in thread", "given", "triple", None]


def test_eight_threads_keep_every_record_in_their_order(session):
    def work(number):
        for i in range(2000):
            session.log_event("burst", data={"thread": number, "i": i, "pad": "x" * 100})

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seen = {}
    for event in logged(session):
        assert event.data["i"] == seen.get(event.data["thread"], -1) + 1
        seen[event.data["thread"]] = event.data["i"]
    assert seen == dict.fromkeys(range(8), 1999)
    assert session.stats()["written"] == 16_001


def test_a_heartbeat_is_in_the_slot_when_the_call_returns(session):
    slot = session.journal_folder / layout.BEAT_FILE
    assert layout.unpack_beat(slot.read_bytes()) == layout.Beat(0, 0, 0.0, on=False, paused=False)
    session.heartbeat()
    first = layout.unpack_beat(slot.read_bytes())
    assert first.on
    assert first.unix_us >= session.meta.created_us
    session.heartbeat()
    assert layout.unpack_beat(slot.read_bytes()).awake_ns > first.awake_ns


def test_beats_that_come_fast_keep_the_unix_time_of_the_last_one_to_a_tenth_of_a_second(session, monkeypatch):
    start_us, now_ns = session.meta.created_us, 1_000_000_000
    monkeypatch.setattr(client_session, "_awake_ns", lambda: now_ns)
    monkeypatch.setattr(client_session, "_now_ns", lambda: start_us * 1000 + now_ns)
    for _ in range(200):
        now_ns += 16_000_000
        session.heartbeat()
        beat = layout.unpack_beat((session.journal_folder / layout.BEAT_FILE).read_bytes())
        assert beat.awake_ns == now_ns
        assert 0 <= start_us + now_ns // 1000 - beat.unix_us <= 100_000


def test_monitoring_says_its_timeout_pauses_and_ends(session):
    slot = session.journal_folder / layout.BEAT_FILE

    def beat():
        return layout.unpack_beat(slot.read_bytes())

    session.start_heartbeat_monitor(timeout=7, loop=None)
    assert (beat().timeout_s, beat().on, beat().paused) == (7.0, True, False)
    session.pause_heartbeat_monitoring()
    before = beat()
    assert before.paused
    session.resume_heartbeat_monitoring()
    assert not beat().paused
    assert beat().awake_ns > before.awake_ns
    session.stop_heartbeat_monitor()
    assert not beat().on


def test_an_app_that_never_beats_has_an_empty_slot(session):
    session.pause_heartbeat_monitoring()
    session.resume_heartbeat_monitoring()
    session.stop_heartbeat_monitor()
    assert not layout.unpack_beat((session.journal_folder / layout.BEAT_FILE).read_bytes()).on


def test_the_monitor_of_a_session_is_one(session):
    session.start_heartbeat_monitor(timeout=5, loop="thread")
    session.start_heartbeat_monitor(timeout=5, loop="thread")
    names = [thread.name for thread in threading.enumerate()]
    assert names.count("datacat-heartbeat") == 1
    session.stop_heartbeat_monitor()
    assert "datacat-heartbeat" not in [thread.name for thread in threading.enumerate()]
    assert loops.timeout_s("x") == 60


def test_flush_waits_for_what_the_server_has_and_no_longer(session):
    session.log_event("x")
    assert not session.flush(0.01)
    shipper = layout.Shipper(1, acked={session.meta.stream: 1 << 40})
    (session.journal_folder / layout.SHIPPER_FILE).write_bytes(msgspec.json.encode(shipper))
    assert session.flush(5)


def test_details_without_anybody_to_ask_are_what_is_known_here(session):
    assert session.get_details() == {"id": session.id, "product": "editor", "version": "1.2", "status": "active"}
    session.end()
    assert session.get_details()["status"] == "ended"


def test_signal_like_reentry_while_a_segment_is_opened_loses_nothing(session, monkeypatch):
    journal = session._sink
    real = journal._open_next

    def with_a_handler():
        session.log_event("from the handler")
        real()

    monkeypatch.setattr(journal, "_open_next", with_a_handler)
    count = 0
    while not any(event.name == "from the handler" for event in logged(session)):
        session.log_event("fill", data={"pad": "x" * 60_000})
        count += 1
        assert count < 40
    assert sum(event.name == "fill" for event in logged(session)) == count


def test_patches_are_of_the_state_kind(session):
    session.update_state({"a": {"b": 1}})
    assert isinstance(only(session), StatePatch)


@pytest.mark.parametrize("buckets", [BrokenDict(a=1), 5, ["x"], iter([2, 1]), itertools.count()])
def test_buckets_and_metadata_of_any_type_never_raise(session, buckets):
    session.log_histogram("h", 1, buckets=buckets, metadata=5)
    record = only(session)
    assert record.metadata["value"] == 5
    assert isinstance(record.metadata["buckets"], list)


@pytest.mark.parametrize("argument", ["name", "message", "data", "labels"])
def test_a_container_that_raises_when_it_is_read_costs_no_record(session, argument):
    session.log_event(**{"name": "e", argument: BrokenDict(a=1)})
    assert isinstance(only(session), Event)
    assert session.stats()["faults"] == 0


def test_a_clock_that_is_set_back_does_not_put_off_the_next_look(session, monkeypatch):
    looks = []
    monkeypatch.setattr(session._carrier, "look", lambda: looks.append(1))
    now_s = [2_000_000_000]
    monkeypatch.setattr(client_session, "_now_ns", lambda: now_s[0] * 1_000_000_000)
    session.log_event("a")
    session.log_event("b")
    now_s[0] -= 86_400
    session.log_event("c")
    session.log_event("d")
    now_s[0] += 6
    session.log_event("e")
    assert len(looks) == 3
