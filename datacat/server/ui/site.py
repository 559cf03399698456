"""The routes of the web UI: each page asks the query layer and fills in its template."""

from collections.abc import Callable
from typing import Any

from datacat.errors import NotFound, WireError
from datacat.server import filters, views
from datacat.server.principal import check_seen
from datacat.server.problems import Refusal
from datacat.server.query.ground import Ground
from datacat.server.router import Answer, Request, Route, as_json
from datacat.server.ui import overview, session, sessions
from datacat.server.ui.assets import Assets
from datacat.server.ui.frame import Templates, asker
from datacat.server.ui.words import US, sentence
from datacat.store import Head, RecordQuery
from datacat.wire import ids
from datacat.wire.records import LEVELS, MAX_T_US
from datacat.wire.routes import OPEN_STATUSES

NEWEST_GROUPS = 8


class Site:
    """The handlers. Any thread."""

    def __init__(self, ground: Ground, clock_us: Callable[[], int]) -> None:
        self._ground = ground
        self._clock_us = clock_us
        self._assets = Assets()
        self._templates = Templates(self._assets)

    def routes(self) -> list[Route]:
        """Return the table of routes."""
        return [
            *self._assets.routes(),
            Route("GET", "/", self.overview, "read", ("span",)),
            Route("GET", "/overview/now", self.overview_now, "read"),
            Route("GET", "/sessions", self.sessions, "read", sessions.PARAMETERS),
            Route("GET", "/sessions/live", self.sessions_live, "read", (*sessions.PARAMETERS, "newest", "shown")),
            Route("GET", "/sessions/{id}", self.session, "read", ("at", "from", "to")),
            Route("GET", "/sessions/{id}/headline", self.headline, "read"),
            Route("GET", "/sessions/{id}/timeline", self.timeline, "read"),
            Route("GET", "/sessions/{id}/moment", self.moment, "read", ("at", "since")),
            Route("GET", "/sessions/{id}/event", self.event, "read", ("at", "name")),
        ]

    def overview(self, request: Request) -> Answer:
        """GET /: the page to leave on a screen."""
        asks = asker(self._ground, request, self._clock_us)
        span = filters.word("span", request.one("span", overview.DEFAULT_SPAN), tuple(dict(overview.SPANS)))
        return self._templates.page(
            "overview.html", "/", now=overview.now(asks), cards=overview.cards(asks, span), groups=[],
            spans=overview.SPANS, span=span,
        )  # fmt: skip

    def overview_now(self, request: Request) -> Answer:
        """GET /overview/now: the numbers of this moment."""
        return self._templates.part("overview_now.html", now=overview.now(asker(self._ground, request, self._clock_us)))

    def sessions(self, request: Request) -> Answer:
        """GET /sessions: the list."""
        asks = asker(self._ground, request, self._clock_us)
        query = sessions.asked(request, asks.now_us)
        page = self._ground.store.heads(query)
        rows = sessions.rows(page, asks.now_us)
        chart = sessions.chart(asks, request)
        shown = {name: ",".join(filters.items(request, name)) for name in ("product", "version", "status")}
        hidden = [
            (name, value)
            for name, values in request.query.items()
            if name not in ("q", "product", "version", "status", "cursor")
            for value in values
            if value
        ]
        newest = max((head.created_at for head in page.heads), default=asks.now_us)
        return self._templates.page(
            "sessions.html",
            "/sessions",
            q=request.one("q"),
            product=shown["product"],
            version=shown["version"],
            chosen_status=shown["status"],
            statuses=sessions.STATUSES,
            products=[{"value": row["product"]} for row in asks.ask("summary", from_="-30d", by="product", limit=100)],
            hidden=hidden,
            filtered=any(request.query.values()),
            chips=sessions.chips(request),
            spans=[(value, name, sessions.link(request, from_=value, to="")) for value, name in sessions.SPANS],
            since=request.one("from") if not request.one("to") else None,
            chart=chart,
            points=list(zip(*chart["series"], strict=True)),
            base=sessions.link(request),
            live=sessions.live_link(request, newest, [head.id for head in page.heads]),
            page=page,
            rows=rows,
            headings=sessions.headings(request, query),
            next_href=sessions.link(request, cursor=page.next_cursor) if page.next_cursor else "",
            first_href=sessions.link(request) if query.cursor else "",
            size=sessions.ROWS,
        )

    def sessions_live(self, request: Request) -> Answer:
        """GET /sessions/live: how the sessions that are shown go on, and how many new ones there are."""
        now_us = self._clock_us()
        fresh = sessions.fresh(self._ground.store, request, now_us)
        return self._templates.part(
            "sessions_live.html",
            fresh=len(fresh.heads),
            more=bool(fresh.next_cursor),
            href=sessions.link(request, newest="", shown=""),
            rows=sessions.shown(self._ground.store, request, now_us),
        )

    def session(self, request: Request) -> Answer:
        """GET /sessions/{id}: how it ended and why, and everything on one time axis."""
        head, now_us = self._head(request), self._clock_us()
        at_us = filters.count_of(request, "at", head.ended_at or max(now_us, head.updated_at), 0, MAX_T_US)
        return self._templates.page(
            "session.html",
            "/sessions",
            **_headline(head, now_us),
            facts=session.facts(head),
            ledger=session.ledger(head),
            stacks=session.stacks(self._ground.store, head),
            moment=session.moment(self._ground.store, head, at_us, None),
            since_s=None,
            levels=LEVELS,
        )

    def headline(self, request: Request) -> Answer:
        """GET /sessions/{id}/headline: how it stands."""
        return self._templates.part("session_headline.html", **_headline(self._head(request), self._clock_us()))

    def timeline(self, request: Request) -> Answer:
        """GET /sessions/{id}/timeline: the columns that the time axis is drawn from."""
        return as_json(session.timeline(self._ground.store, self._head(request), self._clock_us()))

    def moment(self, request: Request) -> Answer:
        """GET /sessions/{id}/moment?at=&since=: state, events and metrics at one time (Unix us)."""
        head = self._head(request)
        at_us = filters.count_of(request, "at", head.updated_at, 0, MAX_T_US)
        since_us = filters.count_of(request, "since", 0, 0, at_us) if request.one("since") else None
        return self._templates.part(
            "session_moment.html",
            moment=session.moment(self._ground.store, head, at_us, since_us),
            since_s=None if since_us is None else (at_us - since_us) / US,
        )

    def event(self, request: Request) -> Answer:
        """GET /sessions/{id}/event?at=&name=: one event whole."""
        head = self._head(request)
        at_us = filters.count_of(request, "at", 0, 0, MAX_T_US)
        query = RecordQuery(("event",), (request.one("name"),), from_us=at_us, to_us=at_us + 1, limit=1)
        row = next(self._ground.store.records(head.id, query), None)
        if row is None:
            raise Refusal(404, "there is no such event")
        return self._templates.part("session_event.html", event=views.row_of(row))

    def _head(self, request: Request) -> Head:
        """Return the session of the path. Raises: NotFound, Deleted."""
        try:
            session_id = ids.session_id(request.path["id"])
        except WireError as error:
            raise NotFound(request.path["id"][:80]) from error
        return check_seen(request.principal, self._ground.store.head(session_id))


def _headline(head: Head, now_us: int) -> dict[str, Any]:
    is_open = head.status in OPEN_STATUSES
    return {"head": head, "open": is_open, "sentence": sentence(head, now_us), "group": head.crash}
