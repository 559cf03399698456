"""Crashes and hangs in groups: what fails, since which version, on how many machines, and what they have in common."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from datacat.errors import Deleted, NotFound
from datacat.server.query.crashes import Failure, listed
from datacat.server.query.ordering import newest_version
from datacat.server.query.spans import US, Span
from datacat.server.ui import session
from datacat.server.ui.frame import Asker
from datacat.store import Store
from datacat.wire.times import rfc3339

KINDS = {"crashes": "crashes", "hangs": "hangs/groups"}
"""The two pages and the queries that they show."""
SPANS = (("24h", "24 hours"), ("7d", "7 days"), ("30d", "30 days"), ("90d", "90 days"))
DEFAULT_SPAN = "30d"
PARTS, WEEKS = 30, 13
"""Bars of a chart in the list, and on the page of one group, which shows 91 days."""
SORTS = (("-count", "most often"), ("-last_seen_at", "last seen"), ("-first_seen_at", "newest"))
GROUPS = 60
SESSIONS = 20
HOSTS = 10
_WEEK_US = 7 * 86_400 * US
SUSPECTS = 12
SUSPECT_SPAN = "90d"


def groups(asker: Asker, kind: str, span: str, sort: str, product: str) -> list[dict[str, Any]]:
    """Return the groups of a span, each with a small chart of when it happened."""
    asked = {"from": f"-{span}", "sort": sort, "product": product, "limit": GROUPS}
    question = asker.read(KINDS[kind], asked)
    found, failed = listed(question, asker.ground, hangs=kind == "hangs")
    return [{**row, "chart": chart(failed[row["signature"]], question.span, PARTS)} for row in found]


def chart(failed: Sequence[Failure], span: Span, parts: int) -> list[tuple[int, int]]:
    """Return (how often, how often) for each part of the span: every bar of the small chart is one of failures."""
    start, stop = span
    counts = Counter((one.t - start) * parts // (stop - start) for one in failed if start <= one.t < stop)
    return [(counts[part], counts[part]) for part in range(parts)]


def group(asker: Asker, store: Store, kind: str, signature: str) -> dict[str, Any] | None:
    """Return one group with its newest sessions and an example's stack; None when there is no such group."""
    question = {"from": "0", "signature": signature}
    found, members = listed(asker.read(KINDS[kind], question), asker.ground, hangs=kind == "hangs")
    if not found:
        return None
    row, failed = found[0], members[found[0]["signature"]]
    last = {one.session: one for one in failed}  # of several hangs of a session the newest one
    heads = [head for head in map(store.fleet.glance, last) if head is not None]
    newest = sorted(heads, key=lambda head: -head.created_at)[:SESSIONS]
    of_versions: dict[str, list[int]] = {}
    for one in last.values():
        of_versions.setdefault(one.version, []).append(one.t)
    return {
        **row,
        "chart": chart(failed, Span(asker.now_us - WEEKS * _WEEK_US, asker.now_us + 1), WEEKS),
        "newest": [_session(head, asker.now_us) for head in newest],
        "by_version": [
            {
                "version": version,
                "sessions": len(of_versions[version]),
                "last_seen_at": rfc3339(max(of_versions[version])),
            }
            for version in newest_version(of_versions)
        ],
        "hosts": Counter(head.hostname or "unnamed" for head in heads).most_common(HOSTS),
        "stack": _stack(store, row["example_session"], kind),
    }


def _session(head: Any, now_us: int) -> dict[str, Any]:
    lasted_us = max(0, (head.ended_at or now_us) - head.created_at)
    return {
        "id": head.id,
        "status": head.status,
        "version": head.version,
        "hostname": head.hostname,
        "started_at": rfc3339(head.created_at),
        "duration_seconds": lasted_us / US,
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
