"""The HTTP server against clients that are silent, slow, broken or hostile: real sockets on port 0."""

import contextlib
import json
import socket
import threading
import time

import pytest
from helpers import eventually

from datacat.errors import HostError
from datacat.server.exchange import FEW_CHUNKS, MAX_HEADERS
from datacat.server.httpd import Limits, Server
from datacat.server.listen import bind
from datacat.worker import Pump


def echo(environ, start_response):
    """Answer with what was read of the body, in the way that the path asks for."""
    body = environ["wsgi.input"].read() if environ["PATH_INFO"] != "/unread" else b"unread"
    if environ["PATH_INFO"] == "/stream":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return iter([b"a" * 100_000, b"b" * 100_000])
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


@contextlib.contextmanager
def serving(limits, app=echo):
    http = Server(bind("127.0.0.1", 0), app, limits)
    before = threading.active_count()
    http.prepare()
    pump = Pump("http", http.serve, http.stop)
    pump.start()
    try:
        yield http.bind_addr
    finally:
        assert pump.stop()
        eventually(lambda: threading.active_count() <= before)


@pytest.fixture(scope="module")
def address():
    with serving(Limits(threads=2, head_s=0.5, body_s=0.5)) as where:
        yield where


@contextlib.contextmanager
def connected(address):
    with socket.create_connection(address, timeout=10) as sock:
        yield sock


def talk(address, request):
    """Send bytes and return all that comes until the server closes or the answer is whole."""
    with connected(address) as sock:
        sock.sendall(request)
        sock.shutdown(socket.SHUT_WR)
        parts = []
        with contextlib.suppress(ConnectionError):
            while part := sock.recv(65536):
                parts.append(part)
        return b"".join(parts)


def get(address, path="/", headers=""):
    return talk(address, f"GET {path} HTTP/1.1\r\nHost: x\r\n{headers}Connection: close\r\n\r\n".encode())


def refused(answer, status):
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), answer
    assert b"application/problem+json" in head
    assert b"heroot" not in answer
    told = json.loads(body)
    assert told["status"] == status
    assert told["detail"]


def test_a_request_is_answered(address):
    answer = talk(address, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello")
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"\r\n\r\nhello")
    assert b"Server: datacat\r\n" in answer


def test_requests_follow_each_other_on_one_connection(address):
    one = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n"
    answer = talk(address, one + b"1" + one + b"2" + one + b"3")
    bodies = [part[:1] for part in answer.split(b"\r\n\r\n")[1:]]
    assert bodies == [b"1", b"2", b"3"]


def test_many_small_packets_are_one_request(address):
    with connected(address) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc":
            sock.sendall(bytes([byte]))
        assert b"200 OK" in sock.recv(65536)


def test_a_chunked_body_is_read(address):
    request = (
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n"
    )
    assert talk(address, request).endswith(b"abc0123456789")


def test_a_body_that_is_made_while_it_is_sent_is_chunked(address):
    answer = get(address, "/stream")
    assert b"Transfer-Encoding: chunked" in answer
    assert answer.count(b"a") >= 100_000
    assert answer.endswith(b"\r\n0\r\n\r\n")


def test_the_client_is_told_to_continue_before_it_sends_the_body(address):
    with connected(address) as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
        assert sock.recv(65536).startswith(b"HTTP/1.1 100 Continue")
        sock.sendall(b"abc")
        assert b"200 OK" in sock.recv(65536)


@pytest.mark.parametrize(
    "headers",
    [
        b"Content-Length: -1",
        b"Content-Length: +3",
        b"Content-Length: 1_0",
        b"Content-Length: 3.0",
        b"Content-Length: 0x3",
        b"Content-Length:",
        b"Content-Length: 9999999999999",
        b"Content-Length: 3\r\nContent-Length: 3",
        b"Content-Length: 3\r\nTransfer-Encoding: chunked",
        b"Content-Length : 3",
        b"Content-Length: 3\n",
        b" folded: 3",
        b"X: a\r\n folded",
        b"X: a\0b",
        b"X: a\x7fb",
        b"X\xff: a",
        b"nothing",
        b": empty",
        b"Host: y",
        b"Transfer-Encoding: gzip, chunked",
        b"Transfer-Encoding: identity",
        b"Transfer-Encoding: xchunked",
    ],
)
def test_headers_that_two_readers_could_read_in_two_ways_are_refused(address, headers):
    refused(talk(address, b"POST / HTTP/1.1\r\nHost: x\r\n" + headers + b"\r\n\r\nabc"), 400)


def test_http_1_0_has_no_chunks(address):
    refused(talk(address, b"POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400)


@pytest.mark.parametrize(
    "line",
    [
        b"GET",
        b"GET /",
        b"get / HTTP/1.1",
        b"GET / HTTP/x",
        b"GET / FTP/1.1",
        b"GET x HTTP/1.1",
        b"GET http://x/ HTTP/1.1",
    ],
)
def test_a_malformed_request_line_is_refused(address, line):
    refused(talk(address, line + b"\r\nHost: x\r\n\r\n"), 400)


def test_a_later_http_is_refused(address):
    refused(talk(address, b"GET / HTTP/2.0\r\nHost: x\r\n\r\n"), 505)


def test_too_many_or_too_long_headers_are_refused(address):
    refused(talk(address, b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * (MAX_HEADERS + 1) + b"\r\n"), 400)
    refused(talk(address, b"GET / HTTP/1.1\r\nX: " + b"y" * 20_000 + b"\r\n\r\n"), 413)
    refused(talk(address, b"GET /" + b"y" * 20_000 + b" HTTP/1.1\r\n\r\n"), 414)


def test_a_body_that_is_announced_as_too_large_is_refused(address):
    refused(talk(address, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n"), 413)


@pytest.mark.parametrize(
    "body",
    [
        b"0x3\r\nabc\r\n0\r\n\r\n",
        b"-3\r\nabc\r\n0\r\n\r\n",
        b"+3\r\nabc\r\n0\r\n\r\n",
        b"3\r\nab\r\n0\r\n\r\n",
        b"3\r\nabcd\r\n0\r\n\r\n",
        b"\r\nabc\r\n0\r\n\r\n",
        b"3\nabc\r\n0\r\n\r\n",
        b"1" * 5000,
        b"3\r\nabc\r\n0\r\nTrailer: x\r\n\r\n",
        b"FFFFFFFFF\r\n",
        b"7FFFFFFF\r\nabc",
    ],
)
def test_a_malformed_chunk_ends_the_connection_without_an_answer_to_what_follows(address, body):
    smuggled = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
    answer = talk(address, b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + body + smuggled)
    assert answer.count(b"HTTP/1.1") == 1
    assert b"200 OK" not in answer


def test_tiny_chunks_are_taken_only_while_they_are_few(address):
    head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert b"200 OK" in talk(address, head + b"1\r\nx\r\n" * FEW_CHUNKS + b"0\r\n\r\n")
    assert b"200 OK" not in talk(address, head + b"1\r\nx\r\n" * (FEW_CHUNKS + 1) + b"0\r\n\r\n")


def test_a_chunked_body_that_nobody_read_is_not_taken_for_a_request(address):
    inner = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
    body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(inner), inner)
    answer = talk(address, b"POST /unread HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + body)
    assert answer.count(b"HTTP/1.1") == 1


def test_a_body_that_nobody_read_is_not_taken_for_a_request(address):
    inner = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
    answer = talk(address, b"POST /unread HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(inner), inner))
    assert answer.count(b"HTTP/1.1") == 1


def test_silent_connections_hold_no_thread(address):
    with contextlib.ExitStack() as stack:
        for _ in range(50):
            stack.enter_context(connected(address))
        began = time.monotonic()
        assert b"200 OK" in get(address)
        assert time.monotonic() - began < 0.4


def test_connections_that_are_kept_alive_hold_no_thread(address):
    with contextlib.ExitStack() as stack:
        for _ in range(50):
            sock = stack.enter_context(connected(address))
            sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = sock.recv(65536)
            assert b"200 OK" in answer
            assert b"Connection: close" not in answer
        began = time.monotonic()
        assert b"200 OK" in get(address)
        assert time.monotonic() - began < 0.4


@pytest.mark.parametrize("first", [b"GET / HT", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10000\r\n\r\n"])
def test_a_slow_client_is_given_up_after_one_deadline_for_all_its_packets(address, first):
    with connected(address) as sock:
        began = time.monotonic()
        sock.sendall(first)
        answer = b""
        # Every packet comes in time; all of them together do not.
        sock.settimeout(0.05)
        while time.monotonic() - began < 8:
            try:
                sock.sendall(b"x")
                part = sock.recv(65536)
                answer += part
                if not part:
                    break
            except TimeoutError:
                continue
            except ConnectionError:
                break
        assert time.monotonic() - began < 5
        assert b"200 OK" not in answer


def test_too_many_connections_are_told_so():
    with serving(Limits(threads=1, max_connections=3)) as address, contextlib.ExitStack() as stack:
        for _ in range(3):
            sock = stack.enter_context(connected(address))
            sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"200 OK" in sock.recv(65536)

        def told():  # the third one may still be on its way back from the worker thread
            with connected(address) as sock:
                sock.settimeout(0.2)
                try:
                    return sock.recv(65536)
                except TimeoutError:
                    return b""

        refused(eventually(told), 503)


def test_idle_connections_are_closed_after_their_time():
    with serving(Limits(threads=1, idle_s=0.2)) as address, connected(address) as sock:
        assert sock.recv(1) == b""


def test_a_handler_that_fails_is_a_problem_without_its_inside():
    def fail(environ, start_response):
        raise ZeroDivisionError("secret")

    with serving(Limits(threads=1), fail) as address:
        answer = get(address)
        refused(answer, 500)
        assert b"secret" not in answer


def test_a_port_that_is_taken_is_named():
    with bind("127.0.0.1", 0) as sock:
        port = sock.getsockname()[1]
        with pytest.raises(HostError, match=f"127.0.0.1:{port}: Address already in use; stop what listens there"):
            bind("127.0.0.1", port)


def test_a_name_that_does_not_exist_is_named():
    with pytest.raises(HostError, match=r"256\.1\.1\.1:1"):
        bind("256.1.1.1", 1)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_client_that_sends_too_much_is_told_so_when_it_has_sent_all(address, chunked):
    part = b"x" * 1_000_000
    length = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: 20000000"
    with connected(address) as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n" % length)
        for _ in range(20):
            sock.sendall(b"f4240\r\n%s\r\n" % part if chunked else part)
        answer = sock.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413 " if not chunked else b"HTTP/1.1 "), answer[:200]
