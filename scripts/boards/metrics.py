"""The dashboard of the metrics that apps log: one metric, side by side by version or whatever is chosen."""

from typing import Any

from boards import board, looks, panels
from boards.targets import FILTERS, FLEET, SERIES, SPAN, target

from datacat.server.query.metrics import AGGS

UID = "datacat-metrics"
_ONE = {"name": "${metric:doublequote}"}
_BY = ("version", "product", "hostname", "session")


def made() -> dict[str, Any]:
    """Return the dashboard."""
    return board.dashboard(
        UID,
        "datacat · Metrics",
        "What apps measure: one metric over time, how it is distributed, and whether a version is slower.",
        [
            *board.fleet_variables(),
            board.values("metric", "Metric", "The metric that is shown.", "metric",
                         {"product": FILTERS["product"]}, multi=False, all_=False),
            board.words("agg", "Aggregate", "How samples are made one value.", AGGS, "avg"),
            board.words("by", "By", "A line for each of these.", _BY, "version"),
        ],
        _panels(),
    )  # fmt: skip


def _panels() -> list[Any]:
    percentiles = ("p50", "p90", "p95", "p99")
    per_version = "version unit avg p50 p95 max count"
    catalogue = "name type unit sessions points last min max last_seen_at"
    here = looks.link(
        "Show this metric",
        "/d/datacat-metrics?var-metric=${__data.fields.name:percentencode}&${__url_time_range}&${datasource:queryparam}"
        "&${product:queryparam}&${version:queryparam}&${agg:queryparam}&${by:queryparam}",
    )
    return [
        panels.series(
            "$metric, $agg by $by",
            "The aggregate of the samples of each bucket, a line for each of the 10 groups with the most samples.",
            (0, 0, 16, 10),
            target("metrics/timeseries", "time series value",
                   SERIES | _ONE | {"agg": "${agg}", "by": "${by}", "top": "10"}, "timeseries"),
            "short", named_by="series", calcs=("mean", "lastNotNull"), right=True, nothing="No sample in this range",
        ),
        panels.bars(
            "Distribution",
            "How many samples of the range lie in each step; a histogram keeps its own buckets.",
            (16, 0, 8, 10), target("metrics/distribution", "bucket count", FLEET | _ONE),
            "bucket", {"count": ("Samples", looks.COLORS["line-0"])}, nothing="No sample in this range",
        ),
        panels.series(
            "Percentiles",
            "Half of the samples of a bucket are no greater than p50, 99 % no greater than p99; right within 1 %.",
            (0, 10, 12, 8),
            target("metrics/timeseries", "time p50 p90 p95 p99", SERIES | _ONE | {"agg": ",".join(percentiles)},
                   "timeseries"),
            "short", calcs=("mean", "max"), nothing="No sample in this range",
            names=dict(zip(percentiles, (
                ("p50", looks.COLORS["line-0"]), ("p90", looks.COLORS["line-1"]), ("p95", looks.COLORS["line-2"]),
                ("p99", looks.COLORS["crashed"]),
            ), strict=True)),
        ),
        panels.series(
            "Rate",
            "A second: of counters what they counted, of other metrics how many samples came.",
            (12, 10, 12, 8),
            target("metrics/timeseries", "time rate", SERIES | _ONE | {"agg": "rate"}, "timeseries"),
            "short", names={"rate": ("Rate", looks.COLORS["line-1"])}, calcs=("mean", "max"), low=0,
            nothing="No sample in this range",
        ),
        panels.rows(
            "By version",
            "The samples of the range for each version: is the newest one slower?",
            (0, 18, 10, 9),
            target("metrics/summary", per_version, FLEET | _ONE | {"by": "version", "agg": "avg,p50,p95,max,count"}),
            per_version, nothing="No sample in this range",
        ),
        panels.rows(
            "All metrics",
            "The metrics that were logged in the range; sessions and samples are of all time. Click one to see it.",
            (10, 18, 14, 9),
            target("metrics", catalogue, SPAN | {"product": FILTERS["product"], "sort": "name", "limit": "500"}),
            catalogue, overrides={"name": panels.links(here)}, widths={"name": 260}, nothing="No metric in this range",
        ),
    ]  # fmt: skip
