"""Every measure of every query equals what a slow, obvious reference computes from the records, on random fleets."""

import random

import pytest
import reference
from querying import MINUTE, US, ask, rows

from datacat.server.query.measures import HANG_MEASURES, MEASURES, SHARES
from datacat.server.query.summary import SUMMARY
from tests.server.conftest import Server

BYS = ((), ("version",), ("product", "version"), ("hostname",), ("status",))
FILTERS = {
    "": lambda s: True,
    "version=1.9": lambda s: s.version == "1.9",
    "product=!p&version=1.10,2.0": lambda s: s.product != "p" and s.version in ("1.10", "2.0"),
    "hostname=h1,h2": lambda s: s.hostname in ("h1", "h2"),
    "has=crash": lambda s: s.status == "crashed",
    "status=!active": lambda s: s.status != "active",
}
ROLLED_FILTERS = ("", "version=1.9", "product=!p&version=1.10,2.0")


class Fleet:
    def __init__(self, seed):
        self.server = Server()
        self.server.now_us += random.Random(seed).randrange(10**9)
        self.now = self.server.now_us
        made = reference.random_fleet(self.server.store, seed, self.now)
        self.sessions = [reference.told(self.server.store, session) for session in made]
        rng = self.rng = random.Random(seed + 1)
        low = self.now - rng.randrange(1, 2 * reference.SPAN)
        high = rng.choice([self.now, min(self.now, low + rng.randrange(1, reference.SPAN)), self.now + 30 * MINUTE])
        self.span = low, max(high, low + 1)
        self.filter, self.passes = rng.choice(list(FILTERS.items()))
        self.by = rng.choice(BYS)

    def asked(self, path, **more):
        text = "&".join([f"from={self.span[0]}", f"to={self.span[1]}", self.filter])
        extra = "&".join(f"{name}={value}" for name, value in more.items())
        answer = self.server.get(f"/api/query/{path}?{text}&{extra}")
        assert answer.status == 200, answer.body
        return answer.json

    def groups(self, by=None):
        found = {}
        for session in self.sessions:
            if self.passes(session):
                dims = tuple(getattr(session, name) or "" for name in (self.by if by is None else by))
                found.setdefault(dims, []).append(session)
        return found

    def edges(self, interval_us):
        low, high = self.span
        inner = range(low // interval_us * interval_us + interval_us, high, interval_us)
        return [low, *inner, high], [low // interval_us * interval_us, *inner]


def same(found, wanted, where):
    assert found.keys() >= wanted.keys(), where
    for name, value in wanted.items():
        if value is None:
            assert found[name] is None, (where, name, found[name])
        else:
            assert found[name] == pytest.approx(value, rel=1e-9, abs=1e-9), (where, name)


def check_summary(fleet):
    low, high = fleet.span
    found = fleet.asked("summary", by=",".join(fleet.by), compare="previous", failures="crash,hang", limit=1000)["rows"]
    groups = fleet.groups()
    present = {
        dims: some for dims, some in groups.items()
        if not fleet.by or any(s.there(low, high) or any(low <= h[0] < high for h in s.hangs) for s in some)
    }  # fmt: skip
    if not fleet.by:
        present = {(): groups.get((), [])}
    assert {tuple(row[name] for name in fleet.by) for row in found} == present.keys()
    for row in found:
        dims = tuple(row[name] for name in fleet.by)
        where = (fleet.filter, fleet.by, dims)
        same(row, reference.summary(present[dims], low, high, fleet.now, ("crash", "hang")), where)
        earlier = reference.summary(groups.get(dims, []), 2 * low - high, low, fleet.now, ("crash", "hang"))
        same(row, {f"prev_{name}": value for name, value in earlier.items()}, where)
        assert row.keys() >= {column.name for column in SUMMARY}
    for share, (base, _) in SHARES.items():
        whole = sum(row[base] for row in found)
        for row in found:
            assert row[share] == (pytest.approx(row[base] / whole) if whole else None)


def check_series(fleet):
    low, high = fleet.span
    attribute = fleet.rng.choice(["start", "event"])
    names = list(MEASURES)
    told = fleet.asked(
        "sessions/timeseries",
        by=",".join(fleet.by),
        attribute=attribute,
        measures=",".join([*names, *SHARES]),
        max_points=12,
        top=50,
    )
    edges, starts = fleet.edges(told["meta"]["interval_ms"] * 1000)
    groups = {
        dims: some for dims, some in fleet.groups().items() if not fleet.by or any(s.there(low, high) for s in some)
    }
    if not fleet.by:
        groups = {(): fleet.groups().get((), [])}
    found = {(row["time"] * 1000, *(row[name] for name in fleet.by)): row for row in told["rows"]}
    assert found.keys() == {(start, *dims) for start in starts for dims in groups}
    for number, start in enumerate(starts):
        for dims, some in groups.items():
            wanted = reference.measures(some, edges[number], edges[number + 1], fleet.now, attribute=attribute)
            same(found[start, *dims], {name: wanted[name] for name in names}, (fleet.filter, attribute, dims, start))
        for share, (base, _) in SHARES.items():
            some = [row for row in told["rows"] if row["time"] * 1000 == start]
            whole = sum(row[base] for row in some)
            assert [row[share] for row in some] == [pytest.approx(row[base] / whole) if whole else None for row in some]


def check_hangs(fleet):
    low, high = fleet.span
    sessions = [s for s in fleet.sessions if fleet.passes(s)]
    told = fleet.asked("hangs/timeseries", measures=",".join(HANG_MEASURES), max_points=12)
    edges, _ = fleet.edges(told["meta"]["interval_ms"] * 1000)
    for number, row in enumerate(told["rows"]):
        same(row, reference.hang_measures(sessions, edges[number], edges[number + 1]), fleet.filter)
    hangs = [(s.id, *hang) for s in sessions for hang in s.hangs if low <= hang[0] < high]
    found = fleet.asked("hangs", limit=1000)["rows"]
    assert sorted((row["session"], row["outcome"]) for row in found) == sorted((one[0], one[3]) for one in hangs)
    seconds = [(end - start) / US for _, start, end, _ in hangs if end is not None]
    bounds = (1, 2, 5, 10, 30, 60, 300)
    counted = [
        sum(lower < value <= upper for value in seconds)
        for lower, upper in zip((-1, *bounds), (*bounds, 1e18), strict=True)
    ]
    assert [row["count"] for row in fleet.asked("hangs/distribution")["rows"]] == counted


def check_lists(fleet):
    low, high = fleet.span
    sessions = [s for s in fleet.sessions if fleet.passes(s)]
    at = {
        "start": lambda s: low <= s.created < high,
        "overlap": lambda s: s.there(low, high),
        "end": lambda s: s.end is not None and low <= s.end < high,
    }
    for name, fits in at.items():
        found = {row["id"] for row in fleet.asked("sessions", at=name, limit=1000, sort="id")["rows"]}
        assert found == {s.id for s in sessions if fits(s)}, name
    for dim in ("version", "hostname", "status", "product"):
        counts = {}
        for s in sessions:
            value = getattr(s, dim)
            if value and s.there(low, high):
                counts[value] = counts.get(value, 0) + 1
        assert {row["value"]: row["count"] for row in fleet.asked(f"values/{dim}")["rows"]} == counts
    crashes = fleet.asked("crashes", limit=1000)["rows"]
    assert sum(row["count"] for row in crashes) == sum(s.status == "crashed" and low <= s.end < high for s in sessions)


def check_rolled(fleet):
    if fleet.filter not in ROLLED_FILTERS:
        fleet.filter = fleet.rng.choice(ROLLED_FILTERS)
        fleet.passes = FILTERS[fleet.filter]
    by = fleet.rng.choice([(), ("version",), ("product",)])
    names = "count,sum,min,max,avg,last,p50,p90"
    told = fleet.asked("metrics/timeseries", name="depth,saves", agg=names, by=",".join(by), max_points=12, top=50)
    interval = told["meta"]["interval_ms"] * 1000
    _, high = fleet.span
    samples = {}
    for s in (s for s in fleet.sessions if fleet.passes(s)):
        for metric in s.metrics:
            # Cells are minutes: one that begins in the span counts whole.
            if fleet.span[0] // interval * interval <= metric["t"] and metric["t"] // MINUTE * MINUTE < high:
                key = (metric["t"] // interval * interval, metric["name"], *(getattr(s, name) for name in by))
                samples.setdefault(key, []).append((metric["t"], metric.get("value", 0)))
    found = {(row["time"] * 1000, row["name"], *(row[name] for name in by)): row for row in told["rows"]}
    assert {key for key, row in found.items() if row["count"]} == samples.keys()
    for key, some in samples.items():
        values = [value for _, value in some]
        row = found[key]
        wanted = {
            "count": len(values), "sum": sum(values), "min": min(values), "max": max(values),
            "avg": sum(values) / len(values), "last": max(some)[1],
        }  # fmt: skip
        same(row, wanted, (fleet.filter, key))
        if key[1] == "depth":
            for name, share in (("p50", 0.5), ("p90", 0.9)):
                low, up = _around(values, share)
                assert low * 0.99 - 1e-9 <= row[name] <= up * 1.01 + 1e-9, (name, row[name], sorted(values))
    told = fleet.asked("events/timeseries", by="name,severity", max_points=12, top=50)
    interval = told["meta"]["interval_ms"] * 1000
    counts = {}
    for s in (s for s in fleet.sessions if fleet.passes(s)):
        for event in s.events:
            if fleet.span[0] // interval * interval <= event["t"] and event["t"] // MINUTE * MINUTE < high:
                key = (event["t"] // interval * interval, event["name"], event.get("level", "info"))
                counts[key] = counts.get(key, 0) + 1
    found = {(row["time"] * 1000, row["name"], row["severity"]): row["count"] for row in told["rows"]}
    assert {key: count for key, count in found.items() if count} == counts


def _around(values, share):
    """The two samples between which a quantile lies, whatever the rule."""
    values = sorted(values)
    place = (len(values) - 1) * share
    return values[int(place)], values[min(int(place) + 1, len(values) - 1)]


CHECKS = (check_summary, check_series, check_hangs, check_lists, check_rolled)


@pytest.mark.parametrize("seed", range(10))
def test_every_measure_is_that_of_the_reference(seed):
    for check in CHECKS:
        check(Fleet(seed))


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_every_measure_of_many_fleets_is_that_of_the_reference():
    for seed in range(1000, 1200):
        for check in CHECKS:
            check(Fleet(seed))


def test_records_of_a_session_and_roll_ups_count_alike():
    fleet = Fleet(3)
    for session in fleet.sessions[:5]:
        span = {"from": session.created // MINUTE * MINUTE // 1000, "to": fleet.now // 1000 + 1}
        own = ask(fleet.server, "events/timeseries", session=session.id, by="name", **span)
        assert sum(row["count"] for row in own["rows"]) == len(session.events)
        found = rows(fleet.server, "events", session=session.id, limit=1000, **span)
        assert len(found) == len(session.events)
