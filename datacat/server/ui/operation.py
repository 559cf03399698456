"""Machines with their daemons, and the health of datacat itself."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from datacat.server.leases import Leases
from datacat.server.query import machines as query
from datacat.server.ui.frame import Asker
from datacat.wire.times import rfc3339

MACHINES = 200
CHARTS = (
    ("requests_per_second", "Requests a second", "count"),
    ("latency_p95", "Answered within (95 %)", "duration"),
    ("errors_per_second", "Failed requests a second", "count"),
    ("ingest_per_second", "Records a second", "count"),
    ("write_p95", "Written within (95 %)", "duration"),
    ("store_bytes", "Store", "bytes"),
    ("rss_bytes", "Memory of the server", "bytes"),
    ("cpu", "CPU", "percent"),
)
"""Charts of the page: measure, name, how its last value is written."""


class Run(NamedTuple):
    """A job of the server: how often it runs, how long ago it ended, how often it failed."""

    name: str
    interval_s: float
    ended_ago_s: float
    failures: int

    @property
    def is_late(self) -> bool:
        """Whether it has missed so many turns that something holds it."""
        return self.ended_ago_s > max(3 * self.interval_s, 60.0)

    @property
    def next_in_s(self) -> float:
        """When its next turn is."""
        return max(0.0, self.interval_s - self.ended_ago_s)


class Upkeep(NamedTuple):
    """What keeps the server well: its jobs, and the watchdog (limit_s 0: nobody watches)."""

    jobs: Sequence[Run]
    watchdog_limit_s: float
    watchdog_is_good: bool


def machines(asker: Asker, leases: Leases, lease_s: float) -> list[dict[str, Any]]:
    """Return the machines that were heard of in 30 days, the newest first, each with its daemons."""
    rows = query.machines(asker.read("summary", {"from": "-30d"}), asker.ground, MACHINES)
    daemons: dict[str, list[dict[str, Any]]] = {}
    for daemon in leases.rows(asker.now_us, lease_s):
        if asker.products:
            daemon["sessions"] = None  # those of other products are not told, not even how many there are
        daemons.setdefault(daemon["machine_id"] or "", []).append(daemon)
    return [
        {
            **row._asdict(),
            "last_seen_at": rfc3339(row.last_seen),
            "crash_free_rate": 1 - row.crashed / row.started if row.started else None,
            "daemons": daemons.get(row.machine, []),
        }
        for row in rows
    ]


def pulse(asker: Asker) -> dict[str, Any]:
    """Return how the server is: its numbers now, and charts of the last hours as points of small lines."""
    now = asker.ask("service/summary")
    series = asker.ask(
        "service/timeseries", from_="-6h", interval="5m", measures=",".join(name for name, _, _ in CHARTS)
    )
    charts = [
        {"name": title, "form": form, "last": _last(series, name), "points": _line([row.get(name) for row in series])}
        for name, title, form in CHARTS
    ]
    return {"now": now[0] if now else {}, "charts": charts}


def _last(series: Sequence[Mapping[str, Any]], name: str) -> float | None:
    return next((row[name] for row in reversed(series) if row.get(name) is not None), None)


def _line(values: Sequence[float | None], width: int = 240, height: int = 44) -> str:
    """Return the points of an SVG polyline; where nothing is known there is no point."""
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return ""
    low, high = min(0.0, *known), max(known) or 1.0
    step = width / max(1, len(values) - 1)
    scale = (height - 4) / ((high - low) or 1)
    return " ".join(
        f"{index * step:.1f},{height - 2 - (value - low) * scale:.1f}"
        for index, value in enumerate(values)
        if value is not None
    )
