"""The data of a hang's event: what is in it, and that it always fits into a record."""

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from datacat.daemon import dossier
from datacat.daemon.diagnosis import Sample
from datacat.daemon.dumps import Frame, Thread
from datacat.host.condition import Condition, Task
from datacat.wire.lines import decode, encode
from datacat.wire.records import CUT_MARK, MAX_RECORD_BYTES, Event

MAIN = Thread("2", "MainThread", True, (Frame("app.py", 9, "<module>"), Frame("app.py", 3, "wait")))
OTHER = Thread("1", "loader", False, (Frame("app.py", 5, "load"),))


def condition(cpu_s):
    return Condition("", "S", cpu_s, 2, 0, (Task(7, "app", "S", cpu_s, 5, "futex_do_wait", "futex"),))


def sample(second, source="thread", threads=(MAIN, OTHER)):
    return Sample(
        1_700_000_000_000_000 + second * 1_000_000, second * 10**9, condition(1.0 + second / 100), source, threads
    )


def event(samples, *, writes=True):
    made = Event(t=1, name="application_appears_hung", message="no heartbeat for 60.0 s", data={"silent_s": 60.0})
    dossier.put(made, dossier.of(samples, writes=writes))
    return made


def test_the_event_says_what_the_app_did_when_and_where():
    made = event([sample(58), sample(59), sample(60)])
    assert made.message == "no heartbeat for 60.0 s: waiting on a lock in wait (app.py:3), futex_do_wait"
    assert made.stacktrace == ['  File "app.py", line 9, in <module>', '  File "app.py", line 3, in wait']
    data = made.data
    assert {
        name: data[name]
        for name in ("silent_s", "verdict", "state", "cpu_s", "thread_count", "wait_channel", "stacks_by")
    } == {
        "silent_s": 60.0,
        "verdict": "waiting on a lock",
        "state": "S",
        "cpu_s": 1.6,
        "thread_count": 2,
        "wait_channel": "futex_do_wait",
        "stacks_by": "thread",
    }
    assert data["threads"] == [
        {
            "name": "MainThread",
            "id": "2",
            "current": True,
            "frames": [
                {"file": "app.py", "line": 9, "function": "<module>"},
                {"file": "app.py", "line": 3, "function": "wait"},
            ],
        },
        {"name": "loader", "id": "1", "current": False, "frames": [{"file": "app.py", "line": 5, "function": "load"}]},
    ]
    assert [each["timestamp"][:19] for each in data["samples"]] == [
        "2023-11-14T22:14:18",
        "2023-11-14T22:14:19",
        "2023-11-14T22:14:20",
    ]
    assert [each.get("cpu_s") for each in data["samples"]] == [None, 0.01, 0.01]
    assert all(each["threads"] == data["threads"] for each in data["samples"])
    assert "cut" not in data


def test_where_nothing_new_was_written_the_app_stood_where_it_stood():
    made = event([sample(58, "signal"), sample(59, "", ()), sample(60, "", ())])
    assert [each["stacks_by"] for each in made.data["samples"]] == ["signal"] * 3
    assert made.stacktrace[-1] == '  File "app.py", line 3, in wait'


def test_a_main_thread_that_a_large_dump_lacks_is_that_of_the_sample_before():
    made = event([sample(58), sample(59, "signal", (OTHER,)), sample(60, "signal", (OTHER,))])
    assert [thread["name"] for thread in made.data["threads"]] == ["MainThread", "loader"]
    made = event([sample(60, "signal", (OTHER,))])
    assert [thread["name"] for thread in made.data["threads"]] == ["loader"]
    assert made.stacktrace is None


def test_without_any_stack_the_rest_is_told():
    made = event([sample(60, "", ())])
    assert made.stacktrace is None
    assert made.data["threads"] == []
    assert made.data["verdict"] == "waiting on a lock"
    assert dossier.of([], writes=True) is None


frames = st.builds(Frame, st.text(max_size=600), st.one_of(st.none(), st.integers(0, 10**6)), st.text(max_size=600))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 120), st.integers(0, 100), st.lists(frames, min_size=1, max_size=4), st.integers(1, 4))
def test_it_always_fits_into_a_record_and_keeps_the_innermost_call_of_the_main_thread(threads, depth, some, number):
    stack = tuple(some[at % len(some)] for at in range(depth))
    made = event(
        [
            sample(at, "thread", tuple(MAIN._replace(id=str(n), frames=stack) for n in range(threads)))
            for at in range(number)
        ]
    )
    line = encode(made)
    assert len(line) <= MAX_RECORD_BYTES
    assert decode(line[:-1]).name == "application_appears_hung"
    if threads and depth:
        innermost = msgspec.json.decode(line)["data"]["threads"][0]["frames"][-1]
        assert innermost["function"].encode("utf-8", "replace").decode() == stack[-1].function[:300]
    if threads * depth > 5000:
        assert made.data["cut"] == CUT_MARK
