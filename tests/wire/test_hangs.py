"""When a silent app is sampled, and what the lines of ours in its stacks file say."""

import pytest

from datacat.wire.hangs import (
    Handle,
    handle_line,
    handle_of,
    lead_s,
    points_s,
    slow_s,
    stacks_way,
    thread_id,
    thread_line,
)


@pytest.mark.parametrize(
    ("timeout_s", "slow_s", "points"),
    [
        (60, 5, (5, 58, 59, 60)),
        (60, 0, (58, 59, 60)),
        (60, 59, (58, 59, 60)),
        (8, 5, (5, 6, 7, 8)),
        (5, 5, (3, 4, 5)),
        (1, 5, (0.5, 0.75, 1)),
        (1, 0.2, (0.2, 0.5, 0.75, 1)),
    ],
)
def test_a_silent_app_is_sampled_when_slow_and_three_times_until_its_timeout(timeout_s, slow_s, points):
    assert points_s(timeout_s, slow_s) == points


@pytest.mark.parametrize(("timeout_s", "lead"), [(60, 0.1), (2, 0.1), (1, 0.05)])
def test_stacks_are_asked_for_before_they_are_read(timeout_s, lead):
    assert lead_s(timeout_s) == lead


@pytest.mark.parametrize(
    ("settings", "environ", "slow"),
    [
        ({}, {}, 5.0),
        ({"slow_seconds": 2}, {"DATACAT_SLOW_SECONDS": "3"}, 2.0),
        ({}, {"DATACAT_SLOW_SECONDS": "3"}, 3.0),
        ({"slow_seconds": 0}, {}, 0.0),
        ({"slow_seconds": "x"}, {"DATACAT_SLOW_SECONDS": "nan"}, 5.0),
        ({"slow_seconds": -1}, {}, 5.0),
    ],
)
def test_the_slow_level_is_the_sessions_own_or_that_of_the_environment(settings, environ, slow):
    assert slow_s(settings, environ) == slow


@pytest.mark.parametrize(
    ("settings", "environ", "way"),
    [
        ({}, {}, "auto"),
        ({"hang_stacks": "OFF"}, {"DATACAT_HANG_STACKS": "thread"}, "off"),
        ({}, {"DATACAT_HANG_STACKS": "sigwinch"}, "SIGWINCH"),
        ({"hang_stacks": "SIGKILL"}, {}, "auto"),
        ({"hang_stacks": ["x"]}, {"DATACAT_HANG_STACKS": "thread"}, "thread"),
    ],
)
def test_only_signals_that_are_ignored_by_default_are_taken(settings, environ, way):
    assert stacks_way(settings, environ) == way


def test_the_first_line_names_signal_and_descriptor():
    assert handle_of(handle_line(Handle(23, 1000)) + "more\n") == Handle(23, 1000)


@pytest.mark.parametrize(
    "text", ["", "# at 5\n", "# signal 23\n", "# signal x fd 3\n", "# signal 9 fd ²\n", "x# signal 1 fd 1"]
)
def test_any_other_first_line_names_nothing_so_that_nobody_is_signalled(text):
    assert handle_of(text) is None


def test_threads_are_named_by_the_id_of_a_dump():
    line = thread_line(0x7F01, "Thread 1\n# at 5")
    assert line == "# thread 0x7f01 Thread 1 # at 5\n"
    assert thread_id("0x00007F01") == thread_id("7f01") == "7f01"
