"""When an app is called hung, suspended or recovered: every transition, and every reason not to judge."""

import pytest

from datacat.daemon.watch import Gaps, Look, Watch, again_ns, deadline_ns, hang_s, points_s, step, taken_over
from datacat.wire.layout import Beat
from datacat.wire.records import Event, Verdict

S = 1_000_000_000
US = 1_000_000
START_US = 1_700_000_000_000_000


def beat_at(second, *, timeout_s=60.0, on=True, paused=False):
    return Beat(second * S, START_US + second * US, timeout_s, on=on, paused=paused)


def look(second, beat, *, held="", timeout_s=60.0, slow_s=0.0, **gaps):
    return Look(int(second * S), START_US + int(second * US), beat, held, timeout_s, slow_s, Gaps(**gaps))


def said(records):
    return [record.name if isinstance(record, Event) else record.status for record in records]


def test_silence_longer_than_the_timeout_is_a_hang_and_is_said_once():
    beat = beat_at(100)
    quiet = step(Watch(), look(160, beat))
    assert quiet.records == []
    hung = step(quiet.watch, look(161, beat))
    assert said(hung.records) == ["application_appears_hung", "hung"]
    assert hung.hung
    assert hung.records[0].data == {
        "last_heartbeat": "2023-11-14T22:15:00.000000Z",
        "silent_s": 61.0,
        "timeout_s": 60.0,
    }
    assert step(hung.watch, look(200, beat)).records == []


def test_the_next_heartbeat_ends_the_hang_with_its_length_and_its_time():
    hung = step(Watch(), look(161, beat_at(100)))
    over = step(hung.watch, look(175, beat_at(172)))
    assert said(over.records) == ["application_recovered", "active"]
    event, verdict = over.records
    assert event.t == verdict.t == START_US + 172 * US
    assert event.data["duration_s"] == verdict.hang_s == 72.0
    assert step(over.watch, look(176, beat_at(172))).records == []


def test_the_apps_own_timeout_counts_and_ours_when_it_has_none():
    assert said(step(Watch(), look(103, beat_at(100, timeout_s=2))).records)[0] == "application_appears_hung"
    assert step(Watch(), look(103, beat_at(100, timeout_s=0), timeout_s=5)).records == []
    assert step(Watch(), look(106, beat_at(100, timeout_s=0), timeout_s=5)).records != []


@pytest.mark.parametrize("beat", [beat_at(0), beat_at(100, on=False), beat_at(100, paused=True)])
def test_who_never_beat_or_paused_is_not_judged(beat):
    assert step(Watch(), look(100_000, beat)).records == []
    assert deadline_ns(Watch(), beat, 60) is None


def test_a_pause_ends_a_hang():
    hung = step(Watch(), look(161, beat_at(100)))
    over = step(hung.watch, look(170, beat_at(100, paused=True)))
    assert over.records[0].data == {"duration_s": 70.0, "by": "pause"}


@pytest.mark.parametrize("held", ["stopped", "traced"])
def test_a_held_app_is_suspended_and_starts_anew_when_it_goes_on(held):
    beat = beat_at(100)
    suspended = step(Watch(), look(300, beat, held=held))
    assert said(suspended.records) == ["application_suspended", "suspended"]
    assert suspended.records[0].data == {"reason": held}
    assert step(suspended.watch, look(400, beat, held=held)).records == []
    resumed = step(suspended.watch, look(500, beat))
    assert said(resumed.records) == ["application_resumed", "active"]
    assert resumed.records[0].data == {"duration_s": 200.0}
    assert step(resumed.watch, look(559, beat)).records == []
    assert said(step(resumed.watch, look(561, beat)).records) == ["application_appears_hung", "hung"]


def test_a_hang_that_turns_into_a_stop_keeps_its_length():
    hung = step(Watch(), look(161, beat_at(100)))
    stopped = step(hung.watch, look(165, beat_at(100), held="stopped"))
    assert said(stopped.records) == ["active", "application_suspended", "suspended"]
    assert stopped.records[0].hang_s == 65.0


def test_a_late_tick_of_our_own_moves_the_deadline():
    beat = beat_at(100)
    late = step(Watch(), look(200, beat, late_s=0.6))
    assert late.records == []
    assert step(late.watch, look(259, beat)).records == []
    assert step(late.watch, look(261, beat)).records != []
    assert step(Watch(), look(200, beat, late_s=0.4)).records != []


def test_a_sleep_of_the_machine_is_a_suspension_and_never_a_hang():
    slept = step(Watch(), look(200, beat_at(100), slept_s=3600))
    assert said(slept.records) == ["application_suspended", "suspended", "application_resumed", "active"]
    began = START_US + 200 * US - 3600 * US
    assert [record.t for record in slept.records] == [began, began, START_US + 200 * US, START_US + 200 * US]
    assert step(slept.watch, look(259, beat_at(100))).records == []


def test_the_length_of_a_hang_is_known_while_it_lasts():
    hung = step(Watch(), look(161, beat_at(100)))
    assert hang_s(hung.watch, 190 * S) == 90.0
    assert hang_s(Watch(), 190 * S) is None


def test_the_deadline_is_the_moment_of_the_hang():
    beat = beat_at(100)
    deadline = deadline_ns(Watch(judged_from_ns=130 * S), beat, 5)
    assert deadline == 190 * S
    watch = Watch(judged_from_ns=130 * S)
    assert step(watch, look(189.9, beat)).records == []
    assert any(isinstance(record, Verdict) for record in step(watch, look(190.1, beat)).records)


def steady(second, **kwargs):
    return beat_at(second, **kwargs)._replace(steady=True)


def test_slow_is_told_when_it_is_over_with_its_length_and_not_before():
    slow = step(Watch(), look(106, steady(100), slow_s=5))
    assert slow.records == []
    assert again_ns(slow.watch, steady(100), 106 * S) == 106 * S + 300_000_000
    over = step(slow.watch, look(112, steady(111), slow_s=5))
    (event,) = over.records
    assert (event.name, event.level, event.t) == ("application_slow", "warning", START_US + 111 * US)
    assert event.data == {"duration_s": 11.0}
    assert step(over.watch, look(113, steady(112), slow_s=5)).records == []


def test_slow_that_becomes_a_hang_is_only_a_hang():
    slow = step(Watch(), look(106, steady(100), slow_s=5))
    hung = step(slow.watch, look(161, steady(100), slow_s=5))
    over = step(hung.watch, look(170, steady(169), slow_s=5))
    assert said(hung.records) == ["application_appears_hung", "hung"]
    assert said(over.records) == ["application_recovered", "active"]
    assert step(over.watch, look(171, steady(170), slow_s=5)).records == []


@pytest.mark.parametrize(
    ("held", "gaps"), [("stopped", {}), ("frozen", {}), ("", {"slept_s": 30}), ("", {"late_s": 2})]
)
def test_slow_that_was_no_fault_of_the_app_is_not_told(held, gaps):
    slow = step(Watch(), look(106, steady(100), slow_s=5))
    other = step(slow.watch, look(110, steady(100), slow_s=5, held=held, **gaps))
    over = step(other.watch, look(112, steady(111), slow_s=5))
    assert "application_slow" not in said(slow.records + other.records + over.records)


def test_without_a_slow_level_nobody_is_slow():
    quiet = step(Watch(), look(150, steady(100)))
    assert step(quiet.watch, look(151, steady(150))).records == []


def test_an_app_that_beats_itself_is_called_slow_once_for_its_own_rhythm():
    watch, told = Watch(), []
    for second in range(0, 600, 10):  # a beat every 10 s, looked at every second
        for after in range(1, 10):
            moved = step(watch, look(100 + second + after, beat_at(100 + second), slow_s=5))
            watch = moved.watch
            told += said(moved.records)
    assert told == ["application_slow"]
    assert points_s(watch, beat_at(100), 60, 5) == (20, 58, 59, 60)
    assert points_s(watch, steady(100), 60, 5) == (5, 58, 59, 60)


def test_a_standstill_that_no_clock_told_is_a_suspension():
    still = step(Watch(), look(200, beat_at(100), late_s=95, paused_s=95))
    assert said(still.records) == ["application_suspended", "suspended", "application_resumed", "active"]
    assert still.records[0].data == {"reason": "standstill"}
    assert still.records[2].data == {"duration_s": 95.0}
    assert step(still.watch, look(259, beat_at(100))).records == []


def test_a_short_standstill_is_left_out_of_a_silence():
    short = step(Watch(), look(102.2, beat_at(100, timeout_s=2), paused_s=0.4))
    assert short.records == []
    assert step(short.watch, look(102.39, beat_at(100, timeout_s=2))).records == []
    assert step(short.watch, look(102.41, beat_at(100, timeout_s=2))).hung


def test_when_the_app_beat_meanwhile_only_the_daemon_stood_still():
    assert step(Watch(), look(200, beat_at(150), late_s=95, paused_s=95)).records == []


def test_a_standstill_does_not_count_as_time_hung():
    hung = step(Watch(), look(161, beat_at(100)))
    still = step(hung.watch, look(561, beat_at(100), late_s=400, paused_s=400))
    assert hang_s(still.watch, 561 * S) == 61.0
    over = step(still.watch, look(562, beat_at(562)))
    assert over.records[-1].hang_s == 62.0


def test_who_is_slow_or_hung_is_looked_at_more_often_the_shorter_it_lasts():
    hung = step(Watch(), look(103, beat_at(100, timeout_s=2))).watch
    assert again_ns(hung, beat_at(100), 103 * S) == 103 * S + 150_000_000
    assert again_ns(hung, beat_at(100), 1103 * S) == 1108 * S
    assert again_ns(hung, beat_at(100), 101 * S) == 101 * S + 100_000_000
    assert again_ns(Watch(), beat_at(100), 103 * S) is None
    held = step(Watch(), look(300, beat_at(100), held="stopped")).watch
    assert again_ns(held, beat_at(100), 310 * S) == 310 * S + 500_000_000


@pytest.mark.parametrize("last", [None, Verdict(t=1, status="active"), Verdict(t=1, status="crashed")])
def test_an_app_of_whom_nothing_is_open_is_judged_from_now_on(last):
    assert taken_over(last, beat_at(100), 200 * S, START_US, 60) == Watch(judged_from_ns=200 * S)


def test_a_hang_that_an_earlier_daemon_has_told_goes_on_and_ends_with_a_beat():
    told = Verdict(t=START_US + 160 * US, status="hung")
    watch = taken_over(told, beat_at(100), 300 * S, START_US + 300 * US, 60)
    assert step(watch, look(301, beat_at(100))).records == []
    over = step(watch, look(310, beat_at(309)))
    assert said(over.records) == ["application_recovered", "active"]
    assert over.records[0].data["duration_s"] == 209.0


def test_a_hang_that_was_over_before_the_next_daemon_came_is_told_to_be_over():
    told = Verdict(t=START_US + 160 * US, status="hung")
    watch = taken_over(told, beat_at(290), 300 * S, START_US + 300 * US, 60)
    over = step(watch, look(301, beat_at(300)))
    assert over.records[0].data["duration_s"] == 200.0


def test_a_suspension_that_an_earlier_daemon_has_told_ends_when_the_app_is_not_held_any_more():
    told = Verdict(t=START_US + 160 * US, status="suspended")
    watch = taken_over(told, beat_at(100), 300 * S, START_US + 300 * US, 60)
    assert step(watch, look(301, beat_at(100), held="frozen")).records == []
    over = step(watch, look(310, beat_at(100)))
    assert said(over.records) == ["application_resumed", "active"]
    assert over.records[0].data == {"duration_s": 150.0}
