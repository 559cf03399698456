"""What the service manager is told, in words."""

import pytest

from datacat.server.notify import Notifier, Rate, how_it_goes, size


@pytest.mark.parametrize(
    ("stats", "rate", "text"),
    [
        ({"open_sessions": 12, "size_bytes": 1_200_000_000}, 340.2, "12 sessions open, 340 records/s, store 1.2 GB"),
        ({"open_sessions": 1, "size_bytes": 0}, 0.0, "1 session open, 0 records/s, store 0 bytes"),
        ({"open_sessions": 0, "size_bytes": 512_000}, 0.25, "0 sessions open, 0.2 records/s, store 512 kB"),
    ],
)
def test_the_status_is_a_sentence_for_people(stats, rate, text):
    assert how_it_goes(stats, rate) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(999, "999 bytes"), (1000, "1.0 kB"), (99_499, "99.5 kB"), (123_456, "123 kB"), (999_600, "1.0 MB"), (5 * 10**12, "5.0 TB")],
)  # fmt: skip
def test_a_size_has_three_digits_at_most_or_so(count, text):
    assert size(count) == text


def test_a_rate_is_since_it_was_last_asked():
    now = [100.0]
    rate = Rate(lambda: now[0])
    now[0] = 110.0
    assert rate.of(50) == 5.0
    assert rate.of(60) == 0.0  # no time has passed
    now[0] = 112.0
    assert rate.of(60) == 0.0
    now[0] = 114.0
    assert rate.of(62) == 1.0


def test_without_a_manager_nothing_happens():
    notifier = Notifier({})
    assert not notifier.heard
    notifier.ready("x")
    notifier.reloading()
    notifier.status("x")
    notifier.stopping("x")
    notifier.tell("x", [0])
    notifier.close()
