"""The dashboard to find a session and to look into it: status, events, metrics, state."""

from typing import Any

from boards import board, looks, panels
from boards.targets import BARS, FLEET, INTERVAL, SPAN, target
from grafana_foundation_sdk.models.common import StackingMode

UID = "datacat-sessions"
NONE = "none"
"""The session of the lower half until one is chosen; no id is such a text."""
_CHOOSE = "Click a session in the table above"
_ONE = SPAN | {"session": "${session}"}
PAGES = {
    "pagination_mode": "cursor",
    "pagination_max_pages": 5,
    "pagination_param_cursor_field_name": "cursor",
    "pagination_param_cursor_field_type": "query",
    "pagination_param_cursor_extraction_path": "next_cursor",
}
"""Infinity takes at most 5 pages unless its administrator allows more."""


def made() -> dict[str, Any]:
    """Return the dashboard."""
    own = {"product": "${product:doublequote}", "version": "${version:doublequote}"}
    return board.dashboard(
        UID,
        "datacat · Sessions",
        "Find sessions, and look into one: click its id. What it did to the end, with its state at any time, is on its "
        "own page in datacat.",
        [
            *board.fleet_variables(),
            board.words("status", "Status", "Only sessions with these statuses now.", looks.STATUSES),
            board.values("hostname", "Host", "Only sessions of these hosts.", "hostname", own),
            board.typed("session", "Session", "The id of the session that the lower half shows.", NONE),
            board.values(
                "metric", "Metric", "Metrics of that session.", "metric", {"session": "${session}"}, all_=False
            ),
        ],
        [*_many(), *_one()],
    )


def _many() -> list[Any]:
    shown = (
        "id status product version hostname started_at duration_seconds end_reason hangs exceptions errors events "
        "metrics"
    )
    filters = FLEET | {"status": "${status:doublequote}", "hostname": "${hostname:doublequote}"}
    here = looks.link(
        "Look into this session",
        "/d/datacat-sessions?var-session=${__data.fields.id:percentencode}&${__url_time_range}&${datasource:queryparam}"
        "&${product:queryparam}&${version:queryparam}&${status:queryparam}&${hostname:queryparam}",
    )
    return [
        panels.rows(
            "Sessions",
            "The sessions that were there in the range, the newest first: up to 1000. Click an id to see the session "
            "below.",
            (0, 0, 24, 11),
            target("sessions", f"{shown} web_url", filters | {"sort": "-started_at", "limit": "200"}, **PAGES),
            shown, hidden="web_url", overrides={"id": panels.links(here, looks.to_web())},
            widths={"id": 320, "status": 100, "hangs": 80, "exceptions": 100, "errors": 80, "events": 80},
            nothing="No session in this range",
        ),
        panels.history(
            "Status of the newest 20",
            "The status of each of the 20 newest sessions of the filters above, in each bucket the last one.",
            (0, 11, 24, 9),
            target("transitions", "time product session status_code",
                   filters | INTERVAL | {"sample": "interval", "limit_sessions": "20", "max_points": "80"},
                   "timeseries"),
        ),
    ]  # fmt: skip


def _one() -> list[Any]:
    facts = (
        "status product version hostname platform started_at ended_at duration_seconds end_reason end_detail hangs "
        "hang_seconds exceptions"
    )
    return [
        panels.rows(
            "Session $session",
            "The session that was chosen: what it is, and how it ended.",
            (0, 20, 24, 3),
            target("sessions", f"{facts} id web_url", _ONE | {"limit": "1"}),
            facts, hidden="id web_url", overrides={"status": panels.links(looks.to_web())},
            widths={"end_detail": 320}, nothing=_CHOOSE,
        ),
        panels.timeline(
            "Status",
            "How the status of the session changed, and when.",
            (0, 23, 24, 4), target("transitions", "time status", _ONE), _CHOOSE,
        ),
        panels.log(
            "Events",
            "The newest 500 events of the session in the range.",
            (0, 27, 14, 12),
            target("events", {
                "time": "timestamp", "body": "body", "severity": "severity", "id": "id", "name": "name",
                "group": "group", "exception_type": "exception_type", "source": "source",
            }, _ONE | {"order": "desc", "limit": "500"}, "logs"),
            _CHOOSE,
        ),
        panels.series(
            "Events by name",
            "How many events of each name the session logged in each bucket.",
            (14, 27, 10, 6),
            target("events/timeseries", "time name count", _ONE | INTERVAL | BARS | {"by": "name", "top": "8"},
                   "timeseries"),
            "short", named_by="name", bars=True, stacked=StackingMode.NORMAL, calcs=("sum",), low=0, nothing=_CHOOSE,
        ),
        panels.series(
            "Metrics",
            "The mean of the chosen metrics of the session in each bucket.",
            (14, 33, 10, 6),
            target("metrics/timeseries", "time name value",
                   _ONE | INTERVAL | {"name": "${metric:doublequote}", "agg": "avg", "by": "name"}, "timeseries"),
            "short", named_by="name", calcs=("mean", "max"), nothing=_CHOOSE,
        ),
        panels.rows(
            "State",
            "What the state of the session is now, or was at its end, and when each value last changed.",
            (0, 39, 24, 9),
            target("state", "path value type changed_at", {"session": "${session}"}),
            "path value type changed_at", widths={"path": 360, "type": 100, "changed_at": 200}, nothing=_CHOOSE,
        ),
    ]  # fmt: skip
