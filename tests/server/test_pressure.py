"""A server that is behind refuses what can wait, and keeps room for what cannot."""

import threading

import pytest

from datacat.server.pressure import BEHIND_S, MOST_URGENT, PLAIN_BYTES, RETRY_S, SMALL_BYTES, Pressure
from datacat.server.problems import Refusal


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def refused(begin):
    with pytest.raises(Refusal) as caught:
        begin()
    assert caught.value.status == 503
    assert RETRY_S[0] <= int(caught.value.headers["Retry-After"]) <= RETRY_S[1]


def ordinary(pressure, **more):
    return lambda: pressure.begin(is_urgent=False, **more)


def urgent(pressure, **more):
    return lambda: pressure.begin(is_urgent=True, **more)


def test_a_store_that_keeps_up_takes_batches_from_all_threads_but_one(clock, monkeypatch):
    monkeypatch.setattr("datacat.server.pressure.SLOT_S", 0.01)
    pressure = Pressure(8, clock)
    tokens = [pressure.begin(is_urgent=False) for _ in range(7)]
    refused(urgent(pressure))
    pressure.end(tokens[3])
    pressure.begin(is_urgent=True)


def test_batches_that_hold_no_thread_are_taken_while_the_store_keeps_up(clock):
    pressure = Pressure(2, clock)
    tokens = [pressure.begin(is_urgent=False, waits=False) for _ in range(50)]
    pressure.begin(is_urgent=False)  # a thread has its own count
    clock.now += BEHIND_S + 0.1
    refused(ordinary(pressure, waits=False))
    pressure.begin(is_urgent=True, waits=False)
    for token in tokens:
        pressure.end(token)


def test_a_store_that_is_behind_takes_urgent_batches_that_hold_no_thread_up_to_a_limit(clock):
    pressure = Pressure(8, clock)
    pressure.begin(is_urgent=False, waits=False)
    clock.now += BEHIND_S + 0.1
    for _ in range(MOST_URGENT - 1):
        pressure.begin(is_urgent=True, waits=False)
    refused(urgent(pressure, waits=False))


def test_a_store_that_is_behind_takes_few_ordinary_batches_and_more_urgent_ones(clock):
    pressure = Pressure(8, clock)
    tokens = [pressure.begin(is_urgent=False) for _ in range(4)]
    clock.now += BEHIND_S + 0.1
    refused(ordinary(pressure))
    tokens += [pressure.begin(is_urgent=True) for _ in range(3)]
    refused(urgent(pressure))
    for token in tokens:
        pressure.end(token)
    pressure.begin(is_urgent=False)
    assert pressure.refused == 2


def test_one_thread_is_enough(clock):
    pressure = Pressure(1, clock)
    pressure.begin(is_urgent=False)
    clock.now += BEHIND_S + 0.1
    refused(urgent(pressure))


def test_the_store_is_behind_as_long_as_the_oldest_batch_is_under_way(clock):
    pressure = Pressure(8, clock)
    oldest = pressure.begin(is_urgent=False)
    clock.now += BEHIND_S + 0.1
    pressure.begin(is_urgent=False)
    assert pressure.is_behind()
    pressure.end(oldest)
    assert not pressure.is_behind()


@pytest.mark.parametrize("chance", [0.0, 0.5, 0.999999])
def test_refused_batches_come_again_at_different_times(clock, chance):
    pressure = Pressure(1, clock, lambda: chance)
    pressure.begin(is_urgent=False)
    clock.now += BEHIND_S + 0.1
    refused(ordinary(pressure))


def test_unpacked_bytes_are_bounded_and_small_batches_always_pass(monkeypatch):
    monkeypatch.setattr("datacat.server.pressure.ROOM_S", 0.01)
    pressure = Pressure(8)
    with pressure.unpacked(PLAIN_BYTES - 10):
        refused(pressure.unpacked(SMALL_BYTES + 1).__enter__)
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
