"""Delivery against a real server: backups restored, machine images rolled back, daemons of curl clients killed."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
from daemon_helpers import Journal, now_us
from system.box import event_numbers, eventually

from datacat.daemon import by_hand, inventory
from datacat.daemon.config import Config
from datacat.daemon.uplink import uplink_of
from datacat.wire.records import Event

APP = (
    "import datacat, sys\n"
    "session = datacat.create_session(sys.argv[1], product=sys.argv[2], version='1.0')\n"
    "n = 0\n"
    "for line in sys.stdin:\n"
    "    for _ in range(100):\n        session.log_event('tick', data={'n': n}); n += 1\n"
    "    session.flush(10); print(n, flush=True)\n"
    "session.end()\n"
)


def start(box, product):
    return box.app(APP, product, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def log_100(app):
    app.stdin.write(b"\n")
    app.stdin.flush()
    return int(app.stdout.readline())


def restart_with(box, folder):
    """Stop the server, put an older copy of its data in the place of the newer one, and start it."""
    box.stop_server()
    shutil.rmtree(box.folder / "data")
    shutil.copytree(folder, box.folder / "data")
    box.start_server()


def backup(box, name):
    box.stop_server()
    shutil.copytree(box.folder / "data", box.folder / name)
    box.start_server()
    return box.folder / name


@pytest.mark.timeout(120)
def test_a_server_restored_from_a_backup_gets_again_what_it_lacks(box):
    app, gone = start(box, "goes-on"), start(box, "was-done")
    log_100(app)
    log_100(gone)
    older = backup(box, "backup")
    log_100(app)
    log_100(gone)
    gone.communicate()  # ended, all acknowledged, its daemon has left
    was_done = box.ended("was-done")
    assert event_numbers(was_done) == list(range(200))
    eventually(lambda: list(box.folder.glob(f"state/**/{was_done['id']}/summary.json")))
    restart_with(box, older)
    log_100(app)
    app.communicate()
    session = box.ended("goes-on", 40)
    assert event_numbers(session) == list(range(300))
    assert session["counts"]["gaps"] == 0
    assert session["counts"]["written"] == session["counts"]["acknowledged"]
    # The daemon of another app sees that the server is another one now, and what was kept of the done session.
    other = start(box, "another")
    log_100(other)
    eventually(lambda: event_numbers(box.session("was-done")) == list(range(200)), 40)
    other.communicate()


def ship(journal):
    config = Config()
    (item,) = [item for item in inventory.items([journal.folder.parent]) if item.meta.id == journal.id]
    return by_hand.ship(item, config, lambda meta: uplink_of(config, meta, "d"))


def tick(journal, *numbers, name="tick"):
    journal.append(*(Event(t=now_us(), name=name, data={"n": n, "text": "x" * 50}) for n in numbers))


@pytest.fixture
def journal(box, tmp_path):
    spool = tmp_path / "spool"
    (spool / "owners").mkdir(parents=True)
    app = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    made = Journal(spool, pid=app.pid, start=_start_of(app.pid), server_url=box.url, created_us=now_us() - 60_000_000)
    yield made
    app.communicate(b"\n")


def _start_of(pid):
    from datacat import host

    return host.process_start(pid)


def roll_back(journal, copy):
    """Put a session's folder back to an older state, as a restored image of the machine does."""
    shutil.rmtree(journal.folder)
    shutil.copytree(copy, journal.folder, copy_function=shutil.copy2, ignore=lambda _path, _names: ["wake"])


def test_a_rolled_back_machine_that_writes_other_bytes_goes_on_in_a_new_stream(box, journal, tmp_path):
    tick(journal, *range(50))
    assert ship(journal).word == "shipped"
    copy = shutil.copytree(journal.folder, tmp_path / "copy", ignore=lambda _path, _names: ["wake"])
    used, number = journal.used, journal.number
    tick(journal, *range(50, 100))
    assert ship(journal).word == "shipped"

    roll_back(journal, copy)
    journal.used, journal.number = used, number
    tick(journal, *range(50, 130), name="tock")  # the machine lives through the time again, differently
    assert ship(journal).word == "shipped"
    session = box.get(f"/api/sessions/{journal.id}", events="all")
    assert event_numbers(session) == list(range(100))
    tocks = event_numbers(session, "tock")
    assert tocks == list(range(tocks[0], 130))  # what lies behind the place where the two histories part
    assert session["counts"]["gaps"] == 1


def test_a_rolled_back_machine_whose_app_is_gone_repeats_nothing(box, journal, tmp_path):
    tick(journal, *range(50))
    ship(journal)
    copy = shutil.copytree(journal.folder, tmp_path / "copy", ignore=lambda _path, _names: ["wake"])
    tick(journal, *range(50, 100))
    ship(journal)
    roll_back(journal, copy)
    assert ship(journal).word == "shipped"
    assert event_numbers(box.get(f"/api/sessions/{journal.id}", events="all")) == list(range(100))


def curl(url, path, **body):
    """Ask as a shell script does; the answer, None when there was none."""
    done = subprocess.run(
        ["curl", "-s", "--noproxy", "*", "--max-time", "10", "-H", "Content-Type: application/json", "-d",
         json.dumps(body), url + path],
        capture_output=True, check=False,
    )  # fmt: skip
    return json.loads(done.stdout) if done.returncode == 0 and done.stdout else None


@pytest.mark.timeout(120)
def test_a_session_of_curl_survives_kill_9_of_its_daemon(box):
    if shutil.which("curl") is None:
        pytest.skip("capability: curl is not installed")
    ports = box.folder / "daemon-port"
    started = []

    def daemon():
        ports.unlink(missing_ok=True)
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", "datacat.cli.daemon", "--port-file", str(ports), "--daemon-port", "0"],
                env={**box.env, "DATACAT_SERVER_URL": box.url},
            )
        )
        eventually(lambda: ports.exists() and ports.read_text().strip())
        return f"http://127.0.0.1:{ports.read_text().strip()}"

    url = daemon()
    session_id = curl(url, "/register", product="shell", version="1")["session_id"]
    answered = []
    for turn in range(4):
        for n in range(turn * 10, turn * 10 + 10):
            if curl(url, "/event", session_id=session_id, name="tick", data={"n": n}) == {"status": "ok"}:
                answered.append(n)
            curl(url, "/state", session_id=session_id, state={"turn": turn})
            curl(url, "/metric", session_id=session_id, name="done", type="counter", delta=1)
        os.kill(started[-1].pid, signal.SIGKILL)
        started[-1].wait(10)
        url = daemon()
    assert answered == list(range(40))
    assert curl(url, "/end", session_id=session_id) == {"status": "ok"}
    started[-1].terminate()
    assert started[-1].wait(20) == 0
    session = box.ended("shell")
    assert event_numbers(session) == answered
    assert session["state"]["turn"] == 3
    metrics = box.session("shell", metrics="all")["metrics"]
    assert sum(metric["delta"] for metric in metrics if metric["name"] == "done") == 40
    assert (session["status"], session["end_reason"]) == ("ended", "clean")
    assert session["counts"]["written"] == session["counts"]["acknowledged"]
