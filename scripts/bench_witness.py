"""What it costs an app to be watched: the same work with datacat and without it, in turns, and how sure that is.

Two processes with the same program never lie alike in memory, and one may for that alone take some per cent more than
the other for all its life. So each round starts new ones: two that are watched and two that are not. They work one at
a time on one processor, a frame of some 10 ms each, in an order that goes forth and back, so that what warms up, slows
down or is busy beside them falls on all alike; each has worked a frame more just before, so that the caches are its
own. What counts is the CPU time of all threads of a process in its own frames. A round has one number: the mean
logarithm of the two watched ones less that of the other two. Of all rounds the mean is taken, without the most extreme
tenth at either end, and an interval in which it lies with 95 % (bootstrap over rounds). The two that are not watched
are compared in the same way: that must be nothing, and shows what the method itself cannot tell. --burden puts that
much more work on one of them; then it must be found.

The app works at full speed. For each frame it beats and sets a gauge, for each tenth it logs an event and changes its
state: 100 beats, 100 measurements, 10 events and 10 changes for each second of its CPU time. That is a game, or an
editor while one types. Most programs say less in such a second; one that says more pays for what it says
(`scripts/bench client` has the price of a call).

It has imported what a program with files, settings and HTTP has, and all of it from compiled files, as installed
packages are: what a start compiles anew leaves the memory in pieces, which fill more of the caches. --small is a script
that has imported nothing but json; --other NAME,... lets it import these instead of being watched, to compare.
"""

import argparse
import contextlib
import itertools
import json
import math
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import psutil

MOST_PERCENT = 1.0
CANNOT_TELL = 3
"""The exit status of --check when the interval is too wide: neither broken nor shown to hold."""
WARM_TURNS = 10
RESAMPLES = 10_000
TRIMMED = 0.1
ORDERS = ((0, 2, 3, 1), (2, 0, 1, 3), (1, 3, 2, 0), (3, 1, 0, 2))
"""Who works when in a cycle: 0 and 1 are watched. In each the two kinds have the same middle; nobody works twice in a
row, and all have waited equally long."""

IMPORTS = (
    "argparse", "csv", "dataclasses", "datetime", "decimal", "email.message", "http.client", "logging", "pathlib",
    "sqlite3", "subprocess", "tempfile", "typing", "urllib.request", "uuid", "xml.etree.ElementTree", "zipfile",
)  # fmt: skip
DAEMON_S = 16.0
"""For so long one more app works alone while its daemon's CPU is measured: three of its batches."""

APP = """
import json, os, sys, threading, time
kind, folder, cpu, burden, *modules = sys.argv[1:]
watched, cpu, burden = kind == "watched", int(cpu), float(burden)
for module in modules:
    __import__(module)
text = json.dumps([{"id": n, "name": f"row {n}", "values": list(range(n % 50))} for n in range(3000)])
def work():
    rows = json.loads(text)
    rows.sort(key=lambda row: (len(row["values"]), row["name"]))
    totals = {}
    for row in rows:
        totals[row["name"]] = sum(value * value for value in row["values"]) + len(row["name"].upper())
    return len(json.dumps(totals, sort_keys=True))
def pin():
    if cpu >= 0:
        os.sched_setaffinity(0, {cpu})
if watched:
    import datacat
    session = datacat.create_session("http://127.0.0.1:9", product="bench", version="1", state_dir=folder,
                                     settings={"daemon_port": 0, "linger_seconds": 0})
    pin()  # here, so that its daemon may run elsewhere and its threads may not
    session.start_heartbeat_monitor(timeout=60, loop=None)
    while not (session.journal_folder / "daemon").exists():
        threading.Event().wait(0.01)
    print(json.loads((session.journal_folder / "daemon").read_text())["pid"], flush=True)
else:
    pin()
    print(0, flush=True)
frame = 0
for line in sys.stdin:
    work()
    start_ns, main_ns = time.process_time_ns(), time.thread_time_ns()
    size = work()
    frame += 1
    calls_ns = time.thread_time_ns()
    if watched:
        session.heartbeat()
        session.log_gauge("frame.size", size, "By")
        if frame % 10 == 0:
            session.log_event("saved", data={"frame": frame, "size_bytes": size})
            session.update_state({"document": {"frame": frame}})
    calls_ns = time.thread_time_ns() - calls_ns
    if burden:
        until_ns = time.process_time_ns() + (time.process_time_ns() - start_ns) * burden / 100
        while time.process_time_ns() < until_ns:
            pass
    all_ns, main_ns = time.process_time_ns() - start_ns, time.thread_time_ns() - main_ns
    print(all_ns, calls_ns + all_ns - main_ns, flush=True)
"""


class App:
    """One app that works when it is told to."""

    def __init__(self, kind: str, folder: Path, cpu: int, imports: Sequence[str], burden: float = 0.0) -> None:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("DATACAT_")}
        self.process = subprocess.Popen(
            [sys.executable, "-c", APP, kind, str(folder), str(cpu), str(burden), *imports],
            env={**environ, "PYTHONHASHSEED": "0"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.daemon: psutil.Process | None = None
        self.all_ns = self.ours_ns = 0

    def ready(self) -> None:
        """Wait until it can work, and its daemon watches it."""
        if pid := int(self._answer()):
            self.daemon = psutil.Process(pid)

    def turn_ns(self) -> int:
        """Return the CPU time of one turn of work, all threads of the app; what datacat takes of it is added up."""
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        all_ns, ours_ns = map(int, self._answer().split())
        self.all_ns += all_ns
        self.ours_ns += ours_ns
        return all_ns

    def end(self) -> None:
        """End it and its daemon, which would wait for a server; idempotent."""
        self.process.kill()
        self.process.communicate()
        if self.daemon is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                self.daemon.kill()

    def _answer(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            sys.exit("the app ended early")
        return line


class Round(NamedTuple):
    """Of four new processes, in percent: how much more CPU time the watched ones took than those that are not, and one
    of the latter than the other. own_percent: of a watched one's CPU time, datacat's calls and threads, less what the
    same clocks say in one without.
    """

    more_percent: float
    control_percent: float
    own_percent: float
    turn_ms: float


class Estimate(NamedTuple):
    """A mean of rounds, and the interval in which it lies with 95 %."""

    percent: float
    low: float
    high: float


class Work(NamedTuple):
    """What the apps of all rounds are: the processor, what they import, what the first two import instead of being
    watched, what burden the last one has in percent.
    """

    cpu: int
    imports: Sequence[str]
    other: Sequence[str] = ()
    burden: float = 0.0


@contextlib.contextmanager
def apps_of(*makers: Callable[[Path], App]) -> Iterator[list[App]]:
    """Start apps in a folder of their own, and end them."""
    folder = Path(tempfile.mkdtemp(prefix="datacat-bench-"))
    apps = [make(folder) for make in makers]
    try:
        for app in apps:
            app.ready()
        yield apps
    finally:
        for app in apps:
            app.end()
        shutil.rmtree(folder, ignore_errors=True)


def play(work: Work, cycles: int) -> Round:
    """Let two watched and two bare apps work in turn."""
    kind, imports = ("bare", (*work.imports, *work.other)) if work.other else ("watched", work.imports)
    watched = partial(App, kind, cpu=work.cpu, imports=imports)
    bare = partial(App, "bare", cpu=work.cpu, imports=work.imports)
    twin = partial(bare, burden=work.burden)
    logs = []
    with apps_of(watched, watched, bare, twin) as apps:
        for app in apps * WARM_TURNS:
            app.turn_ns()
        for order in itertools.islice(itertools.cycle(ORDERS), cycles):
            took = {index: math.log(apps[index].turn_ns()) for index in order}
            logs.append([took[index] for index in range(len(apps))])
    own = [each.ours_ns / each.all_ns for each in apps]
    return Round(
        more_percent=percent(statistics.fmean((a + b) / 2 - (c + d) / 2 for a, b, c, d in logs)),
        control_percent=percent(statistics.fmean(d - c for _, _, c, d in logs)),
        own_percent=50 * (own[0] + own[1] - own[2] - own[3]),
        turn_ms=math.exp(statistics.median(each for took in logs for each in took)) / 1e6,
    )


def daemon_percent(work: Work) -> float:
    """Return the CPU time of a daemon whose app works all the time, in percent of a core; its start does not count."""
    with apps_of(partial(App, "watched", cpu=work.cpu, imports=work.imports)) as (app,):
        assert app.daemon is not None
        app.turn_ns()
        began_s, before = time.monotonic(), sum(app.daemon.cpu_times()[:2])
        while time.monotonic() - began_s < DAEMON_S:
            app.turn_ns()
        return 100 * (sum(app.daemon.cpu_times()[:2]) - before) / (time.monotonic() - began_s)


def percent(log: float) -> float:
    """Return the logarithm of a ratio as percent more."""
    return 100 * math.expm1(log)


def middle(values: Sequence[float]) -> float:
    """Return the mean without the most extreme tenth at either end."""
    cut = int(len(values) * TRIMMED)
    return statistics.fmean(sorted(values)[cut : len(values) - cut])


def estimate(values: Sequence[float]) -> Estimate:
    """Return the middle of the rounds' values and its interval; the same for the same values."""
    chance = random.Random(1)
    means = sorted(middle(chance.choices(values, k=len(values))) for _ in range(RESAMPLES))
    outside = RESAMPLES // 40
    return Estimate(middle(values), means[outside], means[-outside - 1])


def judged(found: Estimate) -> tuple[str, int]:
    """Return the word for an estimate, and the exit status of --check."""
    if found.percent > MOST_PERCENT:
        return "FAILS", 1
    return ("holds", 0) if found.high < MOST_PERCENT else ("cannot tell", CANNOT_TELL)


def one_cpu() -> int:
    """Return the processor on which the apps work; -1 where none can be chosen."""
    return max(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else -1


def options_of() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench witness", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument(
        "--check", action="store_true", help=f"exit 1 when it is more than promised, {CANNOT_TELL} when that is open"
    )
    parser.add_argument("--rounds", type=int, default=64, help="each of four new processes")
    parser.add_argument("--cycles", type=int, default=60, help="turns of each process in a round")
    parser.add_argument("--burden", type=float, default=0.0, help="percent more work for one that is not watched")
    parser.add_argument("--small", action="store_true", help="an app that has imported next to nothing")
    parser.add_argument("--other", default="", help="import these modules instead of being watched")
    return parser.parse_args()


def main() -> None:
    options = options_of()
    other = tuple(filter(None, options.other.split(",")))
    work = Work(one_cpu(), () if options.small else IMPORTS, other, options.burden)
    rounds, began_s = [], time.monotonic()
    for number in range(options.rounds):
        rounds.append(play(work, options.cycles))
        print(f"\rround {number + 1} of {options.rounds}, {time.monotonic() - began_s:.0f} s", end="", file=sys.stderr)
    print(file=sys.stderr)
    more, control, own, turns_ms = zip(*rounds, strict=True)
    found, twins = estimate(more), estimate(control)
    word, status = judged(found)
    own_percent, daemon, turn_ms = statistics.median(own), daemon_percent(work), statistics.median(turns_ms)
    if options.json:
        figures = {
            "more_cpu_percent": found._asdict(),
            "control_percent": twins._asdict(),
            "own_percent": own_percent,
            "daemon_percent_of_a_core": daemon,
            "turn_ms": turn_ms,
            "rounds": [each._asdict() for each in rounds],
            "verdict": word,
        }
        print(json.dumps(figures, indent=2))
    else:
        interval = "{0.percent:.2f} % [{0.low:.2f}, {0.high:.2f}]".format
        who = "the app with these imports" if other else "a watched app"
        print(f"{word}  {who} takes {interval(found)} more CPU than the same without, at most {MOST_PERCENT} %")
        print(f"       {interval(twins)} between two that are not watched: what the method itself cannot tell")
        print(f"       {own_percent:.2f} % of its CPU is seen to be datacat's calls and threads")
        print(f"       its daemon takes {daemon:.2f} % of a core meanwhile")
        print(f"       {len(rounds)} rounds, for each process {options.cycles} turns of {turn_ms:.0f} ms")
        scatter, control_scatter = statistics.pstdev(more), statistics.pstdev(control)
        print(f"       deviation of a round {scatter:.2f} %, of the control {control_scatter:.2f} %")
    if options.check:
        sys.exit(status)


if __name__ == "__main__":
    main()
