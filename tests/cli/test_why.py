"""Every status and reason has a sentence of its own."""

import pytest

from datacat.cli.why import why
from datacat.wire.routes import END_REASONS, OPEN_STATUSES

NOW_US = 1_767_268_800_000_000


def session(status, reason=None, **more):
    ended = None if status in OPEN_STATUSES else "2026-01-01T11:00:00.000000Z"
    return {
        "status": status,
        "end_reason": reason,
        "created_at": "2026-01-01T10:00:00.000000Z",
        "ended_at": ended,
        "last_heartbeat": "2026-01-01T11:59:00.000000Z",
        **more,
    }


ENDS = [(status, None) for status in sorted(OPEN_STATUSES)] + [
    (status, reason) for status, reasons in END_REASONS.items() for reason in reasons
]


def test_no_two_ends_have_the_same_sentence():
    said = {why(session(status, reason), NOW_US) for status, reason in ENDS}
    assert len(said) == len(ENDS)


@pytest.mark.parametrize(("status", "reason"), ENDS)
def test_it_is_one_sentence_even_when_nothing_else_is_known(status, reason):
    said = why(session(status, reason), NOW_US)
    assert said[0].isupper()
    assert said.endswith(".")
    assert "None" not in said
    assert "\n" not in said


def test_a_kill_names_its_signal():
    assert "SIGSEGV ended it" in why(session("crashed", "signal", exit_signal=11), NOW_US)
    assert "exit code 3" in why(session("crashed", "exit_code", exit_code=3), NOW_US)
    assert "1 min ago" in why(session("hung"), NOW_US)


def test_the_exception_that_the_verdict_names_wins_over_a_later_one():
    events = [
        {
            "name": "parent_process_crashed",
            "exception_type": "KeyError",
            "exception_msg": "'x'",
            "source_file": "app.py",
            "source_line": 7,
        },
        {"name": "later", "exception_type": "ValueError", "exception_msg": "no"},
    ]
    said = why(session("crashed", "exception", events=events), NOW_US)
    assert "nobody handled KeyError: 'x' in app.py:7" in said
    assert "ValueError: no" in why(session("crashed", "exception", events=events[1:]), NOW_US)


def test_the_detail_is_added_unless_it_is_said_already():
    assert why(session("crashed", "unknown", end_detail="status unreadable"), NOW_US).endswith("(status unreadable).")
    assert why(session("crashed", "exit_code", exit_code=3, end_detail="exit code 3"), NOW_US).count("exit code 3") == 1
