"""The dashboard of the datacat server itself: does data come in, is it fast, does it grow."""

from typing import Any

from boards import board, looks, panels
from boards.targets import INTERVAL, SPAN, target
from grafana_foundation_sdk.models.common import StackingMode

UID = "datacat-service"
_ROW = "ingest_age_seconds ingest_per_second daemons uptime_seconds version store_bytes store_sessions rss_bytes"
_OVER_TIME = SPAN | INTERVAL
_LINE = [looks.COLORS[f"line-{at}"] for at in range(4)]


def made() -> dict[str, Any]:
    """Return the dashboard."""
    return board.dashboard(
        UID,
        "datacat · Service",
        "The server itself, of the last 24 hours at most. Prometheus can keep the same for longer: see /metrics.",
        [board.source_variable()],
        [*_numbers(), *_traffic(), *_resources()],
        since="now-6h",
        fleet=False,
    )


def _numbers() -> list[Any]:
    return [
        panels.number(
            "Newest data",
            "How long ago the server last got anything of a session. Daemons send every 5 seconds while apps run.",
            (0, 0, 6, 5), "ingest_age_seconds", "s", query=target("service/summary", _ROW, SPAN), levels=looks.AGE,
            decimals=0, nothing="nothing yet", background=True,
        ),
        panels.number(
            "Stored a second",
            "Sessions, events, metrics and states that were stored, on average over the range.",
            (6, 0, 6, 5), "ingest_per_second", "short", decimals=1,
        ),
        panels.number("Daemons", "Daemons with a lease: apps that are being recorded now.", (12, 0, 4, 5), "daemons",
                      "short"),
        panels.number("Running for", "Since the server started.", (16, 0, 4, 3), "uptime_seconds", "s", decimals=1),
        panels.number("Version", "The version of the server.", (16, 3, 4, 2), "version", "string"),
        panels.number("Store", "The size of the store on disk.", (20, 0, 4, 2), "store_bytes", "bytes"),
        panels.number("Sessions", "Sessions in the store.", (20, 2, 2, 3), "store_sessions", "short"),
        panels.number("Memory", "Memory of the server's process (RSS).", (22, 2, 2, 3), "rss_bytes", "bytes"),
    ]  # fmt: skip


def _traffic() -> list[Any]:
    return [
        panels.series(
            "Stored by kind",
            "Sessions, states, events and metrics that were stored, a second.",
            (0, 5, 12, 8),
            target("service/timeseries", "time kind ingest_per_second",
                   _OVER_TIME | {"measures": "ingest_per_second", "by": "kind"}, "timeseries"),
            "short", named_by="kind", stacked=StackingMode.NORMAL, calcs=("mean", "max"), right=True, low=0,
        ),
        panels.series(
            "Refused by reason",
            "Requests that were answered 4xx, a second: auth is a wrong or missing key, unknown a session that is not "
            "there, too_large, rate_limited, or invalid.",
            (12, 5, 12, 8),
            target("service/timeseries", "time reason rejected_per_second",
                   _OVER_TIME | {"measures": "rejected_per_second", "by": "reason"}, "timeseries"),
            "reqps", named_by="reason", stacked=StackingMode.NORMAL, calcs=("mean", "max"), right=True, low=0,
            nothing="No request was refused in this range",
        ),
        panels.series(
            "Requests by route",
            "Requests that were answered, a second, by the path of their route.",
            (0, 13, 12, 9),
            target("service/timeseries", "time route requests_per_second",
                   _OVER_TIME | {"measures": "requests_per_second", "by": "route"}, "timeseries"),
            "reqps", named_by="route", stacked=StackingMode.NORMAL, calcs=("mean", "max"), right=True, low=0,
        ),
        panels.series(
            "Latency",
            "The time until an answer began, of all requests: half of them took no longer than p50.",
            (12, 13, 6, 9),
            target("service/timeseries", "time latency_p50 latency_p95 latency_p99",
                   _OVER_TIME | {"measures": "latency_p50,latency_p95,latency_p99"}, "timeseries"),
            "s", calcs=("mean", "max"), low=0,
            names={
                "latency_p50": ("p50", _LINE[0]), "latency_p95": ("p95", _LINE[2]), "latency_p99": ("p99", looks.BAD),
            },
        ),
        panels.series(
            "Failures",
            "Requests that were answered 5xx, a second. A server that is behind asks daemons to come again (503): "
            "nothing is lost by that.",
            (18, 13, 6, 9),
            target("service/timeseries", "time errors_per_second", _OVER_TIME | {"measures": "errors_per_second"},
                   "timeseries"),
            "reqps", names={"errors_per_second": ("5xx", looks.BAD)}, calcs=("mean", "max"), low=0, bars=True,
        ),
    ]  # fmt: skip


def _resources() -> list[Any]:
    return [
        panels.series(
            "Writes",
            "95 % of the requests that write were on disk within this time.",
            (0, 22, 8, 8),
            target("service/timeseries", "time write_p95", _OVER_TIME | {"measures": "write_p95"}, "timeseries"),
            "s", names={"write_p95": ("p95", _LINE[2])}, calcs=("mean", "max"), low=0,
            nothing="Nothing was written in this range",
        ),
        panels.series(
            "Store and memory",
            "The size of the store on disk, and the memory of the process.",
            (8, 22, 8, 8),
            target("service/timeseries", "time store_bytes rss_bytes",
                   _OVER_TIME | {"measures": "store_bytes,rss_bytes"}, "timeseries"),
            "bytes", names={"store_bytes": ("Store", _LINE[0]), "rss_bytes": ("Memory", _LINE[3])}, low=0,
        ),
        panels.series(
            "CPU",
            "How many CPUs the server used.",
            (16, 22, 8, 8),
            target("service/timeseries", "time cpu", _OVER_TIME | {"measures": "cpu"}, "timeseries"),
            "short", names={"cpu": ("CPUs", _LINE[1])}, calcs=("mean", "max"), low=0, decimals=2,
        ),
        panels.bars(
            "Newest data by product",
            "How long ago the server last got anything of each product that had a session in the range: a product that "
            "has gone silent stands out.",
            (0, 30, 24, 8),
            target("summary", "product ingest_age_seconds",
                   SPAN | {"by": "product", "sort": "-ingest_age_seconds", "limit": "30"}),
            "product", {"ingest_age_seconds": ("Newest data", looks.COLORS["line-0"])}, unit="s", horizontal=True,
            nothing="No session in this range",
        ),
    ]  # fmt: skip
