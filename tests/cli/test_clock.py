"""Times of a machine whose clock is wrong: people see the server's clock, programs the machine's own."""

import pytest

from datacat.cli import clock
from datacat.cli.sessions import rows
from datacat.cli.show import sections

HEAD = {
    "id": "x",
    "product": "editor",
    "version": "1",
    "status": "active",
    "created_at": "2026-01-01T12:00:00.000000Z",
    "ended_at": None,
    "clock_skew_s": 3600.0,
    "counts": {"events": 1},
    "events": [{"timestamp": "2026-01-01T12:00:01.000000Z", "name": "a", "level": "info"}],
}
NOW_US = 1_767_265_260_000_000  # 2026-01-01T11:01:00Z


def test_times_are_moved_to_the_servers_clock_and_the_rest_stays():
    shown = clock.corrected(HEAD)
    assert shown["created_at"] == "2026-01-01T11:00:00.000000Z"
    assert shown["events"][0]["timestamp"] == "2026-01-01T11:00:01.000000Z"
    assert shown["ended_at"] is None
    assert HEAD["created_at"] == "2026-01-01T12:00:00.000000Z"


@pytest.mark.parametrize("skew", [None, 0.0, 4.9, -4.9, "3600"])
def test_a_clock_that_is_right_enough_is_left_alone(skew):
    head = {**HEAD, "clock_skew_s": skew}
    assert clock.corrected(head) == head


def test_a_session_that_began_a_minute_ago_says_so_whatever_its_machine_believes():
    (row,) = rows([HEAD], NOW_US, whole_ids=False)
    assert "1m ago" in str(row) or "60s ago" in str(row) or "1 min ago" in str(row), row
    parts = dict(sections(clock.corrected(HEAD), [], 1, NOW_US))
    assert any("ahead; the times here are corrected" in str(line) for line in parts["Facts"])
