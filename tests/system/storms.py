"""Load for a busy server, and what it owes afterwards: every acknowledged batch, and nothing that was never sent."""

import http.client
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

from system.box import eventually

from datacat.server.keys import KeyFile, make
from datacat.wire import lines
from datacat.wire.ids import uuid7
from datacat.wire.records import Close, Event, Open, StatePatch
from datacat.wire.routes import batches_path

US = 1_000_000
BATCH = 20


class Busy:
    """A busy server in a folder of its own; call close() in any case."""

    def __init__(self, folder, data=None, prefix=()):
        self.folder = folder
        self.data = data or folder / "data"
        self.prefix = list(prefix)
        self.port = 0
        self.process = None
        self.args = ()
        self.data.mkdir(exist_ok=True)
        key, self.key = make("storm", "admin", [], 0, time.time_ns() // 1000)
        KeyFile(self.data).add(key)

    def start(self, *args):
        self.args = args or self.args
        port_file = self.folder / "port"
        port_file.unlink(missing_ok=True)
        log = (self.folder / "server.log").open("ab")
        program = [sys.executable, Path(__file__).with_name("busy_server.py")]
        self.process = subprocess.Popen(
            [*self.prefix, *program, "--port", str(self.port), "--port-file", port_file, "--data-dir", self.data,
             "--request-log", "off", "--key-rate", "0", "--address-rate", "0", *map(str, self.args)],
            stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
            env={**{name: value for name, value in os.environ.items() if not name.startswith("DATACAT_")}},
        )  # fmt: skip
        log.close()
        eventually(lambda: (port_file.exists() and port_file.read_text()) or self._dead(), 40)
        self.port = int(port_file.read_text())
        return self

    def _dead(self):
        assert self.process.poll() is None, (self.folder / "server.log").read_text()[-3000:]
        return False

    def ask(self, method, path, body=None, connection=None):
        """Return (status, body); OSError or HTTPException when the server is gone."""
        own = connection or http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            own.request(method, path, body, {"Authorization": f"Bearer {self.key}"})
            answer = own.getresponse()
            return answer.status, answer.read()
        finally:
            if connection is None:
                own.close()

    def get(self, path):
        status, body = self.ask("GET", path)
        assert status == 200, body
        return json.loads(body)

    def close(self):
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(20)


class Storm:
    """Sessions that are written by some threads; what of them was acknowledged. One Storm lives as long as its store."""

    def __init__(self, rng):
        self.rng = rng
        self.lock = threading.Lock()
        self.acked = {}
        self.sent = {}
        self.old = set()
        self.dropped = set()
        self.dropping = set()
        self.refused = []
        self._number = 0

    def begin(self, busy, threads=3):
        """Start writing until the server is gone or end() is called."""
        self._stop = threading.Event()
        seeds = [self.rng.getrandbits(32) for _ in range(threads)]
        self._threads = [threading.Thread(target=self._write, args=(busy, seed)) for seed in seeds]
        for thread in self._threads:
            thread.start()

    def end(self):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _write(self, busy, seed):
        connection = http.client.HTTPConnection("127.0.0.1", busy.port, timeout=20)
        try:
            while not self._stop.is_set():
                seed = seed * 1103515245 + 12345 & 0x7FFFFFFF
                self._session(busy, connection, seed)
        except (OSError, http.client.HTTPException):
            return
        finally:
            connection.close()

    def _session(self, busy, connection, seed):
        with self.lock:
            self._number += 1
            session_id = uuid7(self._number, self.rng.randbytes(10))
        # Some are so old that retention removes them when they have ended.
        is_old = seed % 3 == 0
        t = 1_000_000_000 * US if is_old else time.time_ns() // 1000
        if is_old:
            self.old.add(session_id)
        offset = n = 0
        for turn in range(2 + seed % 5):
            records = [Open(t, "storm", "1")] if not turn else []
            records += [Event(t + n + i, "tick", data={"n": n + i, "pad": "x" * 100}) for i in range(BATCH)]
            records.append(StatePatch(t + n, {"n": n}))
            if turn == 1 + seed % 5:
                records.append(Close(t + n + BATCH, 0))
            body = b"".join(map(lines.encode, records))
            self.sent[session_id] = n + BATCH
            path = batches_path(session_id, "s", offset, offset + len(body), None, None)
            status, answer = busy.ask("POST", path, body, connection)
            if status != 200:
                self.refused.append((status, answer))
                return
            offset, n = offset + len(body), n + BATCH
            self.acked[session_id] = (offset, n)
        if seed % 4 == 1:
            self.dropping.add(session_id)
            status, _ = busy.ask("DELETE", f"/api/sessions/{session_id}", None, connection)
            if status == 204:
                self.dropped.add(session_id)

    def verify(self, busy, newest=None):
        """Ask for what was acknowledged, of the newest sessions or of all; return (batches lost, records invented)."""
        lost = invented = 0
        for session_id in list(self.sent)[-newest if newest else None :]:
            _, n = self.acked.get(session_id, (0, 0))
            may_be_gone = session_id in self.old or session_id in self.dropping or not n
            status, body = busy.ask("GET", f"/api/sessions/{session_id}?events=all")
            if session_id in self.dropped:
                invented += status == 200
                continue
            if status in (404, 410) and may_be_gone:
                continue
            if status != 200:
                lost += 1
                continue
            session = json.loads(body)
            numbers = [event["data"]["n"] for event in session["events"] if event["name"] == "tick"]
            lost += numbers[:n] != list(range(n))
            invented += numbers != list(range(len(numbers))) or len(numbers) > self.sent[session_id]
            lost += len(numbers) > 0 and session["state"]["n"] != len(numbers) - BATCH
        return lost, invented
