"""The rules of fold(), one by one."""

import msgspec
import pytest

from datacat.store.fold import Head, fold, new_head, opening, public, transitions_of
from datacat.wire.records import (
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
)

ID = "01890a5d-ac96-774b-bcce-b302099a8057"
START = Open(t=100, product="editor", version="1.2", hostname="h", state={"mode": "new"})


def begin(*records, first=START):
    return fold(new_head(ID, opening(first)), {}, [first, *records])


def then(folded, *records):
    return fold(folded.head, folded.state, records)


def test_open_makes_the_session_what_it_is():
    folded = begin()
    head = folded.head
    assert (head.id, head.product, head.version, head.hostname) == (ID, "editor", "1.2", "h")
    assert (head.created_at, head.updated_at, head.status, head.status_since) == (100, 100, "active", 100)
    assert folded.state == {"product": "editor", "version": "1.2", "mode": "new"}
    assert folded.state_changed
    assert folded.untraced == set()


def test_a_later_open_fills_what_is_missing_and_replaces_nothing():
    again = Open(t=200, product="other", version="9", hostname="x", pid=7, state={"mode": "old"})
    folded = then(begin(), again)
    head = folded.head
    assert (head.product, head.version, head.hostname, head.pid, head.created_at) == ("editor", "1.2", "h", 7, 100)
    assert folded.state == {"product": "editor", "version": "1.2", "mode": "old"}


def test_folding_changes_neither_head_nor_state_that_it_was_given():
    first = begin()
    head_before, state_before = msgspec.to_builtins(first.head), dict(first.state)
    then(
        first,
        StatePatch(t=200, patch={"a": 1}),
        Event(t=300, name="e", level="error"),
        Dropped(t=4, counts={"full": 1}),
        Close(t=400),
    )
    assert msgspec.to_builtins(first.head) == head_before
    assert first.state == state_before


def test_a_patch_that_changes_nothing_leaves_no_trace():
    folded = then(begin(), StatePatch(t=1, patch={"mode": "new"}), StatePatch(t=2, patch={"mode": "x", "gone": None}))
    assert folded.untraced == {0}
    assert folded.head.counts == {"states": 1}
    assert folded.state["mode"] == "x"
    assert not then(begin(), StatePatch(t=1, patch={"mode": "new"})).state_changed


def test_true_and_one_are_different_states():
    folded = then(begin(StatePatch(t=1, patch={"n": 1})), StatePatch(t=2, patch={"n": True}))
    assert folded.untraced == set()
    assert folded.state["n"] is True


def test_a_gap_that_carries_open_begins_a_session_with_its_whole_state():
    gap = Gap(
        t=500, reason="spool_full", lost_bytes=9, open={"t": 100, "product": "p", "version": "1"}, state={"a": {"b": 1}}
    )
    folded = begin(first=gap)
    assert folded.head.created_at == 100
    assert folded.head.updated_at == 500
    assert folded.state == {"product": "p", "version": "1", "a": {"b": 1}}


def test_a_gap_that_carries_open_replaces_the_state_of_a_session_that_exists():
    gap = Gap(t=500, open={"product": "editor", "version": "1.2", "daemon_id": "d2"}, state={"only": True})
    folded = then(begin(), gap)
    assert folded.state == {"only": True}
    assert folded.head.daemon_id == "d2"
    assert folded.head.created_at == 100


@pytest.mark.parametrize(
    "record",
    [
        Event(t=1, name="e"),
        Gap(t=1),
        Gap(t=1, open={"product": "p"}),
        Gap(t=1, open={"product": 3, "version": "1"}),
        Unknown(t=1, k="new"),
    ],
)
def test_nothing_else_opens_a_session(record):
    assert opening(record) is None


def test_close_is_an_end_by_the_app():
    head = begin(Close(t=900, exit_code=3)).head
    assert (head.status, head.end_reason, head.by, head.exit_code, head.ended_at) == ("ended", "clean", "app", 3, 900)


def test_the_first_close_counts():
    folded = then(begin(Close(t=900)), Close(t=950))
    assert folded.head.ended_at == 900
    assert folded.untraced == {0}


def test_a_close_corrects_what_the_daemon_and_the_server_thought():
    for by in ("daemon", "server"):
        head = begin(Verdict(t=800, status="crashed", reason="unknown", by=by), Close(t=700)).head
        assert (head.status, head.end_reason, head.ended_at, head.by) == ("ended", "clean", 700, "app")


def test_after_a_close_a_verdict_only_adds_what_is_unknown():
    verdict = Verdict(t=950, status="crashed", reason="signal", exit_code=5, exit_signal=11, detail="segfault at exit")
    folded = then(begin(Close(t=900, exit_code=3)), verdict)
    head = folded.head
    assert (head.status, head.end_reason, head.ended_at) == ("ended", "clean", 900)
    assert (head.exit_code, head.exit_signal, head.end_detail) == (3, 11, "segfault at exit")
    assert folded.transitions == []
    assert then(folded, verdict).untraced == {0}


@pytest.mark.parametrize(
    ("first", "second", "newer", "wins"),
    [
        ("server", "daemon", True, True),
        ("server", "daemon", False, True),
        ("daemon", "server", True, False),
        ("daemon", "daemon", True, True),
        ("daemon", "daemon", False, False),
        ("server", "server", True, True),
        ("server", "server", False, False),
    ],
)
def test_better_or_newer_knowledge_corrects_an_end(first, second, newer, wins):
    ended = begin(Verdict(t=800, status="abnormal", reason="lost", by=first))
    folded = then(ended, Verdict(t=900 if newer else 700, status="crashed", reason="oom", by=second))
    assert (folded.head.status == "crashed") is wins
    assert (folded.untraced == set()) is wins
    assert [step.status for step in folded.transitions] == (["crashed"] if wins else [])


def test_a_verdict_that_says_what_is_known_leaves_no_trace():
    verdict = Verdict(t=800, status="crashed", reason="oom", exit_signal=9)
    assert then(begin(verdict), Verdict(t=900, status="crashed", reason="oom", exit_signal=9)).untraced == {0}
    assert then(begin(), Verdict(t=900, status="active")).untraced == {0}


def test_a_verdict_with_a_word_of_a_later_version_is_kept_and_changes_nothing():
    folded = then(begin(), Verdict(t=800, status="hibernating"))
    assert (folded.head.status, folded.head.ended_at, folded.untraced) == ("active", 0, set())


def test_hangs_are_counted_once_each_and_their_seconds_summed():
    folded = begin(
        Verdict(t=200, status="hung"),
        Verdict(t=210, status="hung"),
        Verdict(t=300, status="active", hang_s=1.5),
        Verdict(t=400, status="hung"),
        Verdict(t=500, status="crashed", reason="hang", hang_s=2.0, exit_signal=9),
    )
    assert folded.head.hang_count == 2
    assert folded.head.hang_seconds == 3.5
    assert folded.untraced == {2}
    assert [step.status for step in folded.transitions] == ["active", "hung", "active", "hung", "crashed"]


def test_a_closing_ends_nothing():
    head = begin(Closing(t=900, exit_code=0, exception_type="ValueError")).head
    assert (head.status, head.ended_at, head.has_exception) == ("active", 0, True)


@pytest.mark.parametrize("status", ["suspended", "abnormal"])
@pytest.mark.parametrize("record", [Event(t=950, name="e"), Metric(t=950, name="m"), Beat(t=950)])
def test_a_sign_of_life_ends_the_guess_of_the_server(status, record):
    folded = then(begin(Verdict(t=900, status=status, reason="lost", by="server")), record)
    assert (folded.head.status, folded.head.ended_at, folded.head.end_reason) == ("active", 0, None)


@pytest.mark.parametrize(
    "record",
    [
        Event(t=950, name="application_suspended"),
        Dropped(t=950, counts={"x": 1}),
        Gap(t=950),
        Unknown(t=950, k="new"),
    ],
)
def test_what_a_judge_writes_is_no_sign_of_life(record):
    folded = then(begin(Verdict(t=900, status="suspended", by="server")), record)
    assert folded.head.status == "suspended"


def test_a_sign_of_life_does_not_end_what_a_daemon_saw():
    folded = then(begin(Verdict(t=900, status="suspended", by="daemon")), Event(t=950, name="e"))
    assert folded.head.status == "suspended"


def test_a_beat_moves_the_heartbeat_and_is_not_stored():
    folded = then(begin(), Beat(t=700), Beat(t=600))
    assert folded.head.last_heartbeat == 700
    assert folded.untraced == {0, 1}


def test_everything_is_counted():
    folded = begin(
        Event(t=1, name="a"),
        Event(t=2, name="b", level="error"),
        Event(t=3, name="c", level="critical", exception_type="E"),
        Metric(t=4, name="m"),
        StatePatch(t=5, patch={"x": 1}),
        Dropped(t=6, counts={"disk_full": 2}),
        Dropped(t=7, counts={"disk_full": 3, "spool": 1}),
        Unknown(t=999, k="new"),
    )
    head = folded.head
    assert head.counts == {"events": 3, "errors": 2, "exceptions": 1, "metrics": 1, "states": 1}
    assert head.dropped == {"disk_full": 5, "spool": 1}
    assert head.has_exception
    assert head.updated_at == 999


def test_folding_in_one_go_or_one_by_one_is_the_same():
    records = [
        Event(t=110, name="a"),
        StatePatch(t=120, patch={"x": {"y": 1}}),
        Verdict(t=130, status="hung"),
        Verdict(t=140, status="suspended", by="server"),
        Metric(t=150, name="m"),
        Beat(t=155),
        Close(t=160),
    ]
    at_once = begin(*records)
    step = begin()
    for record in records:
        step = then(step, record)
    assert step.head == at_once.head
    assert step.state == at_once.state


def test_transitions_are_told_by_the_records_alone():
    records = [START, Verdict(t=300, status="hung"), Close(t=400), Verdict(t=500, status="crashed", reason="unknown")]
    assert [(step.t, step.status, step.reason, step.by) for step in transitions_of(ID, records)] == [
        (100, "active", None, "app"),
        (300, "hung", None, "daemon"),
        (400, "ended", "clean", "app"),
    ]
    assert transitions_of(ID, []) == []


def test_the_session_object_has_the_fields_of_the_wire():
    folded = begin(Event(t=1_000_000, name="e"), Verdict(t=2_000_000, status="hung"))
    shown = public(folded.head)
    assert shown["created_at"] == "1970-01-01T00:00:00.000100Z"
    assert shown["ended_at"] is None
    assert shown["last_heartbeat"] is None
    assert (shown["active"], shown["hung"], shown["suspended"], shown["crashed"]) == (True, True, False, False)
    assert (shown["ever_hung"], shown["hang_count"]) == (True, 1)
    assert shown["counts"] == {
        "events": 1,
        "metrics": 0,
        "states": 0,
        "errors": 0,
        "written": 0,
        "shipped": 0,
        "acknowledged": 0,
        "gaps": 0,
        "lost_bytes": 0,
        "dropped": {},
    }


@pytest.mark.parametrize("t", [10**30, -(10**30), 2**63, -1])
def test_a_time_that_no_calendar_has_does_not_make_a_session_unreadable(t):
    shown = public(begin(first=Open(t=t, product="p", version="1")).head)
    assert shown["created_at"] in ("9999-12-31T23:59:59.999999Z", "1970-01-01T00:00:00.000000Z")


@pytest.mark.parametrize(
    ("status", "active"),
    [
        ("active", True),
        ("hung", True),
        ("suspended", True),
        ("ended", False),
        ("crashed", False),
        ("abnormal", False),
    ],
)
def test_active_means_never_ended(status, active):
    assert public(Head(id=ID, product="p", version="1", status=status))["active"] is active
