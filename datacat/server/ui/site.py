"""The routes of the web UI: each page asks the query layer and fills in its template."""

from collections.abc import Callable
from typing import Any

from datacat.errors import NotFound, WireError
from datacat.server import filters, views
from datacat.server.alerting import Alerts
from datacat.server.audit import Audit
from datacat.server.config import Live
from datacat.server.gate import Gate
from datacat.server.leases import Leases
from datacat.server.principal import check_seen
from datacat.server.problems import Refusal
from datacat.server.query.ground import Ground
from datacat.server.router import Answer, Request, Route, as_json
from datacat.server.ui import failures, operation, overview, releases, session, sessions
from datacat.server.ui.assets import Assets
from datacat.server.ui.door import Door
from datacat.server.ui.frame import Templates, asker
from datacat.server.ui.words import US, sentence
from datacat.store import Head, RecordQuery
from datacat.wire import ids
from datacat.wire.records import LEVELS, MAX_T_US
from datacat.wire.routes import OPEN_STATUSES

NEWEST_GROUPS = 8
_GROUPS = ("product", "span", "sort")


class Site:
    """The handlers. Any thread."""

    def __init__(
        self, ground: Ground, clock_us: Callable[[], int], *, leases: Leases, live: Live, doors: Gate,
        audit: Audit, alerts: Alerts | None = None, upkeep: Callable[[], operation.Upkeep] | None = None,
    ) -> None:  # fmt: skip
        self._ground = ground
        self._clock_us = clock_us
        self._leases = leases
        self._live = live
        self._ring = doors.ring
        self._alerts = alerts
        self._upkeep = upkeep
        self._assets = Assets()
        self._templates = Templates(self._assets)
        self._door = Door(self._templates, doors, audit)
        self.page_of = self._door.page_of

    def routes(self) -> list[Route]:
        """Return the table of routes."""
        return [
            *self._assets.routes(),
            *self._door.routes(),
            Route("GET", "/", self.overview, "read", ("span",)),
            Route("GET", "/overview/now", self.overview_now, "read"),
            Route("GET", "/sessions", self.sessions, "read", sessions.PARAMETERS),
            Route("GET", "/sessions/live", self.sessions_live, "read", (*sessions.PARAMETERS, "newest", "shown")),
            Route("GET", "/sessions/{id}", self.session, "read", ("at", "from", "to")),
            Route("GET", "/sessions/{id}/headline", self.headline, "read"),
            Route("GET", "/sessions/{id}/timeline", self.timeline, "read", ("since", "seen")),
            Route("GET", "/sessions/{id}/moment", self.moment, "read", ("at", "since")),
            Route("GET", "/crashes", self.crashes, "read", _GROUPS),
            Route("GET", "/hangs", self.hangs, "read", _GROUPS),
            Route("GET", "/crashes/{signature}", self.crash_group, "read"),
            Route("GET", "/hangs/{signature}", self.hang_group, "read"),
            Route("GET", "/groups/{signature}/suspects", self.suspects, "read"),
            Route("GET", "/releases", self.releases, "read", ("product", "span", "compare")),
            Route("GET", "/releases/metrics", self.release_metrics, "read", ("product", "span", "compare")),
            Route("GET", "/machines", self.machines, "read"),
            Route("GET", "/service", self.service, "read"),
            Route("GET", "/service/pulse", self.service_pulse, "read"),
            Route("GET", "/sessions/{id}/event", self.event, "read", ("at", "name")),
        ]

    def overview(self, request: Request) -> Answer:
        """GET /: the page to leave on a screen."""
        asks = asker(self._ground, request, self._clock_us)
        span = filters.word("span", request.one("span", overview.DEFAULT_SPAN), tuple(dict(overview.SPANS)))
        return self._templates.page(
            "overview.html", "/", request.principal.token, now=overview.now(asks), cards=overview.cards(asks, span),
            groups=asks.ask("crashes", from_=f"-{span}", sort="-first_seen_at", limit=NEWEST_GROUPS),
            spans=overview.SPANS, span=span,
        )  # fmt: skip

    def overview_now(self, request: Request) -> Answer:
        """GET /overview/now: the numbers of this moment."""
        return self._templates.part("overview_now.html", now=overview.now(asker(self._ground, request, self._clock_us)))

    def sessions(self, request: Request) -> Answer:
        """GET /sessions: the list."""
        asks = asker(self._ground, request, self._clock_us)
        found = sessions.found(asks, request)
        chart = sessions.chart(asks, request)
        shown = {name: ",".join(filters.items(request, name)) for name in ("product", "version", "status")}
        hidden = [
            (name, value)
            for name, values in request.query.items()
            if name not in ("q", "product", "version", "status", "cursor")
            for value in values
            if value
        ]
        return self._templates.page(
            "sessions.html",
            "/sessions",
            request.principal.token,
            q=request.one("q"),
            product=shown["product"],
            version=shown["version"],
            chosen_status=shown["status"],
            statuses=sessions.STATUSES,
            products=[
                {"value": row["product"]} for row in asks.health(("sessions",), from_="-30d", by="product", limit=100)
            ],
            hidden=hidden,
            filtered=any(request.query.values()),
            chips=sessions.chips(request),
            spans=[(value, name, sessions.link(request, from_=value, to="")) for value, name in sessions.SPANS],
            since=request.one("from") if not request.one("to") else None,
            chart=chart,
            points=list(zip(*chart["series"], strict=True)),
            base=sessions.link(request),
            live=sessions.live_link(request, found.rows),
            truncated=found.meta.get("truncated", False),
            rows=[sessions.shown_row(row) for row in found.rows],
            headings=sessions.headings(request),
            next_href=sessions.link(request, cursor=found.next_cursor) if found.next_cursor else "",
            first_href=sessions.link(request) if request.one("cursor") else "",
            size=sessions.ROWS,
        )

    def sessions_live(self, request: Request) -> Answer:
        """GET /sessions/live: how the sessions that are shown go on, and how many new ones there are."""
        asks = asker(self._ground, request, self._clock_us)
        fresh = sessions.fresh(asks, request)
        return self._templates.part(
            "sessions_live.html",
            fresh=len(fresh.rows),
            more=bool(fresh.next_cursor),
            href=sessions.link(request, newest="", shown=""),
            rows=sessions.going_on(asks, request),
        )

    def session(self, request: Request) -> Answer:
        """GET /sessions/{id}: how it ended and why, and everything on one time axis."""
        head, now_us = self._head(request), self._clock_us()
        at_us = filters.count_of(request, "at", head.ended_at or max(now_us, head.updated_at), 0, MAX_T_US)
        return self._templates.page(
            "session.html",
            "/sessions",
            request.principal.token,
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
        """GET /sessions/{id}/timeline: the columns that the time axis is drawn from.

        since (Unix us) asks for what came from then on, seen tells what update of the session is known: 204 when it is
        still the newest.
        """
        head, seen = self._head(request), filters.count_of(request, "seen", 0, 0, MAX_T_US)
        if seen and head.updated_at == seen:
            return Answer(204)
        since_us = filters.count_of(request, "since", 0, 0, MAX_T_US)
        return as_json(session.timeline(self._ground.store, head, self._clock_us(), since_us))

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

    def crashes(self, request: Request) -> Answer:
        """GET /crashes: groups of crashes."""
        return self._groups(request, "crashes")

    def hangs(self, request: Request) -> Answer:
        """GET /hangs: groups of hangs."""
        return self._groups(request, "hangs")

    def crash_group(self, request: Request) -> Answer:
        """GET /crashes/{signature}: one group."""
        return self._group(request, "crashes")

    def hang_group(self, request: Request) -> Answer:
        """GET /hangs/{signature}: one group."""
        return self._group(request, "hangs")

    def _groups(self, request: Request, kind: str) -> Answer:
        asks = asker(self._ground, request, self._clock_us)
        span = filters.word("span", request.one("span", failures.DEFAULT_SPAN), tuple(dict(failures.SPANS)))
        sort = filters.word("sort", request.one("sort", failures.SORTS[0][0]), tuple(dict(failures.SORTS)))
        product = request.one("product")
        return self._templates.page(
            "groups.html", "/crashes", request.principal.token, kind=kind, span=span, sort=sort, product=product,
            products=releases.products(asks), spans=failures.SPANS, sorts=failures.SORTS,
            groups=failures.groups(asks, kind, span, sort, releases.literal(product)),
        )  # fmt: skip

    def _group(self, request: Request, kind: str) -> Answer:
        asks = asker(self._ground, request, self._clock_us)
        found = failures.group(asks, self._ground.store, kind, releases.literal(request.path["signature"]))
        if found is None:
            raise Refusal(404, "there is no such group, or all its sessions have been deleted")
        return self._templates.page("group.html", "/crashes", request.principal.token, kind=kind, group=found)

    def suspects(self, request: Request) -> Answer:
        """GET /groups/{signature}/suspects: what its sessions have in common; asked for after the page is there."""
        asks = asker(self._ground, request, self._clock_us)
        return self._templates.part("suspects.html", suspects=failures.suspects(asks, request.path["signature"]))

    def releases(self, request: Request) -> Answer:
        """GET /releases: the versions of a product side by side."""
        asks = asker(self._ground, request, self._clock_us)
        span = filters.word("span", request.one("span", releases.DEFAULT_SPAN), tuple(dict(releases.SPANS)))
        names = releases.products(asks)
        product = request.one("product") or (names[0] if names else "")
        chosen = request.query.get("compare", [])
        rows = releases.versions(asks, product, span) if product else []
        # The older one first, whatever the order of the boxes.
        chosen = [row["version"] for row in reversed(rows) if row["version"] in chosen]
        compared = releases.compare(rows, chosen)
        return self._templates.page(
            "releases.html", "/releases", request.principal.token, product=product, products=names, span=span,
            spans=releases.SPANS, rows=rows,
            chosen=chosen, compared=compared, adoption=releases.adoption(asks, product, span) if rows else None,
            metrics_href=releases.metrics_link(product, span, chosen) if compared else "",
        )  # fmt: skip

    def release_metrics(self, request: Request) -> Answer:
        """GET /releases/metrics: metrics of two versions; asked for after the page is there."""
        asks = asker(self._ground, request, self._clock_us)
        span = filters.word("span", request.one("span", releases.DEFAULT_SPAN), tuple(dict(releases.SPANS)))
        chosen = request.query.get("compare", [])
        rows = releases.metrics(asks, request.one("product"), span, chosen)
        return self._templates.part("release_metrics.html", metrics=rows, chosen=chosen)

    def machines(self, request: Request) -> Answer:
        """GET /machines: who reports."""
        asks = asker(self._ground, request, self._clock_us)
        rows = operation.machines(asks, self._leases, self._live.now.lease_s)
        return self._templates.page("machines.html", "/machines", request.principal.token, machines=rows)

    def service(self, request: Request) -> Answer:
        """GET /service: how datacat itself is."""
        asks = asker(self._ground, request, self._clock_us)
        may_manage = "admin" in request.principal.rights or not self._ring
        return self._templates.page(
            "service.html", "/service", request.principal.token, pulse=operation.pulse(asks),
            store=self._ground.store.stats(),
            alerts=self._alerts.told(request.principal.products) if self._alerts else None,
            upkeep=self._upkeep() if self._upkeep else None, role=request.principal.role,
            retention_days=self._live.now.retention_days, keys=self._ring.keys if may_manage else None,
        )  # fmt: skip

    def service_pulse(self, request: Request) -> Answer:
        """GET /service/pulse: its numbers now."""
        return self._templates.part(
            "service_pulse.html", pulse=operation.pulse(asker(self._ground, request, self._clock_us))
        )

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
