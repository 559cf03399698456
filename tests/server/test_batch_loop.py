"""The batch loop against real sockets and a store whose disk the test holds still."""

import contextlib
import json
import socket
import threading
import time

import pytest
from helpers import eventually
from target import HOST, post, received

from datacat.server import batch_loop, service
from datacat.server.config import Config
from datacat.server.own import line_of
from datacat.store import RecordQuery, durable
from datacat.wire import lines
from datacat.wire.records import Event, Open, StatePatch, Verdict

T = 1_800_000_000_000_000
OPENING = lines.encode(Open(T, "editor", "1.2"))


def sid(number):
    return f"01890a5d-ac96-774b-bcce-{number:012x}"


class Disk:
    """Syncs files while it is not held; counts."""

    def __init__(self, sync):
        self._sync = sync
        self._free = threading.Event()
        self._free.set()
        self.waiting = threading.Event()
        self.syncs = 0
        self.error = None

    def __call__(self, fd):
        self.waiting.set()
        assert self._free.wait(30)
        if self.error:
            raise self.error
        self._sync(fd)
        self.syncs += 1

    @contextlib.contextmanager
    def held(self):
        self.waiting.clear()
        self._free.clear()
        try:
            yield
        finally:
            self._free.set()


@pytest.fixture
def disk(monkeypatch):
    made = Disk(durable.sync_file)
    monkeypatch.setattr(durable, "sync_file", made)
    return made


@pytest.fixture
def server(tmp_path, disk):
    built = service.build(Config(port=0, data_dir=str(tmp_path)), {})
    built.start()
    try:
        yield built
    finally:
        built.stop()


@pytest.fixture
def connect(server):
    with contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=20))


def status(answer):
    return int(answer.split()[1]) if answer else 0


def answered(sock, request):
    sock.sendall(request)
    return received(sock)


def opened(connect, number=1):
    """Return a connection on which a session was opened."""
    sock = connect()
    assert status(answered(sock, post(sid(number), OPENING))) == 200
    return sock


def one_more(number=1, start=100, name="e", headers=b""):
    return post(sid(number), lines.encode(Event(T + start, name)), headers, start=start, end=start + 100)


def silent(sock, wait_s=0.1):
    sock.settimeout(wait_s)
    try:
        return sock.recv(1) == b"\0"
    except TimeoutError:
        return True
    finally:
        sock.settimeout(20)


def received_one(sock):
    """Return exactly one answer; what follows stays in the socket."""
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        data += sock.recv(1)
    length = int(data.partition(b"Content-Length: ")[2].partition(b"\r\n")[0])
    while length:
        part = sock.recv(length)
        data, length = data + part, length - len(part)
    return data


def names(server, number=1):
    return [row.record["name"] for row in server.store.records(sid(number), RecordQuery(kinds=("event",)))]


@pytest.fixture
def by_workers(server, monkeypatch):
    """The first lines of the requests that worker threads answered."""
    seen = []
    serve = server._http.serve_by_worker

    def watched(conn):
        seen.append(conn.peek().partition(b" HTTP")[0])
        serve(conn)

    monkeypatch.setattr(server._http, "serve_by_worker", watched)
    return seen


# --- answers


def test_batches_of_one_connection_follow_each_other_and_hold_no_worker_thread(server, connect, by_workers):
    sock = opened(connect)
    for number in range(1, 6):
        answer = answered(sock, one_more(start=number * 100, name=f"e{number}"))
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["acked"] == number * 100 + 100
    assert names(server) == ["e1", "e2", "e3", "e4", "e5"]
    assert by_workers == []


def test_a_batch_is_answered_when_it_is_durable_and_not_before(server, connect, disk):
    sock = opened(connect)
    with disk.held():
        sock.sendall(one_more())
        assert disk.waiting.wait(10)
        assert silent(sock)
        assert names(server) == []
    assert status(received(sock)) == 200
    assert names(server) == ["e"]


def test_while_the_disk_works_others_are_read_and_share_the_next_round(server, connect, disk):
    socks = [opened(connect, number) for number in range(8)]
    with disk.held():
        socks[0].sendall(one_more(0))
        assert disk.waiting.wait(10)
        before = disk.syncs
        for number in range(1, 8):
            socks[number].sendall(one_more(number))
        eventually(lambda: len(server._http._batch_loop._held) == 7)
        # Reads go on meanwhile.
        assert status(answered(connect(), b"GET /api/sessions HTTP/1.1\r\n" + HOST + b"\r\n")) == 200
    assert [status(received(sock)) for sock in socks] == [200] * 8
    assert disk.syncs - before < 5  # two; jobs of the server sync files too


def test_requests_that_come_together_are_answered_in_their_order(server, connect):
    sock = opened(connect)
    sock.sendall(b"".join(one_more(start=start) for start in (100, 200, 900, 300)))
    assert [status(received_one(sock)) for _ in range(4)] == [200, 200, 409, 200]


def test_what_comes_while_a_batch_waits_for_the_disk_is_read_behind_it(server, connect, disk):
    sock = opened(connect)
    with disk.held():
        sock.sendall(one_more())
        assert disk.waiting.wait(10)
        sock.sendall(one_more(start=200) + b"GET /livez HTTP/1.1\r\n" + HOST + b"\r\n")
        assert silent(sock)
    answers = [received_one(sock) for _ in range(3)]
    assert [status(answer) for answer in answers] == [200, 200, 200]
    assert b'"acked":300' in answers[1]
    assert b"acked" not in answers[2]


def test_a_client_that_sends_refused_batches_without_end_keeps_nobody_waiting(server, connect):
    flood, other = opened(connect, 1), opened(connect, 2)
    flood.sendall(one_more(start=900) * 500)
    began = time.monotonic()
    assert status(answered(other, one_more(2))) == 200
    assert time.monotonic() - began < 5
    assert [status(received_one(flood)) for _ in range(500)] == [409] * 500


def test_a_batch_in_many_packets_is_one(server, connect):
    sock = opened(connect)
    request = one_more()
    for at in range(0, len(request), 40):
        sock.sendall(request[at : at + 40])
        assert silent(sock, 0.002)
    assert status(received(sock)) == 200


def test_a_client_that_is_gone_takes_nobody_along(server, connect, disk):
    gone, other = opened(connect, 1), opened(connect, 2)
    with disk.held():
        gone.sendall(one_more(1))
        other.sendall(one_more(2))
        assert disk.waiting.wait(10)
        gone.close()
    assert status(received(other)) == 200
    eventually(lambda: names(server, 1) == ["e"])  # it was stored, and nobody is there to be told
    assert status(answered(other, one_more(2, start=200))) == 200


def test_a_failed_fsync_is_no_acknowledgement_for_anybody(server, connect, disk):
    socks = [opened(connect, number) for number in range(3)]
    disk.error = OSError(5, "Input/output error")
    with disk.held():
        for number, sock in enumerate(socks):
            sock.sendall(one_more(number))
        assert disk.waiting.wait(10)
    assert [status(received(sock)) for sock in socks] == [503] * 3
    assert status(answered(connect(), post(sid(9), OPENING))) == 503
    assert status(answered(connect(), b"GET /readyz HTTP/1.1\r\n" + HOST + b"\r\n")) == 503
    assert status(answered(connect(), b"GET /api/sessions HTTP/1.1\r\n" + HOST + b"\r\n")) == 200
    disk.error = None


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_dies_of_an_fsync_leaves_nobody_without_an_answer(server, connect, disk):
    sock = opened(connect)
    disk.error = ZeroDivisionError()
    assert status(answered(sock, one_more())) == 503
    eventually(lambda: not server._http._batch_loop.alive)
    with pytest.raises(RuntimeError, match="the thread that takes batches has ended"):
        server._http.probe(10)
    disk.error = None


# --- who serves whom


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /livez HTTP/1.1\r\n" + HOST + b"\r\n",
        one_more(start=200, headers=b"Expect: x\r\n"),
        one_more(start=200).replace(b"Content-Length: ", b"Content-length : "),
    ],
)
def test_what_is_no_ordinary_batch_is_for_a_worker(server, connect, by_workers, request_):
    sock = opened(connect)
    assert status(answered(sock, one_more())) == 200
    assert by_workers == []
    assert status(answered(sock, request_)) in (200, 400)
    assert len(by_workers) == 1


def test_a_large_batch_is_for_a_worker_and_the_small_one_behind_it_is_not(server, connect, by_workers):
    sock = opened(connect)
    large = b"".join(lines.encode(Event(T + n, "e", message="x" * 1000)) for n in range(600))
    assert status(answered(sock, post(sid(1), large, start=100, end=200))) == 200
    assert len(by_workers) == 1
    assert status(answered(sock, one_more(start=200))) == 200
    assert len(by_workers) == 1


def test_a_session_that_is_back_is_welcomed_by_a_worker(server, connect, by_workers):
    sock = opened(connect)
    with server.own.lock(sid(1)):
        told = Verdict(T + 1, "suspended", by="server")
        server.own.write(sid(1), [line_of(told)])
    assert status(answered(sock, one_more())) == 200
    assert len(by_workers) == 1
    assert server.store.head(sid(1)).status == "active"


def test_a_silent_connection_waits_in_the_selector(server, connect, monkeypatch):
    monkeypatch.setattr(batch_loop, "STAY_S", 0.05)
    sock = opened(connect)
    loop = server._http._batch_loop
    eventually(lambda: not loop._last_s)
    assert server._http._connections.count == 1
    assert status(answered(sock, one_more())) == 200
    assert loop._last_s


def test_a_loop_that_is_stuck_gets_nobody_else(server, connect, by_workers, monkeypatch):
    inside, go = threading.Event(), threading.Event()
    write = server.store.write

    def slow(session_id, batch, *, received_us):
        if session_id == sid(1):
            inside.set()
            assert go.wait(20)
        return write(session_id, batch, received_us=received_us)

    stuck = opened(connect, 1)
    monkeypatch.setattr(server.store, "write", slow)
    stuck.sendall(one_more(1))
    assert inside.wait(10)
    eventually(server._http._batch_loop.is_stuck)
    try:
        assert status(answered(connect(), post(sid(2), OPENING))) == 200
        assert len(by_workers) == 1
    finally:
        go.set()
    assert status(received(stuck)) == 200


def test_an_error_in_the_loop_costs_one_connection(server, connect, monkeypatch, caplog):
    broken, other = opened(connect, 1), opened(connect, 2)
    batches = server._http._batch_loop._batches
    is_quick = batches.is_quick

    def fails(environ, body):
        if sid(1) in environ["PATH_INFO"]:
            raise ZeroDivisionError
        return is_quick(environ, body)

    monkeypatch.setattr(batches, "is_quick", fails)
    assert answered(broken, one_more(1)) == b""
    assert status(answered(other, one_more(2))) == 200
    assert "a connection failed" in caplog.text


def test_another_threads_round_is_waited_for(server, connect, disk):
    sock = opened(connect, 1)
    opened(connect, 2)
    with disk.held():
        thread = threading.Thread(target=server.own.write, args=(sid(2), [line_of(StatePatch(T + 5, {"mode": "x"}))]))
        thread.start()
        assert disk.waiting.wait(10)
        sock.sendall(one_more(1))
        eventually(lambda: server._http._batch_loop._held)
        assert silent(sock)
    assert status(received(sock)) == 200
    thread.join()


# --- its end


def test_a_stop_answers_what_waits_for_the_disk(tmp_path, disk):
    built = service.build(Config(port=0, data_dir=str(tmp_path)), {})
    built.start()
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(socket.create_connection(("127.0.0.1", built.port), timeout=20))
        idle = stack.enter_context(socket.create_connection(("127.0.0.1", built.port), timeout=20))
        for number, one in enumerate((sock, idle)):
            assert status(answered(one, post(sid(number), OPENING))) == 200
        stopping = threading.Thread(target=built.stop)
        with disk.held():
            sock.sendall(one_more(0))
            assert disk.waiting.wait(10)
            stopping.start()
            assert silent(sock)
        answer = received(sock)
        assert status(answer) == 200
        assert b"Connection: close" in answer
        assert idle.recv(1) == b""
        stopping.join(20)
        assert not stopping.is_alive()


def test_a_probe_finds_out_that_the_loop_has_ended(server, monkeypatch):
    server._http.probe(10)
    server._http._batch_loop.stop()
    with pytest.raises(RuntimeError, match="the thread that takes batches has ended"):
        server._http.probe(10)


def test_without_the_loop_worker_threads_take_batches(server, connect, by_workers):
    server._http._batch_loop.stop()
    assert status(answered(connect(), post(sid(1), OPENING))) == 200
    assert len(by_workers) == 1
