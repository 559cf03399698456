"""The query layer's measures once more: slow, obvious, from the records of every session alone."""

import random
from dataclasses import dataclass, field

from querying import MINUTE, US
from storing import put, sid

from datacat.server import views
from datacat.store import RecordQuery
from datacat.store.shelf import UNKNOWN_REASONS
from datacat.wire.records import Close, Event, Metric, Open, Verdict
from datacat.wire.times import to_us

SPAN = 240 * MINUTE
STACKS = [[f'  File "/x/m{number}.py", line {number}, in f{number}'] for number in range(3)]


@dataclass
class Session:
    """One session as its records tell it. end is None while it is open."""

    id: str
    product: str
    version: str
    hostname: str | None
    machine: str | None
    created: int
    end: int | None
    status: str
    unknown: bool
    exceptions: int
    hangs: list = field(default_factory=list)
    pauses: list = field(default_factory=list)
    events: list = field(default_factory=list)
    metrics: list = field(default_factory=list)

    def there(self, low, high):
        return low <= self.created < high or (self.created < low and (self.end is None or self.end > low))

    def overlap(self, low, high, now):
        """How long it was open in [low, high), and how long of that it was suspended."""
        high = min(high, now)
        end = now if self.end is None else self.end

        def cut(start, stop):
            return max(0, min(stop, end, high) - max(start, self.created, low))

        return cut(self.created, end), sum(cut(start, end if stop is None else stop) for start, stop in self.pauses)


def random_fleet(store, seed, now):
    """Fill a store with sessions of every kind; return their ids."""
    rng = random.Random(seed)
    made = []
    for number in range(rng.randrange(5, 60)):
        start = now - rng.randrange(1, 2 * SPAN // US) * US
        who = {"product": rng.choice("pq"), "version": rng.choice(["1.9", "1.10", "2.0"])}
        if rng.random() < 0.8:
            who["hostname"] = rng.choice(["h1", "h2", "h3"])
        if rng.random() < 0.7:
            who["machine_id"] = rng.choice(["m1", "m2"])
        session = sid(number)
        put(store, session, Open(t=start, **who), received_us=start)
        made.append(session)
        t = start
        hung = False
        for _ in range(rng.randrange(12)):
            t = min(now - 1, t + rng.choice([0, 1, 7, 60, 600, 3000]) * US + rng.randrange(1000))
            match rng.randrange(10):
                case 0 | 1:
                    hung = not hung
                    record = Verdict(t=t, status="hung" if hung else "active")
                case 2:
                    record = Verdict(t=t, status="suspended", by="server")
                case 3:
                    record = Verdict(t=t, status="active", by="server")
                case 4:
                    stack = rng.choice(STACKS)
                    level = rng.choice(["error", "critical"])
                    record = Event(t=t, name="oops", level=level, exception_type="KeyError", stacktrace=stack)
                case 5 | 6:
                    name, level = rng.choice(["saved", "opened"]), rng.choice(["info", "warning"])
                    record = Event(t=t, name=name, level=level, category=rng.choice([None, "db"]))
                case 7:
                    record = Metric(t=t, name="depth", value=rng.randrange(1000) / 8, tags=[f"room:{rng.randrange(2)}"])
                case _:
                    record = Metric(t=t, name="saves", type="counter", value=rng.randrange(5))
            put(store, session, record, received_us=t)
        end = min(now - 1, t + rng.choice([0, 5, 500]) * US)
        draw = rng.random()
        if draw < 0.3:
            put(store, session, Close(t=end), received_us=end)
        elif draw < 0.5:
            reason = rng.choice(["unknown", "signal", "exception"])
            told = Event(t=end, name="parent_process_crashed", level="critical", data={"reason": reason})
            put(store, session, told, Verdict(t=end, status="crashed", reason=reason), received_us=end)
        elif draw < 0.6:
            reason = rng.choice(["lost", "power"])
            put(store, session, Verdict(t=end, status="abnormal", reason=reason, by="server"), received_us=end)
            if rng.random() < 0.3:
                put(store, session, Verdict(t=end, status="crashed", reason="signal"), received_us=end)
    return made


def told(store, session_id):
    """Return a session as its records tell it."""
    rows = [row.record for row in store.records(session_id, RecordQuery())]
    opened = next(row for row in rows if row["k"] == "open")
    changes = [(to_us(change["timestamp"]), change) for change in views.transitions(store, session_id)]
    created = opened["t"]
    status, reason, since = "active", None, None
    hangs, pauses = [], []
    for t, change in changes[1:]:
        after = change["status"]
        if status == "hung" and after != "hung":
            outcome = {"active": "recovered", "suspended": "suspended", "crashed": "crashed"}.get(after, "ended")
            hangs[-1] = (hangs[-1][0], max(t, hangs[-1][0]), outcome)
        elif since is not None and hangs and (hangs[-1][1] or 0) >= since and hangs[-1][2] in ("crashed", "ended"):
            # A better judge corrects how the session ended, and with it the hang that it ended with.
            outcome = {"active": "recovered", "crashed": "crashed"}.get(after, "ended")
            hangs[-1] = (hangs[-1][0], max(t, hangs[-1][0]), outcome)
        if status == "suspended" and after != "suspended":
            pauses[-1] = (pauses[-1][0], max(t, pauses[-1][0]))
        if after == "hung" and status != "hung":
            hangs.append((t, None, "ongoing"))
        if after == "suspended" and status != "suspended":
            pauses.append((t, None))
        status, reason = after, change["reason"]
        since = t if status not in ("active", "hung", "suspended") else None
    events = [row for row in rows if row["k"] == "event"]
    return Session(
        session_id, opened["product"], opened["version"], opened.get("hostname"),
        opened.get("machine_id") or opened.get("hostname"), created, None if since is None else max(since, created),
        status, since is not None and reason in UNKNOWN_REASONS,
        sum(bool(row.get("exception_type")) for row in events), hangs, pauses, events,
        [row for row in rows if row["k"] == "metric"],
    )  # fmt: skip


def quantile(values, share):
    values = sorted(values)
    if not values:
        return None
    place = (len(values) - 1) * share
    low = values[int(place)]
    return low + (values[min(int(place) + 1, len(values) - 1)] - low) * (place - int(place))


def ratio(part, whole):
    return part / whole if whole else None


def free(bad, whole):
    return 1 - bad / whole if whole else None


def active_max(sessions, low, high, now):
    """The greatest number of sessions open at once: it can only rise where one begins."""
    if low >= now:
        return 0
    times = [low, *(s.created for s in sessions if low <= s.created < min(high, now))]
    return max(sum(s.created <= t and (s.end is None or s.end > t) for s in sessions) for t in times)


def measures(sessions, low, high, now, *, attribute="start", failures=("crash",)):
    """Return every measure of a time series for one bucket."""
    started = [s for s in sessions if low <= s.created < high]
    there = [s for s in sessions if s.there(low, high)]
    hangs = [(s, hang) for s in sessions for hang in s.hangs if low <= hang[0] < high]
    runtime = sum(open_us - paused for s in sessions for open_us, paused in [s.overlap(low, high, now)]) / US
    ended = [s for s in sessions if s.end is not None and low <= s.end < high]
    counted = started if attribute == "start" else ended
    crashed = sum(s.status == "crashed" for s in counted)
    abnormal = sum(s.status == "abnormal" for s in counted)
    hung = sum(bool(s.hangs) for s in started) if attribute == "start" else len({s.id for s, _ in hangs})
    whole = len(started) if attribute == "start" else len(there)
    failed = sum(s.status == "crashed" for s in ended) * ("crash" in failures) + len(hangs) * ("hang" in failures)
    durations = [(s.end - s.created) / US for s in ended]
    width = min(high, now) - min(low, now)
    return {
        "started": len(started),
        "sessions": len(there),
        "ended": sum(s.end is not None and s.status == "ended" for s in counted),
        "crashed": crashed,
        "abnormal": abnormal,
        "hung": hung,
        "hangs": len(hangs),
        "active_max": active_max(sessions, low, high, now),
        "active_avg": ratio(sum(s.overlap(low, high, now)[0] for s in sessions), width),
        "crash_free_rate": free(crashed, whole),
        "hang_free_rate": free(hung, whole),
        "abnormal_free_rate": free(abnormal, whole),
        "unknown_share": ratio(sum(s.unknown for s in started), len(started)),
        "hang_rate": ratio(len(hangs), runtime / 3600 / 1000),
        "mtbf_seconds": ratio(runtime, failed),
        "runtime_seconds": runtime,
        "machines": len({s.machine for s in there if s.machine}),
        "duration_p50": quantile(durations, 0.5),
        "duration_p95": quantile(durations, 0.95),
        "exceptions": sum(s.exceptions for s in started),
    }


def hang_measures(sessions, low, high):
    hangs = [hang for s in sessions for hang in s.hangs if low <= hang[0] < high]
    recovered = [(end - start) / US for start, end, outcome in hangs if outcome == "recovered"]
    return {
        "count": len(hangs),
        "ttr_p50": quantile(recovered, 0.5),
        "ttr_p95": quantile(recovered, 0.95),
        "ttr_max": quantile(recovered, 1.0),
        "unrecovered": len(hangs) - len(recovered),
    }


def summary(sessions, low, high, now, failures=("crash",)):
    """Return every column of the summary but shares and times."""
    row = measures(sessions, low, high, now, failures=failures)
    there = [s for s in sessions if s.there(low, high)]
    started = [s for s in sessions if low <= s.created < high]
    hangs = [(s, hang) for s in sessions for hang in s.hangs if low <= hang[0] < high]
    times = hang_measures(sessions, low, high)
    machines = {s.machine for s in started if s.machine}

    def without(bad):
        return free(len({s.machine for s in started if s.machine and bad(s)}), len(machines))

    unknown = without(lambda s: s.unknown)
    del row["active_max"], row["active_avg"]
    return row | {
        **{
            name: sum(s.status == name for s in there)
            for name in ("active", "suspended", "ended", "crashed", "abnormal")
        },
        "hung_now": sum(s.status == "hung" for s in there),
        "open": sum(s.end is None for s in there),
        "hung": len({s.id for s, _ in hangs}),
        "crash_rate": ratio(sum(s.status == "crashed" for s in started), len(started)),
        "crash_free_machines": without(lambda s: s.status == "crashed"),
        "hang_free_machines": without(lambda s: bool(s.hangs)),
        "abnormal_free_machines": without(lambda s: s.status == "abnormal"),
        "unknown_share_machines": None if unknown is None else 1 - unknown,
        "hang_seconds": sum(max(0, (now if end is None else end) - start) for _, (start, end, _) in hangs) / US,
        "recovered": sum(hang[2] == "recovered" for _, hang in hangs),
        "ttr_p50": times["ttr_p50"],
        "ttr_p95": times["ttr_p95"],
        "versions": len({s.version for s in there}),
    }
