"""datacat-daemon: flags, environment and file, and what it says when they are wrong."""

import os
import signal
import subprocess
import sys
import time

import pytest
import requests
from daemon_helpers import Journal, start_app, start_daemon
from helpers import eventually

from datacat.daemon.intake import listen


def run(*arguments, environ=None):
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DATACAT_")}
    return subprocess.run(
        [sys.executable, "-m", "datacat.cli.daemon", *arguments],
        env=clean | (environ or {}),
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


@pytest.fixture
def by_hand(tmp_path):
    """Start a daemon and return (its port, the process); it is told to stop at the end."""
    started = []

    def start(*arguments, environ=None):
        port_file = tmp_path / f"port{len(started)}"
        daemon = start_daemon(tmp_path / "spool", "--port-file", str(port_file), *arguments, environ=environ)
        started.append(daemon)
        eventually(lambda: (port_file.exists() and port_file.read_text()) or daemon.poll() is not None)
        return int(port_file.read_text()), daemon

    yield start
    for daemon in started:
        daemon.send_signal(signal.SIGTERM)
        daemon.communicate(timeout=10)


def test_help_and_version_are_told():
    assert run("--version").stdout.startswith("datacat-daemon ")
    told = run("--help").stdout
    assert "--server-url" in told
    assert "--heartbeat-timeout-seconds" in told


@pytest.mark.parametrize(
    ("arguments", "environ"),
    [
        (["--server-url", "nonsense"], {}),
        ([], {"DATACAT_DAEMON_PORT": "web"}),
        (["--config", "/no/such/file"], {}),
        (["--no-such-flag"], {}),
    ],
)
def test_a_wrong_setting_stops_the_start_with_a_sentence(arguments, environ):
    ended = run(*arguments, environ=environ)
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
    assert ended.stderr.strip()


def test_the_daemon_of_an_app_starts_whatever_its_settings_are(tmp_path):
    app, began = start_app()
    try:
        journal = Journal(tmp_path / "spool", pid=app.pid, start=began, server_url="http://127.0.0.1:9")
        owner = ("--owner", str(app.pid), "--owner-start", str(began))
        daemon = start_daemon(tmp_path / "spool", *owner, environ={"DATACAT_SERVER_URL": "nonsense"})
        eventually((journal.folder / "daemon").exists)
        daemon.kill()
        daemon.communicate()
    finally:
        app.kill()
        app.communicate()


def test_an_unknown_name_in_the_file_is_a_warning(by_hand, tmp_path):
    file = tmp_path / "d.json"
    file.write_text('{"colour": "red", "daemon_port": "0"}')
    port, daemon = by_hand(environ={"DATACAT_CONFIG": str(file)})
    assert requests.get(f"http://127.0.0.1:{port}/health", timeout=5).status_code == 200
    daemon.send_signal(signal.SIGTERM)
    assert "colour" in daemon.communicate(timeout=10)[1]


def test_it_listens_within_half_a_second(by_hand):
    took = []
    for _ in range(3):
        started = time.monotonic()
        by_hand()
        took.append(time.monotonic() - started)
    assert min(took) < 0.5


def test_a_port_that_is_taken_is_an_error_with_a_hint_and_auto_takes_the_next(by_hand, tmp_path):
    with listen(0) as taken:
        ended = run("--spool", str(tmp_path / "s"), "--daemon-port", str(taken.getsockname()[1]))
        assert ended.returncode == 1
        assert "--daemon-port" in ended.stderr
    ports = {by_hand("--daemon-port", "auto")[0] for _ in range(2)}
    assert len(ports) == 2
    assert 8080 not in ports


def test_starting_it_imports_neither_requests_nor_psutil():
    code = "import sys, datacat.cli.daemon; print(*sorted(sys.modules))"
    loaded = set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    )
    assert not loaded & {"requests", "psutil", "zstandard", "click", "rich", "http.server", "cherrypy"}
