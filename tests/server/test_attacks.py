"""Attacks on a real server over loopback: what they get is refused, its memory stays small, others are served.

Each prints its figures (pytest -s). The bounds here are generous, for machines that are busy; the figures are not.
"""

import contextlib
import gzip
import json
import os
import socket
import subprocess
import sys
import threading
import time

import psutil
import pytest
import zstandard
from helpers import eventually
from target import HOST, MOST_MB, SESSION, T, Target, post, received

from datacat.wire import lines
from datacat.wire.records import Event, Open


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    found = Target(tmp_path_factory.mktemp("target"))
    yield found
    found.process.terminate()
    assert found.process.wait(30) == 0


def is_refused(answer, *statuses):
    head, _, body = answer.partition(b"\r\n\r\n")
    status = int(head.split()[1])
    assert status in statuses, answer[:300]
    assert b"application/problem+json" in head
    assert b"X-Content-Type-Options: nosniff" in head
    assert b"Server: datacat\r\n" in head + b"\r\n"
    assert json.loads(body)["status"] == status
    return body


@contextlib.contextmanager
def many(target, count, first):
    """Open count connections that have each sent first."""
    with contextlib.ExitStack() as stack:
        socks = []
        for _ in range(count):
            sock = stack.enter_context(target.connect())
            if first:
                sock.sendall(first)
            socks.append(sock)
        yield socks


@pytest.mark.parametrize(
    ("what", "first"),
    [
        ("slow headers", b"GET / HTTP/1.1\r\n" + HOST + b"X: "),
        ("slow bodies", post(SESSION % 1, b"x" * 10_000)[:-9000]),
        ("slow chunks", b"POST /api/sessions HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n400\r\n"),
        ("bodies announced and not sent, after 100 Continue",
         b"POST /api/sessions HTTP/1.1\r\n" + HOST + b"Expect: 100-continue\r\nContent-Length: 1000000\r\n\r\n"),
    ],
)  # fmt: skip
def test_slow_clients_on_all_threads_keep_nobody_waiting(target, what, first):
    with target.attacked(f"300 x {what}"), many(target, 300, first) as socks:
        end = time.monotonic() + 2
        while time.monotonic() < end:
            for sock in socks:
                with contextlib.suppress(ConnectionError):
                    sock.sendall(b"x")


def test_clients_that_do_not_read_their_answers_keep_nobody_waiting(target):
    sid = SESSION % 2
    body = lines.encode(Open(T, "editor", "1")) + b"".join(
        lines.encode(Event(T + n, "e", message=os.urandom(1000).hex())) for n in range(1500)
    )
    assert target.talk(post(sid, zstandard.compress(body), b"Content-Encoding: zstd\r\n")).startswith(b"HTTP/1.1 200")
    request = f"GET /api/sessions/{sid}?events=all HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    with target.attacked("40 clients that read nothing of 3 MB"), contextlib.ExitStack() as stack:
        for _ in range(40):
            sock = stack.enter_context(socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(("127.0.0.1", target.port))
            sock.sendall(request)
        threading.Event().wait(1.5)
        target.look()


def test_idle_connections_by_the_thousand_cost_little(target):
    resource = pytest.importorskip("resource", reason="capability: no resource limits on this platform")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    server_files = psutil.Process(target.process.pid).rlimit(resource.RLIMIT_NOFILE, (hard, hard)) or hard
    try:
        wanted = 10_000 if os.environ.get("DATACAT_LONG") == "1" else 3_000
        count = min(wanted, hard - 500)
        sys.stdout.write(f"\nopen files: {soft} -> {hard}, server {server_files}; {count} connections\n")
        with target.attacked(f"{count} idle connections"), many(target, count, b""):
            target.look()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("encoding", ["gzip", "zstd", "zstd without a size"])
def test_a_bomb_is_refused_before_it_is_unpacked(target, encoding):
    zeros = bytes(64 * 1024 * 1024)
    bomb = {
        "gzip": lambda: gzip.compress(zeros, 9),
        "zstd": lambda: zstandard.ZstdCompressor(level=19).compress(zeros),
        "zstd without a size": lambda: zstandard.ZstdCompressor(level=19, write_content_size=False).compress(zeros),
    }[encoding]()
    header = f"Content-Encoding: {encoding.split()[0]}\r\n".encode()
    with target.attacked(f"40 bombs of {len(bomb)} bytes in {encoding}"):
        for _ in range(40):
            is_refused(target.talk(post(SESSION % 3, bomb, header)), 413, 503)
        target.look()


def test_a_gigabyte_that_is_announced_is_refused_at_once(target):
    head = post(SESSION % 4, b"")[:-4].replace(b"Content-Length: 0", b"Content-Length: 1073741824") + b"\r\n\r\n"
    with target.attacked("300 bodies of 1 GB announced"), many(target, 300, head) as socks:
        for sock in socks:
            is_refused(received(sock), 413, 503)  # those that wait behind too many others


@pytest.mark.parametrize(
    ("body", "statuses"),
    [
        (b"ZZ\r\n", (400,)),
        (b"-5\r\nhello\r\n", (400,)),
        (b"0x5\r\nhello\r\n0\r\n\r\n", (400,)),
        (b"5\r\nhelloXX0\r\n\r\n", (400,)),
        (b"1" * 100_000, (400,)),
        (b"ffffffff\r\nx", (400, 413)),
        (b"1\r\na\r\n" * 60_000 + b"0\r\n\r\n", (400,)),
        (b"10000\r\n" + b"a" * 65536 + b"\r\n", (413,)),
    ],
)
def test_chunks_that_are_nonsense_are_refused(target, body, statuses):
    if statuses == (413,):
        body *= 80
    head = b"POST /api/sessions HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n"
    with target.attacked("chunked nonsense"):
        for _ in range(5):
            is_refused(target.talk(head + b"Transfer-Encoding: chunked\r\n\r\n" + body), *statuses)


def test_deep_nesting_and_huge_ids_are_refused_or_cut(target):
    head = b"POST /api/sessions HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    with target.attacked("deep nesting, huge ids"):
        for deep in (
            b"[" * 1_000_000,
            b'{"a":' * 500_000,
            b'{"product":"p","version":"1","state":' + b'{"a":' * 50_000,
        ):
            is_refused(target.talk(head % len(deep) + deep), 400, 422)
            is_refused(target.talk(post(SESSION % 5, deep + b"\n")), 413, 422)
        huge = json.dumps({"product": "p", "version": "1", "id": "x" * 2_000_000}).encode()
        is_refused(target.talk(head % len(huge) + huge), 422)
        tiny = lines.encode(Open(T, "e", "1")) + b'{"t":1,"k":"beat"}\n' * 220_000
        assert target.talk(post(SESSION % 6, tiny)).startswith(b"HTTP/1.1 200")
        target.look()


PATHS = (
    "/api/sessions/..%2f..%2fetc%2fpasswd", "/api/sessions/../../etc/passwd", "//etc/passwd", "/api//sessions",
    "/api/sessions/%2e%2e", "/static/..%2f..%2f..%2fetc/passwd", "/static/../config.py", "/static/%2e%2e/config.py",
    "/api/sessions/..%5c..%5cwin.ini", "/api/sessions/CON", f"/api/sessions/{'a' * 8000}", "/api/sessions/<b>",
)  # fmt: skip
"""Paths to files, to nowhere, and none that a route takes."""


@pytest.mark.parametrize("path", PATHS)
def test_a_trick_with_the_path_finds_nothing(target, path):
    answer = target.talk(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    body = is_refused(answer, 400, 404)
    assert b"<" not in body
    assert b"passwd" not in body
    assert b"root:" not in body


@pytest.mark.parametrize(
    "line",
    [
        b"GET /api/sessions/a%00b HTTP/1.1", b"GET /%0d%0aSet-Cookie:%20x=1 HTTP/1.1", b"GET /api/\x00 HTTP/1.1",
        b"GET http://evil/livez HTTP/1.1", b"GET //evil HTTP/9.9", b"GET livez HTTP/1.1", b"CONNECT a:1 HTTP/1.1",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1", b"get /livez HTTP/1.1", b"GET /livez", b"\x16\x03\x01\x02\x00",
    ],
)  # fmt: skip
def test_a_request_line_that_is_odd_is_refused(target, line):
    answer = target.talk(line + b"\r\n" + HOST + b"\r\n")
    is_refused(answer, 400, 404, 405, 414, 505)
    assert b"Set-Cookie" not in answer
    assert b"evil" not in answer


@pytest.mark.parametrize(
    "headers",
    [
        b"X: a\nSet-Cookie: x=1\r\n", b"X: a\rSet-Cookie: x=1\r\n", b"X: \x00\r\n", b"X Y: 1\r\n", b": 1\r\n",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", b"X: 1\r\n" * 101, b"X: " + b"a" * 20_000 + b"\r\n",
    ],
)  # fmt: skip
def test_headers_that_are_injected_or_ambiguous_are_refused(target, headers):
    answer = target.talk(b"GET /livez HTTP/1.1\r\n" + HOST + headers + b"\r\n")
    is_refused(answer, 400, 413)
    assert b"Set-Cookie" not in answer


def test_nothing_that_was_asked_for_comes_back_as_markup_or_header(target):
    evil = "%3Cscript%3Ealert(1)%3C/script%3E%0d%0aX-Evil:%201"
    for path in (f"/api/sessions?{evil}=1", f"/api/sessions?sort={evil}", f"/{evil}", f"/api/sessions/{evil}/events"):
        answer = target.talk(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        body = is_refused(answer, 400, 404, 422)
        assert b"<script" not in body
        assert b"\r\nX-Evil" not in answer


def test_wrong_keys_by_the_thousand_are_refused(target, tmp_path):
    run = subprocess.run(
        [sys.executable, "-m", "datacat", "keys", "create", "reader", "--role", "read", "--data-dir", tmp_path],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    with contextlib.ExitStack() as stack:
        guarded = subprocess.Popen(
            [sys.executable, "-m", "datacat.cli.server", "--port", "0", "--port-file", tmp_path / "port",
             "--data-dir", tmp_path],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        stack.callback(guarded.wait, 30)
        stack.callback(guarded.terminate)
        eventually((tmp_path / "port").exists, 30)
        port = int((tmp_path / "port").read_text())
        statuses = {}
        began = time.monotonic()
        with target.attacked("3,000 wrong keys at another server of this machine"):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
            for number in range(3000):
                sock.sendall(b"GET /api/sessions HTTP/1.1\r\n" + HOST + b"Authorization: Bearer dc_%d\r\n\r\n" % number)
                answer = received(sock)
                status = answer.split()[1]
                statuses[status] = statuses.get(status, 0) + 1
        rate = 3000 / (time.monotonic() - began)
        sys.stdout.write(f"{rate:.0f} wrong keys a second: {statuses}\n")
        assert set(statuses) <= {b"401", b"429"}
        assert psutil.Process(guarded.pid).memory_info().rss < MOST_MB * 1e6
