"""When the loop wakes up, and how late it did."""

import pytest

from datacat.daemon.pace import is_due, nap

S = 1_000_000_000


@pytest.mark.parametrize(
    ("sooner", "looks_s", "wait_s"),
    [
        ([], [], 5.0),
        ([None, 103.0], [None], 3.0),
        ([102.0, 104.0], [54.0], 2.0),
        ([], [52.0, 51.0, None], 1.01),
        ([], [49.0], 0.01),
        ([99.0], [], 0.0),
    ],
)
def test_the_first_reason_ends_the_wait(sooner, looks_s, wait_s):
    looks = [None if each is None else int(each * S) for each in looks_s]
    assert nap(105.0, sooner, looks, 100.0, 50 * S).wait_s == pytest.approx(wait_s)


def test_a_look_is_no_tick_unless_it_was_late():
    wait = nap(105.0, [], [52 * S], 100.0, 50 * S)
    assert not wait.is_over(102.02)
    assert wait.is_over(102.6)
    assert wait.is_over(105.0)
    assert wait.late_s(102.51) == pytest.approx(0.5)
    assert wait.late_s(101.0) == 0.0


def test_a_pause_is_what_a_wait_lasted_beyond_what_was_asked_for():
    wait = nap(105.0, [], [], 100.0, 50 * S)
    assert wait.paused_s(55 * S) == 0.0
    assert wait.paused_s(85 * S) == pytest.approx(30.0)
    late = nap(95.0, [], [], 100.0, 50 * S)  # the loop was busy: late, but nothing stood still
    assert late.late_s(100.001) == pytest.approx(5.001)
    assert late.paused_s(int(50.001 * S)) == pytest.approx(0.001)


def test_an_app_is_due_when_its_time_has_come():
    assert is_due([None, 7], 7)
    assert not is_due([None, 8], 7)
    assert not is_due([], 7)
