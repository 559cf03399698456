"""What a crashed app leaves to read: out of real journals, and fitted into one record whatever it holds."""

import json

import pytest
from daemon_helpers import Journal, now_us

from datacat.daemon.dumps import Frame, Thread
from datacat.daemon.lastwords import LAST_EVENTS, STACK_BYTES, Words, fit, last_events, last_state, of, stack
from datacat.wire.lines import decode, encode
from datacat.wire.records import CRASHED_EVENT, MAX_RECORD_BYTES, Event, Metric, StatePatch

THREADS = tuple(
    Thread(f"{number:x}", None, number == 0, tuple(Frame(f"/app/module{line}.py", line, "work") for line in range(40)))
    for number in range(30)
)


def test_the_newest_events_and_the_last_state_are_those_of_the_journal(spool):
    journal = Journal(spool, segment_bytes=4096)
    for number in range(120):
        journal.append(Event(t=now_us(), name=f"step {number}", data={"n": number}))
        journal.append(StatePatch(t=now_us(), patch={"n": number, "old": number if number == 1 else None}))
        journal.append(Metric(t=now_us(), name="fps", value=60))
    events = last_events(journal.folder, journal.meta)
    names = [event["name"] for event in events]
    assert names == [f"step {number}" for number in range(120 - len(names), 120)]
    assert 0 < len(names) <= LAST_EVENTS
    assert (events[-1]["data"], events[-1]["level"]) == ({"n": 119}, "info")
    assert last_state(journal.folder, journal.meta) == {"product": "shop", "version": "1.0", "n": 119}


def test_fifty_events_are_kept_and_no_more(spool):
    journal = Journal(spool, segment_bytes=1 << 20)
    journal.append(*(Event(t=now_us(), name=f"step {number}") for number in range(80)))
    assert [event["name"] for event in last_events(journal.folder, journal.meta)] == [
        f"step {number}" for number in range(30, 80)
    ]


def test_the_traceback_is_that_of_the_exception_that_ended_the_app(spool):
    journal = Journal(spool)
    error = {"name": "unhandled_exception", "exception_type": "KeyError", "stacktrace": ["fatal"]}
    journal.append(Event(t=now_us(), level="critical", **error))
    journal.append(Event(t=now_us(), level="error", **{**error, "stacktrace": ["in a thread"]}))
    assert of(journal.folder, journal.meta, (), ()).traceback == ("fatal",)


def test_a_journal_that_cannot_be_read_leaves_the_rest(spool):
    journal = Journal(spool)
    journal.path.unlink()
    journal.path.mkdir()
    assert of(journal.folder, journal.meta, (), ["last line"]) == Words({"stderr": ["last line"]}, ())


def test_nothing_is_cut_where_everything_fits():
    found = fit(THREADS[:1], ["no such table"], [{"name": "x"}], {"page": 3})
    assert list(found) == ["threads", "stderr", "last_events", "last_state"]
    assert found["threads"][0]["frames"][-1] == {"file": "/app/module39.py", "line": 39, "function": "work"}
    assert (found["stderr"], found["last_events"], found["last_state"]) == (
        ["no such table"],
        [{"name": "x"}],
        {"page": 3},
    )


@pytest.mark.parametrize(
    ("stderr", "events", "state"),
    [
        (["x" * 500] * 200, [{"name": "e", "message": "m" * 9000}] * 50, {f"k{n}": "v" * 900 for n in range(200)}),
        (["\x01" * 500] * 200, [{"name": "\ud800", "data": {"n": float("nan")}}] * 50, {"deep": "é" * 60_000}),
        ([], [{"name": "e", "stacktrace": ["line"] * 9000}] * 50, {"one": {"big": "v" * 60_000}, "small": 1}),
        (["short"], [], {"list": list(range(60_000)), "page": 3}),
    ],
)
def test_a_record_holds_it_whatever_the_parts_are(stderr, events, state):
    found = fit(THREADS, stderr, events, state)
    line = encode(Event(t=1, name=CRASHED_EVENT, data=found, stacktrace=list(stack(["\x01" * 99] * 500))))
    assert len(line) <= MAX_RECORD_BYTES
    assert decode(line[:-1]).data == json.loads(json.dumps(found))
    assert found["threads"][0]["current"]
    if "page" in state:
        assert found["last_state"] == {"page": 3}
        assert found["cut"] == {"last_state": ["list"]}
    if stderr == ["short"]:
        assert found["stderr"] == stderr


def test_the_newest_survive_and_what_was_cut_is_counted():
    lines = [f"{number} " + "x" * 400 for number in range(200)]
    found = fit((), lines, [], {}, room=10_000)
    kept = found["stderr"]
    assert kept == lines[-len(kept) :]
    assert found["cut"] == {"stderr": 200 - len(kept)}
    assert 20 <= len(kept) <= 25


def test_of_a_deep_stack_the_innermost_calls_are_kept():
    lines = [f'  File "{number}.py", line 1, in f' for number in range(900)]
    kept = stack(lines)
    assert list(kept) == lines[-len(kept) :]
    assert len(json.dumps(kept)) <= STACK_BYTES + len(kept)
