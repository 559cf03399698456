"""kill -9 while a server takes batches, merges, empties segments, deletes and backs up: 0 lost, 0 invented."""

import os
import random
import sys
import threading

import pytest
from system.storms import Busy, Storm

from datacat.store import backup
from datacat.store.checking import Report, check

ROUNDS = 300


@pytest.fixture
def busy(tmp_path):
    busy = Busy(tmp_path)
    yield busy
    busy.close()


@pytest.mark.timeout(180)
def test_some_kills_at_random_points_lose_and_invent_nothing(busy, tmp_path):
    campaign(busy, tmp_path / "backups", 3)


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_kills_at_random_points_lose_and_invent_nothing(busy, tmp_path):
    campaign(busy, tmp_path / "backups", int(os.environ.get("DATACAT_ROUNDS", ROUNDS)))


def campaign(busy, backups, rounds):
    rng = random.Random(11)
    storm = Storm(rng)
    pause = threading.Event()
    lost = invented = made = 0
    for number in range(rounds):
        if number % 50 == 49:
            sys.stdout.write(f"{number + 1} kills\n")
            sys.stdout.flush()
        busy.start("--backup-dir", backups, "--backup-interval-h", "0.5", "--backup-keep", "2", "--retention-days", "1")
        lost_now, invented_now = storm.verify(busy, 60)
        storm.begin(busy)
        pause.wait(rng.uniform(0.0, 1.5))
        busy.process.kill()
        busy.process.wait(20)
        storm.end()
        lost, invented = lost + lost_now, invented + invented_now
        assert (lost, invented) == (0, 0), f"after {number} kills"
        if number % 10 == 9 or number == rounds - 1:
            report = Report()
            list(check(busy.data / "store", report))
            # A write that was killed is cut off by the next start.
            assert {trouble.kind for trouble in report.troubles} <= {"torn", "stray"}, report.troubles
            for path in backups.glob("datacat-*Z"):
                list(backup.verify(path, backup.read_manifest(path)))
                made += 1
    busy.start()
    lost_now, invented_now = storm.verify(busy)
    stats = (len(storm.acked), sum(n for _, n in storm.acked.values()), len(storm.dropped), len(storm.old))
    sys.stdout.write(f"{rounds} kills, sessions/events/deleted/expiring {stats}, backups verified {made}\n")
    assert (lost + lost_now, invented + invented_now) == (0, 0)
    assert storm.acked
    assert not storm.refused, storm.refused[:3]
