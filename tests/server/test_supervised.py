"""The service under a manager: sockets that outlive it, a watchdog that proves work, reload, and what it tells."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request

import pytest
from helpers import eventually
from supervisor import Manager

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="capability: systemd is Linux's")


@pytest.fixture
def manage(tmp_path):
    """Make managers that are closed at the end; they share the folder."""
    with contextlib.ExitStack() as opened:

        def make(**environ):
            folder = tmp_path / f"manager{len(list(tmp_path.iterdir()))}"
            folder.mkdir()
            manager = Manager(folder, **environ)
            opened.callback(manager.close)
            return manager

        yield make


def record(manager, product="editor"):
    """Create a session; return its id once the server has acknowledged it."""
    body = json.dumps({"product": product, "version": "1"}).encode()
    request = urllib.request.Request(
        f"{manager.url}/api/sessions", body, {"Content-Type": "application/json"}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.loads(answer.read())["session_id"]


def products(manager):
    return [head["product"] for head in json.loads(manager.get("/api/sessions"))["sessions"]]


class Load:
    """Clients that keep their connections and never try again. failed: what went wrong, answered: how many did not."""

    def __init__(self, port, clients=4, path="/api/sessions"):
        self.port, self.path = port, path
        self.answered, self.failed, self.slowest_s = 0, [], 0.0
        self._lock, self._end = threading.Lock(), threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(clients)]

    def _ask(self, number):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        # Some hammer, some think between their requests.
        while not self._end.wait(0.02 * number):
            began = time.monotonic()
            try:
                connection.request("GET", self.path)
                answer = connection.getresponse()
                answer.read()
                assert answer.status == 200, answer.status
            except (OSError, http.client.HTTPException, AssertionError) as error:
                with self._lock:
                    self.failed.append(f"client {number}: {error!r}")
                connection.close()
                continue
            with self._lock:
                self.answered += 1
                self.slowest_s = max(self.slowest_s, time.monotonic() - began)
        connection.close()

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._end.set()
        for thread in self._threads:
            thread.join()


# --- the socket that outlives the process


def test_restarts_fail_no_request_of_clients_that_keep_connections_and_never_retry(manage):
    manager = manage().start()
    first = manager.process.pid
    with Load(manager.port) as load:
        for _ in range(4):
            already = load.answered
            eventually(lambda before=already: load.answered > before + 50)
            assert manager.end() == 0
            manager.start()
    assert manager.process.pid != first
    assert load.failed == []
    assert load.answered > 200
    # The port came from the first start, and every later one took the kept socket back.
    assert sum("FDSTORE" in message for message in manager.told) == 1
    assert manager.stderr.read_text().count("taking over the socket http") == 4


def test_kill_9_fails_only_what_was_in_flight(manage):
    manager = manage().start()
    with Load(manager.port) as load:
        eventually(lambda: load.answered > 50)
        manager.end(signal.SIGKILL)
        manager.start()
        already = load.answered
        eventually(lambda: load.answered > already + 50)
    # One request for each client at most; http.client notices a connection that broke only at the next one.
    assert len(load.failed) <= 4
    assert all("refused" not in failure for failure in load.failed)


def test_a_stop_closes_the_port(manage):
    manager = manage().start()
    assert manager.end() == 0
    manager.keep(None)  # what systemd does at a stop
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", manager.port), 5)


def test_a_kept_socket_that_does_not_fit_the_settings_is_dropped(manage):
    manager = manage().start()
    old = manager.port
    assert manager.end() == 0
    with socket.create_server(("127.0.0.1", 0)) as free:
        manager.port = free.getsockname()[1]
    manager.start()
    assert any(message.get("FDSTOREREMOVE") == "1" and message["FDNAME"] == "http" for message in manager.told)
    assert manager.get("/livez") == b"ok\n"
    assert manager.kept.getsockname()[1] == manager.port != old
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", old), 5)


def test_a_socket_unit_decides_where_the_server_listens_and_keeps_its_socket(manage):
    manager = manage()
    manager.kept = socket.create_server(("127.0.0.1", 0))
    listens_on = manager.kept.getsockname()[1]
    manager.start("--port", "1", fd_name="datacat-server.socket")
    manager.port = listens_on
    assert manager.get("/livez") == b"ok\n"
    assert not any("FDSTORE" in message or "FDSTOREREMOVE" in message for message in manager.told)
    assert manager.end() == 0
    # It still listens: the unit holds it.
    socket.create_connection(("127.0.0.1", listens_on), 5).close()


# --- the watchdog


def test_the_manager_hears_ready_with_a_status_watchdog_and_stopping(manage):
    manager = manage(WATCHDOG_USEC="600000").start()
    ready = manager.until("READY")
    assert ready["STATUS"].startswith("0 sessions open, 0 records/s, store ")
    beats = [message["at"] for message in manager.heard_for(2.0) if "WATCHDOG" in message]
    assert 6 <= len(beats) <= 14
    assert manager.end() == 0
    stopping = manager.until("STOPPING", after=0)
    assert stopping["STATUS"] == "finishing what has come, then closing the store"
    assert not any("WATCHDOG" in message for message in manager.told[manager.told.index(stopping) + 1 :])


def test_a_service_in_a_network_of_its_own_proves_work_through_a_pair_of_sockets(manage, tmp_path):
    if subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False).returncode:
        pytest.skip("capability: no right to make a network namespace")
    trigger = tmp_path / "now"
    manager = manage(WATCHDOG_USEC="1200000", DATACAT_FAULT=f"pool:{trigger}")
    manager.kept = socket.create_server(("127.0.0.1", 0))
    manager.start(fd_name="datacat-server.socket", through=["unshare", "--net"])
    assert manager.get("/livez") == b"ok\n"  # from outside, through the socket that it was given
    assert sum("WATCHDOG" in message for message in manager.heard_for(2.0)) >= 3
    assert "does not beat" not in manager.stderr.read_text()
    trigger.touch()
    manager.quiet(1.2)


def test_a_watchdog_of_another_process_is_not_ours(manage):
    manager = manage(WATCHDOG_USEC="300000", WATCHDOG_PID="1").start()
    assert not any("WATCHDOG" in message for message in manager.heard_for(1.0))


def test_a_stopped_process_does_not_beat(manage):
    manager = manage(WATCHDOG_USEC="600000").start()
    manager.until("WATCHDOG")
    manager.process.send_signal(signal.SIGSTOP)
    manager.drain()
    assert not any("WATCHDOG" in message for message in manager.heard_for(1.0))


@pytest.mark.parametrize(("fault", "stack"), [("store", "sync_or_block"), ("pool", "answer_or_block")])
def test_a_process_that_hangs_does_not_beat_shows_every_stack_and_loses_nothing(manage, tmp_path, fault, stack):
    trigger = tmp_path / "now"
    manager = manage(WATCHDOG_USEC="1500000", DATACAT_FAULT=f"{fault}:{trigger}").start()
    known = record(manager)
    manager.until("WATCHDOG")
    trigger.touch()
    began = time.monotonic()
    hanging = []

    def ask():
        with contextlib.suppress(OSError, http.client.HTTPException):
            hanging.append(record(manager, "lost"))

    clients = [threading.Thread(target=ask) for _ in range(10)]
    for client in clients:
        client.start()
    manager.quiet(1.5)
    # WatchdogSec plus 5 s is the promise; the last beat may have come just before the first blocked write was too old.
    assert time.monotonic() - began < 1.5 + 5
    trigger.unlink()
    assert manager.end(signal.SIGABRT) == -signal.SIGABRT
    for client in clients:
        client.join()
    assert hanging == []
    said = manager.stderr.read_text()
    assert "the watchdog does not beat" in said
    assert "Fatal Python error: Aborted" in said
    assert said.count("Thread 0x") + said.count("Current thread 0x") >= 8
    assert f"in {stack}" in said
    manager.environ.pop("DATACAT_FAULT")
    manager.start()
    assert manager.get(f"/api/sessions/{known}")
    assert "editor" in products(manager)


@pytest.mark.parametrize("fault", ["store", "pool"])
def test_without_a_manager_a_process_that_hangs_ends_itself_with_every_stack(tmp_path, fault):
    trigger, port_file = tmp_path / "now", tmp_path / "port"
    environ = {**os.environ, "DATACAT_FAULT": f"{fault}:{trigger}", "WATCHDOG_USEC": "1200000"}
    command = [sys.executable, "-m", "datacat.cli.server", "--port", "0", "--port-file", str(port_file)]
    command += ["--data-dir", str(tmp_path / "data"), "--self-watchdog"]
    with subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        try:
            eventually(lambda: port_file.exists() and port_file.read_text(), timeout_s=20)
            address = ("127.0.0.1", int(port_file.read_text()))
            # It lives for several times the limit while it works.
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(2.5)
            trigger.touch()
            with socket.create_connection(address) as client:
                body = b'{"product": "p", "version": "1"}'
                client.sendall(
                    b"POST /api/sessions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                    b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
                )
                assert process.wait(10) == 1
            said = process.stderr.read()
        finally:
            process.kill()
    assert b"Timeout (0:00:01.2" in said
    assert b"or_block" in said


def test_a_stop_that_hangs_ends_all_the_same(manage, tmp_path):
    trigger = tmp_path / "now"
    manager = manage(DATACAT_FAULT=f"store:{trigger}").start()
    trigger.touch()
    client = socket.create_connection(("127.0.0.1", manager.port))
    with client:
        body = b'{"product": "p", "version": "1"}'
        client.sendall(
            b"POST /api/sessions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        )
        began = time.monotonic()
        assert manager.end(timeout_s=12) == 1
    assert time.monotonic() - began < 10.5
    assert "in sync_or_block" in manager.stderr.read_text()


# --- reload


def test_a_reload_takes_what_can_change_and_names_what_needs_a_restart(manage, tmp_path):
    file = tmp_path / "server.toml"
    file.write_text("lease_s = 60\n")
    manager = manage().start("--config", str(file))
    file.write_text('lease_s = 7\nthreads = 3\nlog_level = "debug"\n')
    already = len(manager.told)
    before_us = time.monotonic_ns() // 1000
    manager.process.send_signal(signal.SIGHUP)
    reloading = manager.until("RELOADING", after=already)
    assert before_us <= int(reloading["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
    manager.until("READY", after=already)
    said = manager.stderr.read_text()
    assert "lease_s is 7.0 now" in said
    assert "log_level is debug now" in said
    assert "a change of threads needs a restart" in said
    told = urllib.request.Request(
        f"{manager.url}/api/daemons", b'{"id": "d1"}', {"Content-Type": "application/json"}, method="POST"
    )
    with urllib.request.urlopen(told, timeout=20) as answer:
        assert json.loads(answer.read())["lease_s"] == 7.0


@pytest.mark.parametrize("text", ["lease_s = 'soon'\n", "lease_s = \n", "leese_s = 3\n", None])
def test_a_reload_of_a_broken_file_changes_nothing_and_says_so(manage, tmp_path, text):
    file = tmp_path / "server.toml"
    file.write_text("lease_s = 60\n")
    manager = manage().start("--config", str(file))
    if text is None:
        file.unlink()
    else:
        file.write_text(text)
    already = len(manager.told)
    manager.process.send_signal(signal.SIGHUP)
    manager.until("READY", after=already)
    assert "the settings stay as they are: unexpected value" in manager.stderr.read_text()
    assert manager.get("/livez") == b"ok\n"
    assert manager.end() == 0


# --- messages


def test_lines_for_the_journal_carry_priorities(tmp_path):
    reader, writer = os.pipe()
    try:
        stream = os.fstat(writer)
        environ = {**os.environ, "JOURNAL_STREAM": f"{stream.st_dev}:{stream.st_ino}"}
        command = [sys.executable, "-m", "datacat.cli.server", "--port", "nonsense"]
        assert subprocess.run(command, env=environ, stderr=writer, check=False, timeout=30).returncode == 78
        assert os.read(reader, 4096).startswith(b"<3>datacat-server: unexpected value --port=nonsense; use ")
        command = [sys.executable, "-m", "datacat.cli.server", "--port", "0", "--data-dir", str(tmp_path)]
        with subprocess.Popen(command, env=environ, stderr=writer, stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            process.terminate()
            assert process.wait(10) == 0
        lines = os.read(reader, 65536).decode().splitlines()
        assert lines
        assert all(line.startswith("<6>datacat.") for line in lines), lines
    finally:
        os.close(reader)
        os.close(writer)


def test_a_manager_that_cannot_back_off_is_told_that_the_server_does_it_itself(manage):
    manager = manage(FDSTORE="")
    for _ in range(2):
        manager.start()
        manager.end(signal.SIGKILL)
    manager.start()
    told = [message.get("STATUS", "") for message in manager.told]
    assert "2 starts in a row have failed: the next begins in 2 s" in told
    assert sum("failed" in text for text in told) == 1
    manager.end()
    manager.start()
    assert sum("failed" in message.get("STATUS", "") for message in manager.told) == 1
