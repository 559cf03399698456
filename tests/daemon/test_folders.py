"""A journal's folder that is read-only, full, or removed under the daemon: nothing raises, and the log says so once."""

import contextlib
import os
import shutil
import signal
import subprocess

import pytest
from daemon_helpers import Journal, now_us
from helpers import eventually

from datacat.daemon.spool import prepared
from datacat.errors import JournalError
from datacat.wire import layout
from datacat.wire.records import Event

FAST = ("--batch-interval-seconds", "0.05", "--linger-seconds", "1")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MiB with an empty spool."""
    if os.geteuid() != 0:
        pytest.skip("capability: only root can mount a small tmpfs")
    mount = tmp_path / "disk"
    mount.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,mode=0700", "tmpfs", str(mount)], check=False).returncode:
        pytest.skip("capability: tmpfs cannot be mounted here")
    (mount / "spool" / layout.OWNERS_DIR).mkdir(parents=True)
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=True)


def serve(processes, spool, server, tmp_path):
    """An app with a journal, and its daemon with a log; once the first record is on the server."""
    app, start = processes.app()
    # Without metrics of the process the daemon has no file of its own open, into whose last page a verdict would fit.
    quiet = {"process_metrics": False}
    journal = Journal(spool, pid=app.pid, start=start, server_url=server.url, settings=quiet)
    journal.append(Event(t=now_us(), name="before"))
    log = tmp_path / "daemon.log"
    daemon = processes.daemon(
        spool, *FAST, "--owner", str(app.pid), "--owner-start", str(start), "--log-file", str(log)
    )
    eventually(lambda: server.records(journal.id, "event"))
    return app, journal, daemon, log


def said(log, words):
    return [line for line in log.read_text().splitlines() if words in line] if log.exists() else []


def end(app):
    app.send_signal(signal.SIGKILL)
    app.wait(10)


def verdicts(server, journal):
    return [row["status"] for row in server.records(journal.id, "verdict")]


def test_a_folder_that_is_removed_is_told_and_the_session_gets_its_verdict(spool, processes, server, tmp_path):
    app, journal, daemon, log = serve(processes, spool, server, tmp_path)
    other = Journal(spool, pid=journal.meta.pid, start=journal.meta.process_start, server_url=server.url)
    journal.append(Event(t=now_us(), name="lost, perhaps"))
    shutil.rmtree(journal.folder)
    eventually(lambda: said(log, "was removed"))
    other.append(Event(t=now_us(), name="of another session"))
    eventually(lambda: server.records(other.id, "event"))
    end(app)
    eventually(lambda: verdicts(server, journal) == ["crashed"])
    assert daemon.wait(20) == 0
    assert verdicts(server, other) == ["crashed"]
    gaps = server.records(journal.id, "gap")
    assert [gap["reason"] for gap in gaps] == ["removed"]
    assert gaps[0]["open"]["product"] == "shop"
    assert [row["name"] for row in server.records(journal.id, "event")].count("before") == 1
    assert len(said(log, "was removed")) == 1
    assert (journal.folder / layout.SUMMARY_FILE).exists()


def test_a_folder_that_becomes_read_only_is_shipped_from_and_told_once(small_disk, processes, server, tmp_path):
    spool = small_disk / "spool"
    app, journal, daemon, log = serve(processes, spool, server, tmp_path)
    journal.append(Event(t=now_us(), name="just before"))
    # What is open stays open (a lock would keep the whole file system writable); what is looked up by its path is not.
    subprocess.run(["mount", "--bind", str(spool), str(spool)], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", str(spool)], check=True)
    eventually(lambda: len(server.records(journal.id, "event")) >= 2)
    end(app)
    eventually(lambda: said(log, "Read-only file system; what the daemon has to say waits in memory"))
    assert verdicts(server, journal) == []
    subprocess.run(["umount", "-l", str(spool)], check=True)
    eventually(lambda: verdicts(server, journal) == ["crashed"])
    assert daemon.wait(20) == 0
    assert len(said(log, "waits in memory")) == 1
    assert len(said(log, "can be written again")) == 1


def fill(disk):
    """Take all the space that there is."""
    with (disk / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
        while filler.write(bytes(4096)):
            pass


def test_a_full_disk_costs_no_verdict_when_there_is_room_again(small_disk, processes, server, tmp_path):
    app, journal, daemon, log = serve(processes, small_disk / "spool", server, tmp_path)
    fill(small_disk)
    end(app)
    eventually(lambda: said(log, "waits in memory"))
    assert daemon.poll() is None
    (small_disk / "filler").unlink()
    eventually(lambda: verdicts(server, journal) == ["crashed"])
    assert daemon.wait(20) == 0
    assert "Traceback" not in log.read_text()


def test_a_disk_that_stays_full_leaves_the_verdict_to_the_next_daemon(small_disk, processes, server, tmp_path):
    app, journal, daemon, log = serve(processes, small_disk / "spool", server, tmp_path)
    fill(small_disk)
    end(app)
    eventually(lambda: said(log, "waits in memory"))
    daemon.kill()
    daemon.wait(10)
    (small_disk / "filler").unlink()
    helper, start = processes.app("pass")
    helper.wait(10)
    processes.daemon(small_disk / "spool", *FAST, "--owner", str(helper.pid), "--owner-start", str(start)).wait(20)
    assert verdicts(server, journal) == ["crashed"]


def test_the_first_folder_that_can_be_written_is_taken_and_the_others_are_told(small_disk, tmp_path, caplog):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    taken = prepared([small_disk / "home" / "spool", small_disk / "spool", tmp_path / "other" / "spool"])
    assert taken == tmp_path / "other" / "spool"
    assert (taken / layout.OWNERS_DIR).is_dir()
    assert "Read-only file system" in caplog.text
    assert str(taken) in caplog.text


def test_without_any_folder_the_reasons_are_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match="Not a directory"):
        prepared([tmp_path / "file" / "spool"])
