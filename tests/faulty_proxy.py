"""A proxy between daemon and server that does to requests what networks do; each decision comes from a seed."""

import random
import socket
import threading

FAULTS = (
    "drop_request",
    "drop_answer",
    "duplicate",
    "delay",
    "reorder",
    "cut_request",
    "cut_answer",
    "500",
    "429",
    "503",
    "413",
    "trickle",
)
_LARGE_BYTES = 1000
"""More than one record of the tests takes: a lone one that is refused goes into quarantine, and would be missing."""


class FaultyProxy:
    """Listens on a port of its own. share: how many of the requests get a fault, 0 lets everything pass.

    backend() gives the server's port; told counts what was done.
    """

    def __init__(self, backend, seed, share=0.5, faults=FAULTS):
        self._backend = backend
        self._rng = random.Random(seed)
        self._faults = faults
        self.share = share
        self.told = {}
        self._late = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._listener.settimeout(0.1)
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def close(self):
        self._stop.set()
        for thread in self._threads:
            thread.join(10)
        self._listener.close()

    def _accept(self):
        while not self._stop.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                continue
            thread = threading.Thread(target=self._serve, args=(client,), daemon=True)
            self._threads = [known for known in self._threads if known.is_alive()] + [thread]
            thread.start()

    def _serve(self, client):
        client.settimeout(0.2)
        with client:
            while not self._stop.is_set():
                try:
                    request = _read(client, self._stop)
                    if request is None or not self._handle(client, request):
                        return
                except OSError:
                    return

    def _decide(self, request):
        with self._lock:
            fault = self._rng.choice(self._faults) if self._rng.random() < self.share else ""
            if fault == "413" and len(request) < _LARGE_BYTES:
                fault = ""
            if not request.startswith(b"POST /api/sessions") and fault in ("reorder", "duplicate"):
                fault = ""
            self.told[fault] = self.told.get(fault, 0) + 1
            late = self._late.pop(0) if self._late and self._rng.random() < 0.5 else None
            return fault, late, self._rng.random()

    def _handle(self, client, request):
        fault, late, chance = self._decide(request)
        if late is not None:
            self._forward(late)  # what was held back arrives after others that were sent later
        if fault == "drop_request":
            return False
        if fault in ("500", "429", "503", "413"):
            retry = b"Retry-After: 1\r\n" if fault in ("429", "503") and chance < 0.3 else b""
            client.sendall(b"HTTP/1.1 " + fault.encode() + b" Fault\r\nContent-Length: 0\r\n" + retry + b"\r\n")
            return True
        if fault == "reorder":
            with self._lock:
                self._late.append(request)
            return False
        if fault == "cut_request":
            self._forward(request[: int(len(request) * chance)], whole=False)
            return False
        if fault == "delay":
            self._stop.wait(chance * 0.4)
        answer = self._forward(request)
        if fault == "duplicate":
            answer = self._forward(request) or answer
        if not answer or fault == "drop_answer":
            return False
        if fault == "cut_answer":
            client.sendall(answer[: int(len(answer) * chance)])
            return False
        if fault == "trickle":
            for at in range(0, len(answer), 40):
                client.sendall(answer[at : at + 40])
                self._stop.wait(0.01)
            return True
        client.sendall(answer)
        return True

    def _forward(self, request, whole=True):
        """Send a request on a connection of its own; return the answer, empty when there is none."""
        try:
            with socket.create_connection(("127.0.0.1", self._backend()), timeout=10) as server:
                server.settimeout(0.2)
                server.sendall(request)
                if not whole:
                    return b""
                return _read(server, self._stop) or b""
        except OSError:
            return b""


def _read(sock, stop):
    """Return one message with its body, by Content-Length; None at the end of the connection."""
    data = b""
    waits = 0
    while not stop.is_set() and waits < 75:
        head, found, body = data.partition(b"\r\n\r\n")
        if found and len(body) >= (size := _length(head)):
            return head + found + body[:size]
        try:
            more = sock.recv(65536)
        except TimeoutError:
            waits += 1
            continue
        if not more:
            return None
        data += more
    return None


def _length(head):
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            return int(value)
    return 0
