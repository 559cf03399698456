"""What roll-ups cost for each batch, and how long questions over weeks take.

Usage: scripts/bench rollups [--points N] [--weeks N] [--rounds N] [--json] [--check]
  --check   exit code 1 when a target is missed: 50 ms (median) for every query, 1 % for every quantile

ingest: CPU time for each batch of 100 and 1,000 records, beside what the fold of the same batch takes and beside adding
its values to the sketches of the library ddsketch, when that is installed. queries: a store whose pages hold so many
points of a fleet (3 products, 4 versions, 40 metrics, 5 rooms as tags, events, changes of status), written through the
same code as the server's, aged as a store that has run for weeks. Times are CPU time: cold of a store that was just
opened, warm the median of the rounds.
"""

import argparse
import json
import math
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

from datacat.store import CatalogueQuery, RollupQuery
from datacat.store.cell import Cell
from datacat.store.columns import columns_of
from datacat.store.fold import Head, fold_columns
from datacat.store.pages import DEFAULT_AGES
from datacat.store.rollup import MINUTE_US, Delta, roll_up
from datacat.store.rollup_pages import RollupPages
from datacat.store.sealed import Position
from datacat.store.sketch import bins_of
from datacat.wire.records import Event, Metric

HEAD = Head(id="x", product="editor", version="1", updated_at=1)
NOW_MIN = 29_800_000
DAY_MIN = 24 * 60
PRODUCTS = ("editor", "viewer", "server")
VERSIONS = ("1.0", "1.1", "1.2", "2.0")
ROOMS = ("room:north", "room:south", "room:east", "room:west", "room:hall")
METRICS = 40
MOST_MS = 50.0
WORDS = ("started", "ended", "crashed")
NAMES = ("frame_rendered", "file_opened", "request_sent", "cache_missed")


def cpu_us(do, repeat=200):
    """Return the median CPU time of a call in us."""
    took = []
    for _ in range(repeat):
        start = time.thread_time_ns()
        do()
        took.append(time.thread_time_ns() - start)
    return statistics.median(took) / 1000


def batches(count):
    """Yield (what, records) of batches as apps and daemons send them."""
    rng = random.Random(count)
    t = NOW_MIN * MINUTE_US
    yield "events", [Event(t + n * 1000, NAMES[n % 4], category="io", message=f"number {n}") for n in range(count)]
    kinds = ("gauge", "timer", "counter")
    yield (
        "samples",
        [Metric(t + n * 1000, f"m{n % 10}", rng.lognormvariate(3, 1), kinds[n % 3], unit="ms") for n in range(count)],
    )
    known = {"count": 50, "min": 1.0, "max": 20.0, "mean": 5.0}
    yield "merged gauges", [Metric(t + n * 1000, f"m{n % 10}", 5.0, metadata=known) for n in range(count)]


def peer(records):
    """Return a call that adds the values to sketches of the library ddsketch; None when that is not installed."""
    try:
        from ddsketch import DDSketch
    except ImportError:
        return None

    def add():
        sketches = {}
        for record in records:
            sketches.setdefault(record.name, DDSketch(0.01)).add(record.value)

    return add


def ingest():
    """Return a row for each kind and size of batch."""
    rows = []
    for count in (100, 1000):
        for what, records in batches(count):
            with tempfile.TemporaryDirectory() as folder:
                pages = RollupPages(Path(folder), DEFAULT_AGES, time.monotonic)
                columns = columns_of(records)
                delta = roll_up(HEAD, columns, [], [], records[0].t)
                seq = iter(range(1, 10**9))
                row = {
                    "batch": f"{count} {what}",
                    "columns_us": cpu_us(lambda records=records: columns_of(records)),
                    "fold_us": cpu_us(lambda columns=columns: fold_columns(HEAD, {}, columns)),
                    "roll_up_us": cpu_us(lambda columns=columns, t=records[0].t: roll_up(HEAD, columns, [], [], t)),
                    "apply_us": cpu_us(lambda p=pages, d=delta, s=seq: p.apply(Position(1, next(s), 0), "x", d)),
                }
                add = peer(records) if what == "samples" else None
                row["ddsketch_us"] = cpu_us(add, 20) if add else None
                row["ns_per_record"] = (row["roll_up_us"] + row["apply_us"]) * 1000 / count
                rows.append(row)
    return rows


def fleet(points, weeks):
    """Yield deltas of a fleet, oldest first, with points samples in all; each stands for what an hour of it sent."""
    rng = random.Random(1)
    hours = weeks * 7 * 24
    bins = [
        bins_of(values, min(values)) for values in ([rng.lognormvariate(3, 1) for _ in range(60)] for _ in range(50))
    ]
    a_cell = max(1, round(points / (hours * len(PRODUCTS) * len(VERSIONS) * METRICS * 2)))
    for hour in range(hours):
        minute = NOW_MIN - (hours - hour) * 60
        for product in PRODUCTS:
            for version in VERSIONS:
                rows = []
                for number in range(METRICS):
                    for tags in ((ROOMS[(hour + number) % 5],), (ROOMS[(hour + number + 2) % 5],)):
                        at = minute + rng.randrange(60)
                        scale = a_cell / 60
                        shape = {one: max(1, round(count * scale)) for one, count in rng.choice(bins).items()}
                        count = sum(shape.values())
                        t = at * MINUTE_US
                        rows.append((at, "timer", f"m{number}", tags, Cell(count, 20.0 * count, 1, 400, 20, t, shape)))
                tags = ("category:io", "level:info")
                rows += [(minute, "event", name, tags, Cell(9, 0, 0, 0, 0, minute)) for name in NAMES]
                rows += [(minute, "status", word, (), Cell(3, 0, 0, 0, 0, minute)) for word in WORDS]
                yield Delta(product, version, rows)


def questions(weeks):
    """Return what dashboards ask, by name."""
    to = NOW_MIN * MINUTE_US
    span = {"from_us": to - weeks * 7 * DAY_MIN * MINUTE_US, "to_us": to}
    hour = {**span, "interval_s": 3600}
    one = {"kinds": ("timer",), "names": ("m7",)}
    editor = {"product": ("editor",)}
    return {
        "mean of a metric, by version, 1 h": RollupQuery(**hour, **one, **editor, by=("version",), distributions=False),
        "p95 of a metric, one product, 1 h": RollupQuery(**hour, **one, **editor),
        "p95 of a metric, by version, 1 h": RollupQuery(**hour, **one, **editor, by=("version",)),
        "p95 of a metric, by room, 1 h": RollupQuery(**hour, **one, **editor, by=("tag:room",)),
        "p95 of a metric, all products, 1 d": RollupQuery(**span, interval_s=86400, **one),
        "summary of a metric, by version": RollupQuery(**span, **one, **editor, by=("version",)),
        "events by name, 1 h": RollupQuery(**hour, kinds=("event",), by=("name",)),
        "changes of status, 1 h": RollupQuery(**hour, kinds=("status",), by=("name",)),
        "p95 of a metric, last day, 5 min": RollupQuery(
            from_us=to - DAY_MIN * MINUTE_US, to_us=to, interval_s=300, **one, **editor
        ),
    }


def ask(pages, query):
    """Return how much CPU time an answer with its 95th percentiles took, in ms, and how many cells it has."""
    start = time.thread_time()
    cells = pages.rollups(query).cells
    if query.distributions:
        for cell in cells.values():
            cell.quantile(0.95)
    return (time.thread_time() - start) * 1000, len(cells)


def queries(points, weeks, rounds):
    """Return a row for each question, and facts about the store."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        pages = RollupPages(root, DEFAULT_AGES, time.monotonic)
        stored = 0
        for seq, delta in enumerate(fleet(points, weeks), 1):
            pages.apply(Position(1, seq, seq), f"s{seq % 5000}", delta)
            pages.relieve()
            stored += sum(row[4].count for row in delta.rows)
        pages.write_all()
        while pages._grow_old(NOW_MIN):
            pass
        pages.write_all()
        files = list((root / "rollups").iterdir())
        facts = {
            "points": stored,
            "files": len(files),
            "size_bytes": sum(path.stat().st_size for path in files),
        }
        start = time.perf_counter()
        RollupPages(root, DEFAULT_AGES, time.monotonic)
        facts["open_ms"] = (time.perf_counter() - start) * 1000
        rows = []
        for name, query in questions(weeks).items():
            cold, cells = ask(RollupPages(root, DEFAULT_AGES, time.monotonic), query)
            ask(pages, query)
            warm = statistics.median(ask(pages, query)[0] for _ in range(rounds))
            rows.append({"query": name, "cold_ms": cold, "warm_ms": warm, "cells": cells})
        took = []
        for _ in range(rounds):
            start = time.thread_time()
            listed = pages.catalogue(CatalogueQuery(product=("editor",)))
            took.append((time.thread_time() - start) * 1000)
        rows.append({"query": "catalogue", "cold_ms": None, "warm_ms": statistics.median(took), "cells": len(listed)})
    return rows, facts


def worst_error():
    """Return the greatest relative error of quantiles over some distributions."""
    rng = random.Random(5)
    worst = 0.0
    for make in (lambda: rng.lognormvariate(3, 2), lambda: rng.expovariate(0.01), lambda: rng.uniform(1, 1000)):
        values = sorted(make() for _ in range(20_000))
        cell = Cell(len(values), 0, values[0], values[-1], 0, 0, bins_of(values, values[0]))
        for q in (0.01, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999):
            rank = q * (len(values) - 1)
            low, high = values[math.floor(rank)], values[math.ceil(rank)]
            exact = low + (high - low) * (rank - math.floor(rank))
            worst = max(worst, abs((cell.quantile(q) or 0) - exact) / exact)
    return worst


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=50_000_000)
    parser.add_argument("--weeks", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    costs = ingest()
    rows, facts = queries(args.points, args.weeks, args.rounds)
    facts["worst_quantile_error"] = worst_error()
    if args.json:
        print(json.dumps({"ingest": costs, "queries": rows, **facts}, indent=2))
    else:
        for row in costs:
            other = f"  (ddsketch alone {row['ddsketch_us']:.0f})" if row["ddsketch_us"] else ""
            print(
                f"{row['batch']:20} columns {row['columns_us']:7.1f} us   fold {row['fold_us']:7.1f}   "
                f"roll up {row['roll_up_us']:7.1f}   apply {row['apply_us']:6.1f}   "
                f"{row['ns_per_record']:6.0f} ns a record{other}"
            )
        print(f"{facts['points']:,} points in {facts['files']} files, {facts['size_bytes'] / 1e6:.1f} MB")
        print(f"opened in {facts['open_ms']:.1f} ms; worst quantile {facts['worst_quantile_error']:.2%} wrong")
        for row in rows:
            cold = "" if row["cold_ms"] is None else f"cold {row['cold_ms']:6.1f} ms"
            print(f"{row['query']:38} warm {row['warm_ms']:6.1f} ms  {cold:14}  {row['cells']} cells")
    missed = [row["query"] for row in rows if row["warm_ms"] > MOST_MS]
    if args.check and (missed or facts["worst_quantile_error"] > 0.0101):
        print("missed:", *missed, file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
