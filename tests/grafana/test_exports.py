"""Whole sessions for the old JSON data source and for scripts: what they hold, who gets them, and what that costs.

The data source marcusolsson-json-datasource takes one JSONPath for each column and wants all of them equally long.
"""

import contextlib
import gzip
import http.client
import json
import re
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from helpers import eventually
from storing import lines, sid

from datacat.server.keys import KeyFile, make
from datacat.store import Batch, open_store
from datacat.wire import records as wire

PATHS = ("/api/grafana/sessions", "/api/data/sessions")
MANY = 10_000
T = 1_800_000_000_000_000
MEMBERS = {
    "id", "created_at", "updated_at", "ended_at", "last_heartbeat", "active", "suspended", "crashed", "hung", "machine_id",
    "hostname", "state", "state_history", "events", "metrics",
}  # fmt: skip
"""What every session object has that is asked for by path."""
MOST_GROWTH_MB = 12


def jsonpath(value, path):
    """Return what a JSONPath of the kind $[*].a.b[*].c finds, as the data source would take it for one column."""
    found = [value]
    for step in re.findall(r"\[\*\]|\.\w+", path.removeprefix("$")):
        if step == "[*]":
            found = [one for many in found for one in many]
        else:
            found = [one[step[1:]] for one in found if isinstance(one, dict) and step[1:] in one]
    return found


def session(store, number):
    """Store one session of about 5 kB."""
    begin = T + number * 1000
    told = [
        wire.Open(
            t=begin, product=f"p{number % 2}", version="1", hostname=f"h{number % 9}", machine_id=f"{number:032x}"
        )
    ]
    told += [wire.StatePatch(t=begin, patch={"file": "x" * 100, "number": number})]
    told += [wire.Event(t=begin + at, name="saved", message="m" * 300) for at in range(5)]
    told += [wire.Metric(t=begin + at, name="load", value=at) for at in range(5)]
    store.append(sid(number), Batch("app", lines(*told)), received_us=begin)


class Process:
    """A server of its own over a store; memory in MB as the system counts it."""

    def __init__(self, folder, sessions):
        store = open_store(f"semidbm:{folder / 'store'}")
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda number: session(store, number), range(sessions)))
        store.close()
        port_file = folder / "port"
        command = [
            sys.executable,
            "-m",
            "datacat.cli.server",
            "--port",
            "0",
            "--port-file",
            port_file,
            "--data-dir",
            folder,
        ]
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log)
        eventually(lambda: port_file.exists() or self._process.poll() is not None, 30)
        assert self._process.poll() is None, (folder / "log").read_text()
        self.port = int(port_file.read_text())
        self._own = psutil.Process(self._process.pid)

    def rss_mb(self):
        return self._own.memory_info().rss / 1e6

    def sockets(self):
        return len([one for one in self._own.net_connections() if one.status == psutil.CONN_ESTABLISHED])

    def ask(self, path, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("GET", path, headers=headers)
        return connection, connection.getresponse()

    def text(self, path, **headers):
        connection, answer = self.ask(path, **headers)
        with contextlib.closing(connection):
            return answer.status, answer.read()

    def close(self):
        self._process.terminate()
        self._process.wait(20)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    process = Process(tmp_path_factory.mktemp("many"), MANY)
    yield process
    process.close()


@pytest.mark.timeout(120)
def test_ten_thousand_sessions_are_never_in_memory_at_once(many):
    connection, answer = many.ask("/api/grafana/sessions?limit=20")
    with contextlib.closing(connection):
        answer.read()
    before = many.rss_mb()
    most, size, commas = before, 0, 0
    connection, answer = many.ask("/api/grafana/sessions")
    with contextlib.closing(connection):
        assert answer.status == 200
        while part := answer.read(1 << 18):
            size += len(part)
            commas += part.count(b",\n")
            most = max(most, many.rss_mb())
    assert commas == MANY - 1
    sys.stdout.write(
        f"\n{size / 1e6:.0f} MB of {MANY} sessions: server {before:.1f} MB before, {most:.1f} MB at most\n"
    )
    assert size > 2 * MOST_GROWTH_MB * 1e6
    assert most - before < MOST_GROWTH_MB


def test_who_stops_reading_holds_nothing(many):
    connection, answer = many.ask("/api/data/sessions?limit=1")
    with contextlib.closing(connection):
        answer.read()
    eventually(lambda: many.sockets() == 0)
    before = many.rss_mb()
    for _ in range(12):
        connection, answer = many.ask("/api/data/sessions")
        assert answer.read(100).startswith(b'[{"id":')
        connection.sock.shutdown(socket.SHUT_RDWR)
        connection.close()
    eventually(lambda: many.sockets() == 0, 20)
    # As many as there are threads were left in the middle, and every thread is there for the next one.
    status, body = many.text("/api/data/sessions?limit=1000&fields=id")
    assert (status, len(json.loads(body))) == (200, 1000)
    assert many.rss_mb() - before < MOST_GROWTH_MB


@pytest.mark.parametrize("path", PATHS)
def test_a_compressed_answer_is_the_same(many, path):
    plain = many.text(f"{path}?product=p1&limit=500")[1]
    connection, answer = many.ask(f"{path}?product=p1&limit=500", **{"Accept-Encoding": "gzip"})
    with contextlib.closing(connection):
        assert answer.getheader("Content-Encoding") == "gzip"
        assert gzip.decompress(answer.read()) == plain
    assert {one["product"] for one in json.loads(plain)} == {"p1"}


def test_the_health_check_of_the_old_data_source_is_content(many):
    assert many.text("/")[0] == 200
    assert many.text("/", Accept="application/json, text/plain, */*")[0] == 200


@pytest.mark.parametrize("path", PATHS)
def test_columns_of_the_old_data_source_are_equally_long(many, path):
    told = json.loads(many.text(f"{path}?limit=50")[1])
    paths = [f"$[*].{name}" for name in (*sorted(MEMBERS), "product", "status", "state.file", "counts.events")]
    assert {path: len(jsonpath(told, path)) for path in paths} == dict.fromkeys(paths, 50)
    events = [f"$[*].events[*].{name}" for name in ("timestamp", "name", "level", "message")]
    assert {len(jsonpath(told, path)) for path in events} == {250}


@pytest.mark.parametrize("path", PATHS)
def test_a_key_gets_the_sessions_of_its_products(tmp_path, path):
    keys = KeyFile(tmp_path)
    texts = {}
    for role, products in (("read", ("p1",)), ("ingest", ()), ("admin", ())):
        key, texts[role] = make(role, role, products, 0, T)
        keys.add(key)
    process = Process(tmp_path, 10)
    try:
        assert process.text(path)[0] == 401
        assert process.text(path, Authorization=f"Bearer {texts['ingest']}")[0] == 403
        status, body = process.text(f"{path}?fields=product", Authorization=f"Bearer {texts['read']}")
        assert (status, json.loads(body)) == (200, [{"product": "p1"}] * 5)
        assert len(json.loads(process.text(path, Authorization=f"Bearer {texts['admin']}")[1])) == 10
        assert process.text("/livez")[0] == 200
    finally:
        process.close()
