"""Crashes and hangs in groups: what fails, since which version, on how many machines, and what they have in common."""

from collections.abc import Mapping
from typing import Any

from datacat.errors import Deleted, NotFound
from datacat.server.query.crashes import over_time
from datacat.server.ui import session
from datacat.server.ui.frame import Asker
from datacat.store import Store

KINDS = {"crashes": "crashes", "hangs": "hangs/groups"}
"""The two pages and the queries that they show."""
SPANS = (("24h", "24 hours"), ("7d", "7 days"), ("30d", "30 days"), ("90d", "90 days"))
DEFAULT_SPAN = "30d"
PARTS, WEEKS = 30, 13
"""Bars of a chart in the list, and on the page of one group, which shows 91 days."""
SORTS = (("-count", "most often"), ("-last_seen_at", "last seen"), ("-first_seen_at", "newest"))
GROUPS = 60
SESSIONS = 20
SUSPECTS = 12
SUSPECT_SPAN = "90d"


def groups(asker: Asker, kind: str, span: str, sort: str, product: str) -> list[dict[str, Any]]:
    """Return the groups of a span, each with a small chart of when it happened."""
    asked = {"from": f"-{span}", "sort": sort, "product": product, "limit": GROUPS}
    found = asker.result(KINDS[kind], asked).rows
    charts = chart(asker, kind, asked, PARTS)
    return [{**row, "chart": charts[row["signature"]]} for row in found]


def chart(asker: Asker, kind: str, asked: Mapping[str, Any], parts: int) -> dict[str, list[tuple[int, int]]]:
    """Return for each group (how often, how often) by part of the span: every bar of its chart is one of failures."""
    counts = over_time(asker.read(KINDS[kind], asked), asker.ground, hangs=kind == "hangs", parts=parts)
    return {signature: [(count, count) for count in times] for signature, times in counts.items()}


def group(asker: Asker, store: Store, kind: str, signature: str) -> dict[str, Any] | None:
    """Return one group with its newest sessions and an example's stack; None when there is no such group."""
    asked = {"from_": "0", "signature": signature}
    found = asker.ask(KINDS[kind], limit=1, **asked)
    if not found:
        return None
    row = found[0]
    sessions = asker.ask("sessions", sort="-started_at", limit=SESSIONS, **asked)
    versions = asker.ask("summary", by="version", sort="-first_seen_at", limit=50, **asked)
    return {
        **row,
        "chart": chart(asker, kind, {"from": "-91d", "signature": signature}, WEEKS).get(row["signature"], []),
        "newest": sessions,
        "by_version": versions,
        "hosts": asker.ask("values/{dim}", dim="hostname", limit=10, **asked),
        "stack": _stack(store, row["example_session"], kind),
    }


def suspects(asker: Asker, signature: str) -> list[dict[str, Any]]:
    """Return what sessions of the group have in common more often than sessions that went well."""
    return asker.ask("suspects", from_=f"-{SUSPECT_SPAN}", signature=signature, limit=SUSPECTS)


def _stack(store: Store, session_id: str, kind: str) -> dict[str, Any] | None:
    """Return the stack of the group's example, when it has one."""
    try:
        found = session.stacks(store, store.head(session_id))
    except (NotFound, Deleted):
        return None
    wanted = ("hang",) if kind == "hangs" else ("crash", "exception")
    return next((stack for stack in found if stack["kind"] in wanted), None)
