"""An ordinary batch is read without cheroot; everything that two readers could read in two ways is left to it."""

import email.utils
import io
import socket
import threading

import pytest
import requests

from datacat.server.batch_request import MAX_HEADER_BYTES, environ_of, rendered

SESSION = "01890a5d-ac96-774b-bcce-000000000001"
PEER = ("127.0.0.1", "50000")


def request(headers="", *, line=None, body=b"four", length=None):
    line = line or f"POST /api/sessions/{SESSION}/batches?stream=app&from=0&to=9 HTTP/1.1"
    length = len(body) if length is None else length
    head = f"{line}\r\nHost: localhost\r\nContent-Length: {length}\r\n{headers}\r\n".encode("latin-1")
    return head, body


def read(head, body):
    return environ_of(memoryview(head + body), len(head), PEER, secure=False)


def test_a_batch_is_told_as_wsgi_tells_it():
    environ, body = read(*request("Content-Type: application/x-ndjson\r\nX-Api-Key: a\r\nx-api-key: b\r\n"))
    assert body == b"four"
    assert environ["wsgi.input"].read() == b"four"
    assert {name: value for name, value in environ.items() if isinstance(value, str)} == {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": f"/api/sessions/{SESSION}/batches",
        "QUERY_STRING": "stream=app&from=0&to=9",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": "50000",
        "HTTP_HOST": "localhost",
        "CONTENT_LENGTH": "4",
        "CONTENT_TYPE": "application/x-ndjson",
        "HTTP_X_API_KEY": "a, b",
        "wsgi.url_scheme": "http",
    }


@pytest.mark.parametrize(
    "asked",
    [
        request(line=f"GET /api/sessions/{SESSION}/batches?stream=app HTTP/1.1"),
        request(line=f"POST /api/sessions/{SESSION}/acked?x=1 HTTP/1.1"),
        request(line=f"POST /api/sessions/{SESSION}/batches HTTP/1.1"),
        request(line="POST /api/sessions/x/batches?stream=app HTTP/1.1"),
        request(line=f"POST //api/sessions/{SESSION}/batches?stream=app HTTP/1.1"),
        request(line=f"POST /api/sessions/{SESSION}/batches?stream=app HTTP/1.0"),
        request(line=f"POST http://x/api/sessions/{SESSION}/batches?stream=app HTTP/1.1"),
        request(line=f"POST /api/sessions/{SESSION}/batches?a b HTTP/1.1"),
        request("Connection: close\r\n"),
        request("Connection: keep-alive, upgrade\r\n"),
        request("Expect: 100-continue\r\n"),
        request("Transfer-Encoding: chunked\r\n"),
        request("Content-Length: 4\r\n"),
        request("Host: y\r\n"),
        request(" folded: x\r\n"),
        request("nothing\r\n"),
        request("X: a\0b\r\n"),
        request(length=3),
        request(length=5),
        request(length="+4"),
        request(f"X: {'a' * MAX_HEADER_BYTES}\r\n"),
        request("".join(f"X{number}: a\r\n" for number in range(101))),
    ],
)
def test_everything_else_is_left_to_cheroot(asked):
    assert read(*asked) is None


def test_a_batch_as_the_library_of_daemons_sends_it_is_an_ordinary_one():
    listening = socket.create_server(("127.0.0.1", 0))
    come = []

    def serve():
        sock, _ = listening.accept()
        with sock:
            data = b""
            while not data.endswith(b"a batch"):
                data += sock.recv(65536)
            come.append(data)
            sock.sendall(rendered("200 OK", {"Content-Length": "2"}, b"ok", keep=False))

    thread = threading.Thread(target=serve)
    thread.start()
    with requests.Session() as session, listening:
        session.trust_env = False
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/api/sessions/{SESSION}/batches"
        answer = session.post(
            url,
            b"a batch",
            params={"stream": "app", "from": 0, "to": 9},
            headers={"Content-Encoding": "zstd"},
            timeout=10,
        )
    thread.join()
    assert (answer.status_code, answer.content) == (200, b"ok")
    head, _, body = come[0].partition(b"\r\n\r\n")
    assert b"Connection: keep-alive" in head
    environ, found = read(head + b"\r\n\r\n", body)
    assert found == b"a batch"
    assert environ["HTTP_CONTENT_ENCODING"] == "zstd"


@pytest.mark.parametrize("keep", [True, False])
def test_an_answer_says_whether_its_connection_goes_on_and_when_it_was_made(keep):
    answer = rendered("200 OK", {"X-A": "1", "Content-Length": "2"}, b"ok", keep=keep)
    head, _, body = answer.partition(b"\r\n\r\n")
    line, *headers = head.decode().split("\r\n")
    assert (line, body) == ("HTTP/1.1 200 OK", b"ok")
    told = dict(header.split(": ", 1) for header in headers)
    assert (told["X-A"], told["Server"], told.get("Connection")) == ("1", "datacat", None if keep else "close")
    assert email.utils.parsedate_to_datetime(told["Date"])


def test_what_is_read_does_not_hold_the_memory_that_it_came_in():
    inbox = bytearray(b"".join(request()))
    head = inbox.index(b"\r\n\r\n") + 4
    with memoryview(inbox) as view:
        environ, _ = environ_of(view, head, PEER, secure=True)
    inbox.clear()
    assert environ["wsgi.url_scheme"] == "https"
    assert isinstance(environ["wsgi.input"], io.BytesIO)
