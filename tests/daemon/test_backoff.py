"""When a daemon asks again: waits grow, jitter spreads, the server is obeyed, and nobody stampedes."""

import random

from datacat.daemon.backoff import LONGEST_WAIT_S, MAX_RETRY_AFTER_S, Backoff


def test_waits_double_up_to_the_longest_and_start_anew_after_success():
    backoff = Backoff(60.0, jitter=lambda: 0.0)
    waits = []
    for _ in range(8):
        backoff.failed(100.0)
        waits.append(backoff.next_s - 100.0)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]
    assert not backoff.ready(159.9)
    assert backoff.ready(160.0)
    backoff.worked()
    assert backoff.ready(0.0)
    backoff.failed(0.0)
    assert backoff.next_s == 1.0


def test_jitter_shortens_a_wait_by_half_at_most():
    backoff = Backoff(60.0, jitter=lambda: 1.0)
    backoff.failed(0.0)
    assert backoff.next_s == 0.5


def test_a_retry_after_is_kept_to_for_a_day_at_most_and_jitter_only_adds_to_it():
    backoff = Backoff(60.0, jitter=lambda: 0.0)
    backoff.failed(0.0, retry_after_s=30.0)
    assert backoff.next_s == 30.0
    backoff.failed(0.0, retry_after_s=1e9)
    assert backoff.next_s == MAX_RETRY_AFTER_S
    late = Backoff(60.0, jitter=lambda: 1.0)
    late.failed(0.0, retry_after_s=30.0)
    assert late.next_s == 60.0
    late.failed(0.0, retry_after_s=1e9)
    assert late.next_s == MAX_RETRY_AFTER_S + LONGEST_WAIT_S


def test_hurry_ends_a_wait_but_not_the_one_that_the_server_asked_for():
    backoff = Backoff(60.0, jitter=lambda: 0.0)
    backoff.failed(100.0)
    backoff.hurry()
    assert backoff.ready(100.0)
    backoff.failed(100.0, retry_after_s=30.0)
    backoff.hurry()
    assert not backoff.ready(129.0)
    assert backoff.ready(130.0)


def test_who_is_refused_asks_seldom_from_the_first_time_on():
    for longest_s, expected_s in ((LONGEST_WAIT_S, 300.0), (5.0, 60.0)):
        backoff = Backoff(longest_s, jitter=lambda: 0.0)
        backoff.failed(0.0, refused=True)
        assert backoff.next_s == expected_s


def first_requests(fleet, down_s, seed, retry_after_s=None):
    """Let a fleet lose its server at one moment; return when each daemon's first request after its return comes."""
    rng = random.Random(seed)
    firsts = []
    for _ in range(fleet):
        backoff = Backoff(LONGEST_WAIT_S, jitter=rng.random)
        now_s = rng.uniform(0.0, 5.0)  # ticks of 5 s, each daemon at its own moment
        while now_s < down_s:
            backoff.failed(now_s, retry_after_s)
            now_s = backoff.next_s
        firsts.append(now_s - down_s)
    return firsts


def busiest_second(firsts):
    seconds = [int(first) for first in firsts]
    return max(map(seconds.count, set(seconds)))


def test_a_fleet_whose_server_was_away_for_a_day_comes_back_over_minutes():
    for seed in range(5):
        firsts = first_requests(600, 24 * 3600.0, seed)
        assert max(firsts) <= LONGEST_WAIT_S  # nobody comes later than 5 minutes
        assert busiest_second(firsts) <= 15  # 600 over 225 s are 2.7 a second in the mean
        assert sum(first < 10.0 for first in firsts) < 60


def test_a_fleet_that_was_told_the_same_retry_after_does_not_come_back_in_one_second():
    for seed in range(5):
        firsts = first_requests(600, 3600.0, seed, retry_after_s=120.0)
        assert busiest_second(firsts) <= 20


def test_without_jitter_the_same_fleet_would_stampede():
    backoffs = [Backoff(LONGEST_WAIT_S, jitter=lambda: 0.0) for _ in range(100)]
    for backoff in backoffs:
        for now_s in (0.0, 1.0, 3.0):
            backoff.failed(now_s)
    assert busiest_second([backoff.next_s for backoff in backoffs]) == 100
