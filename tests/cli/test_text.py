"""Values read well: times, spans, ids, states."""

import pytest

from datacat.cli import text
from datacat.errors import WireError

NOON_US = 1_767_268_800_000_000  # 2026-01-01T12:00:00Z


@pytest.mark.parametrize(
    ("given", "us"),
    [
        ("2h", NOON_US - 7_200_000_000),
        ("30min", NOON_US - 1_800_000_000),
        ("30m", NOON_US - 1_800_000_000),
        ("1.5 s", NOON_US - 1_500_000),
        ("7d", NOON_US - 7 * 86_400_000_000),
        ("2026-01-01", NOON_US - 43_200_000_000),
        ("2026-01-01T13:00:00+01:00", NOON_US),
        ("1767268800", NOON_US),
        ("1767268800.5", NOON_US + 500_000),
    ],
)
def test_a_time_may_be_an_age_a_date_rfc_3339_or_a_number(given, us):
    assert text.moment_us(given, NOON_US) == us


@pytest.mark.parametrize("given", ["", "yesterday", "5 parsecs", "2026-13-01", "nan", "1e400"])
def test_what_is_no_time_is_refused_with_the_forms_that_are(given):
    with pytest.raises(WireError, match="2h"):
        text.moment_us(given, NOON_US)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-1, "0.0 s"),
        (0.44, "0.4 s"),
        (59.4, "59 s"),
        (59.9, "1 min"),
        (200, "3 min 20 s"),
        (7500, "2 h 5 min"),
        (90_000, "1 d 1 h"),
        (86_400, "1 d"),
    ],
)
def test_a_span_has_at_most_two_units(seconds, said):
    assert text.span(seconds) == said


def test_short_ids_are_beginnings_that_differ():
    ids = ["019a0000-0000-7abc-8000-000000000001", "019a0000-0000-7abd-8000-000000000001", "019b0000-0000-7000-8000-0"]
    short = text.short_ids(ids)
    assert len(set(short.values())) == 3
    assert all(whole.startswith(part) for whole, part in short.items())
    assert text.short_ids(ids[:1])[ids[0]] == "019a0000-0000"
    assert text.short_ids([]) == {}
    assert text.short_ids([ids[0], ids[0]]) == {ids[0]: "019a0000-0000"}


def test_the_leaves_of_a_state_are_its_dotted_paths():
    state = {"window": {"open": ["w1"], "size": {"w": 3}}, "empty": {}, "n": 1}
    assert dict(text.leaves(state)) == {"window.open": ["w1"], "window.size.w": 3, "empty": {}, "n": 1}


def test_one_line_holds_no_control_character_and_keeps_to_its_width():
    assert text.one_line("a\x1b[31m\tb\n c", 80) == "a [31m b c"
    assert text.one_line("abcdef", 4) == "abc…"


def test_an_exit_is_a_signal_or_a_code_or_unknown():
    assert text.exit_of({"exit_signal": 9, "exit_code": None}) == "SIGKILL"
    assert text.exit_of({"exit_signal": 99}) == "signal 99"
    assert text.exit_of({"exit_signal": None, "exit_code": 0}) == "0"
    assert text.exit_of({}) == "-"


def test_an_event_says_its_exception_once():
    said = text.event_text(
        {"exception_type": "ValueError", "exception_msg": "bad", "message": "bad", "data": {"n": 1, "who": "me"}}
    )
    assert said == "ValueError: bad  n=1 who=me"


def test_a_tame_text_has_no_character_that_commands_a_terminal():
    assert text.tame("a\x1b[31mb\x07\x9b\r\nc\u202ed\u2066e") == "a [31mb    c d e"
    assert text.tame("Grüße 10\u202f000 ☃") == "Grüße 10\u202f000 ☃"
