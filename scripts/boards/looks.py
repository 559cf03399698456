"""How the dashboards look: colours of the web UI, thresholds, names of columns, links."""

import re
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.models import dashboard as model

from datacat.server.query import sessions
from datacat.wire.routes import STATUS_CODES

_CSS = Path(__file__).parents[2] / "datacat/server/static/app.css"


def _palette() -> dict[str, str]:
    """Return the web UI's colours on dark ground, which Grafana has unless one asks otherwise: name -> #rrggbb."""
    found: dict[str, str] = {}
    for block in re.findall(r"@media \(prefers-color-scheme: dark\) \{(.*?)\}", _CSS.read_text("utf-8"), re.DOTALL):
        found |= dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})\b", block))
    return found


COLORS = _palette()
STATUSES = tuple(STATUS_CODES)
GOOD, WARN, BAD = COLORS["active"], COLORS["hung"], COLORS["crashed"]

HEADINGS = {
    column.name: column.name.removesuffix("_at").replace("_", " ").capitalize() for column in sessions.COLUMNS
} | {
    "active_max": "Open",
    "agg": "Aggregate",
    "avg": "Mean",
    "count": "Count",
    "crash_free_rate": "Crash-free",
    "crash_rate": "Crash rate",
    "crash_reason": "Why",
    "crash_title": "What crashed",
    "cpu": "CPUs",
    "duration_seconds": "Duration",
    "end_detail": "How it ended",
    "end_reason": "Why",
    "example_session": "Newest session",
    "first_seen_at": "First seen",
    "first_version": "Since version",
    "hang_free_rate": "Hang-free",
    "hang_rate": "Hangs / 1000 h",
    "hang_seconds": "Time hung",
    "hung_now": "Hung now",
    "id": "Session",
    "ingest_age_seconds": "Newest data",
    "last_heartbeat_at": "Last heartbeat",
    "last_seen_at": "Last seen",
    "last_version": "Newest version",
    "latency_p50": "p50",
    "latency_p95": "p95",
    "latency_p99": "p99",
    "max": "Greatest",
    "min": "Least",
    "mtbf_seconds": "MTBF",
    "new": "New",
    "path": "Path",
    "points": "Samples",
    "prev_crash_free_rate": "Range before",
    "prev_hang_free_rate": "Range before",
    "changed_at": "Changed",
    "rss_bytes": "Memory",
    "seconds": "Duration",
    "share_sessions": "Share of sessions",
    "title": "What",
    "ttr_p50": "p50",
    "ttr_p95": "p95",
    "write_p95": "Writes p95",
}
"""What stands above a column."""


def heading(name: str) -> str:
    """Return what stands above a column."""
    return HEADINGS.get(name, name.replace("_", " ").capitalize())


def prop(name: str, value: Any) -> model.DynamicConfigValue:
    """Return one property of an override."""
    return model.DynamicConfigValue(id_val=name, value=value)


def fixed(color: str) -> model.DynamicConfigValue:
    """Return the override that gives a field a colour."""
    return prop("color", {"mode": "fixed", "fixedColor": color})


def steps(*levels: tuple[float | None, str]) -> build.ThresholdsConfig:
    """Return thresholds from (value from which it counts, colour); the first has None."""
    return (
        build.ThresholdsConfig()
        .mode(model.ThresholdsMode.ABSOLUTE)
        .steps([model.Threshold(value=value, color=color) for value, color in levels])
    )


def plain_steps(*levels: tuple[float | None, str]) -> dict[str, Any]:
    """Return the same as an override has it."""
    return {"mode": "absolute", "steps": [{"value": value, "color": color} for value, color in levels]}


FREE = ((None, BAD), (0.98, WARN), (0.995, GOOD))
"""Shares of sessions without a failure: below 98 % bad, from 99.5 % good."""
QUIET = ((None, COLORS["ended"]),)
HUNG = ((None, GOOD), (1, WARN), (10, BAD))
AGE = ((None, GOOD), (120, WARN), (600, BAD))
"""Seconds since anything came: daemons send every 5 s while apps run."""


def status_texts() -> list[dict[str, Any]]:
    """Return the mapping of the status as text to its colour."""
    return [{
        "type": "value",
        "options": {name: {"color": COLORS[name], "index": at, "text": name} for at, name in enumerate(STATUSES)},
    }]  # fmt: skip


def status_codes() -> list[model.ValueMapping]:
    """Return the mapping of status_code to text and colour."""
    return [
        model.ValueMap(
            options={
                str(code): model.ValueMappingResult(text=name, color=COLORS[name], index=at)
                for at, (name, code) in enumerate(STATUS_CODES.items())
            }
        )
    ]


def link(title: str, url: str, *, blank: bool = False) -> dict[str, Any]:
    """Return a link of a field."""
    return {"title": title, "url": url, "targetBlank": blank}


_STAY = "${__url_time_range}&${datasource:queryparam}"


def to_session(field: str) -> dict[str, Any]:
    """Return the link to the session explorer for the session that a field names."""
    return to_dashboard("datacat-sessions", "Explore this session", session=field)


def to_web(title: str = "Open in datacat") -> dict[str, Any]:
    """Return the link to the page of the web UI that the row names; absolute when public_url is set."""
    return link(title, "${__data.fields.web_url:raw}", blank=True)


def to_dashboard(uid: str, title: str, **fields: str) -> dict[str, Any]:
    """Return the link to another dashboard with variables set from fields of the row."""
    given = "".join(f"&var-{name}=${{__data.fields.{field}:percentencode}}" for name, field in fields.items())
    return link(title, f"/d/{uid}?{_STAY}{given}")
