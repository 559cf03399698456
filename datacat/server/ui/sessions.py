"""The list of sessions: filters of the query layer, sorted by a column, in pages, with a histogram of their starts."""

from typing import Any, NamedTuple
from urllib.parse import urlencode

from datacat.server import filters
from datacat.server.principal import may_see
from datacat.server.query.shape import Result
from datacat.server.router import Request
from datacat.server.ui.frame import Asker, parameters_of
from datacat.server.ui.words import US, reason
from datacat.wire import times
from datacat.wire.records import MAX_T_US
from datacat.wire.routes import OPEN_STATUSES, STATUS_CODES

ROWS = 50
PARAMETERS = tuple(name for name in parameters_of("sessions") if name not in ("format", "limit"))
STATUSES = tuple(STATUS_CODES)
SPANS = (("-1h", "1 hour"), ("-24h", "24 hours"), ("-7d", "7 days"), ("-30d", "30 days"), ("", "all"))
DEFAULT_SORT = "-started_at"
_TEXTS = ("status", "product", "version", "crash_title", "hostname")
_DEFAULT_CHART = "-14d"
_NOT_IN_CHART = ("state", "state_ever", "event")
"""Conditions that need the records of a session; the histogram is made from heads."""
_MS = 1000
_AHEAD_US = 24 * 3600 * 1_000_000


class Column(NamedTuple):
    """A column of the table: its heading, the field to sort by, its class."""

    name: str
    field: str
    kind: str = ""


COLUMNS = (
    Column("Status", "status"),
    Column("Product", "product"),
    Column("Version", "version"),
    Column("Started", "started_at"),
    Column("Lasted", "duration_seconds", "number"),
    Column("Why", "crash_title"),
    Column("Hung for", "hang_seconds", "number"),
    Column("Events", "events", "number wide-only"),
    Column("Errors", "errors", "number"),
    Column("Host", "hostname", "wide-only"),
)


def found(asker: Asker, request: Request) -> Result:
    """Return the sessions of this page. Raises: Refusal 400."""
    return asker.result(
        "sessions", _asked(asker, request) | {"sort": request.one("sort") or DEFAULT_SORT, "limit": ROWS}
    )


def _asked(asker: Asker, request: Request) -> dict[str, Any]:
    """Return the conditions of the page; without a span it is of all times, also of clocks that are ahead of ours."""
    chosen = {name: values for name, values in request.query.items() if name in PARAMETERS and any(values)}
    return {"from": "0", "to": str(asker.now_us + _AHEAD_US), "at": "start", **chosen}


def shown_row(row: dict[str, Any]) -> dict[str, Any]:
    """Return what the table shows of a session."""
    is_open = row["status"] in OPEN_STATUSES
    why = "" if is_open else row["crash_title"] or reason(row["end_reason"], row["end_detail"])
    return {**row, "open": is_open, "why": why}


def link(request: Request, **changes: str) -> str:
    """Return the address of this list with other parameters; an empty value takes one away. Paging starts again."""
    kept = {name: values for name, values in request.query.items() if name != "cursor" and any(values)}
    for name, value in changes.items():
        kept[name.rstrip("_")] = [value]
    pairs = [(name, value) for name, values in kept.items() for value in values if value]
    return "/sessions" + ("?" + urlencode(pairs) if pairs else "")


def headings(request: Request) -> list[dict[str, str]]:
    """Return the headings of the table with the links that sort by them."""
    sort = request.one("sort") or DEFAULT_SORT
    field, descending = sort.removeprefix("-"), sort.startswith("-")
    rows = []
    for column in COLUMNS:
        chosen = column.field == field
        # Texts begin with A, times and numbers with the newest and the biggest.
        first = "" if column.field in _TEXTS else "-"
        sign = ("" if descending else "-") if chosen else first
        rows.append(
            {
                "name": column.name,
                "kind": column.kind,
                "href": link(request, sort=sign + column.field),
                "sorted": ("descending" if descending else "ascending") if chosen else "",
            }
        )
    return rows


def chips(request: Request) -> list[dict[str, str]]:
    """Return the conditions that the form has no field for, each with the link that takes it away."""
    shown = ("environment", "end_reason", "hostname", "machine", "daemon", "platform", "signature",
             "state", "state_ever", "event", "has", "at")  # fmt: skip
    return [
        {"name": name.replace("_", " "), "value": value, "href": link(request, **{name: ""})}
        for name in shown
        for value in request.query.get(name, ())
        if value
    ]


def chart(asker: Asker, request: Request) -> dict[str, Any]:
    """Return the histogram: columns of times in s, of started, crashed and hung sessions, and what it leaves out."""
    known = parameters_of("sessions/timeseries")
    chosen = {name: values for name, values in request.query.items() if name in known and any(values)}
    result = asker.result(
        "sessions/timeseries",
        {"from": _DEFAULT_CHART, **chosen, "measures": "started,crashed,hung", "max_points": 90},
    )
    series = [[point["time"] / _MS for point in result.rows]]
    series += [[point[name] for point in result.rows] for name in ("started", "crashed", "hung")]
    left_out = [name for name in _NOT_IN_CHART if any(request.query.get(name, ()))]
    return {"series": series, "interval_s": result.meta["interval_ms"] / _MS, "left_out": left_out}


def live_link(request: Request, rows: list[dict[str, Any]]) -> str:
    """Return the address that tells how these sessions go on, and what began after the newest of them."""
    newest_us = max((times.to_us(row["started_at"]) for row in rows), default=0)
    shown = ",".join(row["id"] for row in rows)
    return link(request, newest=str(newest_us), shown=shown).replace("/sessions?", "/sessions/live?", 1)


def fresh(asker: Asker, request: Request) -> Result:
    """Return sessions that would be in the list and began after the newest one that is shown."""
    newest_us = filters.count_of(request, "newest", asker.now_us, 0, MAX_T_US)
    asked = _asked(asker, request) | {"at": "start", "from": str(newest_us + 1), "cursor": "", "sort": DEFAULT_SORT}
    return asker.result("sessions", asked | {"limit": 99})


def going_on(asker: Asker, request: Request) -> list[dict[str, Any]]:
    """Return the rows of the sessions that the page shows, as they are now."""
    rows = []
    for session_id in filters.items(request, "shown")[:ROWS]:
        seen = asker.ground.store.fleet.glance(session_id)
        if seen is None or not may_see(request.principal, seen.product):
            continue
        title = seen.crash.title if seen.crash else None
        row = {"id": seen.id, "status": seen.status, "crash_title": title, "end_reason": seen.end_reason,
               "end_detail": seen.end_detail,
               "duration_seconds": max(0, (seen.ended_at or asker.now_us) - seen.created_at) / US}  # fmt: skip
        rows.append(shown_row(row))
    return rows
