"""A made-up fleet: 200 sessions of five products over two weeks, with every way to end, the same for the same seed.

For tests and pictures of pages, queries and dashboards. Everything goes through Store.append, as batches do.
"""

import random
from dataclasses import dataclass, field

from storing import line

from datacat.store import Batch
from datacat.wire import records as wire

S = 1_000_000
MINUTE, HOUR, DAY = 60 * S, 3600 * S, 24 * 3600 * S
SPAN_DAYS = 14

PRODUCTS = {
    # product: (share of the sessions, versions with the days ago of their release)
    "editor": (0.40, {"2.3.0": 60, "2.3.1": 10, "2.4.0": 4}),
    "viewer": (0.25, {"1.9.2": 60, "1.10.0": 6}),
    "render-farm": (0.15, {"7.1": 60, "7.2": 9, "7.3": 2}),
    "sync": (0.12, {"0.8.14": 60, "0.9.0-rc.1": 3}),
    "indexer": (0.08, {"2026.10": 60}),
}
ENDS = {
    # how a session ends: weight
    "clean": 46, "exit_zero": 10, "closed": 5, "terminated": 6,
    "exception": 9, "signal": 5, "exit_code": 3, "killed": 2, "oom": 2, "hang": 2, "unknown": 2,
    "power": 1, "reboot": 1, "lost": 2, "open": 14, "hung": 2, "suspended": 2,
}  # fmt: skip
TROUBLE = {("editor", "2.4.0"): 3.0, ("render-farm", "7.3"): 2.0}
"""Versions whose sessions end badly more often than others."""
EXCEPTIONS = (
    ("ValueError", "cannot blend layers of different depth", ("editor/app.py", "run"), ("editor/layers.py", "blend")),
    ("KeyError", "'thumbnail'", ("editor/app.py", "run"), ("editor/browser.py", "show_preview")),
    (
        "ConnectionResetError",
        "[Errno 104] Connection reset by peer",
        ("sync/loop.py", "cycle"),
        ("sync/peer.py", "pull"),
    ),
    ("MemoryError", "", ("farm/worker.py", "main"), ("farm/tiles.py", "allocate")),
)
NATIVE = (
    ("SIGSEGV", 11, ("farm/gpu.py", "_render")),
    ("SIGSEGV", 11, ("editor/brush.py", "stroke")),
    ("SIGABRT", 6, ("viewer/decode.py", "decode_frame")),
)
HANGS = (
    ("waiting on a lock", "editor/autosave.py", "save"),
    ("busy loop", "viewer/layout.py", "fit"),
    ("waiting on I/O", "sync/peer.py", "wait_for_answer"),
)
EVENTS = (
    ("document_opened", "info", "document"), ("document_saved", "info", "document"), ("tool_selected", "debug", "ui"),
    ("export_started", "info", "export"), ("export_finished", "info", "export"), ("cache_miss", "debug", "cache"),
    ("slow_disk", "warning", "disk"), ("login", "info", "account"), ("plugin_failed", "error", "plugin"),
)  # fmt: skip
HOSTS = [f"{kind}-{number:02}" for kind in ("desk", "laptop", "ws") for number in range(1, 13)]


@dataclass
class Fleet:
    """What was made: ids by what is special about a session, and every id with how it ended."""

    now_us: int
    ends: dict[str, str] = field(default_factory=dict)
    named: dict[str, str] = field(default_factory=dict)

    def first(self, end):
        """Return the first session that ended so."""
        return next(session_id for session_id, how in self.ends.items() if how == end)


def seed(store, now_us, *, sessions=200, long_events=20_000, number=7):
    """Fill a store; one session has long_events events. Times end at now_us."""
    chance = random.Random(number)
    fleet = Fleet(now_us)
    # One of each, so that a small fleet has every way to end as well.
    ends = list(ENDS) + chance.choices(list(ENDS), list(ENDS.values()), k=max(0, sessions - len(ENDS)))
    for index, end in enumerate(ends):
        session = _Session(chance, index, now_us, end)
        session.write(store)
        fleet.ends[session.id] = session.end
    if long_events:
        long = _Session(chance, len(ends), now_us, "signal", product="editor", version="2.4.0", events=long_events)
        long.write(store)
        fleet.ends[long.id] = "signal"
        fleet.named["long"] = long.id
    return fleet


class _Session:
    def __init__(self, chance, index, now_us, end, product=None, version=None, events=None):
        self.chance = chance
        self.id = f"01890a5d-ac96-774b-bcce-{index + 0x1000:012x}"
        self.product = product or chance.choices(list(PRODUCTS), [share for share, _ in PRODUCTS.values()])[0]
        releases = PRODUCTS[self.product][1]
        age = SPAN_DAYS * chance.random() ** 2 * DAY
        if end in ("open", "hung", "suspended") or events:
            age = chance.uniform(0.2, 5) * HOUR
        out = [name for name, days in releases.items() if days * DAY > age]
        # Most users have the newest version that was out when the session began.
        self.version = version or chance.choices(out, [1, 2, 8][-len(out) :])[0]
        if end == "clean" and chance.random() < 0.1 * TROUBLE.get((self.product, self.version), 0):
            end = chance.choice(("exception", "signal"))
        self.end = end
        self.start = int(now_us - age)
        length = min(chance.lognormvariate(3.4, 1.0) * MINUTE, 9 * HOUR)
        self.stop = now_us - int(chance.uniform(1, 4) * S) if end in ("open", "hung", "suspended") else 0
        self.start = min(self.start, now_us - 2 * MINUTE)
        self.stop = self.stop or min(int(self.start + max(length, 20 * S)), now_us - MINUTE)
        self.host = chance.choice(HOSTS)
        self.count = chance.randint(6, 60) if events is None else events
        self.hang = self.own(HANGS, lambda hang: hang[1])
        self.state = {}

    def write(self, store):
        app, daemon = self.app_records(), self.daemon_records()
        records = sorted([(record.t, 0, record) for record in app] + [(record.t, 1, record) for record in daemon],
                         key=lambda row: row[:2])  # fmt: skip
        ends = [0, 0]
        batch, stream = [], 0
        for _, number, record in records:
            if batch and (number != stream or len(batch) == 500):
                ends[stream] = self.put(store, stream, ends[stream], batch)
                batch = []
            batch.append(line(record))
            stream = number
        ends[stream] = self.put(store, stream, ends[stream], batch)

    def put(self, store, number, start, lines):
        end = start + sum(len(item.raw) + 1 for item in lines)
        received_us = max(item.record.t for item in lines) + 200_000
        store.append(self.id, Batch(("app", "daemon")[number], lines, start, end), received_us=received_us)
        return end

    def app_records(self):
        chance, span = self.chance, self.stop - self.start
        number = HOSTS.index(self.host)
        yield wire.Open(
            t=self.start, product=self.product, version=self.version, environment=chance.choice(("production", "beta")),
            hostname=self.host, machine_id=f"{number:032x}", boot_id=f"{number + 99:032x}", pid=chance.randint(900, 60000),
            platform=chance.choice(("Linux 6.8 x86_64", "Windows 11 AMD64", "macOS 15 arm64")),
            daemon_id=f"00000000-0000-4000-8000-{number:012x}",
            state={"user": {"plan": chance.choice(("free", "pro", "team"))}, "window": {"width": 1280, "height": 800}},
        )  # fmt: skip
        self.state = {"document": {"name": "untitled", "pages": 1}, "gpu": chance.choice(("on", "off"))}
        yield wire.StatePatch(t=self.start + 200_000, patch=self.state)
        for t in sorted(self.start + int(span * chance.random() ** 0.8 * 0.98) for _ in range(self.count)):
            name, level, category = chance.choices(EVENTS, [6, 5, 12, 2, 2, 8, 1, 1, 1])[0]
            yield wire.Event(t=t, name=name, level=level, category=category, message=f"{name.replace('_', ' ')} by hand",
                             data={"n": chance.randint(1, 99), "ms": round(chance.lognormvariate(3, 1), 1)})  # fmt: skip
        for step in range(min(40, 4 + self.count // 4)):
            t = self.start + span * (step + 1) // 44
            yield wire.StatePatch(
                t=t, patch={"document": {"name": f"plan-{step % 7}.dcx", "pages": chance.randint(1, 40)}}
            )
        points = min(60, 4 + int(span / MINUTE))
        for step in range(points):
            t = self.start + span * step // points
            load = 0.2 + 0.15 * chance.random() + (0.5 if self.end in ("oom", "hang") and step > points * 0.8 else 0)
            yield wire.Metric(t=t, name="process.cpu.utilization", value=round(load, 3), unit="1")
            grown = step * (60 if self.end == "oom" else 2)
            yield wire.Metric(t=t, name="process.memory.usage", value=(210 + grown) * 1_000_000, unit="By")
            yield wire.Metric(t=t, name="frames.rendered", type="counter", value=chance.randint(0, 900))
            yield wire.Metric(t=t, name="export.duration", type="timer", value=round(chance.lognormvariate(0, 0.7), 4),
                              unit="s", tags=[f"format:{chance.choice(('png', 'pdf', 'svg'))}"])  # fmt: skip
        if self.end == "clean":
            yield wire.Close(t=self.stop, exit_code=0)
        if self.end in ("closed", "exception"):
            crash = self.own(EXCEPTIONS, lambda crash: crash[2][0])
            kind = crash[0] if self.end == "exception" else None
            if kind:
                yield wire.Event(t=self.stop - 50_000, name="unhandled_exception", level="critical", category="exception",
                                 message=crash[1], stacktrace=self.traceback(crash), exception_type=crash[0],
                                 exception_msg=crash[1], source_file=crash[-1][0], source_function=crash[-1][1])  # fmt: skip
            yield wire.Closing(t=self.stop - 40_000, exit_code=1 if kind else None, exception_type=kind,
                               exception_msg=crash[1] if kind else None)  # fmt: skip

    def daemon_records(self):
        chance, span = self.chance, self.stop - self.start
        if self.end in ("clean", "exit_zero", "open") and chance.random() < 0.12 and span > 5 * MINUTE:
            yield from self.hung_for(self.start + span // 3, chance.uniform(61, 240))
        if self.end in ("clean", "open") and chance.random() < 0.1 and span > HOUR:
            yield from self.asleep(self.start + span // 2, int(span * 0.2))
        if self.end in ("hang", "hung"):
            yield from self.hung_for(max(self.stop - 90 * S, self.start + S), None)
        if self.end == "suspended":
            yield from self.asleep(max(self.stop - 10 * S, self.start + S), None)
        yield from self.verdict()

    def verdict(self):
        t = self.stop + 30_000
        if self.end in ("exit_zero", "closed", "terminated"):
            signal = 15 if self.end == "terminated" else None
            yield wire.Verdict(t=t, status="ended", reason=self.end, exit_signal=signal,
                               exit_code=0 if self.end == "exit_zero" else None)  # fmt: skip
        elif self.end in ("power", "reboot", "lost"):
            yield wire.Verdict(t=t, status="abnormal", reason=self.end, by="server" if self.end == "lost" else "daemon")
        elif self.end in ("exception", "signal", "exit_code", "killed", "oom", "hang", "unknown"):
            name, number, (file, function) = self.own(NATIVE, lambda crash: crash[2][0])
            signal = {"signal": number, "killed": 9, "oom": 9, "hang": 9}.get(self.end)
            code = {"exception": 1, "exit_code": self.chance.choice((2, 3))}.get(self.end)
            data = {"reason": self.end, "exit_code": code, "exit_signal": signal, "last_state": self.state,
                    "last_events": [{"name": "tool_selected", "level": "debug"}]}  # fmt: skip
            if self.end == "signal":
                data |= {"signal_name": name, "threads": self.threads(file, function)}
            yield wire.Event(t=t, name=wire.CRASHED_EVENT, level="critical", category="critical",
                             data={key: value for key, value in data.items() if value is not None})  # fmt: skip
            yield wire.Verdict(t=t, status="crashed", reason=self.end, exit_code=code, exit_signal=signal)

    def hung_for(self, t, seconds):
        verdict, file, function = self.hang
        threads = self.threads(file, function)
        yield wire.Event(t=t, name=wire.HUNG_EVENT, level="error", category="error", message=f"{function}: {verdict}",
                         stacktrace=[f'  File "{frame["file"]}", line {frame["line"]}, in {frame["function"]}'
                                     for frame in threads[0]["frames"]],
                         data={"verdict": verdict, "threads": threads,
                               "samples": [{"timestamp": t + step * S, "threads": threads} for step in range(3)]})  # fmt: skip
        yield wire.Verdict(t=t, status="hung")
        if seconds:
            end = t + int(seconds * S)
            yield wire.Event(t=end, name=wire.RECOVERED_EVENT, data={"seconds": round(seconds, 1)})
            yield wire.Verdict(t=end, status="active", hang_s=round(seconds, 1))

    def asleep(self, t, length):
        yield wire.Event(t=t, name=wire.SUSPENDED_EVENT)
        yield wire.Verdict(t=t, status="suspended")
        if length:
            yield wire.Event(t=t + length, name=wire.RESUMED_EVENT)
            yield wire.Verdict(t=t + length, status="active")

    def own(self, table, file_of):
        """Return one of the failures that happen in this product's own files, or any when there is none."""
        own = [failure for failure in table if file_of(failure).split("/")[0][:4] in self.product]
        return self.chance.choice(own or table)

    def traceback(self, crash):
        lines = ["Traceback (most recent call last):"]
        shift = sum(map(ord, self.version)) % 40  # each version has its own line numbers
        for file, function in crash[2:]:
            lines.append(f'  File "/opt/{file}", line {100 + shift}, in {function}')
        return [*lines, f"{crash[0]}: {crash[1]}"]

    def threads(self, file, function):
        frames = [
            {"file": "/usr/lib/python3.12/runpy.py", "line": 198, "function": "_run_module_as_main"},
            {"file": f"/opt/{file.split('/')[0]}/app.py", "line": 41, "function": "run"},
            {"file": f"/opt/{file}", "line": 100 + sum(map(ord, self.version)) % 40, "function": function},
        ]
        idle = [{"file": "/usr/lib/python3.12/threading.py", "line": 1012, "function": "_bootstrap"},
                {"file": "/usr/lib/python3.12/queue.py", "line": 171, "function": "get"}]  # fmt: skip
        return [
            {"name": "MainThread", "id": "0x7f12", "current": True, "frames": frames},
            {"name": "worker-1", "id": "0x7f13", "current": False, "frames": idle},
        ]
