"""What a call of the client costs, beside other libraries, in one run: fresh processes, rounds interleaved, medians."""

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

CALLS = 20_000
IMPORTS = ("logging", "datacat", "sentry_sdk", "prometheus_client", "opentelemetry.sdk.metrics", "statsd")
DATA = {"size": 1200, "path": "/docs/team/notes.txt", "cached": True, "user": "bob"}

# name: (largest median in us, or None; what it is compared with, least ratio)
TARGETS_US = {"datacat log_event": 1.5, "datacat update_state": 2.0, "datacat heartbeat": 0.2}
CREATE_MS = 10.0
IMPORT_SHARE = 0.5
LOGGING_RATIO = 6.0
DAEMON_MB = 40.0
DAEMON_CPU_PERCENT = 0.2


def datacat_calls(folder):
    import datacat

    session = datacat.create_session("http://127.0.0.1:9", product="bench", version="1", state_dir=folder)

    def timed():
        with session.timer("load"):
            pass

    return {
        "log_event": lambda: session.log_event("file_opened", level="info", message="opened", data=DATA),
        "log_event name": lambda: session.log_event("file_opened"),
        "update_state": lambda: session.update_state({"document": {"name": "notes", "lines": 120}}),
        "log_gauge": lambda: session.log_gauge("fps", 59.5),
        "log_counter": lambda: session.log_counter("saves"),
        "log_histogram": lambda: session.log_histogram("size", 12.5),
        "timer": timed,
        "heartbeat": session.heartbeat,
    }


def logging_calls(folder):
    import logging

    logger = logging.getLogger("bench")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    handler = logging.FileHandler(folder / "log")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logger.addHandler(handler)
    text = "file_opened opened size=%d path=%s cached=%s user=%s"
    return {"info to a file": lambda: logger.info(text, *DATA.values())}


def sentry_calls(_folder):
    import sentry_sdk

    sentry_sdk.init(dsn=None, max_breadcrumbs=100)
    return {
        "breadcrumb": lambda: sentry_sdk.add_breadcrumb(
            category="file_opened", message="opened", level="info", data=dict(DATA)
        )
    }


def opentelemetry_calls(_folder):
    from opentelemetry._logs import SeverityNumber
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, InMemoryLogRecordExporter
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    class Nowhere(InMemoryLogRecordExporter):
        def export(self, batch):
            self.clear()
            return super().export(batch[:0])

    provider = LoggerProvider()
    provider.add_log_record_processor(BatchLogRecordProcessor(Nowhere()))
    logger = provider.get_logger("bench")
    counter = MeterProvider([InMemoryMetricReader()]).get_meter("bench").create_counter("saves")
    return {
        "log": lambda: logger.emit(
            timestamp=time.time_ns(),
            severity_number=SeverityNumber.INFO,
            body="opened",
            attributes=DATA,
            event_name="file_opened",
        ),
        "counter": lambda: counter.add(1),
    }


def prometheus_calls(_folder):
    import prometheus_client

    counter = prometheus_client.Counter("saves", "saves")
    gauge = prometheus_client.Gauge("fps", "fps")
    histogram = prometheus_client.Histogram("size", "size")
    return {
        "counter": counter.inc,
        "gauge": lambda: gauge.set(59.5),
        "histogram": lambda: histogram.observe(12.5),
    }


def statsd_calls(_folder):
    import socket

    import statsd

    sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sink.bind(("127.0.0.1", 0))
    client = statsd.StatsClient("127.0.0.1", sink.getsockname()[1])
    client.bench_sink = sink
    return {"incr": lambda: client.incr("saves"), "timing": lambda: client.timing("load", 12)}


LIBRARIES = {
    "datacat": datacat_calls,
    "logging": logging_calls,
    "sentry": sentry_calls,
    "opentelemetry": opentelemetry_calls,
    "prometheus": prometheus_calls,
    "statsd": statsd_calls,
}


def measure(call, threads):
    """Return p50 and p99 in ns of single calls (without the clock's own time), CPU and wall ns per call."""
    each = CALLS // threads
    latencies = [[0] * each for _ in range(threads)]
    barrier = threading.Barrier(threads + 1)

    def work(found):
        clock = time.perf_counter_ns
        for _ in range(200):
            call()
        barrier.wait()
        for i in range(each):
            start = clock()
            call()
            found[i] = clock() - start
        barrier.wait()

    workers = [threading.Thread(target=work, args=(found,)) for found in latencies]
    for worker in workers:
        worker.start()
    barrier.wait()
    cpu, wall = time.process_time_ns(), time.perf_counter_ns()
    barrier.wait()
    cpu, wall = time.process_time_ns() - cpu, time.perf_counter_ns() - wall
    for worker in workers:
        worker.join()
    everything = sorted(latency for found in latencies for latency in found)
    return {
        "p50": everything[len(everything) // 2],
        "p99": everything[len(everything) * 99 // 100],
        "cpu": cpu / (each * threads),
        "wall": wall / (each * threads),
    }


def run_library(name, threads):
    """In a fresh process: measure every call of one library; print JSON."""
    folder = Path(tempfile.mkdtemp(prefix="datacat-bench-", dir=os.environ.get("BENCH_DIR")))
    try:
        clock = measure(lambda: None, threads)
        found = {}
        for call_name, call in LIBRARIES[name](folder).items():
            figures = measure(call, threads)
            found[f"{name} {call_name}"] = {
                key: max(0.0, value - clock["p50" if key == "p99" else key]) for key, value in figures.items()
            }
        print(json.dumps(found), flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sys.stdout.flush()
    os._exit(0)  # exporters of other libraries would take their time


def child(*arguments, **environ):
    """Run this file, or code, in a fresh process and return the JSON it prints."""
    run = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env={**os.environ, **environ}, check=False
    )
    if run.returncode:
        sys.exit(f"{' '.join(arguments)} failed:\n{run.stderr}")
    return json.loads(run.stdout)


def measure_import(module):
    code = f"""
import json, time
start = time.perf_counter()
import {module}
print(json.dumps(time.perf_counter() - start))
"""
    return child("-c", code) * 1e3


CREATE = """
import json, sys, time
import datacat
start = time.perf_counter()
session = datacat.create_session("http://127.0.0.1:9", product="bench", version="1", state_dir=sys.argv[1])
first = time.perf_counter() - start
session.log_event("x")
start = time.perf_counter()
session.end()
print(json.dumps([first, time.perf_counter() - start]))
"""


def measure_create(folder):
    """Return ms of create_session() and end() in a fresh process, starting a real daemon, without any server."""
    return [seconds * 1e3 for seconds in child("-c", CREATE, str(folder))]


IDLE = """
import sys
import datacat
session = datacat.create_session("http://127.0.0.1:9", product="idle", version="1", state_dir=sys.argv[1])
session.start_heartbeat_monitor()
print(session.journal_folder, flush=True)
sys.stdin.read()
"""


def measure_daemon(folder, idle_s):
    """Return RSS and PSS in MB and CPU in percent of a daemon whose app does nothing for idle_s seconds."""
    command = [sys.executable, "-c", IDLE, str(folder)]
    app = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    pause = threading.Event()
    try:
        shipper = Path(app.stdout.readline().strip()) / "daemon"
        for _ in range(200):
            with contextlib.suppress(OSError, ValueError):
                pid = json.loads(shipper.read_text())["pid"]
                break
            pause.wait(0.05)
        else:
            return None
        pause.wait(3)  # it has started and settled
        before = cpu_s(pid)
        pause.wait(idle_s)
        used = cpu_s(pid) - before
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        memory = {line.split()[0]: int(line.split()[1]) for line in rollup if line.endswith("kB")}
        return {"rss_mb": memory["Rss:"] / 1024, "pss_mb": memory["Pss:"] / 1024, "cpu_percent": 100 * used / idle_s}
    finally:
        app.communicate("")


def cpu_s(pid):
    """Return the CPU time of all threads; the kernel counts it in ns there and in 10 ms elsewhere."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


def medians(samples):
    return {key: statistics.median(sample[key] for sample in samples) for key in samples[0]}


def report(rounds, idle_s):
    calls = {1: {}, 4: {}}
    imports = {module: [] for module in IMPORTS}
    created = []
    with tempfile.TemporaryDirectory(prefix="datacat-bench-", dir=os.environ.get("BENCH_DIR")) as folder:
        for _ in range(rounds):
            for threads, found in calls.items():
                for library in LIBRARIES:
                    one = child(__file__, "--library", library, "--threads", str(threads), DATACAT_PYTHON="/bin/true")
                    for name, figures in one.items():
                        found.setdefault(name, []).append(figures)
            for module in IMPORTS:
                imports[module] += [measure_import(module) for _ in range(3)]
            created += [measure_create(folder) for _ in range(3)]
        daemon = measure_daemon(folder, idle_s) if sys.platform == "linux" else None
    return {
        "python": sys.version.split()[0],
        "cpus": os.cpu_count(),
        "rounds": rounds,
        "calls_ns": {
            str(threads): {name: medians(samples) for name, samples in found.items()}
            for threads, found in calls.items()
        },
        "import_ms": {module: statistics.median(samples) for module, samples in imports.items()},
        "create_session_ms": {
            "median": statistics.median(first for first, _ in created),
            "max": max(first for first, _ in created),
            "end_median": statistics.median(end for _, end in created),
        },
        "daemon_idle": daemon,
    }


def verdicts(found):
    """Return (what must hold, whether it does) with the figures."""
    one = found["calls_ns"]["1"]
    listed = [
        (f"{name} median {one[name]['p50'] / 1e3:.2f} us, at most {limit} us", one[name]["p50"] / 1e3 <= limit)
        for name, limit in TARGETS_US.items()
    ]
    ratio = one["logging info to a file"]["p50"] / one["datacat log_event"]["p50"]
    listed.append(
        (f"log_event is {ratio:.1f} times cheaper than logging, at least {LOGGING_RATIO:.0f}", ratio >= LOGGING_RATIO)
    )
    share = found["import_ms"]["datacat"] / found["import_ms"]["sentry_sdk"]
    listed.append((f"import takes {share:.2f} of sentry_sdk's, at most {IMPORT_SHARE}", share <= IMPORT_SHARE))
    create = found["create_session_ms"]
    text = f"create_session median {create['median']:.1f} ms, max {create['max']:.1f}, at most {CREATE_MS:.0f} ms"
    listed.append((text, create["median"] <= CREATE_MS))
    if daemon := found["daemon_idle"]:
        listed.append(
            (f"idle daemon {daemon['rss_mb']:.1f} MB, at most {DAEMON_MB:.0f} MB", daemon["rss_mb"] <= DAEMON_MB)
        )
        text = f"idle daemon {daemon['cpu_percent']:.3f} % CPU, at most {DAEMON_CPU_PERCENT} %"
        listed.append((text, daemon["cpu_percent"] <= DAEMON_CPU_PERCENT))
    return listed


def show(found):
    base = found["calls_ns"]["1"]["datacat log_event"]["p50"]
    print(
        f"Python {found['python']}, {found['cpus']} CPUs, medians of {found['rounds']} rounds; microseconds per call\n"
    )
    print(f"{'':30}{'one thread':^36}{'four threads':^34}{'times':>8}")
    head = f"{'p50':>9}{'p99':>9}{'cpu':>9}{'wall':>9}"
    print(f"{'':30}{head}{head[2:]}{'log_event':>10}")
    for name, one in found["calls_ns"]["1"].items():
        four = found["calls_ns"]["4"][name]
        cells = [
            *(one[key] for key in ("p50", "p99", "cpu", "wall")),
            *(four[key] for key in ("p50", "p99", "cpu", "wall")),
        ]
        print(f"{name:30}" + "".join(f"{value / 1e3:9.2f}" for value in cells) + f"{one['p50'] / base:8.1f}")
    print("\nimport, ms:  " + "   ".join(f"{module} {took:.1f}" for module, took in found["import_ms"].items()))
    create = found["create_session_ms"]
    print(f"create_session() {create['median']:.2f} ms (max {create['max']:.2f}), end() {create['end_median']:.2f} ms")
    if daemon := found["daemon_idle"]:
        print("idle daemon: RSS {rss_mb:.1f} MB, PSS {pss_mb:.1f} MB, CPU {cpu_percent:.3f} %".format(**daemon))
    print()
    for text, holds in verdicts(found):
        print(f"{'holds' if holds else 'FAILS'}  {text}")


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench client")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--check", action="store_true", help="exit 1 when a figure that must hold does not")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--idle-s", type=float, default=20.0, help="how long the idle daemon is watched")
    parser.add_argument("--library", choices=LIBRARIES, help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=1, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.library:
        run_library(options.library, options.threads)
    found = report(options.rounds, options.idle_s)
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        show(found)
    if options.check and not all(holds for _, holds in verdicts(found)):
        sys.exit(1)


if __name__ == "__main__":
    main()
