"""The watchdog: what counts as work, and when it is silent. Time is the test's."""

import threading

import pytest

from datacat.errors import StoreError
from datacat.server import watchdog
from datacat.server.watchdog import SelfCheck, Watchdog, limit_s
from datacat.store.memory import MemoryStore


class Job:
    def __init__(self, interval_s, last_ended):
        self.name, self.interval_s, self.last_ended = "sweep", interval_s, last_ended


class Http:
    def __init__(self):
        self.asked = []
        self.error = None

    def probe(self, timeout_s):
        self.asked.append(timeout_s)
        if self.error:
            raise self.error


class Store(MemoryStore):
    limit_s = None

    def check_progress(self, limit_s):
        self.limit_s = limit_s
        super().check_progress(limit_s)


def test_work_is_proven_by_a_request_a_store_and_every_job():
    http, store = Http(), Store()
    SelfCheck(http, store, [Job(5.0, 0.0)], lambda: 60.0, 18.0)()
    assert http.asked == [6.0]
    assert store.limit_s == 4.5
    SelfCheck(http, store, [], lambda: 0.0, 600.0)()
    assert store.limit_s == watchdog.MAX_COMMIT_S


@pytest.mark.parametrize(("interval_s", "silent_s", "hangs"), [(5, 59, False), (5, 61, True), (600, 1799, False), (600, 1801, True)])  # fmt: skip
def test_a_job_that_does_not_end_is_named(interval_s, silent_s, hangs):
    check = SelfCheck(Http(), Store(), [Job(interval_s, 0.0)], lambda: float(silent_s), 20.0)
    if not hangs:
        check()
        return
    with pytest.raises(RuntimeError, match=f"the job sweep has not ended for {silent_s} s"):
        check()


def test_a_request_that_is_not_answered_and_a_store_that_is_closed_are_no_work():
    http, store = Http(), Store()
    http.error = TimeoutError("timed out")
    with pytest.raises(TimeoutError):
        SelfCheck(http, store, [], lambda: 0.0, 20.0)()
    store.close()
    with pytest.raises(StoreError, match="closed"):
        SelfCheck(Http(), store, [], lambda: 0.0, 20.0)()


class Notifier:
    heard = True

    def __init__(self):
        self.texts = []
        self.told = threading.Event()

    def tell(self, text):
        self.texts.append(text)
        self.told.set()


def test_it_is_silent_while_the_check_fails_and_says_why_once_it_is_asked(caplog):
    notifier = Notifier()
    failing, checked = [True], threading.Semaphore(0)

    def check():
        checked.release()
        if failing[0]:
            raise RuntimeError("the pool sleeps")

    dog = Watchdog(check, notifier, 0.06, kills_itself=False)
    dog.start()
    try:
        for _ in range(4):
            assert checked.acquire(timeout=10)
        assert notifier.texts == []
        assert "the watchdog does not beat: the pool sleeps" in caplog.text
        failing[0] = False
        assert notifier.told.wait(10)
        assert set(notifier.texts) == {"WATCHDOG=1"}
    finally:
        dog.stop()
        dog.close()


def test_nobody_watches_nothing_runs():
    before = threading.active_count()
    dog = Watchdog(lambda: None, Notifier(), 0.0, kills_itself=False)
    dog.start()
    assert threading.active_count() == before
    dog.stop()
    dog.close()


@pytest.mark.parametrize(
    ("environ", "expected_s"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, 0.0),
        ({}, 0.0),
        ({"WATCHDOG_USEC": "x"}, 0.0),
        ({"WATCHDOG_USEC": "-5"}, 0.0),
    ],
)
def test_the_managers_limit_is_read_when_it_is_for_this_process(environ, expected_s):
    assert limit_s(environ, 7) == expected_s
