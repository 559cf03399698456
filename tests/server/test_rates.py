"""Buckets: what was saved up is taken at once, then as much as comes in."""

import pytest

from datacat.server import rates
from datacat.server.rates import Limit, Rates, of_address


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_a_full_bucket_gives_its_quota_and_no_more(clock):
    buckets = Rates(clock)
    limit = Limit("key", "a", 5.0, 10)
    assert [buckets.take(limit).ok for _ in range(52)] == [True] * 50 + [False] * 2


def test_it_fills_with_time(clock):
    buckets = Rates(clock)
    limit = Limit("key", "a", 5.0, 10)
    while buckets.take(limit).ok:
        pass
    clock.now += 1.0
    assert [buckets.take(limit).ok for _ in range(6)] == [True] * 5 + [False]
    clock.now += 1000.0
    assert sum(buckets.take(limit).ok for _ in range(100)) == 50


@pytest.mark.parametrize("per_s", [0.5, 1, 3, 7.7, 1000])
def test_over_a_long_time_it_gives_its_rate(clock, per_s):
    buckets = Rates(clock)
    limit = Limit("key", "a", per_s, 10)
    start, taken = clock.now, 0
    for _ in range(20_000):
        clock.now += 0.4 / per_s
        taken += buckets.take(limit).ok
    expected = per_s * (clock.now - start) + limit.quota
    assert expected * 0.99 - 2 <= taken <= expected + 1


def test_who_waits_as_long_as_he_was_told_comes_in(clock):
    buckets = Rates(clock)
    limit = Limit("key", "a", 0.3, 10)
    while (refused := buckets.take(limit)).ok:
        pass
    assert refused.headers["Retry-After"] == str(refused.reset_s)
    clock.now += refused.reset_s
    assert buckets.take(limit).ok


def test_the_headers_tell_quota_window_rest_and_reset(clock):
    buckets = Rates(clock)
    limit = Limit("key-read", "a", 2.0, 10)
    first = buckets.take(limit)
    assert first.headers == {"RateLimit-Policy": '"key-read";q=20;w=10', "RateLimit": '"key-read";r=19;t=1'}
    assert [buckets.take(limit).left for _ in range(19)] == list(range(18, -1, -1))
    assert buckets.take(limit).headers["RateLimit"] == '"key-read";r=0;t=1'


def test_one_does_not_take_from_another(clock):
    buckets = Rates(clock)
    while buckets.take(Limit("key", "a", 1.0)).ok:
        pass
    assert buckets.take(Limit("key", "b", 1.0)).ok
    assert buckets.take(Limit("address", "a", 1.0)).ok


def test_a_flood_of_addresses_takes_no_memory(clock, monkeypatch):
    monkeypatch.setattr(rates, "MAX_BUCKETS", 100)
    buckets = Rates(clock)
    for number in range(10_000):
        buckets.take(Limit("address", str(number), 1.0))
    assert len(buckets._empty_at) == 100


@pytest.mark.parametrize(
    ("address", "bucket"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:0:1:aaaa::1", "2001:db8:0:1::/64"),
        ("2001:db8:0:1:bbbb::2", "2001:db8:0:1::/64"),
        ("", ""),
        ("nonsense", "nonsense"),
    ],
)
def test_an_ipv6_network_of_one_customer_is_one_address(address, bucket):
    assert of_address(address) == bucket
