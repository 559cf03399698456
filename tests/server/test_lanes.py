"""Reads pass batches, nobody is starved, and some threads are left when all batches stand still."""

import queue
from types import SimpleNamespace

import pytest

from datacat.server.lanes import FIRST_IN_A_ROW, Lanes


def conn(name, *, first):
    return SimpleNamespace(name=name, is_first=first)


def test_the_first_lane_passes_and_the_second_has_its_turn():
    lanes = Lanes(10, threads=8)
    for number in range(2):
        lanes.put(conn(f"batch{number}", first=False))
    for number in range(5):
        lanes.put(conn(f"read{number}", first=True))
    taken = [lanes.get().name for _ in range(7)]
    assert taken[:FIRST_IN_A_ROW] == ["read0", "read1", "read2"]
    assert taken[FIRST_IN_A_ROW] == "batch0"
    assert sorted(taken) == sorted(f"batch{n}" for n in range(2)) + [f"read{n}" for n in range(5)]


def test_two_threads_never_serve_the_second_lane():
    lanes = Lanes(10, threads=4)
    for _ in range(4):
        lanes.put(conn("batch", first=False))
    assert [lanes.get().name for _ in range(2)] == ["batch", "batch"]
    assert lanes.is_full
    with pytest.raises(queue.Empty):
        lanes.get(block=False)
    lanes.put(conn("read", first=True))
    assert lanes.get(block=False).name == "read"
    lanes.done()
    assert lanes.get(block=False).name == "batch"
    assert [one.name for one in lanes.give_back()] == ["batch"]
    assert lanes.waiting == 0


def test_each_lane_has_its_places():
    lanes = Lanes(2, threads=1)
    for first in (True, False):
        for _ in range(2):
            lanes.put(conn("x", first=first))
        with pytest.raises(queue.Full):
            lanes.put(conn("x", first=first))


def test_what_ends_a_thread_comes_last():
    lanes = Lanes(2, threads=1)
    lanes.put(None)
    lanes.put(conn("batch", first=False))
    lanes.put(conn("read", first=True))
    assert [getattr(lanes.get(block=False), "name", None) for _ in range(2)] == ["read", "batch"]
    lanes.done()
    assert lanes.get(block=False) is None
