"""Versions of a product side by side: adoption, crash-free, hang-free, durations, metrics; two of them compared."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

from datacat.server.ui.frame import Asker
from datacat.server.ui.words import points

SPANS = (("7d", "7 days"), ("30d", "30 days"), ("90d", "90 days"))
DEFAULT_SPAN = "30d"
_BUCKETS = {"7d": "6h", "30d": "1d", "90d": "7d"}
VERSIONS = 40
CHART_VERSIONS = 6
METRICS = 12
COMPARED = (
    ("crash-free sessions", "crash_free_rate", "percent", True),
    ("crash-free machines", "crash_free_machines", "percent", True),
    ("hang-free sessions", "hang_free_rate", "percent", True),
    ("without abnormal end", "abnormal_free_rate", "percent", True),
    ("ended unseen", "unknown_share", "percent", False),
    ("hangs per 1000 h", "hang_rate", "count", False),
    ("time to recover, median", "ttr_p50", "duration", False),
    ("runtime between crashes", "mtbf_seconds", "duration", True),
    ("duration, median", "duration_p50", "duration", None),
    ("sessions", "started", "count", None),
    ("machines", "machines", "count", None),
    ("exceptions", "exceptions", "count", False),
)
"""Rows of the comparison: what it is called, the column, how it is written, whether more is better (None: neither)."""


def products(asker: Asker) -> list[str]:
    """Return the products that there are, the one with the most sessions first."""
    return [row["value"] for row in asker.ask("values/{dim}", dim="product", from_="0", limit=200)]


def versions(asker: Asker, product: str, span: str) -> list[dict[str, Any]]:
    """Return a row for each version that was used in the span, the newest first."""
    return asker.ask("summary", from_=f"-{span}", by="version", product=[literal(product)], sort="-first_seen_at",
                     limit=VERSIONS)  # fmt: skip


def adoption(asker: Asker, product: str, span: str) -> dict[str, Any]:
    """Return the share of the started sessions of each version over time: {versions, times in s, shares}."""
    rows = asker.ask("sessions/timeseries", from_=f"-{span}", interval=_BUCKETS[span], by="version",
                     product=[literal(product)], measures="started", top=CHART_VERSIONS)  # fmt: skip
    names = list(dict.fromkeys(row["version"] for row in rows))
    times = sorted({row["time"] for row in rows})
    started = {(row["time"], row["version"]): row["started"] for row in rows}
    columns = []
    for name in names:
        total = [sum(started.get((time, other), 0) for other in names) for time in times]
        columns.append([started.get((time, name), 0) / whole if whole else 0
                        for time, whole in zip(times, total, strict=True)])  # fmt: skip
    return {"versions": names, "series": [[time / 1000 for time in times], *columns]}


def compare(rows: Sequence[dict[str, Any]], chosen: Sequence[str]) -> list[dict[str, Any]]:
    """Return the rows of the comparison of two versions; empty unless both are there."""
    found = {row["version"]: row for row in rows}
    if len(chosen) != 2 or any(version not in found for version in chosen):
        return []
    old, new = found[chosen[0]], found[chosen[1]]
    table = []
    for name, column, form, more_is_better in COMPARED:
        change, word = _change(old[column], new[column], form, more_is_better)
        table.append(
            {"name": name, "form": form, "old": old[column], "new": new[column], "change": change, "word": word}
        )
    return table


def metrics_link(product: str, span: str, chosen: Sequence[str]) -> str:
    """Return the address of the part with the metrics of two versions."""
    return "/releases/metrics?" + urlencode({"product": product, "span": span, "compare": list(chosen)}, doseq=True)


def metrics(asker: Asker, product: str, span: str, chosen: Sequence[str]) -> list[dict[str, Any]]:
    """Return the metrics of two versions: name, unit, and average and 95 % quantile of each."""
    rows = asker.ask("metrics", from_=f"-{span}", product=[literal(product)], limit=METRICS)
    names = [row["name"] for row in rows]
    if not names or len(chosen) != 2:
        return []
    told = asker.ask("metrics/summary", from_=f"-{span}", name=[literal(name) for name in names], by="name,version",
                     product=[literal(product)], version=[literal(version) for version in chosen], agg="avg,p95",
                     top=50)  # fmt: skip
    cells = {(row["name"], row["version"]): row for row in told}
    return [
        {"name": name, "unit": next((row["unit"] for row in told if row["name"] == name), None),
         "old": cells.get((name, chosen[0])), "new": cells.get((name, chosen[1]))}
        for name in names
    ]  # fmt: skip


def _change(old: float | None, new: float | None, form: str, more_is_better: bool | None) -> tuple[str, str]:
    if old is None or new is None or old == new:
        return "", "same"
    if form == "percent":
        text, word = points(new, old)
    elif not old:
        return "", "same"
    else:
        text, word = f"{(new / old - 1) * 100:+.0f} %".replace("-", "−"), "better" if new > old else "worse"
    if more_is_better is None or word == "same":
        return text, "same"
    return text, word if more_is_better else {"better": "worse", "worse": "better"}[word]


def literal(value: str) -> str:
    r"""Return a value as one item of a filter's list, whatever is in it."""
    return value.replace("\\", "\\\\").replace(",", "\\,")
