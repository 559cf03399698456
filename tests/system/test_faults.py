"""Whatever the network does, and whoever is killed: the server has what the app logged, once, and the ledger adds up."""

import collections
import mmap
import os
import random
import signal
import struct
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from faulty_proxy import FAULTS, FaultyProxy
from system.box import Box, eventually

from datacat.daemon import by_hand, inventory
from datacat.daemon.config import Config
from datacat.daemon.uplink import uplink_of

SCHEDULES = int(os.environ.get("DATACAT_SCHEDULES") or (1000 if os.environ.get("DATACAT_LONG") == "1" else 15))
WORKERS = 5
OPS = ("event", "event", "event", "state", "counter", "gauge", "histogram", "timer")

# What the app logs follows from the seed; slot 0 counts the calls that returned, in a page that outlives the app.
APP = """
import datacat, mmap, os, random, sys, threading
url, product, page, seed, count, ending, ops, span_s = sys.argv[1:9]
rng, count = random.Random(int(seed)), int(count)
with open(page, "r+b") as file:
    slots = memoryview(mmap.mmap(file.fileno(), 4096)).cast("q")
session = datacat.create_session(url, product=product, version="1.0")
pause = threading.Event()
ops = ops.split()
for n in range(count):
    op = rng.choice(ops)
    size = rng.choice((0, 20, 500, 5000))
    if op == "event":
        session.log_event("tick", level=rng.choice(("info", "error")), data={"n": n, "text": "x" * size})
    elif op == "state":
        session.update_state({"n": n, rng.choice("abc"): n})
    elif op == "counter":
        session.log_counter("count", 1)
    elif op == "gauge":
        session.log_gauge("gauge", n)
    elif op == "histogram":
        session.log_histogram("hist", n)
    else:
        with session.timer("timer"):
            pass
    slots[0] = n + 1
    if n % max(1, count // 20) == 0:
        pause.wait(float(span_s) / 20)
        session.flush(0)
slots[1] = 1
if ending == "end":
    session.end(0)
elif ending == "exit":
    pass
elif ending == "os_exit":
    os._exit(3)
else:
    pause.wait()
"""


class Schedule:
    """One app with its own spool behind its own proxy; everything follows from the seed."""

    def __init__(self, box, seed):
        self.box = box
        self.seed = seed
        self.rng = random.Random(seed)
        self.product = f"faults-{seed}"
        self.folder = box.folder / f"schedule-{seed}"
        self.folder.mkdir()
        self.page = self.folder / "page"
        self.page.write_bytes(bytes(4096))
        self.count = self.rng.choice((30, 300, 1500))
        self.span_s = self.rng.choice((0.2, 1.0, 2.0))
        self.ending = self.rng.choice(("end", "exit", "os_exit", "kill", "kill"))
        self.proxy = FaultyProxy(lambda: box.port, seed, share=self.rng.choice((0.2, 0.5, 0.8)))
        self.env = {
            **box.env,
            "XDG_STATE_HOME": str(self.folder / "state"),
            "DATACAT_BATCH_INTERVAL_SECONDS": "0.1",
            "DATACAT_LINGER_SECONDS": "0.3",
            "DATACAT_MAX_BATCH_SIZE": str(self.rng.choice((7, 100, 100_000))),
        }

    def run(self):
        try:
            app = self._app()
            self._kill_about(app)
            app.wait(60)
            self._settle()
            self.check()
        finally:
            self.proxy.close()

    def _app(self):
        args = [self.proxy.url, self.product, self.page, self.seed, self.count, self.ending, " ".join(OPS), self.span_s]
        with (self.folder / "stderr").open("wb") as errors:
            return subprocess.Popen(
                [sys.executable, "-c", APP, *map(str, args)], env=self.env, stdin=subprocess.DEVNULL, stderr=errors
            )

    def _kill_about(self, app):
        """Kill the daemon up to twice while the app runs; then the app, when that is its end."""
        kills = self.rng.choice((0, 0, 1, 2))
        for _ in range(kills):
            threading.Event().wait(self.rng.uniform(0.05, 0.8))
            for pid in self._daemon_pids():
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
        if self.ending == "kill":
            target = self.rng.randrange(1, self.count + 1)
            eventually(lambda: self._slot(0) >= target or app.poll() is not None, 60, every_s=0.005)
            app.kill()

    def _daemon_pids(self):
        found = []
        for lock in self.folder.glob("state/datacat/spool/owners/*.lock"):
            text = lock.read_bytes().strip(b"\0 \n")
            if text.isdigit():
                found.append(int(text))
        return [pid for pid in found if _is_daemon(pid)]

    def _slot(self, number):
        with self.page.open("r+b") as file, mmap.mmap(file.fileno(), 4096) as slots:
            return struct.unpack_from("<q", slots, 8 * number)[0]

    def check(self):
        returned = self._slot(0)
        assert returned, (self.seed, (self.folder / "stderr").read_text())
        spool = self.folder / "state" / "datacat" / "spool"
        told = self.box.session(self.product, metrics="all", history="all")
        # The call that was under way when the app died may have been written and not counted yet.
        for logged in (returned, returned + 1):
            wanted = expected(self.seed, logged)
            got = found_in(told)
            if got == wanted:
                break
        assert got == wanted, (self.seed, self.ending, _difference(got, wanted))
        for second, (last, seen) in _gauges(told).items():
            assert last == max(seen), (self.seed, second)
        assert not told["active"], self.seed
        replayed = {}
        for row in told["state_history"]:
            replayed.update(row["patch"])
        assert all(told["state"].get(name) == value for name, value in replayed.items()), self.seed
        counts = told["counts"]
        lines = sum(path.read_bytes().count(b"\n") for path in spool.glob(f"{told['id']}/*/*.ndjson"))
        assert counts["dropped"] == {}, (self.seed, counts)
        assert (counts["gaps"], counts["acknowledged"], counts["written"]) == (0, lines, lines), (
            self.seed,
            counts,
            lines,
        )
        assert counts["shipped"] <= lines

    def _settle(self):
        """Ship what is left, for a while with the faults that there were, then without."""
        spool = self.folder / "state" / "datacat" / "spool"
        for _ in range(self.rng.choice((0, 5, 15))):
            if self._all_shipped(spool):
                return
            threading.Event().wait(0.2)
        self.proxy.share = 0.0
        eventually(lambda: self._all_shipped(spool), 90, every_s=0.2)

    def _all_shipped(self, spool):
        """Let daemons finish; what none of them has any more is shipped by hand, as the next one would."""
        config = Config(server_url=self.proxy.url)
        waiting = [item for item in inventory.items([spool]) if not item.done]
        for item in waiting:
            if item.gone and not item.served:
                by_hand.ship(item, config, lambda meta: uplink_of(config, meta, "by-hand"))
        return not waiting


def expected(seed, logged):
    """What the app logged in its first calls."""
    rng = random.Random(seed)
    events, state, sums = [], {}, collections.Counter()
    for n in range(logged):
        op = rng.choice(OPS)
        size = rng.choice((0, 20, 500, 5000))
        if op == "event":
            events.append((n, size, rng.choice(("info", "error"))))
        elif op == "state":
            state.update({"n": n, rng.choice("abc"): n})
        elif op == "histogram":
            sums["hist"] += n
            sums["hists"] += 1
        else:
            sums[op] += 1
    return events, state, +sums


def found_in(told):
    """The same out of a session object of the server."""
    events = [
        (event["data"]["n"], len(event["data"]["text"]), event["level"])
        for event in told["events"]
        if event["name"] == "tick"
    ]
    state = {name: value for name, value in told["state"].items() if name in ("n", "a", "b", "c")}
    sums = collections.Counter()
    for metric in told["metrics"]:
        merged = metric.get("metadata") or {}
        if metric["name"] == "count":
            sums["counter"] += metric["delta"]
        elif metric["name"] == "hist":
            sums["hist"] += metric["value"]
            sums["hists"] += merged.get("count", 1)
        elif metric["name"] in ("gauge", "timer"):
            sums[metric["name"]] += merged.get("count", 1)
    return events, state, +sums


def _gauges(told):
    """Each second's last value and all that stood for it: the app's gauge only grows."""
    seconds = {}
    for metric in told["metrics"]:
        if metric["name"] == "gauge":
            _, seen = seconds.get(metric["timestamp"][:19], (0, []))
            top = (metric.get("metadata") or {}).get("max", metric["value"])
            seconds[metric["timestamp"][:19]] = (metric["value"], [*seen, top])
    return seconds


def _difference(got, wanted):
    (events, state, sums), (w_events, w_state, w_sums) = got, wanted
    twice = [event for event, count in collections.Counter(events).items() if count > 1]
    return {
        "events": (len(events), len(w_events)),
        "lost": [event for event in w_events if event not in set(events)][:5],
        "twice": twice[:5],
        "in order": events == sorted(events),
        "state": (state, w_state),
        "sums": (dict(sums), dict(w_sums)),
    }


def _is_daemon(pid):
    try:
        return b"datacat" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


class Killer:
    """Kills the server and starts it again, at moments that follow from a seed."""

    def __init__(self, box, seed, often_s):
        self.box = box
        self.rng = random.Random(seed)
        self.often_s = often_s
        self.kills = 0
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._run)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_exc):
        self.stop.set()
        self.thread.join()

    def _run(self):
        while not self.stop.wait(self.rng.uniform(0.3, 2 * self.often_s)):
            with self.box.lock:
                self.box.stop_server(signal.SIGKILL)
                self.box.start_server(timeout_s=120)  # a machine that is busy with five schedules at once
            self.kills += 1


@pytest.fixture
def chaos_box(tmp_path):
    box = Box(tmp_path)
    box.lock = threading.RLock()
    get = box.get

    def get_locked(*args, **kwargs):
        with box.lock:
            return get(*args, **kwargs)

    box.get = get_locked
    box.start_server()
    yield box
    box.close()
    for schedule in tmp_path.glob("schedule-*"):
        for process in _left(schedule):
            process.kill()


def _left(folder):
    box = Box(folder)
    return box.processes()


@pytest.mark.timeout(3600)
def test_no_fault_of_the_network_and_no_kill_loses_or_repeats_a_record(chaos_box):
    seeds = iter(range(SCHEDULES))
    told, failures = collections.Counter(), []
    lock = threading.Lock()

    def work():
        while not failures:
            with lock:
                seed = next(seeds, None)
            if seed is None:
                return
            schedule = Schedule(chaos_box, seed)
            try:
                schedule.run()
            except BaseException as error:  # shown below, with its seed; a failed assertion of pytest is one too
                failures.append((seed, repr(error)))
            with lock:
                told.update(schedule.proxy.told)

    with Killer(chaos_box, 1, often_s=4.0) as killer:
        workers = [threading.Thread(target=work) for _ in range(WORKERS)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert failures == []
    assert killer.kills > 0
    assert len(set(told) & set(FAULTS)) >= (len(FAULTS) if SCHEDULES >= 100 else 6)
    print(f"{SCHEDULES} schedules, {killer.kills} kills of the server, {dict(told)}: nothing lost, nothing twice")  # noqa: T201
