"""Memory that is free goes back to the system, and where nothing can be done nothing happens."""

import ctypes
import sys

import pytest

from datacat.host import heap


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_other_systems_are_left_alone(monkeypatch, platform):
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: pytest.fail("loaded"))
    assert heap.give_back() is False


def test_a_c_library_that_knows_no_trim_is_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    assert heap.give_back() is False


def test_it_is_asked_once_and_its_answer_told(monkeypatch):
    asked = []

    class Library:
        @staticmethod
        def malloc_trim(keep):
            asked.append(keep)
            return 1

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda _: Library)
    assert heap.give_back() is True
    assert asked == [0]
