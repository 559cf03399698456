"""A disk that is full, and one that does not keep what was written: reading goes on and nothing acknowledged is lost."""

import contextlib
import json
import os
import random
import shutil
import subprocess
import threading

import pytest
from system.box import eventually
from system.disks import Disk
from system.storms import Busy, Storm

DISK_BYTES = 8 * 1024 * 1024
USUAL = (("tmpfs", 5000), ("ext4", 70_000))
CASES = [
    *USUAL,
    *(
        pytest.param(kind, size, marks=pytest.mark.long)
        for kind in ("tmpfs", "ext4")
        for size in (0, 1, 500, 5000, 20_000, 70_000, 150_000, 300_000)
        if (kind, size) not in USUAL
    ),
]
"""The kind of the file system, and how many bytes of it are left."""


@pytest.fixture
def disk(request, tmp_path):
    """A file system of 8 MB."""
    disk = Disk(tmp_path, request.param, DISK_BYTES)
    yield disk.path
    disk.close()


@pytest.fixture
def busy(disk, tmp_path):
    (disk / "data").mkdir()
    busy = Busy(tmp_path, disk / "data")
    yield busy
    busy.close()


def fill_up(disk, leave_bytes):
    """Take all space but leave_bytes; return the file that has it."""
    filler = disk / "filler"
    os.sync()
    free = shutil.disk_usage(disk).free
    with filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):  # a part is for the file system itself
        for _ in range(max(0, free - leave_bytes) // 512):
            file.write(b"\0" * 512)
    return filler


def storm_until_refused(storm, busy):
    storm.refused.clear()
    storm.begin(busy)
    try:
        eventually(lambda: len(storm.refused) >= 3, 30)
    finally:
        storm.end()


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("disk", "leave_bytes"), CASES, indirect=["disk"])
def test_a_full_disk_is_told_reading_goes_on_and_it_recovers_by_itself(busy, disk, leave_bytes):
    """What is left is used up in the middle of batches, merging, emptying, deleting and backing up."""
    busy.start(
        "--backup-dir", disk / "backups", "--backup-interval-h", "0.5", "--backup-keep", "1", "--retention-days", "1"
    )
    storm = Storm(random.Random(leave_bytes))
    storm.begin(busy, threads=2)
    eventually(lambda: len(storm.acked) > 30, 30)
    storm.end()
    eventually(lambda: (disk / "backups").exists() and any((disk / "backups").glob("*Z")), 30)
    assert not storm.refused
    filler = fill_up(disk, leave_bytes)
    storm_until_refused(storm, busy)
    for status, body in storm.refused:
        assert status == 503, body
        assert json.loads(body)["status"] == 503

    def told():
        # Space that merging and deleting gave back is taken too; ext4 gives it back a moment later.
        fill_up(disk, 0)
        storm_until_refused(storm, busy)
        status, body = busy.ask("GET", "/readyz")
        return status == 503 and body

    assert b"cannot write" in eventually(told, 60)
    assert busy.ask("GET", "/livez")[0] == 200
    assert storm.verify(busy) == (0, 0)
    # A session cannot be deleted now, or it can, but it is not half deleted.
    some = next(one for one in storm.acked if one not in storm.old | storm.dropping)
    status, _ = busy.ask("DELETE", f"/api/sessions/{some}")
    storm.dropping.add(some)
    assert status in (204, 503)
    filler.unlink()
    eventually(lambda: busy.ask("GET", "/readyz")[0] == 200, 30)
    storm.refused.clear()
    before = len(storm.acked)
    storm.begin(busy)
    eventually(lambda: len(storm.acked) > before + 10 or storm.refused, 30)
    storm.end()
    assert not storm.refused
    assert storm.verify(busy) == (0, 0)
    # Nothing half made is left, also by backups.
    eventually(lambda: not list((disk / "backups").glob("*.partial")) or None, 30)
    busy.process.terminate()
    assert busy.process.wait(30) == 0
    busy.start()
    assert storm.verify(busy) == (0, 0)


def lacking_strace(tmp_path):
    if not shutil.which("strace"):
        return "strace is not installed"
    probe = subprocess.run(
        ["strace", "-f", "-qq", "-o", os.devnull, "-e", "trace=fsync", "-e", "inject=fsync:error=EIO", "true"],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    return probe.stderr.strip() if probe.returncode else ""


@pytest.mark.timeout(180)
@pytest.mark.parametrize("turn", [0, *(pytest.param(turn, marks=pytest.mark.long) for turn in range(1, 6))])
def test_after_a_failed_fsync_nothing_is_acknowledged_until_the_store_is_opened_again(tmp_path, turn):
    if why := lacking_strace(tmp_path):
        pytest.skip(f"capability: strace cannot inject faults here: {why}")
    busy = Busy(tmp_path)
    tracer = None
    try:
        busy.start("--retention-days", "1")
        storm = Storm(random.Random(turn))
        storm.begin(busy, threads=3)
        eventually(lambda: len(storm.acked) > 20 * (turn + 1), 30)
        # From now on every fsync of the server fails, in whatever it is doing.
        tracer = subprocess.Popen(
            ["strace", "-f", "-qq", "-o", tmp_path / "trace", "-e", "trace=fsync,fdatasync",
             "-e", "inject=fsync,fdatasync:error=EIO", "-p", str(busy.process.pid)],
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        eventually(lambda: storm.refused or tracer.poll() is not None, 30)
        if tracer.poll() is not None:
            storm.end()
            pytest.skip("capability: strace cannot attach to a process here")
        storm.end()
        assert all(status == 503 for status, _ in storm.refused), storm.refused[:3]
        acked = dict(storm.acked)
        assert busy.ask("GET", "/readyz")[0] == 503
        assert busy.ask("GET", "/livez")[0] == 200
        # A second try is refused too, also when the disk would say yes by then: nobody knows what it has kept.
        tracer.terminate()
        tracer.wait(20)
        storm.refused.clear()
        storm.begin(busy)
        eventually(lambda: len(storm.refused) >= 3, 30)
        storm.end()
        assert storm.acked == acked
        assert busy.ask("GET", "/readyz")[0] == 503
        assert storm.verify(busy) == (0, 0)
        busy.process.kill()
        busy.process.wait(20)
        busy.start()
        assert busy.ask("GET", "/readyz")[0] == 200
        assert storm.verify(busy) == (0, 0)
        storm.refused.clear()
        storm.begin(busy)
        threading.Event().wait(0.3)
        storm.end()
        assert not storm.refused
    finally:
        if tracer is not None and tracer.poll() is None:
            tracer.kill()
            tracer.wait()
        busy.close()
