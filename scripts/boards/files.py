"""All files that are made, by their name in the repository."""

from pathlib import Path
from typing import Any

from boards import alerts, board, fleet, metrics, service, sessions, stability

ROOT = Path(__file__).parents[2]
FOLDER = "packaging/grafana"
PAGE = "docs/grafana.md"
BOARDS = (fleet, stability, sessions, metrics, service)


BEGIN, END = "<!-- panels: made by scripts/grafana_dashboards -->", "<!-- end of panels -->"
"""Around the chapter in docs/grafana.md."""


def boards() -> list[dict[str, Any]]:
    """Return the dashboards."""
    return [module.made() for module in BOARDS]


def made() -> dict[str, str]:
    """Return the text of every file by its name."""
    some = boards()
    ids = {(one["uid"], panel["title"]): panel["id"] for one in some for panel in one["panels"]}
    files = {f"{FOLDER}/dashboards/{one['uid']}.json": board.text_of(one) for one in some}
    files[f"{FOLDER}/provisioning/alerting/datacat.yaml"] = alerts.made(ids)
    return files | {PAGE: documented((ROOT / PAGE).read_text(encoding="utf-8"))}


def documented(page: str) -> str:
    """Return docs/grafana.md with what each panel answers."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    parts = []
    for one in boards():
        lines = [f"| {panel['title']} | {panel['description']} |" for panel in one["panels"]]
        parts.append(
            f"### {one['title'].partition(' · ')[2]}\n\n`{one['uid']}`. {one['description']}\n\n"
            "| panel | what it answers |\n|---|---|\n" + "\n".join(lines)
        )
    return f"{before}{BEGIN}\n\n" + "\n\n".join(parts) + f"\n\n{END}{after}"
