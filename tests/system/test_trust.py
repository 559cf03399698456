"""A server that wants HTTPS and a key: the daemon says clearly that it is refused, keeps everything, and gets through."""

import json
import subprocess

import pytest
import requests
from certs import make_cert
from system.box import BIN, event_numbers, eventually

APP = (
    "import datacat, sys\n"
    "session = datacat.create_session(sys.argv[1], product='guarded', version='1.0')\n"
    "n = 0\n"
    "for line in sys.stdin:\n"
    "    session.log_event('tick', data={'n': n}); n += 1\n"
    "    session.flush(0); print(n, flush=True)\n"
    "session.end()\n"
)


def say(app):
    app.stdin.write(b"\n")
    app.stdin.flush()
    app.stdout.readline()


@pytest.mark.timeout(120)
def test_a_key_and_an_authority_let_the_daemon_in_and_without_them_it_waits(bare_box, tmp_path, monkeypatch):
    cert, key_of_cert = make_cert(tmp_path, "box")
    box = bare_box
    box.http.verify = str(cert)
    monkeypatch.setattr(type(box), "url", property(lambda box: f"https://localhost:{box.port}"))
    made = subprocess.run(
        [BIN / "datacat", "keys", "create", "fleet", "--role", "ingest", "--data-dir", box.folder / "data"],
        env=box.env, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    reading = subprocess.run(
        [BIN / "datacat", "keys", "create", "eyes", "--role", "read", "--data-dir", box.folder / "data"],
        env=box.env, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    box.http.headers["Authorization"] = f"Bearer {reading.stdout.strip()}"
    box.start_server("--tls-cert", str(cert), "--tls-key", str(key_of_cert))
    key_file = tmp_path / "key"
    key_file.write_text("dc_wrong\n")
    log = tmp_path / "daemon.log"
    app = box.app(
        APP,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"DATACAT_API_KEY_FILE": str(key_file), "DATACAT_TLS_CA_FILE": str(cert), "DATACAT_LOG_FILE": str(log)},
    )
    say(app)
    eventually(lambda: log.exists() and "401" in log.read_text())
    line = next(line for line in log.read_text().splitlines() if "401" in line)
    assert "the server wants a key" in line
    assert "nothing is lost" in line
    shipper = eventually(lambda: list(box.folder.glob("state/**/daemon")))[0]
    port = json.loads(shipper.read_text())["port"]
    with requests.Session() as local:
        local.trust_env = False
        health = local.get(f"http://127.0.0.1:{port}/health", timeout=10).json()
    assert "the server wants a key" in health["trouble"]
    assert health["unacked"] > 0
    assert log.read_text().count("401") == 1  # once, however often it is tried

    key_file.write_text(made.stdout)
    say(app)
    app.communicate()
    session = box.ended("guarded", 30)
    assert event_numbers(session) == [0, 1]
    eventually(lambda: "takes records again" in log.read_text())  # the daemon logs it when it has its answer
    assert made.stdout.strip() not in log.read_text()
    commands = [" ".join(process.cmdline()) for process in box.processes()]
    assert all(made.stdout.strip() not in command for command in commands)
