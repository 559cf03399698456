"""The pages for people: a list of sessions and one session. Plain HTML without scripts; every value is escaped."""

from collections.abc import Iterator
from typing import Any

import jinja2
import msgspec

from datacat import __version__
from datacat.errors import NotFound, WireError
from datacat.host.process import signal_name
from datacat.server import filters, views
from datacat.server.principal import check_seen, narrow
from datacat.server.router import Answer, Request, Route
from datacat.store import Head, Query, Store
from datacat.store.fold import public
from datacat.wire import ids
from datacat.wire.routes import STATUS_CODES

PAGE = 50
_SHOWN = views.Wanted(events=50, metrics=50, history=20)
_HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "same-origin",
}
_STYLE_HEADERS = {"Content-Type": "text/css; charset=utf-8", "Cache-Control": "max-age=300"}


class Pages:
    """The handlers. Any thread."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._templates = jinja2.Environment(
            loader=jinja2.PackageLoader("datacat.server"), autoescape=True, undefined=jinja2.StrictUndefined
        )
        self._templates.filters["moment"] = _moment
        self._templates.filters["compact"] = _compact
        self._templates.globals["release"] = __version__
        self._style = self._templates.get_template("style.css").render().encode()

    def routes(self) -> list[Route]:
        """Return the table of routes."""
        return [
            Route("GET", "/", self.index, "read", ("q", "status", "cursor")),
            Route("GET", "/sessions/{id}", self.session, "read"),
            Route("GET", "/style.css", self.style, None),
        ]

    def index(self, request: Request) -> Answer:
        """GET /: sessions, newest first."""
        status = tuple(filters.word("status", item, tuple(STATUS_CODES)) for item in filters.items(request, "status"))
        query = Query(q=request.one("q"), status=status, limit=PAGE, cursor=request.one("cursor"))
        page = self._store.heads(narrow(query, request.principal))
        return self._page(
            "index.html",
            sessions=[_told(head) for head in page.heads],
            q=query.q,
            status=status[0] if status else "",
            statuses=list(STATUS_CODES),
            next_cursor=page.next_cursor,
            stats=self._store.stats(),
        )

    def session(self, request: Request) -> Answer:
        """GET /sessions/{id}: what it was, how it ended, its last events."""
        try:
            session_id = ids.session_id(request.path["id"])
        except WireError as error:
            raise NotFound(request.path["id"][:80]) from error
        head = check_seen(request.principal, self._store.head(session_id))
        told = views.whole(self._store, head, _SHOWN)
        told["events"].reverse()
        told["metrics"].reverse()
        return self._page(
            "session.html",
            session=told,
            why=_why(head),
            leaves=list(_leaves(told["state"])),
            transitions=views.transitions(self._store, session_id),
        )

    def style(self, _request: Request) -> Answer:
        """GET /style.css."""
        return Answer(200, self._style, _STYLE_HEADERS)

    def _page(self, template: str, **values: Any) -> Answer:
        return Answer(200, self._templates.get_template(template).render(**values).encode(), _HEADERS)


def _told(head: Head) -> dict[str, Any]:
    return {**public(head), "why": _why(head)}


def _why(head: Head) -> str:
    """Return why the session ended in a few words."""
    words = [(head.end_reason or "").replace("_", " ")]
    if head.exit_signal:
        words.append(signal_name(head.exit_signal))
    elif head.exit_code:
        words.append(f"exit code {head.exit_code}")
    return ", ".join(filter(None, words))


def _moment(text: str | None) -> str:
    """Return an RFC 3339 time as a person reads it: date and time to the second."""
    return text[:19].replace("T", " ") if text else ""


def _compact(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield (dotted path, value) of every member of a state that is no object."""
    if isinstance(value, dict) and value:
        for name, item in value.items():
            yield from _leaves(item, f"{path}.{name}" if path else str(name))
    else:
        yield path, _compact(value)
