"""The power of a busy server's disk is cut, a real ext4: what was acknowledged is there, and nothing that was not sent."""

import os
import random
import sys
import threading

import pytest
from system.disks import Disk
from system.storms import Busy, Storm

from datacat.store.checking import Report, check

DISK_BYTES = 256 * 1024 * 1024


@pytest.fixture
def disk(tmp_path):
    disk = Disk(tmp_path, "ext4", DISK_BYTES)
    yield disk
    disk.close()


@pytest.fixture
def busy(disk, tmp_path):
    (disk.path / "data").mkdir()
    os.sync()  # the folder and the key are older than what is tested
    busy = Busy(tmp_path, disk.path / "data")
    os.sync()
    yield busy
    busy.close()


def test_a_cut_takes_what_was_not_synced(disk):
    kept, lost = disk.path / "kept", disk.path / "lost"
    with kept.open("wb") as file:
        file.write(b"kept")
        file.flush()
        os.fsync(file.fileno())
    folder = os.open(disk.path, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)
    lost.write_bytes(b"lost")
    disk.cut_power(lambda: None)
    assert kept.read_bytes() == b"kept"
    assert not lost.exists() or not lost.read_bytes()


@pytest.mark.timeout(180)
def test_some_power_cuts_lose_and_invent_nothing(busy, disk):
    campaign(busy, disk, 3)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_power_cuts_lose_and_invent_nothing(busy, disk):
    campaign(busy, disk, 60)


def campaign(busy, disk, rounds):
    rng = random.Random(17)
    storm = Storm(rng)
    pause = threading.Event()
    backups = disk.path / "backups"

    def stop():
        busy.process.kill()
        busy.process.wait(20)
        storm.end()

    for number in range(rounds):
        busy.start("--backup-dir", backups, "--backup-interval-h", "0.5", "--backup-keep", "1", "--retention-days", "1")
        assert storm.verify(busy, 60) == (0, 0), f"after {number} cuts"
        storm.begin(busy)
        pause.wait(rng.uniform(0.1, 1.5))
        # ext4 may say yes to an fsync that was under way in the moment of the cut, and has not done it.
        owed, gone = dict(storm.acked), set(storm.dropped)
        disk.cut_power(stop)
        storm.acked, storm.dropped = owed, gone
        for status, body in storm.refused:
            assert status == 503, body
        storm.refused.clear()
        report = Report()
        list(check(busy.data / "store", report))
        # What was not durable yet may be torn, and hints never are; the next start cuts it off and writes new ones.
        assert {trouble.kind for trouble in report.troubles} <= {"torn", "stray", "hint"}, report.troubles
    busy.start()
    assert storm.verify(busy) == (0, 0)
    sys.stdout.write(f"{rounds} cuts, {len(storm.acked)} sessions, {sum(n for _, n in storm.acked.values())} events\n")
    assert storm.acked
    busy.process.terminate()
    assert busy.process.wait(30) == 0
    report = Report()
    list(check(busy.data / "store", report))
    assert not report.troubles
