"""Sessions written by hand, and a server that can be told its next answers: for tests of the daemon."""

import json
import os
import subprocess
import sys
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import msgspec
import zstandard

from datacat import host
from datacat.wire import layout
from datacat.wire.lines import encode
from datacat.wire.records import Open


def now_us():
    return time.time_ns() // 1000


class Journal:
    """A session folder as a client makes it, and its stream, written as plain segments."""

    def __init__(
        self, spool, *, pid=0, start=0, server_url="", segment_bytes=64 * 1024, stream="app", created_us=0, **meta
    ):
        self.id = str(uuid.uuid4())
        self.folder = Path(spool) / self.id
        self.stream = stream
        self.segment_bytes = segment_bytes
        (self.folder / stream).mkdir(parents=True)
        self.number = -1
        self._rotate()
        self.beat_file = bytearray(layout.BEAT_FILE_BYTES)
        self._write_beat()
        if hasattr(os, "mkfifo"):
            os.mkfifo(self.folder / layout.WAKE_FILE)
        given = {"boot_id": host.boot_id(), "pid_namespace": host.pid_namespace()} | meta
        self.meta = layout.Meta(
            self.id,
            "shop",
            "1.0",
            stream,
            created_us or now_us(),
            pid,
            start,
            server_url=server_url,
            segment_bytes=segment_bytes,
            **given,
        )
        (self.folder / layout.META_FILE).write_bytes(msgspec.json.encode(self.meta))
        self.append(Open(t=now_us(), product="shop", version="1.0", pid=pid))

    def _rotate(self):
        self.number += 1
        self.used = 0
        self.path.write_bytes(bytes(self.segment_bytes))

    @property
    def path(self):
        return self.folder / self.stream / layout.segment_name(self.number)

    def append(self, *records):
        for record in records:
            line = record if isinstance(record, bytes) else encode(record)
            if self.used + len(line) > self.segment_bytes:
                self._rotate()
            with self.path.open("r+b") as file:
                file.seek(self.used)
                file.write(line)
            self.used += len(line)

    @property
    def end(self):
        return self.number * self.segment_bytes + self.used

    def beat(self, *, age_s=0.0, timeout_s=60.0, on=True, paused=False):
        beat = layout.Beat(
            host.awake_ns() - int(age_s * 1e9), now_us() - int(age_s * 1e6), timeout_s, on=on, paused=paused
        )
        self.beat_file[: layout.BEAT.size] = layout.pack_beat(beat)
        self._write_beat()

    def drop(self, totals):
        self.beat_file[layout.DROPPED_OFFSET :] = layout.pack_dropped(totals)
        self._write_beat()

    def _write_beat(self):
        (self.folder / layout.BEAT_FILE).write_bytes(self.beat_file)

    def wake(self):
        fd = os.open(self.folder / layout.WAKE_FILE, os.O_RDWR | os.O_NONBLOCK)
        os.write(fd, b"w")
        os.close(fd)


class FakeServer:
    """A datacat server as far as daemons see it. plan(...) puts answers before those that it would give by itself."""

    def __init__(self):
        self.boot = "boot-1"
        self.sessions = {}
        self.acked = {}
        self.batches = []
        self.requests = []
        self.gone = set()
        self.check_crc = True
        self.crcs = {}
        self.ledgers = {}
        self.plans = []
        self.lock = threading.RLock()
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.http.daemon_threads = True
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.http.server_address[1]}"

    def plan(self, match, *answers):
        """The next requests whose path contains match get these answers: (status, document, headers), or a word.

        drop: take it and hang up without an answer. lose: hang up before it is taken.
        """
        with self.lock:
            self.plans += [(match, answer) for answer in answers]

    def records(self, session_id, kind=None):
        with self.lock:
            rows = [json.loads(line) for line in self.sessions.get(session_id, [])]
        return [row for row in rows if kind is None or row["k"] == kind]

    def close(self):
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()

    def _planned(self, path):
        for index, (match, answer) in enumerate(self.plans):
            if match in path:
                del self.plans[index]
                return answer
        return None

    def _batch(self, session_id, query, body):
        stream, start, end = query["stream"][0], int(query["from"][0]), int(query["to"][0])
        crc, end_crc = (int(query[name][0]) if name in query else None for name in ("crc", "end_crc"))
        streams = self.acked.setdefault(session_id, {})
        have = streams.get(stream, 0)
        if session_id in self.gone:
            return 410, {"reason": "deleted", "boot": self.boot}
        lines = body.splitlines()
        first = json.loads(lines[0]) if lines else {}
        if session_id not in self.sessions and not (first.get("k") == "open" or first.get("open")):
            return 404, {"detail": "no such session"}
        if end <= have:
            return 200, {"acked": have, "boot": self.boot}
        if start != have:
            return 409, {"acked": have, "reason": "offset", "boot": self.boot}
        stored = self.crcs.get((session_id, stream))
        if self.check_crc and None not in (crc, stored) and stored != crc:
            return 409, {"acked": have, "reason": "diverged", "boot": self.boot}
        self.sessions.setdefault(session_id, []).extend(lines)
        self.batches.append((session_id, stream, start, end, lines))
        streams[stream] = end
        ledger = self.ledgers.setdefault(session_id, {}).setdefault(stream, {"records": 0})
        ledger["records"] += int(query["records"][0])
        ledger["pending"] = int(query.get("pending", ["0"])[0])
        self.crcs[session_id, stream] = end_crc
        return 200, {"acked": end, "boot": self.boot}

    def _answer(self, method, path, query, body):
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "daemons"]:
            return 200, {"id": "x", "lease_s": 60}
        if parts[-1] == "batches":
            return self._batch(parts[2], query, body)
        if parts[-1] == "acked":
            if parts[2] in self.gone:
                return 410, {"reason": "deleted"}
            if parts[2] not in self.sessions:
                return 404, {}
            return 200, {"streams": dict(self.acked.get(parts[2], {})), "boot": self.boot}
        if method == "GET" and len(parts) == 3 and parts[2] in self.sessions:
            return 200, {"id": parts[2], "from": "server"}
        if method == "GET" and parts == ["api", "sessions"]:
            return 200, {"sessions": [{"id": name} for name in self.sessions], "next_cursor": None}
        return 404, {}

    def _handler(server):
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                pass

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if self.headers.get("Content-Encoding") == "zstd":
                    body = zstandard.ZstdDecompressor().decompress(body)
                url = urlsplit(self.path)
                with server.lock:
                    server.requests.append((self.command, self.path, dict(self.headers), body))
                    planned = server._planned(self.path)
                    if planned == "lose":
                        self.close_connection = True
                        return
                    headers = {}
                    if planned is None or planned == "drop":
                        status, document = server._answer(self.command, url.path, parse_qs(url.query), body)
                    else:
                        status, document, headers = planned
                if planned == "drop":
                    self.close_connection = True
                    return
                text = json.dumps(document).encode()
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST

        return Handler


def start_app(code="import sys; sys.stdin.read()"):
    """Start a process that waits until its standard input ends, or does what code says; returns (Popen, start)."""
    app = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return app, host.process_start(app.pid)


def start_daemon(spool, *arguments, environ=None):
    """Start a real daemon; the caller waits for it or kills it."""
    command = [sys.executable, "-m", "datacat.cli.daemon", "--spool", str(spool), "--daemon-port", "0", *arguments]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DATACAT_")}
    return subprocess.Popen(command, env=clean | (environ or {}), stderr=subprocess.PIPE, text=True)
