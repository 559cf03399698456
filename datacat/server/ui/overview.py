"""The overview: what is open, hung and crashed now, and which release of each product is hurting."""

from collections.abc import Sequence
from typing import Any

from datacat.server.ui.frame import Asker
from datacat.server.ui.words import points

SPANS = (("24h", "24 hours"), ("7d", "7 days"), ("14d", "14 days"), ("30d", "30 days"))
DEFAULT_SPAN = "14d"
_BUCKETS = {"24h": "1h", "7d": "6h", "14d": "12h", "30d": "1d"}
_NOW = ("open", "hung_now", "suspended", "crashed", "started", "machines", "crash_free_rate", "hang_free_rate",
        "unknown_share")  # fmt: skip
MAX_PRODUCTS = 24
"""Cards on the page; the releases page has all."""


def now(asker: Asker) -> dict[str, Any]:
    """Return the numbers of this moment: the open sessions by status, and the crashes of the last 24 hours."""
    return asker.health(_NOW, from_="-24h")[0]


def cards(asker: Asker, span: str) -> list[dict[str, Any]]:
    """Return a card for each product, the one with the most sessions first."""
    start = f"-{span}"
    products = asker.health(("started", "open", "unknown_share"), from_=start, by="product", sort="-started",
                            limit=MAX_PRODUCTS)  # fmt: skip
    names = [row["product"] for row in products]
    if not names:
        return []
    only = [name.replace("\\", "\\\\").replace(",", "\\,") for name in names]
    releases = asker.health(("started", "crash_free_rate", "hang_free_rate", "first_seen_at"), from_=start,
                            by="product,version", product=only, limit=1000)  # fmt: skip
    series = asker.ask("sessions/timeseries", from_=start, interval=_BUCKETS[span], by="product", product=only,
                       measures="started,crashed", top=MAX_PRODUCTS)  # fmt: skip
    return [
        {
            "product": row["product"],
            "started": row["started"],
            "open": row["open"],
            "unknown_share": row["unknown_share"],
            "chart": [(point["started"], point["crashed"]) for point in series if point["product"] == row["product"]],
            **newest([release for release in releases if release["product"] == row["product"]]),
        }
        for row in products
    ]


def newest(releases: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the newest release with sessions in the span, compared with the one that was new before it."""
    rows = sorted((row for row in releases if row["started"]), key=lambda row: row["first_seen_at"] or "", reverse=True)
    if not rows:
        return {"version": None, "before": None}
    last, before = rows[0], rows[1] if len(rows) > 1 else None
    rates = {}
    for name in ("crash_free_rate", "hang_free_rate"):
        text, word = points(last[name], before[name] if before else None)
        rates[name] = {"value": last[name], "change": text, "word": word}
    return {
        "version": last["version"],
        "sessions": last["started"],
        "before": before["version"] if before else None,
        **rates,
    }
