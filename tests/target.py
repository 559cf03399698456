"""A real server process that is attacked or loaded, and another client of it that reads all the time."""

import contextlib
import socket
import subprocess
import sys
import threading
import time

import psutil
from helpers import eventually

from datacat.wire import lines
from datacat.wire.records import Event, Open

MOST_MB = 200
MOST_P99_S = 2.0
T = 1_800_000_000_000_000
SESSION = "01890a5d-ac96-774b-bcce-0000000000%02x"
HOST = b"Host: localhost\r\n"


class Target:
    """A server process, and another client of it that reads all the time."""

    def __init__(self, folder, environ=None):
        port_file = folder / "port"
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "datacat.cli.server", "--port", "0", "--port-file", port_file,
                 "--data-dir", folder, "--max-connections", "20000"],
                stdout=subprocess.DEVNULL, stderr=log, env=environ,
            )  # fmt: skip
        eventually(port_file.exists, 30)
        self.port = int(port_file.read_text())
        self.memory_mb = 0.0
        body = lines.encode(Open(T, "editor", "1.2")) + lines.encode(Event(T, "saved"))
        assert self.talk(post(SESSION % 0, body)).startswith(b"HTTP/1.1 200")

    def connect(self, timeout_s=30):
        return socket.create_connection(("127.0.0.1", self.port), timeout=timeout_s)

    def talk(self, request):
        """Send a request; return the answer, whole or up to the end of the connection."""
        with self.connect() as sock:
            with contextlib.suppress(ConnectionError):
                sock.sendall(request)
            return received(sock)

    def look(self):
        self.memory_mb = max(self.memory_mb, psutil.Process(self.process.pid).memory_info().rss / 1e6)

    @contextlib.contextmanager
    def attacked(self, what):
        """Read all the time while something happens; afterwards tell and check the figures."""
        times, stop = [], threading.Event()
        wrong = []

        def read():
            request = b"GET /api/sessions?limit=1 HTTP/1.1\r\n" + HOST + b"\r\n"
            sock = self.connect()
            while not stop.wait(0.005):
                began = time.monotonic()
                sock.sendall(request)
                answer = received(sock)
                times.append(time.monotonic() - began)
                if not answer.startswith(b"HTTP/1.1 200"):
                    wrong.append(answer[:200])
                    sock.close()
                    sock = self.connect()
            sock.close()

        self.memory_mb = 0.0
        reader = threading.Thread(target=read)
        reader.start()
        try:
            yield
            eventually(lambda: len(times) >= 20, 30)
        finally:
            stop.set()
            reader.join()
        self.look()
        times.sort()
        p99_s = times[len(times) * 99 // 100]
        sys.stdout.write(
            f"\n{what}: server {self.memory_mb:.0f} MB, another client p50 {times[len(times) // 2] * 1e3:.1f} ms, "
            f"p99 {p99_s * 1e3:.1f} ms of {len(times)}\n"
        )
        assert not wrong
        assert self.memory_mb < MOST_MB
        assert p99_s < MOST_P99_S
        assert self.process.poll() is None
        assert b"Traceback" not in self.log.read_bytes()


def post(session_id, body, headers=b"", start=0, end=100):
    return (
        f"POST /api/sessions/{session_id}/batches?stream=s&from={start}&to={end} HTTP/1.1\r\n".encode()
        + HOST
        + b"Content-Type: application/x-ndjson\r\nContent-Length: %d\r\n%s\r\n" % (len(body), headers)
        + body
    )


def received(sock):
    """Return one answer as it comes over the wire."""
    data = b""
    with contextlib.suppress(ConnectionError, TimeoutError):
        while part := sock.recv(65536):
            data += part
            head, found, body = data.partition(b"\r\n\r\n")
            if found and b"Content-Length: " in head:
                length = int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0])
                if len(body) >= length:
                    break
    return data
