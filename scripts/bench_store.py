"""What the store costs: durable writes beside a bare append and SQLite, long sessions, many sessions, bytes written.

Usage: scripts/bench store [--json] [--check] [--sessions N] [--only NAME,...]
  --check   exit code 1 when a limit is broken

durable    batches of 100 events, each on disk before the next: the store, an append of the same bytes with fsync, and
           sqlite3 (WAL, synchronous=FULL) with the same bytes as rows, in turns; also with 8 writers at once
growth     CPU time of a batch in a session of 100 events and in one of 1,000,000, in turns
sessions   100,000 sessions: CPU time to open, memory for each, CPU time of a page
reading    a session of 100,000 events: CPU time of its newest 1,000, a filtered search, its state at a moment
written    all bytes that the process writes for the life of sessions (merging, emptying, hints, roll-ups, retention),
           as a multiple of the batches as they were first written
"""

import argparse
import json
import os
import random
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
import zstandard

from datacat.store import Batch, Query, RecordQuery, durable
from datacat.store.history import state_at
from datacat.store.semi import SemiStore
from datacat.wire import lines
from datacat.wire.lines import Packed
from datacat.wire.records import Close, Event, Metric, Open, StatePatch

LIMITS = {
    "durable": {"against_append": 4.0, "against_sqlite": 5.0, "at_once_against_append": 4.0},
    "growth": {"ratio": 1.2},
    "sessions": {"open_s": 3.0, "bytes_each": 1024, "page_ms": 10.0, "newest_page_ms": 10.0},
    "reading": {"newest_ms": 20.0, "search_ms": 500.0},
    "written": {"amplification": 2.5},
}
"""The most that --check lets pass. The times of durable are multiples of the other's."""

NOW_US = 1_700_000_000_000_000
_noise = random.Random(7)
_words = ["opened", "saved", "rendered", "request", "cache miss", "retry", "timeout", "export", "sync", "layout"]


def session_id(number):
    return f"01890a5d-ac96-774b-bcce-{number:012x}"


def event(t):
    level = _noise.choices(("info", "debug", "warning", "error"), (80, 10, 8, 2))[0]
    message = f"{_noise.choice(_words)} {_noise.randrange(10**6)} of {_noise.choice(_words)}"
    return Event(t, f"event{_noise.randrange(30)}", level=level, message=message, data={"ms": _noise.randrange(500)})


def packed(records):
    """Return lines as a request brings them: decoded, with the frame that they came in."""
    raws = [lines.encode(record)[:-1] for record in records]
    frame = zstandard.ZstdCompressor(level=1).compress(b"".join(raw + b"\n" for raw in raws))
    return Packed([lines.decode(raw) for raw in raws], raws, frame)


def opening(t, **more):
    return Open(t, "editor", "1.2", machine_id="m" * 32, hostname="host", platform="linux", pid=4242, **more)


def put(store, number, some, stream="app"):
    """Append a batch at the end of its stream."""
    return store.append(session_id(number), Batch(stream, some), received_us=NOW_US)


def without_fsync(make):
    """Run make() with an fsync that does nothing: what is measured comes later."""
    sync, durable.sync_file = durable.sync_file, lambda _fd: None
    try:
        return make()
    finally:
        durable.sync_file = sync


def timed(act):
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def cpu_ms(act, times=15):
    """Return the CPU time of a call at its best: others on the machine make it longer, never shorter."""
    found = []
    for _ in range(times):
        began = time.thread_time()
        act()
        found.append(time.thread_time() - began)
    return min(found) * 1000


def durable_writes(root, count=300):
    """Return seconds of a batch: the store, append and SQLite, in turns so that they share the machine's moods."""
    batches = [packed([event(NOW_US + 1000 * n + k) for k in range(100)]) for n in range(count)]
    store = SemiStore(root / "store")
    put(store, 1, packed([opening(NOW_US)]))
    before = store.stats()["size_bytes"]
    file = os.open(root / "append", os.O_RDWR | os.O_CREAT | os.O_APPEND)
    database = sqlite3.connect(root / "sqlite", isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=FULL")
    database.execute("CREATE TABLE batches (session TEXT, start INTEGER, body BLOB, PRIMARY KEY (session, start))")
    times = {"store": [], "append": [], "sqlite": []}
    for number, batch in enumerate(batches):
        times["store"].append(timed(lambda batch=batch: put(store, 1, batch)))
        size = store.stats()["size_bytes"]
        blob, before = os.urandom(size - before), size

        def append(blob=blob):
            os.write(file, blob)
            os.fsync(file)

        def insert(blob=blob, number=number):
            database.execute("BEGIN IMMEDIATE")
            database.execute("INSERT INTO batches VALUES (?, ?, ?)", (session_id(1), number, blob))
            database.execute("COMMIT")

        times["append"].append(timed(append))
        times["sqlite"].append(timed(insert))
    alone = {name: statistics.median(some) for name, some in times.items()}

    def write(writer):
        for batch in batches[: count // 4]:
            put(store, 10 + writer, batch)

    for writer in range(8):
        put(store, 10 + writer, packed([opening(NOW_US)]))
    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(8)]

    def run():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    at_once = timed(run) / (8 * (count // 4))
    store.close()
    os.close(file)
    database.close()
    return {
        "store_us": round(alone["store"] * 1e6),
        "append_us": round(alone["append"] * 1e6),
        "sqlite_us": round(alone["sqlite"] * 1e6),
        "at_once_us": round(at_once * 1e6),
        "events_per_s_at_once": round(100 / at_once),
        "against_append": round(alone["store"] / alone["append"], 2),
        "against_sqlite": round(alone["store"] / alone["sqlite"], 2),
        "at_once_against_append": round(at_once / alone["append"], 2),
    }


def growth(root):
    """Return the CPU time of a batch of 100 events in a small session and in one of a million events."""
    batches = [packed([event(NOW_US + 1000 * n + k) for k in range(100)]) for n in range(50)]

    def run():
        store = SemiStore(root / "store")
        put(store, 1, packed([opening(NOW_US)]))
        for n in range(10_000):
            put(store, 1, batches[n % 50])
            if n % 500 == 499:
                while store.tend(0.2):
                    pass
        small, large = [], []
        for n in range(600):
            if n % 50 == 0:
                put(store, 100 + n, packed([opening(NOW_US)]))
                put(store, 100 + n, batches[0])
            for session, into in ((100 + n // 50 * 50, small), (1, large)):
                began = time.thread_time()
                put(store, session, batches[n % 50])
                into.append(time.thread_time() - began)
        events = store.head(session_id(1)).counts["events"]
        chunks = store.stats()["chunks"]
        store.close()
        return statistics.median(small), statistics.median(large), events, chunks

    small, large, events, chunks = without_fsync(run)
    return {
        "small_us": round(small * 1e6), "large_us": round(large * 1e6), "events": events, "entries": chunks,
        "ratio": round(large / small, 2),
    }  # fmt: skip


def many_sessions(root, count):
    """Return what 100,000 sessions cost that ended and were merged."""

    def fill():
        store = SemiStore(root / "store", quiet_s=0.0)
        for number in range(count):
            t = NOW_US + number * 1_000_000
            records = [
                Open(
                    t, f"product{number % 7}", f"1.{number % 20}", machine_id=f"{number % 5000:032x}",
                    hostname=f"host-{number % 5000}", platform="Linux-6.1-x86_64", pid=number % 30000 + 300,
                    daemon_id=f"{number % 5000:016x}", boot_id=f"{number % 6000:032x}",
                ),
                *(event(t + k) for k in range(5)), Metric(t + 6, "size", 3.5),
                Close(t + _noise.randrange(10**9), exit_code=0),
            ]  # fmt: skip
            store.append(session_id(number), Batch("app", packed(records), 0, 700, 0, 99), received_us=t)
            if number % 10_000 == 9999:
                while store.tend(0.5):
                    pass
        while store.tend(0.5):
            pass
        store.close()

    without_fsync(fill)
    empty = probe(root / "none")
    full = probe(root / "store")
    bytes_each = (full["rss"] - empty["rss"]) / count
    return {
        "sessions": count, "open_s": round(full["open_s"], 2), "bytes_each": round(bytes_each),
        "page_ms": round(full["page_ms"], 2), "newest_page_ms": round(full["newest_page_ms"], 2),
        "all_page_ms": round(full["all_page_ms"], 2), "scan_ms": round(full["scan_ms"], 2),
    }  # fmt: skip


def probe(root):
    """Open a store in a process of its own, as a server does; return its figures."""
    out = subprocess.run(
        [sys.executable, __file__, "--probe", str(root)], check=True, capture_output=True, text=True
    ).stdout
    return json.loads(out)


def probed(root):
    """Print the figures of a store; runs in a process of its own."""
    began = time.process_time()
    store = SemiStore(root)
    opened = time.process_time() - began
    rss = psutil.Process().memory_info().rss
    pages = {
        "page_ms": Query(product=("product3",), status=("ended",), sort="-updated_at"),
        "newest_page_ms": Query(),
        "all_page_ms": Query(sort="-ended_at"),
    }
    figures = {"open_s": opened, "rss": rss}
    for name, query in pages.items():
        figures[name] = cpu_ms(lambda q=query: store.heads(q))
    figures["scan_ms"] = cpu_ms(lambda: sum(1 for head in store.scan(Query()) if head.hang_count))
    store.close()
    print(json.dumps(figures))


def reading(root):
    """Return the times of questions to one session of 100,000 events, merged as a store does."""

    def fill():
        store = SemiStore(root / "store", quiet_s=0.0)
        put(store, 1, packed([opening(NOW_US)]))
        for n in range(1000):
            t = NOW_US + 1_000_000 * n
            put(store, 1, packed([*(event(t + 1000 * k) for k in range(100)), StatePatch(t + 999_000, {"n": n})]))
        put(store, 1, packed([Close(NOW_US + 10**9 + 1)]))
        while store.tend(0.5):
            pass
        return store

    store = without_fsync(fill)
    newest = RecordQuery(kinds=("event",), newest_first=True, limit=1000)
    search = RecordQuery(kinds=("event",), levels=("error",), q="timeout")
    questions = {
        "newest_ms": lambda: list(store.records(session_id(1), newest)),
        "search_ms": lambda: list(store.records(session_id(1), search)),
        "state_ms": lambda: state_at(store, session_id(1), NOW_US + 700_500_000),
    }
    figures = {name: round(cpu_ms(ask, 9), 1) for name, ask in questions.items()}
    found = len(questions["search_ms"]())
    assert store.state(session_id(1))["n"] == 999
    assert questions["state_ms"]()["n"] == 699
    chunks = store.stats()["chunks"]
    store.close()
    return {**figures, "found": found, "entries": chunks}


def written(root):
    """Return the bytes that the process writes for sessions from their first batch until retention deletes them."""
    life = 400
    made = [packed([event(NOW_US + 1000 * n + k) for k in range(100)]) for n in range(60)]

    def wrote():
        return psutil.Process().io_counters().write_chars

    def run():
        store = SemiStore(root / "store", quiet_s=0.0, segment_bytes=4 * 1024 * 1024)
        first = 0
        before = wrote()
        for number in range(1200):
            put(store, number, packed([opening(NOW_US + number)]))
            for n in range(_noise.choice((2, 5, 20, 120))):
                size = store.stats()["size_bytes"]
                put(store, number, made[n % 60])
                first += store.stats()["size_bytes"] - size
            # One in ten stays open for long.
            if number % 10:
                put(store, number, packed([Close(NOW_US + number + 1)]))
            if number >= life and number % 50 == 0:
                for old in range(number - life, number - life + 50):
                    if store.head(session_id(old)).ended_at:
                        store.drop(session_id(old), at_once=False)
            if number % 20 == 0:
                while store.tend(1.0):
                    pass
        while store.tend(1.0):
            pass
        size = store.stats()["size_bytes"]
        store.close()
        return first, wrote() - before, size

    first, total, size = without_fsync(run)
    return {
        "first_mb": round(first / 1e6, 1), "written_mb": round(total / 1e6, 1), "left_mb": round(size / 1e6, 1),
        "amplification": round(total / first, 2),
    }  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--sessions", type=int, default=100_000)
    parser.add_argument("--only", default=",".join(LIMITS))
    parser.add_argument("--probe", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.probe:
        probed(Path(given.probe))
        return 0
    parts = {
        "durable": durable_writes,
        "growth": growth,
        "sessions": lambda root: many_sessions(root, given.sessions),
        "reading": reading,
        "written": written,
    }
    found = {}
    for name in given.only.split(","):
        with tempfile.TemporaryDirectory() as scratch:
            found[name] = parts[name](Path(scratch))
        if not given.json:
            print(f"{name:<10}" + "  ".join(f"{figure} {value:,}" for figure, value in found[name].items()), flush=True)
    if given.json:
        print(json.dumps(found, indent=2))
    missed = [
        f"{name} {figure}: {found[name][figure]} > {most}"
        for name in found
        for figure, most in LIMITS[name].items()
        if found[name][figure] > most
    ]
    for text in missed:
        print(f"missed  {text}", file=sys.stderr)
    return 1 if given.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
