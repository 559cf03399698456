"""What it costs to bring records from an app to its server, beside one request for each record.

Usage: scripts/bench delivery [--json] [--rounds N] [--seconds S] [--burst N] [--check]
  --check   exit code 1 when a target is missed

Each round: an app that logs a mix of records through datacat with a real daemon and a server that counts; the same
records as one JSON request each, over one kept connection, as clients without a journal do; a daemon that is given
10,000 records a second for some seconds; and, once, a burst of a million records. Figures are medians of the rounds;
CPU is what the kernel counted for the daemon's process, memory the largest resident set that it had (VmHWM).
"""

import argparse
import http.client
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import msgspec
import psutil

from datacat import host
from datacat.wire import layout
from datacat.wire.lines import encode
from datacat.wire.records import Event, Metric, Open, StatePatch

RATE = 10_000
CPU_PERCENT = 25.0
MEMORY_MB = 80.0
REQUESTS_PER_1000 = 10.0
BYTES_RATIO = 5.0
UPDATES = 1000
INTERVAL_S = 5.0


class Counting:
    """A server that takes every batch and counts requests and bytes, on the wire as they came."""

    def __init__(self):
        self.requests = self.bytes = self.batches = 0
        self.acked = {}
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    @property
    def port(self):
        return self.http.server_address[1]

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def reset(self):
        self.requests = self.bytes = self.batches = 0

    def _handler(self):
        counting = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1

            def log_message(self, *_args):
                pass

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                counting.requests += 1
                counting.bytes += len(body) + len(self.requestline) + len(str(self.headers))
                url = urlsplit(self.path)
                answer = {"boot": "b", "lease_s": 60, "streams": {}}
                if url.path.endswith("/batches"):
                    counting.batches += 1
                    query = parse_qs(url.query)
                    answer["acked"] = int(query["to"][0])
                    counting.acked[url.path, query["stream"][0]] = answer["acked"]
                elif url.path.endswith("/acked"):
                    session = url.path.rpartition("/")[0] + "/batches"
                    answer["streams"] = {stream: at for (path, stream), at in counting.acked.items() if path == session}
                text = json.dumps(answer).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)
                self.wfile.flush()

            do_GET = do_POST  # noqa: N815  as http.server names them

        return Handler


class App:
    """A journal that we write ourselves, in the name of this process, and its daemon."""

    def __init__(self, folder, url, *flags):
        self.spool = Path(folder) / "spool"
        self.id = host_id()
        self.folder = self.spool / self.id
        self.stream = self.folder / "a0"
        self.stream.mkdir(parents=True)
        self.number, self.used = -1, layout.SEGMENT_BYTES
        (self.folder / layout.BEAT_FILE).write_bytes(bytes(layout.BEAT_FILE_BYTES))
        process = psutil.Process()
        start = host.process_start(process.pid)
        meta = layout.Meta(
            self.id, "bench", "1", "a0", time.time_ns() // 1000, process.pid, start, server_url=url,
            boot_id=host.boot_id(), pid_namespace=host.pid_namespace(), settings={"process_metrics": False},
        )  # fmt: skip
        self.append([encode(Open(t=meta.created_us, product="bench", version="1"))])
        (self.folder / layout.META_FILE).write_bytes(msgspec.json.encode(meta))
        command = [sys.executable, "-m", "datacat.cli.daemon", "--spool", self.spool, "--daemon-port", "0"]
        command += ["--owner", str(process.pid), "--owner-start", str(start), *flags]
        self.daemon = psutil.Popen([str(part) for part in command], stderr=subprocess.DEVNULL)

    def append(self, lines):
        """Write lines; a segment appears whole before it is written to."""
        for line in lines:
            if self.used + len(line) > layout.SEGMENT_BYTES:
                if self.number >= 0:
                    self.file.close()
                self.number += 1
                self.used = 0
                path = self.stream / layout.segment_name(self.number)
                temp = path.with_suffix(".new")
                temp.write_bytes(bytes(layout.SEGMENT_BYTES))
                temp.rename(path)
                self.file = path.open("r+b", buffering=0)
            self.file.write(line)
            self.used += len(line)

    @property
    def end(self):
        return self.number * layout.SEGMENT_BYTES + self.used

    def acked(self):
        try:
            return json.loads((self.folder / layout.SHIPPER_FILE).read_bytes()).get("acked", {}).get("a0", 0)
        except (OSError, ValueError):
            return 0

    def wait(self, timeout_s=120.0):
        deadline = time.monotonic() + timeout_s
        while self.acked() < self.end:
            if time.monotonic() > deadline:
                raise SystemExit("the daemon does not come to an end")
            PAUSE.wait(0.05)

    def cpu_s(self):
        used = self.daemon.cpu_times()
        return used.user + used.system

    def peak_mb(self):
        status = Path(f"/proc/{self.daemon.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024

    def stop(self):
        self.file.close()
        self.daemon.terminate()
        self.daemon.kill()
        self.daemon.wait()


PAUSE = threading.Event()


def host_id():
    import os

    from datacat.wire.ids import uuid7

    return uuid7(time.time_ns() // 1_000_000, os.urandom(10))


def mix(count, t):
    """Return records as an app writes them: events, states, counters, gauges, timers; about 120 bytes each."""
    made = []
    for n in range(count):
        at = t + n * 100
        kind = n % 10
        if kind < 5:
            made.append(
                Event(t=at, name="file_opened", message="opened", data={"size": n, "path": "/docs/t/notes.txt"})
            )
        elif kind == 5:
            made.append(StatePatch(t=at, patch={"document": {"lines": n}}))
        elif kind < 8:
            made.append(Metric(t=at, name="saves", type="counter", value=1))
        elif kind == 8:
            made.append(Metric(t=at, name="fps", value=59.5))
        else:
            made.append(Metric(t=at, name="load", type="timer", value=0.01, unit="s"))
    return made


def one_by_one(server, records):
    """One POST for each record, as plainly as it can be done; (requests, bytes)."""
    server.reset()
    link = http.client.HTTPConnection("127.0.0.1", server.port)
    for record in records:
        link.request("POST", "/api/sessions/x/events", encode(record), {"Content-Type": "application/json"})
        link.getresponse().read()
    link.close()
    return server.requests, server.bytes


def batched(server, folder, records):
    """The same records through a journal and a daemon, one interval's worth; (requests, bytes)."""
    app = App(folder, server.url, "--batch-interval-seconds", "0.5")
    try:
        app.wait()
        server.reset()
        app.append(list(map(encode, records)))
        app.wait()
        return server.requests, server.bytes
    finally:
        app.stop()


def updates(server, folder):
    """1,000 state updates in 5 s, with the interval that daemons have; the batches that they took."""
    app = App(folder, server.url)
    try:
        app.wait()
        server.reset()
        # From just after a tick on, so that one interval holds them all.
        for n in range(UPDATES):
            app.append([encode(StatePatch(t=time.time_ns() // 1000, patch={"progress": n}))])
            PAUSE.wait((INTERVAL_S - 1.0) / UPDATES)
        app.wait()
        return server.batches
    finally:
        app.stop()


def steady(server, folder, seconds):
    """CPU percent of a daemon that is given RATE records a second."""
    app = App(folder, server.url)
    try:
        app.wait()
        slices = 20
        lines = list(map(encode, mix(RATE // slices, time.time_ns() // 1000)))
        before, start = app.cpu_s(), time.monotonic()
        for n in range(seconds * slices):
            app.append(lines)
            PAUSE.wait(max(0.0, start + (n + 1) / slices - time.monotonic()))
        app.wait()
        return 100 * (app.cpu_s() - before) / (time.monotonic() - start), app.peak_mb()
    finally:
        app.stop()


def burst(server, folder, count):
    """Write a burst at once; (seconds until it is shipped, the daemon's CPU seconds, its largest memory, requests)."""
    app = App(folder, server.url, "--max-spool-bytes", str(1 << 30))
    try:
        app.wait()
        server.reset()
        before, start = app.cpu_s(), time.monotonic()
        t = time.time_ns() // 1000
        for n in range(0, count, 10_000):
            app.append(list(map(encode, mix(min(10_000, count - n), t + n * 100))))
        app.wait(600)
        return time.monotonic() - start, app.cpu_s() - before, app.peak_mb(), server.requests
    finally:
        app.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=15)
    parser.add_argument("--burst", type=int, default=1_000_000)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    server = Counting()
    rounds = []
    for _ in range(given.rounds):
        records = mix(10_000, time.time_ns() // 1000)
        with tempfile.TemporaryDirectory() as folder:
            ours = batched(server, Path(folder) / "batched", records)
            theirs = one_by_one(server, records[:2000])
            update_batches = updates(server, Path(folder) / "updates")
            cpu, peak = steady(server, Path(folder) / "steady", given.seconds)
        rounds.append(
            {
                "requests_per_1000": ours[0] / 10,
                "bytes_per_1000": ours[1] / 10,
                "one_by_one_bytes_per_1000": theirs[1] / 2,
                "requests_for_1000_updates_in_5_s": update_batches,
                "cpu_percent_at_10000_records_a_second": cpu,
                "memory_mb_at_10000_records_a_second": peak,
            }
        )
    found = {name: round(statistics.median(one[name] for one in rounds), 2) for name in rounds[0]}
    with tempfile.TemporaryDirectory() as folder:
        seconds, cpu_s, peak, requests = burst(server, Path(folder) / "burst", given.burst)
    found |= {
        "burst_records": given.burst,
        "burst_s": round(seconds, 1),
        "burst_cpu_s": round(cpu_s, 1),
        "burst_memory_mb": round(peak, 1),
        "burst_requests": requests,
    }
    targets = {
        "requests for 1,000 records at most 10": found["requests_per_1000"] <= REQUESTS_PER_1000,
        "bytes at most a fifth of one request each": (
            found["one_by_one_bytes_per_1000"] >= BYTES_RATIO * found["bytes_per_1000"]
        ),
        "1,000 updates in 5 s are one request, or two with a tick between": found["requests_for_1000_updates_in_5_s"]
        <= 2,
        "10,000 records a second below a quarter of a core": (
            found["cpu_percent_at_10000_records_a_second"] < CPU_PERCENT
        ),
        "a burst of a million records below 80 MB": found["burst_memory_mb"] < MEMORY_MB,
    }
    if given.json:
        print(json.dumps({**found, "targets": targets}))
    else:
        print(f"1,000 records: {found['requests_per_1000']} requests, {found['bytes_per_1000']:.0f} bytes")
        print(f"       one request each: 1000 requests, {found['one_by_one_bytes_per_1000']:.0f} bytes")
        print(f"1,000 state updates in 5 s: {found['requests_for_1000_updates_in_5_s']} requests")
        print(
            f"10,000 records a second: {found['cpu_percent_at_10000_records_a_second']} % of a core, "
            f"{found['memory_mb_at_10000_records_a_second']} MB"
        )
        print(
            f"a burst of {given.burst} records: shipped in {found['burst_s']} s with {found['burst_cpu_s']} s of CPU, "
            f"{found['burst_memory_mb']} MB, {found['burst_requests']} requests"
        )
        for name, held in targets.items():
            print(f"{'held' if held else 'MISSED'}  {name}")
    server.http.shutdown()
    sys.exit(1 if given.check and not all(targets.values()) else 0)


if __name__ == "__main__":
    main()
