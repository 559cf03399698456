"""A worker works again after a failure, at once when poked, and is gone after stop."""

import logging
import threading

from datacat.worker import Pump, Worker


def test_a_poked_worker_runs_at_once_and_a_stopped_one_is_gone():
    ran = threading.Semaphore(0)
    worker = Worker("test", 3600, ran.release)
    worker.start()
    assert ran.acquire(timeout=5)
    worker.poke()
    assert ran.acquire(timeout=5)

    assert worker.stop()
    assert not worker.alive


def test_a_failure_is_counted_and_logged_and_the_next_call_still_runs(caplog):
    ran = threading.Semaphore(0)

    def work():
        ran.release()
        if worker.failures == 0:
            raise ValueError("once")

    worker = Worker("test", 3600, work)
    with caplog.at_level(logging.CRITICAL):
        worker.start()
        assert ran.acquire(timeout=5)
        worker.poke()
        assert ran.acquire(timeout=5)
        worker.poke()
        assert ran.acquire(timeout=5)
        worker.stop()

    assert worker.failures == 1


def test_a_worker_with_more_to_do_does_not_wait():
    left = [5, 4, 3, 2, 1]
    done = threading.Event()

    def work():
        left.pop()
        if not left:
            done.set()
        return bool(left)

    worker = Worker("test", 3600, work)
    worker.start()

    assert done.wait(5)
    assert worker.stop()


def test_a_pump_ends_when_its_source_ends():
    source = threading.Event()
    pump = Pump("test", lambda: (source.wait(), None)[1], source.set)
    pump.start()
    assert pump.alive

    assert pump.stop()
    assert not pump.alive


def test_stopping_twice_or_before_the_start_is_harmless():
    worker = Worker("test", 1, lambda: None)
    assert worker.stop()
    assert worker.stop()
