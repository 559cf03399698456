"""The scheduled backup: when it is due, what it keeps, and that a failure costs the server nothing."""

import shutil
import time

import pytest

from datacat.server.backups import RETRY_US, Backups, made_in
from datacat.server.config import Config, Live
from datacat.store.backup import MANIFEST, verify
from datacat.store.backup import read_manifest as manifest_of

HOUR = 3600 * 1_000_000
NOW = 1_800_000_000_000_000


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "backups"


@pytest.fixture
def job(mixed_store, tmp_path, folder):
    shutil.copytree(mixed_store, tmp_path / "data" / "store")
    (tmp_path / "data" / "keys.json").write_text("[]")
    live = Live(Config(backup_dir=str(folder), backup_interval_h=2.0, backup_keep=2))
    return Backups(tmp_path / "data" / "store", tmp_path / "data", live, time.monotonic)


def run(job, now_us):
    while job.step(now_us):
        pass


def test_a_backup_is_made_when_it_is_due_and_the_oldest_goes(job, folder):
    run(job, NOW)
    run(job, NOW + HOUR)
    assert [at for at, _ in made_in(folder)] == [NOW]
    (made,) = [path for _, path in made_in(folder)]
    list(verify(made, manifest_of(made)))
    assert (made / "keys.json").read_text() == "[]"
    for hours in (2, 4, 6):
        run(job, NOW + hours * HOUR)
    assert [at for at, _ in made_in(folder)] == [NOW + 4 * HOUR, NOW + 6 * HOUR]


def test_a_kill_while_an_old_backup_is_removed_leaves_no_half_of_it_under_its_name(job, folder, monkeypatch):
    for hours in (0, 2):
        run(job, NOW + hours * HOUR)
    with monkeypatch.context() as patched:
        patched.setattr("datacat.server.backups.shutil.rmtree", lambda path, **_: (path / "keys.json").unlink())
        run(job, NOW + 4 * HOUR)
    assert len(made_in(folder)) == 2
    for _, path in made_in(folder):
        list(verify(path, manifest_of(path)))
    run(job, NOW + 6 * HOUR)
    assert len(list(folder.iterdir())) == 2


def test_what_a_killed_server_left_is_removed_and_what_others_put_there_stays(job, folder):
    (folder / "datacat-2026-01-01T00-00-00Z-0badf00d.partial").mkdir(parents=True)
    (folder / "mine").mkdir()
    (folder / "datacat-2026-01-01T00-00-00Z").mkdir()  # no backup: it has no list
    run(job, NOW)
    run(job, NOW + 3 * HOUR)
    run(job, NOW + 6 * HOUR)
    names = {path.name for path in folder.iterdir()}
    assert {"mine", "datacat-2026-01-01T00-00-00Z"} <= names
    assert len(names) == 4
    assert all((path / MANIFEST).is_file() for _, path in made_in(folder))


def test_a_failure_is_logged_and_tried_again_in_an_hour(job, folder, caplog):
    folder.write_text("not a folder")
    run(job, NOW)
    assert "the backup failed" in caplog.text
    folder.unlink()
    run(job, NOW + RETRY_US - 1)
    assert not folder.exists()
    run(job, NOW + RETRY_US)
    assert len(made_in(folder)) == 1


def test_a_stop_in_the_middle_leaves_nothing(tmp_path, folder, job):
    clock = iter(range(0, 10_000, 10))
    job._clock = lambda: next(clock)  # every step is over at once
    assert job.step(NOW)
    assert len(list(folder.iterdir())) == 1
    job.close()
    assert list(folder.iterdir()) == []


def test_nothing_is_made_without_a_folder_or_a_store_on_disk(tmp_path):
    for job in (
        Backups(tmp_path / "store", tmp_path, Live(Config()), time.monotonic),
        Backups(None, tmp_path, Live(Config(backup_dir=str(tmp_path / "b"))), time.monotonic),
    ):
        assert job.step(NOW) is False
    assert list(tmp_path.iterdir()) == []
