"""Alert rules of Grafana: what is asked, from which value on it is an alert, and what one is told."""

from typing import Any

import yaml
from boards.targets import SPAN, target

SOURCE = "datacat"
"""The uid of the data source: alert rules know no variables."""
FOLDER = "datacat"
_HOUR_S = 3600
_HEAD = """\
# Alert rules about what datacat knows; Grafana reads them when it starts. Made by scripts/grafana_dashboards.
# To change a threshold, change the params of an evaluator here. Who is told is decided by Grafana's notification
# policies: the labels severity and product are there to route by. Each rule is explained in docs/grafana.md.
"""


def made(panel_ids: dict[tuple[str, str], int]) -> str:
    """Return the file. panel_ids are the ids of panels by uid of the dashboard and title."""

    def rule(
        uid: str,
        title: str,
        asked: dict[str, Any],
        range_s: int,
        evaluator: tuple[str, float],
        lasting: str,
        severity: str,
        panel: tuple[str, str],
        summary: str,
        description: str,
        *,
        on_error: str = "Error",
    ) -> dict[str, Any]:
        return {
            "uid": uid,
            "title": title,
            "condition": "B",
            "for": lasting,
            # Null is what nobody can know: a rate without sessions. No rows: nothing of the kind happened.
            "noDataState": "OK",
            "execErrState": on_error,
            "labels": {"severity": severity, "source": "datacat"},
            "annotations": {
                "summary": summary,
                "description": description,
                "runbook": f"docs/grafana.md#{title.lower().replace(' ', '-')}",
                "__dashboardUid__": panel[0],
                "__panelId__": str(panel_ids[panel]),
            },
            "data": [
                {
                    "refId": "A",
                    "datasourceUid": SOURCE,
                    "relativeTimeRange": {"from": range_s, "to": 0},
                    "model": asked,
                },
                {"refId": "B", "datasourceUid": "__expr__", "model": _threshold(*evaluator)},
            ],
        }

    rules = [
        rule(
            "datacat-crash-free", "Crash-free rate is low",
            _asked("summary", "product crash_free_rate", {"by": "product", "zero": "1", "min_sessions": "20"}),
            _HOUR_S, ("lt", 0.98), "5m", "critical", ("datacat-fleet", "Crash-free sessions"),
            "{{ $labels.product }}: only {{ humanizePercentage $values.A.Value }} of the sessions did not crash",
            "Of the sessions that started in the last hour, at least 20, fewer than 98 % have not crashed.",
        ),
        rule(
            "datacat-hang-rate", "Hang rate is high",
            _asked("summary", "product hang_rate", {"by": "product", "zero": "1"}),
            6 * _HOUR_S, ("gt", 50), "10m", "warning", ("datacat-stability", "Hangs per 1000 hours"),
            '{{ $labels.product }}: {{ printf "%.0f" $values.A.Value }} hangs in 1000 hours',
            "In the last 6 hours there were more than 50 hangs for 1000 hours of runtime: one in 20 hours.",
        ),
        rule(
            "datacat-hung-now", "Many sessions hang",
            _asked("summary", "product hung_now", {"by": "product", "zero": "1"}),
            24 * _HOUR_S, ("gt", 5), "10m", "critical", ("datacat-stability", "Hung right now"),
            '{{ $labels.product }}: {{ printf "%.0f" $values.A.Value }} sessions hang',
            "For 10 minutes more than 5 sessions have been hanging: something that they all wait for?",
        ),
        rule(
            "datacat-no-ingest", "Nothing comes in",
            _asked("service/summary", "ingest_age_seconds", {}),
            600, ("gt", 600), "1m", "critical", ("datacat-service", "Newest data"),
            "datacat has got nothing for {{ humanizeDuration $values.A.Value }}",
            "For 10 minutes no daemon and no program has sent anything, or datacat itself does not answer.",
            on_error="Alerting",
        ),
        rule(
            "datacat-new-crash", "New crash",
            _asked("crashes", "product title signature count", {"new": "1", "sort": "-first_seen_at", "limit": "50"}),
            _HOUR_S, ("gt", 0), "0s", "info", ("datacat-fleet", "Newest crashes"),
            "{{ $labels.product }}: {{ $labels.title }} was never seen before",
            'It happened {{ printf "%.0f" $values.A.Value }} times in the last hour. Group: {{ $labels.signature }}',
        ),
    ]  # fmt: skip
    group = {"orgId": 1, "name": "datacat", "folder": FOLDER, "interval": "1m", "rules": rules}
    text = yaml.safe_dump({"apiVersion": 1, "groups": [group]}, sort_keys=False, width=120, allow_unicode=True)
    return _HEAD + text


def _asked(path: str, columns: str, params: dict[str, str]) -> dict[str, Any]:
    """Return the query: one number in each row, all other columns are texts and become labels."""
    return target(path, columns, SPAN | params, datasource=SOURCE).data


def _threshold(kind: str, limit: float) -> dict[str, Any]:
    return {
        "refId": "B",
        "datasource": {"type": "__expr__", "uid": "__expr__"},
        "type": "threshold",
        "expression": "A",
        "conditions": [{"evaluator": {"type": kind, "params": [limit]}}],
    }
