"""The dashboard of crashes and hangs: how many, since when, which ones, and who has them now."""

from typing import Any

from boards import board, looks, panels
from boards.targets import BARS, FLEET, SERIES, target
from grafana_foundation_sdk.models.common import StackingMode

UID = "datacat-stability"
_ROW = "crashed crash_rate hangs hang_rate ttr_p50 ttr_p95 mtbf_seconds hung_now"
_BAD, _WARN = looks.COLORS["crashed"], looks.COLORS["hung"]
_BY_VERSION = {"by": "version", "top": "8"}


def made() -> dict[str, Any]:
    """Return the dashboard."""
    return board.dashboard(
        UID,
        "datacat · Crashes and hangs",
        "What crashes and hangs, since which version, how long hangs take, and who hangs right now.",
        board.fleet_variables(),
        [*_numbers(), *_over_time(), *_groups(), *_now(), *_hangs()],
    )


def _numbers() -> list[Any]:
    return [
        panels.number(
            "Crashes",
            "Of the sessions that were there in the range, those that crashed.",
            (0, 0, 6, 4), "crashed", "short", query=target("summary", _ROW, FLEET),
            levels=((None, looks.GOOD), (1, _BAD)),
        ),
        panels.number(
            "Hangs",
            "Hangs that began in the range. A hang is a silence of the app that its daemon judged so, not a pause.",
            (6, 0, 6, 4), "hangs", "short", levels=((None, looks.GOOD), (1, _WARN)),
        ),
        panels.number(
            "Hung now",
            "Sessions whose newest hang is not over.",
            (12, 0, 6, 4), "hung_now", "short", levels=looks.HUNG,
        ),
        panels.number(
            "Time between crashes",
            "MTBF: the time that sessions ran in the range, divided by their crashes.",
            (18, 0, 6, 4), "mtbf_seconds", "s", decimals=1, nothing="no crash",
        ),
        panels.number(
            "Crash rate",
            "Of the sessions that started in the range, the share that crashed.",
            (0, 4, 6, 3), "crash_rate", "percentunit", decimals=2, nothing="no session",
            levels=((None, looks.GOOD), (0.005, _WARN), (0.02, _BAD)),
        ),
        panels.number(
            "Hangs per 1000 hours",
            "Hangs that began in the range, for 1000 hours that sessions ran.",
            (6, 4, 6, 3), "hang_rate", "short", decimals=1, nothing="no runtime",
        ),
        panels.number(
            "Median time to recover",
            "Half of the hangs that were recovered from took no longer. Those that ended otherwise are not counted.",
            (12, 4, 6, 3), "ttr_p50", "s", decimals=1, nothing="no hang",
        ),
        panels.number(
            "95 % recover within",
            "95 % of the hangs that were recovered from took no longer.",
            (18, 4, 6, 3), "ttr_p95", "s", decimals=1, nothing="no hang",
        ),
    ]  # fmt: skip


def _over_time() -> list[Any]:
    return [
        panels.series(
            "Crashes over time",
            "Crashes by when they happened, by version.",
            (0, 7, 12, 9),
            target("sessions/timeseries", "time version crashed",
                   SERIES | BARS | _BY_VERSION | {"measures": "crashed", "attribute": "event"}, "timeseries"),
            "short", named_by="version", bars=True, stacked=StackingMode.NORMAL, calcs=("sum",), right=True, low=0,
        ),
        panels.series(
            "Hangs over time",
            "Hangs by when they began, by version.",
            (12, 7, 12, 9),
            target("hangs/timeseries", "time version count", SERIES | BARS | _BY_VERSION | {"measures": "count"},
                   "timeseries"),
            "short", named_by="version", bars=True, stacked=StackingMode.NORMAL, calcs=("sum",), right=True, low=0,
        ),
    ]  # fmt: skip


def _groups() -> list[Any]:
    shown = (
        "title product type count sessions machines new regressed first_version last_version first_seen_at last_seen_at"
    )
    return [
        panels.rows(
            "Top crash groups",
            "Crashes with the same cause, the same on every machine, those that happened most often first. New: first "
            "seen in the range. Back: gone in a version with 20 sessions or more, and seen again in a newer one.",
            (0, 16, 24, 10),
            target("crashes", f"{shown} web_url example_session", FLEET | {"sort": "-count", "limit": "20"}),
            shown, hidden="web_url example_session",
            overrides={
                "title": panels.links(looks.to_web(), looks.to_session("example_session")),
                "new": panels.flag("new", _BAD), "regressed": panels.flag("back", _WARN),
            },
            widths={"title": 420, "new": 70, "regressed": 90, "count": 80, "sessions": 90, "machines": 90},
            nothing="No crash in this range",
        ),
    ]  # fmt: skip


def _now() -> list[Any]:
    hung = "id product version hostname started_at hang_seconds hangs"
    crashed = "ended_at product version hostname crash_title crash_reason duration_seconds id"
    links = panels.links(looks.to_session("id"), looks.to_web())
    return [
        panels.rows(
            "Hung right now",
            "Sessions whose newest hang is not over, the oldest first.",
            (0, 26, 12, 8),
            target("sessions", f"{hung} web_url", FLEET | {"status": "hung", "sort": "started_at", "limit": "50"}),
            hung, hidden="web_url", overrides={"id": links}, nothing="Nothing hangs",
        ),
        panels.rows(
            "Last crashes",
            "The sessions of the range that crashed last.",
            (12, 26, 12, 8),
            target("sessions", f"{crashed} web_url",
                   FLEET | {"status": "crashed", "at": "end", "sort": "-ended_at", "limit": "50"}),
            crashed, hidden="web_url", overrides={"id": links, "crash_title": links},
            widths={"crash_title": 260}, nothing="No crash in this range",
        ),
    ]  # fmt: skip


def _hangs() -> list[Any]:
    shown = "started_at seconds outcome title product version hostname session"
    outcomes = {
        "ongoing": looks.COLORS["hung"], "recovered": looks.COLORS["active"], "suspended": looks.COLORS["suspended"],
        "crashed": looks.COLORS["crashed"], "ended": looks.COLORS["ended"],
    }  # fmt: skip
    words = {name: {"text": name, "color": color, "index": at} for at, (name, color) in enumerate(outcomes.items())}
    return [
        panels.series(
            "Time to recover",
            "How long the hangs took that began in each bucket and were recovered from: the median, and what 95 % did "
            "not exceed.",
            (0, 34, 8, 8),
            target("hangs/timeseries", "time ttr_p50 ttr_p95", SERIES | BARS | {"measures": "ttr_p50,ttr_p95"},
                   "timeseries"),
            "s", names={"ttr_p50": ("Median", looks.COLORS["line-0"]), "ttr_p95": ("95 %", _WARN)}, low=0,
            nothing="No hang in this range was recovered from",
        ),
        panels.bars(
            "How long hangs take",
            "The hangs that began in the range and are over, by their length.",
            (8, 34, 8, 8),
            target("hangs/distribution", "bucket count", FLEET),
            "bucket", {"count": ("Hangs", _WARN)},
        ),
        panels.series(
            "Time between crashes, by day",
            "MTBF of each day: the time that sessions ran, divided by their crashes. A day without a crash has no "
            "point.",
            (16, 34, 8, 8),
            target("sessions/timeseries", "time mtbf_seconds",
                   FLEET | {"interval": "1d", "measures": "mtbf_seconds", "attribute": "event"}, "timeseries"),
            "dtdurations", names={"mtbf_seconds": ("MTBF", looks.COLORS["line-0"])}, low=0,
            nothing="No crash in this range",
        ),
        panels.bars(
            "Crashes by host",
            "The hosts with the most crashed sessions in the range. One host alone points to that machine.",
            (0, 42, 8, 9),
            target("summary", "hostname crashed", FLEET | {"by": "hostname", "sort": "-crashed", "limit": "10"}),
            "hostname", {"crashed": ("Crashed sessions", _BAD)}, horizontal=True, nothing="No session in this range",
        ),
        panels.series(
            "Errors over time",
            "Events of level error and critical, by name: what apps log before it gets worse.",
            (8, 42, 16, 9),
            target("events/timeseries", "time name count",
                   SERIES | BARS | {"severity": "error,critical", "by": "name", "top": "8"}, "timeseries"),
            "short", named_by="name", bars=True, stacked=StackingMode.NORMAL, calcs=("sum",), right=True, low=0,
            nothing="No error in this range",
        ),
        panels.rows(
            "All hangs",
            "The hangs that began in the range, the newest first, and how each ended.",
            (0, 51, 24, 10),
            target("hangs", f"{shown} web_url", FLEET | {"sort": "-started_at", "limit": "100"}),
            shown, hidden="web_url",
            overrides={
                "session": panels.links(looks.to_session("session"), looks.to_web()),
                "outcome": [
                    looks.prop("mappings", [{"type": "value", "options": words}]),
                    looks.prop("custom.cellOptions", {"type": "color-text"}),
                ],
            },
            widths={"title": 360}, nothing="No hang in this range",
        ),
    ]  # fmt: skip
