"""What heads remember of hangs, suspensions and crashes."""

from storing import A, opened, put

from datacat.store.episodes import MAX_HANGS, MAX_SUSPENSIONS, Hang, Suspension
from datacat.store.memory import MemoryStore
from datacat.wire.records import Close, Event, Verdict


def head(*records):
    store = MemoryStore()
    return put(store, A, opened(), *records)


def verdict(t, status, **more):
    return Verdict(t=t, status=status, **more)


def test_a_healthy_session_remembers_nothing():
    healthy = head(Event(t=200, name="x"), Close(t=300))
    assert (healthy.hangs, healthy.suspensions, healthy.crash) == ([], [], None)


def test_a_hang_ends_with_the_next_status():
    for status, outcome in (
        ("active", "recovered"),
        ("suspended", "suspended"),
        ("crashed", "crashed"),
        ("abnormal", "ended"),
    ):
        assert head(verdict(200, "hung"), verdict(260, status)).hangs == [Hang(200, 260, outcome)]
    assert head(verdict(200, "hung")).hangs == [Hang(200)]


def test_a_better_judge_corrects_how_a_hang_ended():
    corrected = head(
        verdict(200, "hung"), verdict(260, "abnormal", by="server"), verdict(250, "crashed", reason="hang")
    )
    assert corrected.hangs == [Hang(200, 250, "crashed")]


def test_the_newest_hangs_are_listed():
    many = [verdict(200 + n, "hung" if n % 2 == 0 else "active") for n in range(2 * MAX_HANGS + 10)]
    found = head(*many)
    assert found.hang_count == MAX_HANGS + 5
    assert len(found.hangs) == MAX_HANGS
    assert found.hangs[-1] == Hang(200 + 2 * MAX_HANGS + 8, 200 + 2 * MAX_HANGS + 9, "recovered")


def test_suspensions_beyond_the_bound_keep_their_sum():
    count = MAX_SUSPENSIONS + 8
    many = [verdict(1000 + 10 * n, "suspended" if n % 2 == 0 else "active") for n in range(2 * count)]
    spans = head(*many).suspensions
    assert len(spans) == MAX_SUSPENSIONS
    assert sum(end - start for start, end in spans) == 10 * count


def test_a_suspension_goes_on_until_the_session_is_heard_again():
    assert head(verdict(200, "suspended")).suspensions == [Suspension(200, 0)]
    assert head(verdict(200, "suspended", by="server"), Event(t=300, name="x")).suspensions == [Suspension(200, 300)]


def test_the_stack_of_a_hang_belongs_to_the_hang_whatever_comes_first():
    threads = [{"name": "MainThread", "frames": [{"file": "a.py", "line": 1, "function": "wait"}]}]
    event = Event(t=200, name="application_appears_hung", data={"verdict": "waits for a lock", "threads": threads})
    for records in ((event, verdict(200, "hung")), (verdict(200, "hung"), event)):
        assert head(*records).hangs[0].title == "waits for a lock in wait (a.py)"


def test_the_exception_that_ended_the_app_names_the_crash():
    stack = ['  File "/x/load.py", line 1, in load']
    unhandled = Event(t=200, name="unhandled_exception", level="critical", exception_type="KeyError", stacktrace=stack)
    told = Event(t=201, name="parent_process_crashed", level="critical", data={"reason": "exception"})
    crashed = verdict(202, "crashed", reason="exception")
    for records in ((unhandled, told, crashed), (told, crashed, unhandled)):
        assert head(*records).crash.title == "KeyError in load (load.py)"


def test_a_signal_is_no_exception_that_was_logged_before():
    unhandled = Event(t=200, name="unhandled_exception", level="critical", exception_type="KeyError")
    told = Event(t=201, name="parent_process_crashed", data={"reason": "signal", "signal_name": "SIGSEGV"})
    assert head(unhandled, told, verdict(202, "crashed", reason="signal")).crash.title == "SIGSEGV"


def test_a_verdict_alone_names_the_crash_until_more_is_known():
    assert head(verdict(200, "crashed", reason="exit_code", exit_code=3)).crash.title == "exit code 3"
