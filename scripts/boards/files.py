"""All files that are made: name below packaging/grafana -> text."""

from typing import Any

from boards import alerts, board, fleet, metrics, service, sessions, stability

BOARDS = (fleet, stability, sessions, metrics, service)


def boards() -> list[dict[str, Any]]:
    """Return the dashboards."""
    return [module.made() for module in BOARDS]


def made() -> dict[str, str]:
    """Return the text of every file by its name."""
    some = boards()
    ids = {(one["uid"], panel["title"]): panel["id"] for one in some for panel in one["panels"]}
    files = {f"dashboards/{one['uid']}.json": board.text_of(one) for one in some}
    return files | {"provisioning/alerting/datacat.yaml": alerts.made(ids)}
