"""The whole service: real sockets, real processes, real signals, a real service manager's socket."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from helpers import eventually

from datacat.errors import Busy, HostError
from datacat.server import keys, service
from datacat.server.config import Config
from datacat.wire import lines
from datacat.wire.records import Event, Open

SESSION = "01890a5d-ac96-774b-bcce-000000000001"
IN_MEMORY = Config(port=0, store="memory:")


def ask(port, method, path, body=None, headers=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def post_json(port, path, value):
    status, body = ask(port, "POST", path, json.dumps(value), {"Content-Type": "application/json"})
    return status, json.loads(body)


@contextlib.contextmanager
def running(config=IN_MEMORY, environ=None):
    built = service.build(config, environ or {})
    try:
        built.start()
        yield built
    finally:
        built.stop()


def test_two_services_in_one_process_share_nothing_and_leave_no_thread():
    before = set(threading.enumerate())
    with running() as one, running() as two:
        assert one.url != two.url
        assert one.boot != two.boot
        post_json(one.port, "/api/sessions", {"product": "p", "version": "1"})
        assert len(json.loads(ask(one.port, "GET", "/api/sessions")[1])["sessions"]) == 1
        assert json.loads(ask(two.port, "GET", "/api/sessions")[1])["sessions"] == []
    eventually(lambda: set(threading.enumerate()) <= before)


def test_building_starts_nothing_and_closing_lets_go(tmp_path):
    before = set(threading.enumerate())
    config = Config(port=0, data_dir=str(tmp_path / "deep" / "data"))
    built = service.build(config, {})
    port = built.port
    built.close()
    assert set(threading.enumerate()) == before
    with running(Config(port=port, data_dir=config.data_dir)) as again:
        assert again.port == port


def test_stopping_twice_is_stopping_once():
    with running() as built:
        built.stop()
        assert not built.running
        with pytest.raises(ConnectionError):
            ask(built.port, "GET", "/livez")


def test_the_sweep_runs(tmp_path):
    config = Config(port=0, store="memory:", sweep_interval_s=0.05, contact_timeout_s=0.1)
    with running(config) as built:
        _, session = post_json(built.port, "/api/sessions", {"product": "p", "version": "1"})
        eventually(lambda: built.store.head(session["id"]).status == "suspended")


def test_a_store_that_is_in_use_is_named_and_the_port_is_free_again(tmp_path):
    config = Config(port=0, data_dir=str(tmp_path))
    with running(config) as built:
        with pytest.raises(Busy, match=f"in use by pid {os.getpid()}; stop it"):
            service.build(config, {})
        assert built.running


def test_a_port_that_is_taken_is_named_before_the_store_is_opened(tmp_path):
    with running() as built, pytest.raises(HostError, match=f":{built.port}: Address already in use"):
        service.build(Config(port=built.port, data_dir=str(tmp_path / "data")), {})
    assert not (tmp_path / "data").exists()


def test_the_data_folder_is_the_service_managers(tmp_path):
    with running(Config(port=0), {"STATE_DIRECTORY": str(tmp_path / "state")}):
        assert (tmp_path / "state" / "store").is_dir()
    with pytest.raises(HostError, match="cannot make the data folder"):
        service.build(Config(port=0, data_dir="/dev/null/x"), {})


def test_a_request_that_is_being_answered_is_finished_before_the_stop():
    entered, leave = threading.Event(), threading.Event()
    with running() as built:
        slow = built.store.heads

        def heads(query):
            entered.set()
            leave.wait(10)
            return slow(query)

        built.store.heads = heads
        answers = []
        client = threading.Thread(target=lambda: answers.append(ask(built.port, "GET", "/api/sessions")))
        client.start()
        entered.wait(10)
        stopper = threading.Thread(target=built.stop)
        stopper.start()
        eventually(lambda: not built.running)
        leave.set()
        stopper.join()
        client.join()
    assert answers[0][0] == 200


def test_a_streamed_answer_comes_whole():
    with running() as built:
        for number in range(30):
            _, session = post_json(built.port, "/api/sessions", {"product": f"p{number}", "version": "1"})
            events = [{"name": "e", "message": "x" * 1000}] * 100
            post_json(built.port, f"/api/sessions/{session['id']}/events", events)
        for encoding in ("identity", "gzip", "zstd"):
            connection = http.client.HTTPConnection("127.0.0.1", built.port, timeout=30)
            connection.request("GET", "/api/data/sessions", headers={"Accept-Encoding": encoding})
            answer = connection.getresponse()
            assert answer.getheader("Transfer-Encoding") == "chunked"
            size = len(answer.read())
            assert size > 3_000_000 if encoding == "identity" else size > 1000
            connection.close()


# --- the process


@contextlib.contextmanager
def process(tmp_path, *flags):
    """Run datacat-server; yield (process, port). It is killed at the end if it still runs."""
    port_file = tmp_path / "port"
    port_file.unlink(missing_ok=True)
    command = [sys.executable, "-m", "datacat.cli.server", "--port", "0", "--port-file", str(port_file)]
    command += ["--data-dir", str(tmp_path / "data"), *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as started:
        try:
            eventually(lambda: port_file.exists() or started.poll() is not None, timeout_s=30)
            assert started.poll() is None, started.stderr.read()
            yield started, int(port_file.read_text())
        finally:
            started.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_server_cleanly_and_what_was_stored_is_there_again(tmp_path, number):
    with process(tmp_path) as (started, port):
        _, session = post_json(port, "/api/sessions", {"product": "p", "version": "1"})
        began = time.monotonic()
        started.send_signal(number)
        out, err = started.communicate(timeout=10)
        assert time.monotonic() - began < 8
        assert started.returncode == 0, err
        assert out == f"datacat-server: serving on http://127.0.0.1:{port}\n"
        assert "Traceback" not in err
    with process(tmp_path) as (_, port):
        assert ask(port, "GET", f"/api/sessions/{session['id']}")[0] == 200


def test_kill_9_during_ingest_loses_no_acknowledged_batch(tmp_path):
    acked = {}
    for kill_after in (20, 60):
        with process(tmp_path) as (started, port):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            known = ask(port, "GET", f"/api/sessions/{SESSION}/acked")
            streams = json.loads(known[1])["streams"] if known[0] == 200 else {}
            assert all(streams[name] >= end for name, end in acked.items())
            acked = {name: end for name, end in streams.items() if name in ("s0", "s1")}
            total = sum(acked.values()) + kill_after * 10
            killer = threading.Thread(target=kill_when, args=(started, acked, total))
            killer.start()
            with contextlib.suppress(OSError, http.client.HTTPException):
                for _ in range(20_000):
                    for name in ("s0", "s1"):
                        start = acked.get(name, 0)
                        connection.request("POST", *batch(name, start, first=not acked))
                        answer = connection.getresponse()
                        told = json.loads(answer.read())
                        assert answer.status == 200, told
                        acked[name] = told["acked"]
            killer.join()
            connection.close()
            assert started.wait(10) == -signal.SIGKILL
    assert sum(acked.values()) >= 600
    with process(tmp_path) as (_, port):
        streams = json.loads(ask(port, "GET", f"/api/sessions/{SESSION}/acked")[1])["streams"]
        session = json.loads(ask(port, "GET", f"/api/sessions/{SESSION}?events=all")[1])
    for name in ("s0", "s1"):
        stored = [event["name"] for event in session["events"] if event["name"].startswith(name)]
        # What was stored but not acknowledged may be there too; nothing is there twice, nothing is missing.
        assert streams[name] >= acked[name]
        assert stored == [f"{name}:{start}" for start in range(0, streams[name], 10)]


def kill_when(started, acked, total):
    eventually(lambda: acked.get("s0", 0) + acked.get("s1", 0) >= total, timeout_s=30)
    started.kill()


def batch(name, start, *, first):
    opened = [Open(1, "p", "1")] if first else []
    records = [*opened, Event(1_800_000_000_000_000 + start, f"{name}:{start}")]
    body = b"".join(map(lines.encode, records))
    return f"/api/sessions/{SESSION}/batches?stream={name}&from={start}&to={start + 10}", body


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--port", "abc"], "unexpected value --port=abc; use a whole number from 0 to 65535"),
        (["--host", "0.0.0.0"], "0.0.0.0 is not an address of this machine alone, and there are no keys"),
        (["--host", "192.0.2.1"], "make a key with 'datacat keys create'"),
        (["--config", "/nonexistent.toml"], "config=/nonexistent.toml"),
        (["--store", "oracle:x"], "store=oracle:x; use memory: or semidbm:PATH"),
        (["--data-dir", "/dev/null/x"], "cannot make the data folder /dev/null/x"),
    ],
)
def test_what_has_to_be_changed_is_said_in_one_line_with_exit_code_78(flags, said):
    command = [sys.executable, "-m", "datacat.cli.server", *flags]
    if "--port" not in flags:
        command += ["--port", "0"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert ended.returncode == 78
    assert said in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert ended.stdout == ""


def test_with_a_key_a_server_may_listen_beyond_loopback(tmp_path):
    config = Config(host="0.0.0.0", port=0, data_dir=str(tmp_path))
    with pytest.raises(HostError, match="there are no keys"):
        service.build(config, {})
    key, _ = keys.make("ops", "read", (), 0, 1)
    keys.KeyFile(tmp_path).add(key)
    service.build(config, {}).close()


def test_keys_that_cannot_be_read_stop_the_start(tmp_path):
    (tmp_path / "keys.json").write_text("{")
    with pytest.raises(HostError, match=r"the keys in .* cannot be read") as caught:
        service.build(Config(port=0, data_dir=str(tmp_path)), {})
    assert caught.value.permanent


def test_a_running_server_learns_keys_that_a_command_makes_and_at_once_by_a_reload(tmp_path):
    with running(Config(port=0, data_dir=str(tmp_path))) as built:
        assert ask(built.port, "GET", "/api/sessions")[0] == 200
        key, text = keys.make("ops", "read", (), 0, 1)
        keys.KeyFile(tmp_path).add(key)
        built.reload(lambda: built.live.now)
        assert ask(built.port, "GET", "/api/sessions")[0] == 401
        assert ask(built.port, "GET", "/api/sessions", headers={"Authorization": f"Bearer {text}"})[0] == 200
        keys.KeyFile(tmp_path).remove("ops")
        eventually(lambda: ask(built.port, "GET", "/api/sessions")[0] == 200)


def test_a_store_that_is_held_by_another_process_may_be_free_at_the_next_try(tmp_path):
    with process(tmp_path) as (started, _):
        command = [sys.executable, "-m", "datacat.cli.server", "--port", "0", "--data-dir", str(tmp_path / "data")]
        ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
        assert ended.returncode == 1
        said = [line for line in ended.stderr.splitlines() if line.startswith("datacat-server: ")]
        assert len(said) == 1
        assert f"is in use by pid {started.pid}; stop it" in said[0]


@pytest.mark.skipif(getattr(os, "geteuid", int)() != 0, reason="capability: only root can become somebody else")
@pytest.mark.parametrize("below", [".", "store", "store/segments"])
def test_a_folder_of_another_owner_needs_a_person_and_is_named(below):
    # What pytest makes is for root alone; and so may the interpreter be, so all is imported before.
    code = (
        "import encodings.idna, os, sys\nimport datacat.store.semi\nfrom datacat.cli import server\n"
        "from datacat.errors import DatacatError\nfrom datacat.server import service\n"
        "from datacat.server.config import Config\n"
        "os.setgid(65534)\nos.setuid(65534)\n"
        "try:\n    service.build(Config(port=0, data_dir=sys.argv[1]), {})\n"
        "except DatacatError as error:\n    print(error.permanent, error)"
    )
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "data"
        with running(Config(port=0, data_dir=str(data))):
            pass
        for path in (Path(scratch), data, *data.rglob("*")):
            os.chown(path, 65534, 65534)
        os.chown(data / below, 0, 0)
        ended = subprocess.run(
            [sys.executable, "-c", code, str(data)], capture_output=True, text=True, check=False, timeout=30
        )
    assert ended.stdout.startswith("True "), ended.stdout + ended.stderr
    assert "Permission denied" in ended.stdout
    assert str(data) in ended.stdout


def test_version_and_help_do_not_need_cherrypy():
    code = "import sys\nfrom datacat.cli.server import main\ntry:\n    main()\nfinally:\n    print('cherrypy' in sys.modules)"
    for flag in ("--version", "--help"):
        ended = subprocess.run(
            [sys.executable, "-c", code, flag], capture_output=True, text=True, check=True, timeout=30
        )
        assert ended.stdout.endswith("False\n")


def test_a_request_without_host_is_refused_and_learns_no_version():
    with running() as built, socket.create_connection(("127.0.0.1", built.port), timeout=10) as sock:
        sock.sendall(b"GET /api/sessions HTTP/1.1\r\n\r\n")
        answer = sock.recv(65536)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"CherryPy" not in answer
