"""Every way to hang gets the right words and the stack of where it hangs, from real processes; a stop is no hang."""

import pytest
from system.hangs import HANGS, Impossible, hang, stall

from datacat.wire.records import HUNG_EVENT, MAX_RECORD_BYTES, RESUMED_EVENT, SUSPENDED_EVENT

REAL = [way for way in HANGS if not way.hold]
HELD = [way for way in HANGS if way.hold]
SPIED_S = 4.0
"""A timeout whose three looks are a second apart: on a busy machine py-spy needs more than a quarter of one."""
SOME = [way for way in REAL if way.cause.startswith(("busy", "C call", "regular"))]


def check_dossier(event, words, stacks, *, alone=False):
    """stacks: in how many of the samples Python stacks must be, the newest ones; alone: of the main thread only."""
    data = event.data
    assert data["verdict"] == words
    assert words in event.message
    assert event.message.startswith("no heartbeat for ")
    assert len(data["samples"]) == 3
    assert all(sample["threads"] for sample in data["samples"][3 - stacks :])
    assert data["thread_count"] >= 2
    assert data["state"] in ("R", "S", "D")
    if not stacks:
        assert data["threads"] == []
        assert event.stacktrace is None
        return
    main, *others = data["threads"]
    assert main["current"]
    assert main["name"] == "MainThread"
    assert "stuck" in [frame["function"] for frame in main["frames"]]
    assert main["frames"][0] | {"line": 0} == main["frames"][0] | {"function": "<module>", "line": 0}
    assert any("in stuck" in line for line in event.stacktrace)
    assert [thread["frames"][-1]["function"] for thread in others][-1:] == ([] if alone else ["tick"])
    assert not any("datacat" in (thread["name"] or "") for thread in data["threads"])


@pytest.mark.parametrize("way", REAL, ids=lambda way: way.cause)
def test_the_cause_of_a_hang_is_told_with_its_stack(tmp_path, way):
    event = hang(way, tmp_path, "loop").event
    check_dossier(event, way.verdict, way.stacks, alone=way.stacks == 1)
    assert event.data.get("stacks_by") == {3: "thread", 1: "signal", 0: None}[way.stacks]


@pytest.mark.parametrize("way", SOME, ids=lambda way: way.cause)
def test_it_is_told_of_an_app_that_beats_itself_too(tmp_path, way):
    check_dossier(hang(way, tmp_path, "own").event, way.verdict, way.stacks, alone=way.stacks == 1)


def test_of_an_app_that_only_beats_the_main_threads_stack_is_told_where_it_waits(tmp_path):
    (way,) = [way for way in REAL if way.cause.startswith("deadlock")]
    event = hang(way, tmp_path, "unasked").event
    check_dossier(event, way.verdict, 2, alone=True)
    assert event.data["stacks_by"] == "signal"


@pytest.mark.parametrize("mode", ["loop", "own", "unasked"])
@pytest.mark.parametrize("way", [way for way in REAL if not way.stacks], ids=lambda way: way.cause)
def test_with_py_spy_there_is_a_stack_where_the_app_cannot_write_its_own(tmp_path, may_spy, way, mode):
    event = hang(way, tmp_path, mode, SPIED_S, py_spy=True).event
    check_dossier(event, way.verdict, 3)
    assert event.data["stacks_by"] == "py-spy"


def test_with_py_spy_there_is_a_stack_of_a_busy_loop_in_an_app_that_only_beats(tmp_path, may_spy):
    event = hang(REAL[0], tmp_path, "unasked", SPIED_S, py_spy=True).event
    check_dossier(event, REAL[0].verdict, 3)
    assert event.data["stacks_by"] == "py-spy"


def test_py_spy_tells_at_each_look_where_the_app_is_then(tmp_path, may_spy):
    code = "def early():\n    while time.monotonic() < end: pass\ndef late():\n    while True: pass\n"
    moves = REAL[0]._replace(code=code + f"end = time.monotonic() + {SPIED_S * 5 / 8}\nearly()\nlate()")
    event = hang(moves, tmp_path, "unasked", SPIED_S, py_spy=True).event
    where = [sample["threads"][0]["frames"][-1]["function"] for sample in event.data["samples"]]
    assert where == ["early", "late", "late"]


@pytest.mark.parametrize("way", HELD, ids=lambda way: way.cause)
def test_an_app_that_is_held_is_suspended_and_never_hung(tmp_path, way):
    try:
        seen = hang(way, tmp_path, "loop", 0.5)
    except Impossible as reason:
        pytest.skip(f"capability: {reason}")
    assert seen.names == [SUSPENDED_EVENT, RESUMED_EVENT]
    assert seen.reason == way.verdict


def test_an_app_that_stalls_and_goes_on_was_slow_with_the_stack_of_where(tmp_path):
    seen = stall(tmp_path, 2.5, slow_s=1.2)
    assert seen.names == ["application_slow"]
    assert seen.event.data["duration_s"] >= 2.4
    assert seen.event.data["verdict"] == "sleeping"
    assert any("in stuck" in line for line in seen.event.stacktrace)
    assert len(seen.event.data["samples"]) == 1


def test_a_hundred_threads_fit_into_the_record(tmp_path):
    code = "end = threading.Event()\nfor _ in range(150): threading.Thread(target=deep, args=(40,), daemon=True).start()\ntime.sleep(60)"
    deep = "def deep(n):\n    return deep(n - 1) if n else threading.Event().wait()\n"
    seen = hang(REAL[0]._replace(code=deep + code), tmp_path, "loop", 3.0)
    assert seen.event.name == HUNG_EVENT
    check_size(seen.event)
    assert "stuck" in [frame["function"] for frame in seen.event.data["threads"][0]["frames"]]


def check_size(event):
    from datacat.wire.lines import encode

    assert MAX_RECORD_BYTES // 3 < len(encode(event)) <= MAX_RECORD_BYTES
