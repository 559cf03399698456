"""How many events a second the server stores durably over HTTP, beside the same work without HTTP and bare disks.

Usage: scripts/bench ingest [--rounds N] [--seconds S] [--connections N] [--batches N,N]
                            [--peer COMMAND] [--folder PATH] [--json] [--check]
  --peer    a server of the Go predecessor to measure in the same rounds: its command, with {port} and {folder} in it
  --check   exit code 1 when a target is missed

Each round runs every case once, each server in a process of its own with an empty folder, the load generator in
another. Every figure is the median of its rounds. What is compared: http (this server: real process, real socket,
checked, heads and roll-ups in the same commit, a group fsync before each answer), direct (the same check and store in
threads of one process, without HTTP), sqlite3 (WAL, synchronous=FULL, a row for each event, one transaction for each
batch), raw (the same compressed bytes appended to a file, one fsync for each batch). The raw and sqlite3 writers are
one thread each, which is what they are best at.
"""

import argparse
import json
import os
import selectors
import shlex
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path

import psutil
import zstandard

from datacat.errors import DatacatError
from datacat.server import bodies
from datacat.server.checking import checked
from datacat.store import Batch
from datacat.store.semi import SemiStore
from datacat.wire import lines
from datacat.wire.lines import Line
from datacat.wire.records import MAX_BATCH_BYTES, Event, Open

LEAST_EVENTS_PER_S = {100: 250_000, 1000: 600_000}
LEAST_RATIO_TO_DIRECT = 1 / 3
NAMES = ("frame_rendered", "file_opened", "request_sent", "cache_missed")
LEVELS = ("info", "debug", "info", "warning")
BODIES = 16
"""Bodies that the generator has made before it starts, for each connection; they follow each other."""
WARM_UP_S = 0.5


def events(count, first_us):
    """Return events as an application logs them, about 180 bytes each."""
    return [
        Event(
            first_us + index * 1000,
            NAMES[index % 4],
            LEVELS[index % 4],
            category="io",
            message=f"opened document number {index}",
            data={"path": f"/docs/team/document{index}.txt", "size": index * 37, "ms": 1.5 * index},
        )
        for index in range(count)
    ]


def made(count, connection):
    """Return the compressed bodies of one connection, as daemons make them, and the size of one before that."""
    compressor = zstandard.ZstdCompressor(level=3)
    now_us = time.time_ns() // 1000
    plain = [
        b"".join(map(lines.encode, events(count, now_us + (connection * BODIES + number) * 1_000_000)))
        for number in range(BODIES)
    ]
    return [compressor.compress(body) for body in plain], len(plain[0])


def opening(session_id):
    return Open(time.time_ns() // 1000, "bench", "1.0", id=session_id)


# --- the load generator: a process of its own


class Sender:
    """One connection: sends a batch, waits for the answer, sends the next."""

    def __init__(self, port, count, number):
        self.session_id = str(uuid.uuid4())
        self.bodies, self.size = made(count, number)
        self.offset = 0
        self.sent = 0
        self.sock = socket.create_connection(("127.0.0.1", port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        first = lines.encode(opening(self.session_id))
        self.send(first, len(first), "")
        self.receive()

    def send(self, body, size, encoding="Content-Encoding: zstd\r\n"):
        start, self.offset = self.offset, self.offset + size
        head = (
            f"POST /api/sessions/{self.session_id}/batches?stream=bench&from={start}&to={self.offset} HTTP/1.1\r\n"
            f"Host: localhost\r\nContent-Type: application/x-ndjson\r\n{encoding}Content-Length: {len(body)}\r\n\r\n"
        )
        self.at = time.perf_counter()
        self.sock.sendall(head.encode() + body)

    def next(self):
        self.send(self.bodies[self.sent % BODIES], self.size)
        self.sent += 1

    def receive(self):
        answer = self.sock.recv(65536)
        if not answer.startswith(b"HTTP/1.1 200 "):
            raise SystemExit(f"the server answered {answer[:400]!r}")
        return time.perf_counter() - self.at


def generate(port, count, connections, seconds):
    """Send batches from all connections; print what was acknowledged in the time and how long answers took."""
    senders = [Sender(port, count, number) for number in range(connections)]
    selector = selectors.DefaultSelector()
    for sender in senders:
        selector.register(sender.sock, selectors.EVENT_READ, sender)
        sender.next()
    begin = time.perf_counter() + WARM_UP_S
    end = begin + seconds
    times = []
    own_cpu_s = 0.0
    counting = False
    while (now := time.perf_counter()) < end:
        if not counting and now >= begin:
            counting, begin, own_cpu_s = True, now, time.process_time()
            sys.stdout.write("begin\n")
            sys.stdout.flush()
        for key, _ in selector.select(0.5):
            took_s = key.data.receive()
            if counting:
                times.append(took_s)
            key.data.next()
    spent_s, own_cpu_s = time.perf_counter() - begin, time.process_time() - own_cpu_s
    times.sort()
    sys.stdout.write(
        json.dumps(
            {
                "events_per_s": len(times) * count / spent_s,
                "batches": len(times),
                "p50_ms": times[len(times) // 2] * 1e3,
                "p99_ms": times[len(times) * 99 // 100] * 1e3,
                "generator_us_per_event": own_cpu_s / len(times) / count * 1e6,
            }
        )
        + "\n"
    )


# --- the cases


def http(count, given, folder):
    """This server."""
    port_file = folder / "port"
    server = subprocess.Popen(
        [sys.executable, "-m", "datacat.cli.server", "--port", "0", "--port-file", port_file, "--data-dir", folder],
        stdout=subprocess.DEVNULL,
    )
    try:
        until(port_file.exists)
        return loaded(server, int(port_file.read_text()), count, given)
    finally:
        ended(server)


def loaded(server, port, count, given):
    """Run the load generator against a port; its figures, with what the server's process used meanwhile."""
    command = [sys.executable, __file__, "--generate", f"{port},{count},{given.connections},{given.seconds}"]
    process = psutil.Process(server.pid)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as generator:
        if generator.stdout.readline() != "begin\n":
            raise SystemExit("the load generator failed")
        before = process.cpu_times()
        told = generator.stdout.readline()
        after = process.cpu_times()
    if not told:
        raise SystemExit("the load generator failed")  # it has said why
    figures = json.loads(told)
    used_s = after.user + after.system - before.user - before.system
    figures["us_per_event"] = used_s / figures["batches"] / count * 1e6
    figures["rss_mb"] = process.memory_info().rss / 1e6
    return figures


def direct(count, given, folder):
    """The same bodies through the same check into the same store, from threads."""
    store = SemiStore(folder / "store")
    stop, barrier = threading.Event(), threading.Barrier(given.connections + 1)
    done = [0] * given.connections

    def work(number):
        session_id = str(uuid.uuid4())
        ready, size = made(count, number)
        first = opening(session_id)
        store.append(session_id, Batch("bench", [Line(first, lines.encode(first)[:-1])], 0, 1), received_us=first.t)
        offset = 1
        barrier.wait()
        while not stop.is_set():
            body = ready[done[number] % BODIES]
            found = checked(bodies.decompress(body, "zstd", MAX_BATCH_BYTES), body)
            store.append(session_id, Batch("bench", found, offset, offset + size), received_us=time.time_ns() // 1000)
            offset += size
            done[number] += 1

    workers = [threading.Thread(target=work, args=(number,)) for number in range(given.connections)]
    for worker in workers:
        worker.start()
    barrier.wait()
    stop.wait(WARM_UP_S)
    first, began, used = sum(done), time.perf_counter(), time.process_time()
    stop.wait(given.seconds)
    batches, spent_s, used_s = sum(done) - first, time.perf_counter() - began, time.process_time() - used
    stop.set()
    for worker in workers:
        worker.join()
    store.close()
    return {"events_per_s": batches * count / spent_s, "us_per_event": used_s / batches / count * 1e6}


def raw(count, given, folder):
    """Append and fsync."""
    ready, _ = made(count, 0)
    fd = os.open(folder / "file", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        return timed(count, given, lambda number: (os.write(fd, ready[number % BODIES]), os.fsync(fd)))
    finally:
        os.close(fd)


def sqlite(count, given, folder):
    """A row for each event."""
    rows = [
        [(f"{number}", event.t, event.name, event.level, lines.encode(event)) for event in events(count, number)]
        for number in range(BODIES)
    ]
    connection = sqlite3.connect(folder / "db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE events (session TEXT, t INTEGER, name TEXT, level TEXT, record BLOB)")

    def insert(number):
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?)", rows[number % BODIES])
        connection.execute("COMMIT")

    try:
        return timed(count, given, insert)
    finally:
        connection.close()


def peer(_count, given, folder):
    """The predecessor takes one event a request."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [part.format(port=port, folder=folder) for part in shlex.split(given.peer)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder)
    try:
        until(lambda: answers(port))
        stop, done = threading.Event(), [0] * given.connections
        body = json.dumps({"name": "file_opened", "category": "info", "message": "opened", "data": {"size": 37}})

        def work(number):
            import http.client

            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            headers = {"Content-Type": "application/json"}
            connection.request("POST", "/api/sessions", json.dumps({"product": "bench", "version": "1"}), headers)
            told = json.loads(connection.getresponse().read())
            path = f"/api/sessions/{told.get('session_id') or told['id']}/events"
            while not stop.is_set():
                connection.request("POST", path, body, headers)
                connection.getresponse().read()
                done[number] += 1

        workers = [threading.Thread(target=work, args=(number,)) for number in range(given.connections)]
        for worker in workers:
            worker.start()
        stop.wait(WARM_UP_S)
        first, began = sum(done), time.perf_counter()
        stop.wait(given.seconds)
        figures = {"events_per_s": (sum(done) - first) / (time.perf_counter() - began)}
        stop.set()
        for worker in workers:
            worker.join()
        return figures
    finally:
        ended(server)


def timed(count, given, write):
    number, end, began = 0, time.perf_counter() + given.seconds, time.perf_counter()
    while time.perf_counter() < end:
        write(number)
        number += 1
    return {"events_per_s": number * count / (time.perf_counter() - began)}


def until(check, seconds=30):
    deadline, pause = time.monotonic() + seconds, threading.Event()
    while not check():
        if time.monotonic() > deadline:
            raise SystemExit("the server does not become ready")
        pause.wait(0.02)


def answers(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def ended(server):
    server.send_signal(signal.SIGTERM)
    server.wait(30)


CASES = {"http": http, "direct": direct, "sqlite3": sqlite, "raw": raw}


def one(name, count, given):
    """Run one case in a fresh process and folder."""
    if name in ("http", "peer"):
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            return {**CASES, "peer": peer}[name](count, given, Path(folder))
    command = [sys.executable, __file__, *given.arguments, "--case", f"{name},{count}"]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def run(given):
    cases = [*CASES, *(["peer"] if given.peer else [])]
    found = {count: {name: [] for name in cases} for count in given.batches}
    for number in range(given.rounds):
        for count in given.batches:
            for name in cases:
                found[count][name].append(one(name, count, given))
                sys.stderr.write(
                    f"round {number + 1}  {name:<8} x{count:<5} {found[count][name][-1]['events_per_s']:,.0f}/s\n"
                )
    return {
        count: {
            name: {figure: statistics.median(row[figure] for row in rows) for figure in rows[0]}
            for name, rows in by_case.items()
        }
        for count, by_case in found.items()
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--batches", type=lambda text: [int(part) for part in text.split(",")], default=[100, 1000])
    parser.add_argument("--folder", default=None, help="where to write; its disk is measured")
    parser.add_argument("--peer", default="")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--generate", help=argparse.SUPPRESS)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.arguments = [part for part in sys.argv[1:] if part != "--check"]
    if given.generate:
        port, count, connections, seconds = given.generate.split(",")
        generate(int(port), int(count), int(connections), float(seconds))
        return 0
    if given.case:
        name, count = given.case.split(",")
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            print(json.dumps(CASES[name](int(count), given, Path(folder))))
        return 0
    found = run(given)
    if given.json:
        print(json.dumps(found, indent=2))
    else:
        print(f"{'batch':>6} {'case':<9}{'events/s':>12}{'http is':>9}", end="")
        print(f"{'CPU us/event':>14}{'p50 ms':>9}{'p99 ms':>9}{'RSS MB':>8}")
        for count, by_case in found.items():
            for name, row in by_case.items():
                ratio = by_case["http"]["events_per_s"] / row["events_per_s"]
                more = "".join(
                    f"{row[figure]:>{width}.{digits}f}" if figure in row else " " * width
                    for figure, width, digits in (
                        ("us_per_event", 14, 2),
                        ("p50_ms", 9, 2),
                        ("p99_ms", 9, 2),
                        ("rss_mb", 8, 0),
                    )
                )
                print(f"{count:>6} {name:<9}{row['events_per_s']:>12,.0f}{ratio:>8.2f}x{more}")
    missed = []
    for count, by_case in found.items():
        rate = by_case["http"]["events_per_s"]
        ratio = rate / by_case["direct"]["events_per_s"]
        if ratio < LEAST_RATIO_TO_DIRECT:
            missed.append(f"batches of {count}: {ratio:.2f} of what the same code does without HTTP")
        if rate < LEAST_EVENTS_PER_S.get(count, 0):
            missed.append(f"batches of {count}: {rate:,.0f} events/s < {LEAST_EVENTS_PER_S[count]:,}")
    for text in missed:
        print(f"missed  {text}", file=sys.stderr)
    return 1 if given.check and missed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except DatacatError as error:
        sys.exit(str(error))
