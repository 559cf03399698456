"""A server that is behind refuses what can wait, and keeps room for what cannot."""

import contextlib
import threading

import pytest

from datacat.server.pressure import BEHIND_S, PLAIN_BYTES, RETRY_S, SMALL_BYTES, Pressure
from datacat.server.problems import Refusal


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def refused(entered):
    with pytest.raises(Refusal) as caught, entered:
        pytest.fail("was let in")
    assert caught.value.status == 503
    assert RETRY_S[0] <= int(caught.value.headers["Retry-After"]) <= RETRY_S[1]


def test_a_store_that_keeps_up_takes_batches_from_all_threads_but_one(clock, monkeypatch):
    monkeypatch.setattr("datacat.server.pressure.SLOT_S", 0.01)
    pressure = Pressure(8, clock)
    with contextlib.ExitStack() as stack:
        for _ in range(7):
            stack.enter_context(pressure.storing(is_urgent=False))
        refused(pressure.storing(is_urgent=True))


def test_a_store_that_is_behind_takes_few_ordinary_batches_and_more_urgent_ones(clock):
    pressure = Pressure(8, clock)
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(pressure.storing(is_urgent=False))
        clock.now += BEHIND_S + 0.1
        refused(pressure.storing(is_urgent=False))
        for _ in range(3):
            stack.enter_context(pressure.storing(is_urgent=True))
        refused(pressure.storing(is_urgent=True))
    with pressure.storing(is_urgent=False):
        assert pressure.refused == 2


def test_one_thread_is_enough(clock):
    pressure = Pressure(1, clock)
    with pressure.storing(is_urgent=False):
        clock.now += BEHIND_S + 0.1
        refused(pressure.storing(is_urgent=True))


@pytest.mark.parametrize("chance", [0.0, 0.5, 0.999999])
def test_refused_batches_come_again_at_different_times(clock, chance):
    pressure = Pressure(1, clock, lambda: chance)
    with pressure.storing(is_urgent=False):
        clock.now += BEHIND_S + 0.1
        refused(pressure.storing(is_urgent=False))


def test_unpacked_bytes_are_bounded_and_small_batches_always_pass(monkeypatch):
    monkeypatch.setattr("datacat.server.pressure.ROOM_S", 0.01)
    pressure = Pressure(8)
    with pressure.unpacked(PLAIN_BYTES - 10):
        refused(pressure.unpacked(SMALL_BYTES + 1))
        with pressure.unpacked(SMALL_BYTES):
            pass
    with pressure.unpacked(PLAIN_BYTES):
        pass


def test_a_large_batch_waits_for_its_room():
    pressure = Pressure(8)
    inside, go = threading.Event(), threading.Event()

    def second():
        go.wait(5)
        with pressure.unpacked(PLAIN_BYTES):
            inside.set()

    thread = threading.Thread(target=second)
    thread.start()
    with pressure.unpacked(PLAIN_BYTES):
        go.set()
        assert not inside.is_set()
    assert inside.wait(5)
    thread.join()
