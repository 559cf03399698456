"""The server about itself: now, and over the last day."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import datacat
from datacat.server.pulse import STEP_S, Step, latency
from datacat.server.query.asked import Asked
from datacat.server.query.ground import Ground
from datacat.server.query.health import TIME, dimensions, filled
from datacat.server.query.shape import Column, Result, Row
from datacat.server.query.spans import US, buckets

MEASURES = (
    Column("requests_per_second", "number", "requests answered"),
    Column("errors_per_second", "number", "answers 5xx"),
    Column("rejected_per_second", "number", "answers 4xx"),
    Column("latency_p50", "number", "median time until an answer began, in seconds", optional=True),
    Column("latency_p95", "number", "95 % of the answers began sooner", optional=True),
    Column("latency_p99", "number", "99 % of the answers began sooner", optional=True),
    Column("write_p95", "number", "the same for requests that write, until it was on disk", optional=True),
    Column("ingest_per_second", "number", "sessions, events, metrics and states stored"),
    Column("store_bytes", "integer", "size of the store", optional=True),
    Column("store_sessions", "integer", "sessions in the store", optional=True),
    Column("rss_bytes", "integer", "memory of the server", optional=True),
    Column("cpu", "number", "CPUs that it used", optional=True),
    Column("open_files", "integer", "descriptors or handles that it had open", optional=True),
    Column("daemons", "integer", "daemons with a lease", optional=True),
)
SUMMARY = (
    Column("version", "text", "version of the server"),
    Column("uptime_seconds", "number", "since its start"),
    *MEASURES,
    Column("ingest_age_seconds", "number", "since anything of a session came", optional=True),
    Column("retention_age_seconds", "number", "since old sessions were last looked for", optional=True),
)
NAMES = tuple(column.name for column in MEASURES)
BY = ("route", "kind", "reason")
_WRITES = "/batches"
_GAUGES = frozenset({"store_bytes", "store_sessions", "rss_bytes", "cpu", "open_files", "daemons"})
_WHOLE = frozenset({"store_bytes", "store_sessions", "rss_bytes", "open_files", "daemons"})


def summary(asked: Asked, ground: Ground) -> Result:
    """Answer /api/query/service/summary."""
    pulse = ground.pulse
    row: Row = dict.fromkeys(column.name for column in SUMMARY)
    if pulse is None:
        return Result(SUMMARY, [])
    start = max(asked.span.start, pulse.started_us)
    steps = pulse.steps(asked.span.start, asked.span.stop)
    seconds = max(STEP_S, (min(asked.span.stop, asked.now_us) - start) / US)
    row |= {name: _value(name, steps, seconds) for name in NAMES if name not in _GAUGES}
    row |= {name: _whole(name, value) for name, value in pulse.gauges().items()}
    heard = max(ground.store.fleet.heard.values(), default=0)
    row |= {
        "version": datacat.__version__,
        "uptime_seconds": max(0, asked.now_us - pulse.started_us) / US,
        "ingest_age_seconds": max(0, asked.now_us - heard) / US if heard else None,
        "retention_age_seconds": pulse.age_s("retain"),
    }
    return Result(SUMMARY, [row])


def timeseries(asked: Asked, ground: Ground) -> Result:
    """Answer /api/query/service/timeseries: steps of 10 s at least, of the last 24 h at most."""
    by: Sequence[str] = asked["by"]
    cut = buckets(asked.span, max(STEP_S * US, asked["interval"]), asked["max_points"])
    columns = [TIME, *dimensions(by), *(column for column in MEASURES if column.name in asked["measures"])]
    steps = ground.pulse.steps(asked.span.start, asked.span.stop) if ground.pulse else []
    parts: dict[int, list[Step]] = {start: [] for start in cut.starts}
    for step in steps:
        start = step.number * STEP_S * US // cut.interval_us * cut.interval_us
        if start in parts:
            parts[start].append(step)
    groups = sorted({group for step in steps for group in _groups(step, by)}) if by else [()]
    rows = []
    for start, some in parts.items():
        for group in groups:
            measured = {
                name: _value(name, some, cut.interval_us / US, dict(zip(by, group, strict=True)))
                for name in (column.name for column in columns[1 + len(by) :])
            }
            rows.append({"time": start // 1000, **dict(zip(by, group, strict=True)), **measured})
    meta = {"interval_ms": cut.interval_us // 1000, "partial_last": asked.span.stop >= asked.now_us}
    return Result(columns, filled(rows, asked, [column.name for column in columns[1 + len(by) :]]), meta=meta)


def _groups(step: Step, by: Sequence[str]) -> Iterable[tuple[str, ...]]:
    """Return the groups of a step; only one dimension means something for one measure, the others are empty."""
    members = {"route": step.requests, "kind": step.ingested, "reason": step.rejected}
    for at, name in enumerate(by):
        for value in members[name]:
            yield tuple(value if at == place else "" for place in range(len(by)))


def _value(name: str, steps: Sequence[Step], seconds: float, group: dict[str, str] | None = None) -> float | None:
    """Return a measure over some steps; group narrows it to a route, kind or reason."""
    group = group or {}
    if name in _GAUGES:
        known = [step.gauges[name] for step in steps if name in step.gauges]
        return _whole(name, known[-1]) if known else None
    if name in _RATES:
        member, dimension = _RATES[name]
        chosen = group.get(dimension)
        total = 0
        for step in steps:
            counts = member(step)
            total += sum(counts.values()) if not chosen else counts.get(chosen, 0)
        return total / seconds
    bins: dict[int, int] = {}
    for step in steps:
        for route, more in step.latencies.items():
            if (group.get("route") or route) != route or (name == "write_p95" and not route.endswith(_WRITES)):
                continue
            for number, count in more.items():
                bins[number] = bins.get(number, 0) + count
    return latency(bins, int(name.rpartition("p")[2]) / 100)


def _whole(name: str, value: float) -> float:
    return round(value) if name in _WHOLE else value


_RATES: dict[str, tuple[Callable[[Step], Any], str]] = {
    "requests_per_second": (lambda step: step.requests, "route"),
    "errors_per_second": (lambda step: step.errors, "route"),
    "rejected_per_second": (lambda step: step.rejected, "reason"),
    "ingest_per_second": (lambda step: step.ingested, "kind"),
}
