"""The list of sessions: filters of the API, sorted by a column, in pages, with a histogram of when they started."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple
from urllib.parse import urlencode

from datacat.errors import Deleted, NotFound, WireError
from datacat.server import filters
from datacat.server.principal import check_seen, narrow
from datacat.server.query import spans
from datacat.server.router import Request
from datacat.server.ui.frame import Asker
from datacat.server.ui.words import US, rfc, why
from datacat.store import Head, Page, Query, Store
from datacat.wire import ids
from datacat.wire.records import MAX_T_US
from datacat.wire.routes import END_REASONS, OPEN_STATUSES, STATUS_CODES

ROWS = 50
PARAMETERS = filters.SESSIONS
REASONS = tuple(reason for reasons in END_REASONS.values() for reason in reasons)
STATUSES = tuple(STATUS_CODES)
SPANS = (("-1h", "1 hour"), ("-24h", "24 hours"), ("-7d", "7 days"), ("-30d", "30 days"), ("", "all"))
_DEFAULT_CHART = "-14d"
_IN_CHART = ("product", "version", "status", "hostname", "machine", "environment", "end_reason", "daemon", "has", "q")
"""Conditions that heads alone can tell; the histogram knows no others."""
_MS = 1000


class Column(NamedTuple):
    """A column of the table: its heading, the field to sort by (empty: it cannot be), its class."""

    name: str
    field: str
    kind: str = ""


COLUMNS = (
    Column("Status", "status"),
    Column("Product", "product"),
    Column("Version", "version"),
    Column("Started", "created_at"),
    Column("Ended", "ended_at", "wide-only"),
    Column("Why", "end_reason"),
    Column("Hung for", "hang_seconds", "number"),
    Column("Errors", "", "number"),
    Column("Host", "hostname", "wide-only"),
)


def with_times(request: Request, now_us: int) -> Request:
    """Return the request with its times absolute: a link may say -24h, which stays true."""
    query = dict(request.query)
    for name in ("from", "to"):
        text = request.one(name)
        if text:
            query[name] = [str(spans.time_of(text, now_us))]
    return replace(request, query=query)


def asked(request: Request, now_us: int) -> Query:
    """Return the query that a page's address asks. Raises: Refusal 400."""
    return narrow(filters.sessions(with_times(request, now_us), limit=ROWS), request.principal)


def rows(page: Page, now_us: int) -> list[dict[str, Any]]:
    """Return the rows of the table."""
    return [row(head, now_us) for head in page.heads]


def row(head: Head, now_us: int) -> dict[str, Any]:
    """Return what the table shows of a session."""
    return {
        "id": head.id,
        "status": head.status,
        "product": head.product,
        "version": head.version,
        "created_at": rfc(head.created_at),
        "ended_at": rfc(head.ended_at),
        "seconds": ((head.ended_at or now_us) - head.created_at) / US,
        "why": "" if head.status in OPEN_STATUSES else (head.crash.title if head.crash else why(head)),
        "hang_seconds": head.hang_seconds,
        "hostname": head.hostname or "",
        "errors": head.counts.get("errors", 0),
    }


def link(request: Request, **changes: str) -> str:
    """Return the address of this list with other parameters; an empty value takes one away. Paging starts again."""
    kept = {name: values for name, values in request.query.items() if name != "cursor" and any(values)}
    for name, value in changes.items():
        kept[name.rstrip("_")] = [value]
    pairs = [(name, value) for name, values in kept.items() for value in values if value]
    return "/sessions" + ("?" + urlencode(pairs) if pairs else "")


def headings(request: Request, query: Query) -> list[dict[str, str]]:
    """Return the headings of the table with the links that sort by them."""
    field, descending = query.sort.removeprefix("-"), query.sort.startswith("-")
    found = []
    for column in COLUMNS:
        chosen = column.field == field and column.field != ""
        # Texts begin with A, times and lengths with the newest and the longest.
        first = "" if column.field in ("product", "version", "hostname", "status", "end_reason") else "-"
        sort = ("" if descending else "-") + column.field if chosen else first + column.field
        found.append(
            {
                "name": column.name,
                "kind": column.kind,
                "href": link(request, sort=sort) if column.field else "",
                "sorted": ("descending" if descending else "ascending") if chosen else "",
            }
        )
    return found


def chips(request: Request) -> list[dict[str, str]]:
    """Return the conditions that the form has no field for, each with the link that takes it away."""
    shown = ("environment", "end_reason", "hostname", "machine", "daemon", "state", "state_ever", "event", "has", "at")
    return [
        {"name": name.replace("_", " "), "value": value, "href": link(request, **{name: ""})}
        for name in shown
        for value in request.query.get(name, ())
        if value
    ]


def chart(asker: Asker, request: Request) -> dict[str, Any]:
    """Return the histogram: columns of times in s, of started, crashed and hung sessions, and what it leaves out."""
    chosen: Mapping[str, Any] = {name: request.query[name] for name in _IN_CHART if any(request.query.get(name, ()))}
    result = asker.result(
        "sessions/timeseries",
        {
            **chosen,
            "from": request.one("from") or _DEFAULT_CHART,
            "to": request.one("to"),
            "measures": "started,crashed,hung",
            "max_points": 90,
        },
    )
    series = [[point["time"] / _MS for point in result.rows]]
    series += [[point[name] for point in result.rows] for name in ("started", "crashed", "hung")]
    left_out = [name for name in ("state", "state_ever", "event") if any(request.query.get(name, ()))]
    return {"series": series, "interval_s": result.meta["interval_ms"] / _MS, "left_out": left_out}


def live_link(request: Request, newest_us: int, shown: list[str]) -> str:
    """Return the address that tells how these sessions go on, and what is newer than newest_us."""
    return link(request, newest=str(newest_us), shown=",".join(shown)).replace("/sessions?", "/sessions/live?", 1)


def fresh(store: Store, request: Request, now_us: int) -> Page:
    """Return sessions that would be in the list and began after the newest one that is shown."""
    query = asked(request, now_us)
    newest_us = filters.count_of(request, "newest", now_us, 0, MAX_T_US)
    since = max(newest_us + 1, query.from_us or 0)
    return store.heads(replace(query, from_us=since, at="start", sort="-created_at", cursor="", limit=99, budget_s=0.2))


def shown(store: Store, request: Request, now_us: int) -> list[dict[str, Any]]:
    """Return the rows of the sessions that the page shows, as they are now."""
    found = []
    for session_id in filters.items(request, "shown")[:ROWS]:
        try:
            head = check_seen(request.principal, store.head(ids.session_id(session_id)))
        except (NotFound, Deleted, WireError):
            continue
        found.append(row(head, now_us))
    return found
