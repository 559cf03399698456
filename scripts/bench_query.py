"""What questions cost: every query of the dashboards, through the whole application, on a store of a large fleet.

Usage: scripts/bench query [--sessions N] [--points N] [--rounds N] [--json] [--check]
  --check   exit code 1 when a target is missed: 20 ms for the summary, 50 ms for what dashboards ask of the last 24
            hours, 150 ms when they are set to 30 days, and with tenfold records no query, nor all of them together,
            costs half as much again (and a millisecond)
Sessions are written through the store, points straight into its roll-ups. It is measured twice: with few records a
session, then with ten times as many, which should make no difference.
"""

import argparse
import gc
import json
import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from wsgi import Client

from datacat.server.audit import Audit
from datacat.server.config import Config, Live
from datacat.server.gate import gate
from datacat.server.keys import Ring
from datacat.server.leases import Leases
from datacat.server.own import OwnStream
from datacat.server.rates import Rates
from datacat.server.service import site
from datacat.store import Batch, durable
from datacat.store.cell import Cell
from datacat.store.rollup import MINUTE_US, Delta
from datacat.store.semi import SemiStore
from datacat.store.sketch import bins_of
from datacat.wire import ids, lines
from datacat.wire.lines import Line
from datacat.wire.records import HUNG_EVENT, Close, Event, Metric, Open, Verdict

US = 1_000_000
HOUR = 3600 * US
DAY = 24 * HOUR
DAYS = 30
PRODUCTS = {"editor": 0.5, "viewer": 0.25, "sync": 0.15, "indexer": 0.1}
VERSIONS = 12
METRICS = ("frame_ms", "heap_mb", "queue", "latency_ms")
HOSTS = 500
SUMMARY_MS, QUERY_MS, MONTH_MS, GROWTH = 20.0, 50.0, 150.0, 1.5

C = "from=-24h"
QUERIES = {
    # the summary, as the first panel of every dashboard asks for it
    "summary": f"summary?{C}&compare=previous",
    "summary by product, version": f"summary?{C}&by=product,version&compare=previous&limit=50",
    "summary by hostname": f"summary?{C}&by=hostname&sort=-crashed&limit=10",
    "summary of 30 days": "summary?from=-30d&compare=previous",
    "summary of 30 days by version": "summary?from=-30d&by=version",
    "open by version": f"sessions/timeseries?{C}&measures=active_max&by=version&top=8",
    "started, crashed, hung": f"sessions/timeseries?{C}&measures=started,crashed,hung",
    "crash-free by version": f"sessions/timeseries?{C}&measures=crash_free_rate&by=version&min_sessions=20",
    "adoption": f"sessions/timeseries?{C}&measures=share_sessions&by=version",
    "crashes when they happened": f"sessions/timeseries?{C}&measures=crashed&by=version&attribute=event",
    "MTBF of 30 days": "sessions/timeseries?from=-30d&measures=mtbf_seconds&interval=1d",
    "open of 30 days": "sessions/timeseries?from=-30d&measures=active_max&by=version&top=8",
    "crash groups": f"crashes?{C}&sort=-count&limit=20",
    "newest crash groups": f"crashes?{C}&sort=-first_seen_at&limit=5",
    "hang groups": f"hangs/groups?{C}&sort=-count&limit=20",  # the web UI asks for them
    "hangs over time": f"hangs/timeseries?{C}&measures=count,ttr_p50,ttr_p95&by=version",
    "hangs by length": f"hangs/distribution?{C}",
    "hangs": f"hangs?{C}&limit=100",
    "hung now": f"sessions?{C}&status=hung&sort=started_at&limit=50",
    "last crashes": f"sessions?{C}&status=crashed&at=end&sort=-ended_at&limit=50",
    "sessions": f"sessions?{C}&limit=500",
    "sessions of 30 days": "sessions?from=-30d&limit=100",
    "values: versions": f"values/version?{C}",
    "values: hosts": f"values/hostname?{C}",
    "transitions of 20": f"transitions?{C}&sample=interval&limit_sessions=20",
    "exceptions over time": f"events/timeseries?{C}&severity=error,critical&by=name&top=8",
    "metric by version": f"metrics/timeseries?{C}&product=editor&name=frame_ms&agg=avg&by=version&top=10",
    "metric quantiles": f"metrics/timeseries?{C}&product=editor&name=frame_ms&agg=p50,p90,p95,p99",
    "metric of 30 days": "metrics/timeseries?from=-30d&product=editor&name=frame_ms&agg=avg,p95",
    "metric distribution": f"metrics/distribution?{C}&product=editor&name=frame_ms",
    "metric per version": f"metrics/summary?{C}&product=editor&name=frame_ms&by=version&agg=avg,p50,p95,max,count",
    "metric catalogue": f"metrics?{C}",
    "releases": "annotations?from=-30d&kinds=release",
    "this server": "service/summary",
}  # fmt: skip


MODULES = range(1, 41)
OFTEN = [1 / number for number in MODULES]
"""Where a product fails, and how often there: a few places make most of the failures, as they do."""


def stack_of(module, frames):
    """Return the frames of a thread, outermost first, the last ones in the app's own files."""
    library = "/usr/lib/python3.12/lib"
    libraries = [{"file": f"{library}{k}.py", "line": 10 + k, "function": f"call{k}"} for k in range(frames)]
    own = [{"file": f"/opt/app/m{module}.py", "line": 40 + k, "function": f"step{k}"} for k in range(4)]
    return [*libraries, *own]


def hung_event(t, module):
    """Return what a daemon writes of a hang: the stacks of all threads, and three samples of them."""
    threads = [{"name": "MainThread", "current": True, "frames": stack_of(module, 12)}]
    threads += [{"name": f"worker-{k}", "current": False, "frames": stack_of(k, 4)} for k in range(1, 4)]
    data = {"verdict": "waiting on a lock", "threads": threads, "silent_s": 61.2, "timeout_s": 60,
            "samples": [{"timestamp": t + k * US, "threads": threads[:2]} for k in range(3)]}  # fmt: skip
    return Event(t, HUNG_EVENT, "error", "lifecycle", message="no heartbeat for 61.2 s", data=data)


def fill(store, sessions, records, now, chance):
    """Write sessions of 30 days; each has its end, a few hang or crash, the newest are open."""
    products, weights = list(PRODUCTS), list(PRODUCTS.values())
    for number in range(sessions):
        start = now - DAYS * DAY + number * (DAYS * DAY // sessions)
        length = round(chance.lognormvariate(8.5, 1.0)) * US
        product = chance.choices(products, weights)[0]
        version = f"{1 + min(VERSIONS - 1, number * VERSIONS // sessions + chance.randrange(-2, 1)) % VERSIONS}.0"
        host = chance.randrange(HOSTS)
        who = {"hostname": f"host-{host}", "machine_id": f"{host:032x}", "pid": number + 1}
        session_id = ids.uuid7(start // 1000, os.urandom(10))
        rows = [Open(start, product, version, **who)]
        rows += [
            Event(start + k + 1, f"event{(number + k) % 7}", message="something happened here") for k in range(records)
        ]
        rows += [Metric(start + k + 1, f"m{(number + k) % 5}", 1.5 * k) for k in range(records)]
        draw = chance.random()
        if draw < 0.06:
            hung = start + length // 3
            rows += [hung_event(hung, chance.choices(MODULES, OFTEN)[0]), Verdict(hung, "hung")]
            rows.append(Verdict(hung + chance.randrange(1, 200) * US, "active", hang_s=5.0))
        if start + length < now:
            end = start + length
            if draw > 0.97:
                stack = [f'  File "/x/m{chance.choices(MODULES, OFTEN)[0]}.py", line 3, in f']
                error = {"exception_type": "ValueError", "stacktrace": stack}
                rows.append(Event(end - 1, "unhandled_exception", "critical", **error))
                rows.append(Verdict(end, "crashed", "exception", exit_code=1))
            else:
                rows.append(Close(end, exit_code=0))
        batch = Batch("app", [Line(row, lines.encode(row)[:-1]) for row in rows])
        store.append(session_id, batch, received_us=max(start, min(now, start + length)))


def roll_up(store, points, now, chance):
    """Put points into the roll-ups: by the minute for the last two days, one minute of each hour before."""
    minutes = [*range((now - 2 * DAY) // MINUTE_US, now // MINUTE_US)]
    minutes += [*range((now - DAYS * DAY) // MINUTE_US, (now - 2 * DAY) // MINUTE_US, 60)]
    series = [(product, f"{v + 1}.0", name) for product in PRODUCTS for v in range(3) for name in METRICS]
    each = max(1, points // (len(minutes) * len(series)))
    total = 0
    samples = [chance.lognormvariate(2, 0.5) for _ in range(64)]
    bins = {number: max(1, count * each // 64) for number, count in bins_of(samples, min(samples)).items()}
    for minute in minutes:
        for product in PRODUCTS:
            for version in range(3):
                rows = []
                for name in METRICS:
                    t = minute * MINUTE_US + 30 * US
                    cell = Cell(each, 8.0 * each, min(samples), max(samples), 8.0, t, dict(bins))
                    rows.append((minute, "gauge", name, (), cell))
                    total += each
                delta = Delta(product, f"{version + 1}.0", rows)
                store._rollups.apply(store._segments.showing, "seeded", delta)
    return total


def measure(store, rounds):
    """Return the median CPU time of each query in ms, after one call that warms it, and the rows of the answer."""
    own = OwnStream(store, "bench")
    live = Live(Config(rate_limit_per_s=0) if hasattr(Config(), "rate_limit_per_s") else Config())
    doors = gate(live, Ring(None), Rates(), own.clock_us)
    client = Client(site(live, own, Leases(), lambda: False, doors, Audit(None, own.clock_us)))
    times, counts, sizes = {}, {}, {}
    for name, query in QUERIES.items():
        answer = client.get("/api/query/" + query)
        assert answer.status == 200, (query, answer.body)
        counts[name], sizes[name] = len(answer.json["rows"]), len(answer.body)
        taken = []
        for _ in range(rounds):
            began = time.process_time()  # the machine may be busy with something else
            client.get("/api/query/" + query)
            taken.append((time.process_time() - began) * 1000)
        times[name] = statistics.median(taken)
    return times, counts, sizes


def build(folder, sessions, records, points):
    """Return a filled store and how long it took."""
    durable.sync_file = lambda _fd: None  # it is made, not tested
    ahead_s = 0.0
    store = SemiStore(Path(folder), clock=lambda: time.monotonic() + ahead_s)
    chance = random.Random(7)
    now = time.time_ns() // 1000
    fill(store, sessions, records, now, chance)
    total = roll_up(store, points, now, chance) if points else 0
    # As after a quiet hour: roll-ups are in pages, the old ones by the hour, however fast this machine wrote them.
    ahead_s = 3600.0
    while store.tend(5.0):
        pass
    return store, total


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--sessions", type=int, default=100_000)
    parser.add_argument("--points", type=int, default=50_000_000)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    found = []
    for records in (2, 20):
        with tempfile.TemporaryDirectory(prefix="datacat-bench-") as folder:
            began = time.perf_counter()
            store, points = build(folder, given.sessions, records, given.points)
            print(f"made {given.sessions} sessions of {2 * records} records and {points} points in "
                  f"{time.perf_counter() - began:.0f} s", file=sys.stderr)  # fmt: skip
            gc.collect()
            found.append(measure(store, given.rounds))
            store.close()
            del store
    (few, counts, sizes), (many, _, _) = found
    if given.json:
        print(json.dumps({"ms": few, "ms_with_tenfold_records": many}, indent=2))
    else:
        print(f"{'query':32} {'rows':>6} {'KB':>6} {'ms':>8} {'10x records':>12}")
        for name, took in few.items():
            print(f"{name:32} {counts[name]:6} {sizes[name] / 1000:6.0f} {took:8.1f} {many[name]:12.1f}")
    if given.check:
        limits = {name: MONTH_MS if "-30d" in query else QUERY_MS for name, query in QUERIES.items()}
        limits["summary"] = SUMMARY_MS
        bad = [name for name in few if max(few[name], many[name]) > limits[name]]
        grown = [name for name, took in few.items() if many[name] > GROWTH * took + 1.0]
        whole = sum(many.values()) / sum(few.values())
        for name in bad:
            print(f"too slow: {name}: {few[name]:.1f} and {many[name]:.1f} ms", file=sys.stderr)
        for name in grown:
            print(f"tenfold records cost more: {name}: {few[name]:.1f} and {many[name]:.1f} ms", file=sys.stderr)
        if whole > GROWTH:
            print(f"tenfold records cost {whole:.2f} times as much", file=sys.stderr)
        return 1 if bad or grown or whole > GROWTH else 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
