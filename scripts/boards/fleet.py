"""The dashboard that comes first: how the fleet is, and which release is worse than the one before."""

from typing import Any

from boards import board, looks, panels
from boards.targets import BARS, FLEET, SERIES, target
from grafana_foundation_sdk.models.common import StackingMode

UID = "datacat-fleet"
_ROW = (
    "open crash_free_rate hang_free_rate started mtbf_seconds machines hung_now ingest_age_seconds "
    "prev_crash_free_rate prev_hang_free_rate prev_started"
)
_COLORS = looks.COLORS


def made() -> dict[str, Any]:
    """Return the dashboard."""
    return board.dashboard(
        UID,
        "datacat · Fleet",
        "How the fleet is now, and which release is worse than the one before. Definitions: docs/api.md of datacat.",
        board.fleet_variables(),
        [*_numbers(), *_over_time(), *_tables()],
    )


def _numbers() -> list[Any]:
    stability = [looks.to_dashboard("datacat-stability", "Crashes and hangs")]
    return [
        panels.number(
            "Crash-free sessions",
            "Of the sessions that started in the range, the share that has not crashed; below it the range of the same "
            "length before. Not known without any session.",
            (0, 0, 5, 6), "crash_free_rate", "percentunit",
            query=target("summary", _ROW, FLEET | {"compare": "previous"}),
            before=True, levels=looks.FREE, decimals=2, nothing="no session", links=stability,
        ),
        panels.number(
            "Hang-free sessions",
            "Of the sessions that started in the range, the share that never hung; below it the range before.",
            (5, 0, 5, 6), "hang_free_rate", "percentunit",
            before=True, levels=looks.FREE, decimals=2, nothing="no session", links=stability,
        ),
        panels.number(
            "Open sessions now",
            "Sessions that have not ended: active, hung or suspended.",
            (10, 0, 5, 3), "open", "short", levels=((None, _COLORS["active"]),),
        ),
        panels.number(
            "Hung now",
            "Sessions whose newest hang is not over.",
            (15, 0, 5, 3), "hung_now", "short", levels=looks.HUNG,
        ),
        panels.number(
            "Newest data",
            "How long ago the server last got anything of these sessions. Daemons send every 5 seconds while apps run.",
            (20, 0, 4, 3), "ingest_age_seconds", "s", levels=looks.AGE, decimals=0, nothing="nothing yet",
        ),
        panels.number(
            "Sessions started",
            "Sessions that started in the range.",
            (10, 3, 5, 3), "started", "short",
        ),
        panels.number(
            "Time between crashes",
            "MTBF: the time that sessions ran in the range, divided by their crashes.",
            (15, 3, 5, 3), "mtbf_seconds", "s", decimals=1, nothing="no crash",
        ),
        panels.number(
            "Machines",
            "Machines that had an open session in the range.",
            (20, 3, 4, 3), "machines", "short",
        ),
    ]  # fmt: skip


def _over_time() -> list[Any]:
    by_version = {"by": "version", "top": "8"}
    return [
        panels.series(
            "Open sessions by version",
            "The most sessions that were open at once in each bucket, of the 8 versions with the most sessions; the "
            "others are summed as other.",
            (0, 6, 14, 9),
            target("sessions/timeseries", "time version active_max", SERIES | by_version | {"measures": "active_max"},
                   "timeseries"),
            "short", named_by="version", stacked=StackingMode.NORMAL, calcs=("max", "lastNotNull"), right=True, low=0,
        ),
        panels.series(
            "Started, crashed, hung",
            "Sessions by when they started; of those, how many crashed and how many hung, whenever that was.",
            (14, 6, 10, 9),
            target("sessions/timeseries", "time started crashed hung",
                   SERIES | BARS | {"measures": "started,crashed,hung"}, "timeseries"),
            "short", bars=True, calcs=("sum",), low=0,
            names={
                "started": ("Started", _COLORS["ended"]), "crashed": ("Crashed", _COLORS["crashed"]),
                "hung": ("Hung", _COLORS["hung"]),
            },
        ),
        panels.series(
            "Crash-free rate by version",
            "Of the sessions of a version that started in each of 24 parts of the range, the share that has not "
            "crashed. Parts with fewer than 10 sessions are left out: one crash of three says nothing.",
            (0, 15, 12, 9),
            target("sessions/timeseries", "time version crash_free_rate",
                   SERIES | by_version | {"measures": "crash_free_rate", "min_sessions": "10", "max_points": "24"},
                   "timeseries"),
            "percentunit", named_by="version", low=0.9, high=1, decimals=2, calcs=("mean", "min"), right=True,
            levels=looks.FREE, nothing="No version with 10 sessions in a 24th of the range",
        ),
        panels.series(
            "Version adoption",
            "Which part of the sessions that started in each bucket each version has.",
            (12, 15, 12, 9),
            target("sessions/timeseries", "time version share_sessions",
                   SERIES | by_version | BARS | {"measures": "share_sessions"}, "timeseries"),
            "percentunit", named_by="version", stacked=StackingMode.PERCENT, calcs=("lastNotNull",), right=True,
            decimals=1,
        ),
    ]  # fmt: skip


def _tables() -> list[Any]:
    shown = (
        "product version sessions share_sessions crash_free_rate prev_crash_free_rate hang_free_rate crashed hangs "
        "hang_rate mtbf_seconds machines first_seen_at"
    )
    there = panels.links(
        looks.to_dashboard("datacat-stability", "Crashes and hangs of it", product="product", version="version")
    )
    statuses = ("active", "suspended", "hung", "ended", "abnormal", "crashed")
    return [
        panels.rows(
            "Release health",
            "Each version that had a session in the range, those with the most first. Crash-free and hang-free are of "
            "the sessions that started in the range, beside it the range before. Click a version for its crashes.",
            (0, 24, 16, 10),
            target("summary", shown, FLEET | {"by": "product,version", "compare": "previous", "limit": "50"}),
            shown,
            overrides={
                "version": there, "crash_free_rate": panels.gauge(0.9), "hang_free_rate": panels.gauge(0.9),
                "prev_crash_free_rate": [looks.prop("unit", "percentunit"), looks.prop("decimals", 2)],
            },
            nothing="No session in this range",
        ),
        panels.bars(
            "Sessions by status",
            "The sessions that were there in the range, by their status now, for each product.",
            (16, 24, 8, 10),
            target("summary", "product active suspended hung_now ended abnormal crashed",
                   FLEET | {"by": "product", "limit": "20"}),
            "product",
            {("hung_now" if name == "hung" else name): (name.capitalize(), _COLORS[name]) for name in statuses},
            stacked=True, horizontal=True, nothing="No session in this range",
        ),
        panels.rows(
            "Newest crashes",
            "The groups of crashes that were seen first most recently, of those with a crash in the range. New: first "
            "seen in the range. Back: gone in a version with 20 sessions or more, and seen again in a newer one.",
            (0, 34, 24, 7),
            target("crashes", "title product new regressed count machines first_version first_seen_at last_seen_at "
                   "web_url example_session", FLEET | {"sort": "-first_seen_at", "limit": "5"}),
            "title product new regressed count machines first_version first_seen_at last_seen_at",
            hidden="web_url example_session",
            overrides={
                "title": panels.links(looks.to_web(), looks.to_session("example_session")),
                "new": panels.flag("new", _COLORS["crashed"]), "regressed": panels.flag("back", _COLORS["hung"]),
            },
            widths={"title": 480, "new": 70, "regressed": 90}, nothing="No crash in this range",
        ),
    ]  # fmt: skip
