"""Folders that cannot be written and disks that are full: the app runs on, what is dropped is counted."""

import os
import subprocess

import pytest
from client_helpers import run_app, sessions, written

import datacat
from datacat.client import folder
from datacat.errors import JournalError
from datacat.wire import layout

START = """
import os, sys
import datacat
session = datacat.create_session(product="p", version="1", state_dir=os.environ["STATE"])
"""


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MiB."""
    if os.geteuid() != 0:
        pytest.skip("capability: only root can mount a small tmpfs")
    mount = tmp_path / "disk"
    mount.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,mode=0700", "tmpfs", str(mount)], check=False).returncode:
        pytest.skip("capability: tmpfs cannot be mounted here")
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=True)


def test_a_disk_that_fills_up_costs_records_but_neither_the_app_nor_what_was_written(small_disk):
    app = run_app(
        START
        + """
for i in range(200):
    session.log_event("fill", data={"i": i, "pad": "x" * 50_000})
print(session.stats()["written"], session.stats()["dropped"]["disk_full"])
""",
        small_disk,
    )
    assert app.returncode == 0, app.stderr
    kept, lost = map(int, app.stdout.split())
    assert lost > 0
    (made,) = sessions(small_disk)
    found = written(made)
    assert len(found) == kept
    assert kept + lost == 201
    assert [record.data["i"] for record in found[1:]] == list(range(len(found) - 1))
    dropped = layout.unpack_dropped((made / layout.BEAT_FILE).read_bytes())
    assert dropped["disk_full"] in (lost, lost + 1)  # the closing record was dropped too


def test_a_disk_that_is_full_from_the_start_leaves_the_app_alone(small_disk):
    (small_disk / "full").write_bytes(b"x" * (4 * 1024 * 1024 - 200_000))
    app = run_app(
        START + "session.log_event('x'); session.heartbeat(); print(session.stats()['dropped'])\n", small_disk
    )
    assert app.returncode == 0, app.stderr
    assert app.stdout == "{'no_folder': 1}\n"
    assert [each.name for each in (small_disk / "spool").iterdir()] == ["owners"]


def test_a_limit_on_file_sizes_is_a_full_disk(tmp_path):
    app = run_app(
        START
        + """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
for i in range(40):
    session.log_event("fill", data={"pad": "x" * 50_000})
print(session.stats()["dropped"]["disk_full"] > 0)
""",
        tmp_path,
    )
    assert app.stdout == "True\n", app.stderr


def test_a_folder_that_cannot_be_made_leaves_a_session_that_only_counts(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with datacat.create_session(product="p", version="1", state_dir=blocked) as session:
        session.log_event("x")
        session.update_state({"a": 1})
        session.heartbeat()
        session.start_heartbeat_monitor(timeout=5)
        assert not session.flush(0)
        assert session.get_details()["id"] == session.id
        assert session.stats()["dropped"] == {"no_folder": 2}
    session.log_event("after")
    assert session.stats()["dropped"] == {"no_folder": 3, "ended": 1}  # the record of its end was one of them


def test_the_next_folder_is_taken_when_the_first_cannot_be_written(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    good = tmp_path / "good"
    assert folder.choose_spool([blocked, good]) == good / layout.SPOOL_DIR
    assert (good / layout.SPOOL_DIR / layout.OWNERS_DIR).is_dir()
    with pytest.raises(JournalError, match="XDG_STATE_HOME"):
        folder.choose_spool([blocked])


def test_a_folder_that_everybody_could_have_planted_is_not_used(tmp_path):
    planted = tmp_path / "datacat-0"
    planted.mkdir()
    planted.chmod(0o777)
    target = tmp_path / "target"
    target.mkdir()
    link = tmp_path / "link"
    link.symlink_to(target)
    for bad in (planted, link):
        with pytest.raises(JournalError, match="somebody else"):
            folder.choose_spool([bad])


def test_an_app_without_a_home_writes_where_it_can(tmp_path):
    code = """
import datacat
session = datacat.create_session(product="p", version="1")
print(session.journal_folder)
session.end()
"""
    environ = {"HOME": "", "XDG_STATE_HOME": str(tmp_path / "xdg")}
    app = run_app(code, tmp_path, environ=environ)
    assert app.stdout.startswith(str(tmp_path / "xdg" / "datacat" / "spool")), app.stderr


def test_a_read_only_disk_leaves_a_session_that_only_counts(small_disk):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    app = run_app(START + "session.log_event('x'); print(session.stats()['dropped'])\n", small_disk)
    assert app.stdout == "{'no_folder': 1}\n", app.stderr


def test_a_journal_in_memory_says_so(tmp_path):
    assert folder.is_volatile(folder.Path("/dev/shm/datacat-1/spool"))
    assert not folder.is_volatile(tmp_path)


def test_waking_nobody_is_no_error(tmp_path):
    folder.wake(tmp_path)
    (tmp_path / layout.WAKE_FILE).write_bytes(b"")
    folder.wake(tmp_path)
    assert (tmp_path / layout.WAKE_FILE).read_bytes() == b""
