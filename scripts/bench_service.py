"""What the service costs: start to READY, memory, and idle CPU, with an empty store and with many sessions.

Usage: scripts/bench service [--sessions N] [--batches N] [--idle S] [--json] [--check]
  --check   exit code 1 when a target of docs/architecture.md is missed
"""

import argparse
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from datacat.store import Batch, durable
from datacat.store.semi import SemiStore
from datacat.wire import ids, lines
from datacat.wire.lines import Line
from datacat.wire.records import Close, Event, Metric, Open

TARGETS = {
    "empty": {"ready_s": 1.0, "rss_mb": 60.0, "idle_cpu_percent": 0.1},
    "full": {"ready_s": 1.0, "rss_mb": 60.0, "idle_cpu_percent": 0.1},
}


def fill(root, sessions, batches, *, merged):
    """Make a store as a fleet leaves it: sessions of several batches, one in a hundred still open."""
    durable.sync_file = lambda _fd: None  # it is made, not tested
    store = SemiStore(root)
    names = [ids.uuid7(time.time_ns() // 1_000_000, os.urandom(10)) for _ in range(sessions)]
    now = time.time_ns() // 1000
    for number in range(batches):
        for index, name in enumerate(names):
            t = now - 3_600_000_000 + index * 1000 + number * 5_000_000
            records = [Event(t + k, f"event{k}", message="something happened here") for k in range(5)]
            records += [Metric(t + k, f"metric{k}", 1.5 * k) for k in range(5)]
            if number == 0:
                records.insert(
                    0, Open(t, "editor", "1.2", hostname=f"host-{index % 50}", machine_id="m" * 32, pid=index + 1)
                )
            if number == batches - 1 and index % 100:
                records.append(Close(t + 9, exit_code=0))
            batch = Batch("app", [Line(record, lines.encode(record)[:-1]) for record in records])
            store.append(name, batch, received_us=t)
    store.close()
    if merged:
        # What a server does in the minutes after sessions ended.
        store = SemiStore(root, quiet_s=0.0)
        while store.tend(1.0):
            pass
        store.close()
    return sum(path.stat().st_size for path in root.rglob("data"))


def measure(folder, idle_s, *, hints=True):
    """Start the server as systemd would; return its figures."""
    if not hints:
        for path in (folder / "store").glob("hints/*"):
            path.unlink()
    with tempfile.TemporaryDirectory() as scratch, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        address = str(Path(scratch) / "notify")
        manager.bind(address)
        environ = {**os.environ, "NOTIFY_SOCKET": address, "WATCHDOG_USEC": "20000000", "STATE_DIRECTORY": str(folder)}
        began = time.monotonic()
        server = subprocess.Popen(
            [sys.executable, "-m", "datacat.cli.server", "--port", "0"],
            env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            while b"READY=1" not in receive(manager):
                pass
            ready_s = time.monotonic() - began
            process = psutil.Process(server.pid)
            until = time.monotonic() + 3  # what a start leaves to do
            while (left := until - time.monotonic()) > 0:
                select.select([], [], [], left)
            before, at = process.cpu_times(), time.monotonic()
            while (left := at + idle_s - time.monotonic()) > 0:
                select.select([], [], [], left)
            after, spent_s = process.cpu_times(), time.monotonic() - at
            used_s = after.user + after.system - before.user - before.system
            rss = process.memory_info().rss
        finally:
            server.send_signal(signal.SIGTERM)
            began = time.monotonic()
            code = server.wait(30)
        stop_s = time.monotonic() - began
    assert code == 0, code
    return {
        "ready_s": round(ready_s, 2),
        "rss_mb": round(rss / 1e6, 1),
        "idle_cpu_percent": round(100 * used_s / spent_s, 2),
        "stop_s": round(stop_s, 2),
    }


def receive(manager):
    if not select.select([manager], [], [], 60)[0]:
        raise SystemExit("the server does not become ready")
    return manager.recv(4096)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=10_000)
    parser.add_argument("--batches", type=int, default=10)
    parser.add_argument("--idle", type=float, default=30.0, metavar="S")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        empty, full = Path(scratch) / "empty", Path(scratch) / "full"
        empty.mkdir()
        full.mkdir()
        fill(full / "store", given.sessions, given.batches, merged=False)
        found = {"empty": measure(empty, given.idle), "full, before merging": measure(full, 1.0)}
        shutil.rmtree(full / "store")
        size = fill(full / "store", given.sessions, given.batches, merged=True)
        found["full"] = measure(full, given.idle)
        found["full without hints"] = measure(full, 1.0, hints=False)
    if given.json:
        print(json.dumps(found, indent=2))
    else:
        print(f"full: {given.sessions} sessions of {given.batches} batches, {size / 1e6:.0f} MB")
        print(f"{'store':<22}{'ready s':>9}{'RSS MB':>9}{'idle CPU %':>12}{'stop s':>9}")
        for name, row in found.items():
            print(f"{name:<22}{row['ready_s']:>9}{row['rss_mb']:>9}{row['idle_cpu_percent']:>12}{row['stop_s']:>9}")
    missed = [
        f"{name} {figure}: {found[name][figure]} > {most}"
        for name, targets in TARGETS.items()
        for figure, most in targets.items()
        if found[name][figure] > most
    ]
    for text in missed:
        print(f"missed  {text}", file=sys.stderr)
    return 1 if given.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
