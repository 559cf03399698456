"""gunicorn itself with two workers, and their real daemons: which of its processes died, and how."""

import http.client
import os
import signal
import socket
import subprocess
import sys

import pytest
from helpers import eventually
from system.traps import BEGIN, Trap

from datacat.wire import layout

# Loaded by each worker after its fork, or with preload_app once by the master before it.
APP = (
    BEGIN
    + """
session = begin()
def app(environ, start_response):
    session.log_event("request", data={"path": environ["PATH_INFO"]})
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
"""
)
CONFIG = """
bind = "unix:gunicorn.sock"
workers = 2
graceful_timeout = 10
control_socket_disable = True
"""
SESSION_OF_A_WORKER = """
def post_fork(server, worker):
    import web
    web.session = web.begin()
    web.session.start_heartbeat_monitor(timeout=0.5)
"""


class UnixConnection(http.client.HTTPConnection):
    """HTTP through a socket in a folder: no port that somebody else could have."""

    def __init__(self, path):
        super().__init__("gunicorn", timeout=20)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


@pytest.fixture
def trap(tmp_path):
    made = Trap(tmp_path)
    yield made
    made.close()


def start(trap, config):
    """Start gunicorn; its output goes to a file, which no worker can fill up."""
    (trap.folder / "web.py").write_text(APP)
    (trap.folder / "gunicorn.conf.py").write_text(CONFIG + config)
    with (trap.folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "web:app"],
            cwd=trap.folder, env=trap.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    trap.started.append(process)
    return process


def ask(trap):
    """Return the pid of the worker that answers."""
    connection = UnixConnection(trap.folder / "gunicorn.sock")
    try:
        connection.request("GET", "/")
        return int(connection.getresponse().read())
    finally:
        connection.close()


def served(trap, count):
    """Wait until so many sessions are watched by a daemon; {pid: folder}."""
    found = eventually(
        lambda: (all_ := trap.sessions) and len(all_) == count and all(map(trap.shipper, all_)) and all_, 30
    )
    return {trap.meta(folder).pid: folder for folder in found}


def statuses(trap, folder):
    return [verdict.status for verdict in trap.verdicts(folder)]


def stop(gunicorn):
    gunicorn.send_signal(signal.SIGTERM)
    assert gunicorn.wait(30) == 0


def test_a_killed_worker_of_gunicorn_is_told_and_the_others_end_well(trap):
    gunicorn = start(trap, "")
    workers = served(trap, 2)
    assert gunicorn.pid not in workers
    killed = ask(trap)
    os.kill(killed, signal.SIGKILL)
    assert trap.ended(workers[killed]) == ("crashed", "killed")
    assert "request" in trap.events(workers[killed])
    after = served(trap, 3)  # gunicorn has started another one
    assert [statuses(trap, folder) for pid, folder in after.items() if pid != killed] == [[], []]
    assert ask(trap) in after
    stop(gunicorn)
    assert {trap.ended(folder) for pid, folder in after.items() if pid != killed} == {("ended", "exit_zero")}
    assert len(trap.sessions) == 3


def test_a_session_made_before_gunicorn_forks_is_that_of_the_master_alone(trap):
    gunicorn = start(trap, "preload_app = True\n")
    (master,) = served(trap, 1).values()
    os.kill(ask(trap), signal.SIGKILL)
    eventually(lambda: "was sent SIGKILL" in (trap.folder / "log").read_text(), 20)
    ask(trap)
    stop(gunicorn)
    assert trap.ended(master) == ("ended", "exit_zero")
    assert (trap.sessions, statuses(trap, master)) == ([master], ["ended"])
    assert trap.events(master) == []


def test_workers_of_a_gunicorn_that_has_preloaded_have_sessions_beside_the_masters(trap):
    gunicorn = start(trap, "preload_app = True\n" + SESSION_OF_A_WORKER)
    folders = served(trap, 3)
    master, killed = folders.pop(gunicorn.pid), ask(trap)
    began_us = min(trap.meta(folder).created_us for folder in folders.values())
    eventually(lambda: min(map(beaten_us, folders.values())) > began_us + 1_500_000, 20)  # three times the timeout
    os.kill(killed, signal.SIGKILL)
    assert trap.ended(folders[killed]) == ("crashed", "killed")
    after = served(trap, 4)
    stop(gunicorn)
    assert {trap.ended(folder) for pid, folder in after.items() if pid != killed} == {("ended", "exit_zero")}
    assert statuses(trap, folders[killed]) == ["crashed"]
    assert [statuses(trap, folder) for pid, folder in after.items() if pid != killed] == [["ended"]] * 3
    assert trap.events(master) == []


def beaten_us(folder):
    return layout.unpack_beat((folder / layout.BEAT_FILE).read_bytes()[: layout.BEAT.size]).unix_us
