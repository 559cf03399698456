"""Sessions and daemons over HTTP: the handlers of the simple endpoints and of everything that reads one session."""

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from datacat.errors import Deleted, NotFound, WireError
from datacat.server import filters, inputs, judge, views
from datacat.server.audit import Audit
from datacat.server.config import Live
from datacat.server.exports import every
from datacat.server.leases import Leases
from datacat.server.own import OwnStream, line_of
from datacat.server.principal import Principal, check_seen, check_writes, may_see, narrow
from datacat.server.router import Answer, Request, Route, as_json
from datacat.store import Head
from datacat.store.fold import public
from datacat.store.history import state_at
from datacat.wire import ids, routes
from datacat.wire.lines import Line
from datacat.wire.records import MAX_TEXT_CHARS, Beat, Close, Open, Record, Verdict, cut_text
from datacat.wire.routes import END_REASONS

_OK = {"status": "ok"}
_ID_BYTES = 10
_CHUNK_BYTES = 64 * 1024


class Api:
    """The handlers. Any thread; every answer to a write is given when the write is on disk."""

    def __init__(self, own: OwnStream, leases: Leases, live: Live, audit: Audit) -> None:
        self._audit = audit
        self._own = own
        self._store = own.store
        self._leases = leases
        self._live = live
        self._creating = threading.Lock()

    def routes(self) -> list[Route]:
        """Return the table of routes."""
        one = "/api/sessions/{id}"
        whole = filters.WHOLE
        lists = filters.parameters(filters.SESSIONS, whole, ("fields",))
        return [
            Route("POST", routes.SESSIONS, self.create, "ingest"),
            Route("GET", routes.SESSIONS, self.sessions, "read", filters.SESSIONS),
            Route("GET", one, self.session, "read", whole),
            Route("DELETE", one, self.delete, "admin"),
            Route("GET", f"{one}/events", self._rows("event"), "read", filters.EVENTS),
            Route("GET", f"{one}/metrics", self._rows("metric"), "read", filters.METRICS),
            Route("GET", f"{one}/history", self.history, "read", filters.PAGE),
            Route("GET", f"{one}/transitions", self.transitions, "read", filters.TRANSITIONS),
            Route("GET", f"{one}/state", self.state, "read", ("at",)),
            Route("POST", f"{one}/state", self.add_state, "ingest"),
            Route("POST", f"{one}/events", self.add_events, "ingest"),
            Route("POST", f"{one}/metrics", self.add_metrics, "ingest"),
            Route("POST", f"{one}/heartbeat", self.heartbeat, "ingest"),
            Route("POST", f"{one}/end", self.end, "ingest"),
            Route("POST", f"{one}/crash", self.crash, "ingest"),
            Route("GET", "/api/grafana/sessions", self.all_sessions, "read", lists),
            Route("GET", "/api/data/sessions", self.all_sessions, "read", lists),
            Route("POST", routes.DAEMONS, self.register, "ingest"),
            Route("GET", routes.DAEMONS, self.daemons, "read"),
            Route("POST", routes.DAEMONS + "/{id}/heartbeat", self.renew, "ingest"),
        ]

    def create(self, request: Request) -> Answer:
        """POST /api/sessions: 201; 200 when the session with this id exists already."""
        now_us = self._own.clock_us()
        body = request.json()
        session_id, line = inputs.opening(body, now_us, ids.uuid7(now_us // 1000, os.urandom(_ID_BYTES)))
        check_writes(request.principal, line.record.product if isinstance(line.record, Open) else "")
        status = 200
        # Two requests with the same id must not both open it.
        with self._creating:
            try:
                head = self._store.head(session_id)
            except NotFound:
                head = self._own.write(session_id, [line])
                status = 201
        check_writes(request.principal, head.product)
        told = {**views.whole(self._store, head, views.Wanted()), "session_id": session_id}
        return as_json(told, status, {"Location": routes.session_path(session_id)})

    def sessions(self, request: Request) -> Answer:
        """GET /api/sessions: one page of heads."""
        page = self._store.heads(narrow(filters.sessions(request), request.principal))
        told: dict[str, Any] = {
            "sessions": [public(head) for head in page.heads],
            "next_cursor": page.next_cursor or None,
        }
        if page.truncated:
            told["meta"] = {"truncated": True}
        return as_json(told)

    def all_sessions(self, request: Request) -> Answer:
        """GET /api/grafana/sessions, /api/data/sessions: a bare array of whole sessions, sent while it is made."""
        wanted, fields = filters.whole(request), filters.members(request)
        limited = "limit" in request.query
        query = narrow(filters.sessions(request, limit=filters.MAX_LIMIT), request.principal)
        found = every(self._store, query, limited=limited)  # what is wrong with the query is said before the first byte
        return Answer(200, _array(self._whole_sessions(found, wanted, fields)), {"Content-Type": routes.JSON})

    def session(self, request: Request) -> Answer:
        """GET /api/sessions/{id}: the whole session; 304 when the client has it."""
        wanted = filters.whole(request)
        head = self._head(request)
        seed = msgspec.json.encode(head) + repr(wanted).encode()
        # Weak: the same session is told with other bytes when it is compressed.
        tag = f'W/"{hashlib.blake2b(seed, digest_size=12).hexdigest()}"'
        if _matches(request.environ.get("HTTP_IF_NONE_MATCH", ""), tag):
            return Answer(304, b"", {"ETag": tag})
        return as_json(views.whole(self._store, head, wanted), headers={"ETag": tag})

    def delete(self, request: Request) -> Answer:
        """DELETE /api/sessions/{id}."""
        session_id = self._id(request)
        head = self._store.head(session_id)
        self._store.drop(session_id)
        by = request.principal
        self._audit.write(
            "session_deleted", session_id, who=by.who, key_id=by.key_id, address=by.address, product=head.product
        )
        return Answer(204)

    def history(self, request: Request) -> Answer:
        """GET /api/sessions/{id}/history: changes of the state."""
        query, limit = filters.records(request, views.STATE_KINDS)
        head = self._head(request)
        found = list(self._store.records(head.id, query))
        rows = views.patches(self._store, head, found[:limit])
        return as_json(
            {"rows": rows, "next_cursor": views.write_cursor(found[limit - 1].position) if len(found) > limit else None}
        )

    def transitions(self, request: Request) -> Answer:
        """GET /api/sessions/{id}/transitions: changes of status; name selects by the status word."""
        query, limit = filters.records(request, ())
        numbered = [
            (number, change)
            for number, change in enumerate(views.transitions(self._store, self._id(request)))
            if (not query.names or change["status"] in query.names) and filters.in_span(query, change["timestamp"])
        ]
        if query.newest_first:
            numbered.reverse()
        if query.after:
            last = query.after[-1]
            numbered = [item for item in numbered if (item[0] < last if query.newest_first else item[0] > last)]
        page = numbered[:limit]
        more = views.write_cursor((0, "", 0, page[-1][0])) if len(numbered) > limit else None
        return as_json({"rows": [change for _, change in page], "next_cursor": more})

    def state(self, request: Request) -> Answer:
        """GET /api/sessions/{id}/state: the whole state, now or at a moment."""
        session_id = self._id(request)
        at_us = filters.time_of(request, "at")
        if at_us is None:
            return as_json(self._store.state(session_id))
        return as_json(state_at(self._store, session_id, at_us + 1))

    def add_state(self, request: Request) -> Answer:
        """POST /api/sessions/{id}/state."""
        body = request.json(more_types=(routes.MERGE_PATCH,))
        bare = request.content_type == routes.MERGE_PATCH
        return self._add(request, lambda now_us: [inputs.state(body, now_us, bare=bare)])

    def add_events(self, request: Request) -> Answer:
        """POST /api/sessions/{id}/events."""
        body = request.json()
        return self._add(request, lambda now_us: inputs.events(body, now_us))

    def add_metrics(self, request: Request) -> Answer:
        """POST /api/sessions/{id}/metrics."""
        body = request.json()
        return self._add(request, lambda now_us: inputs.metrics(body, now_us))

    def heartbeat(self, request: Request) -> Answer:
        """POST /api/sessions/{id}/heartbeat."""
        session_id = self._id(request)
        with self._own.lock(session_id):
            head = self._store.head(session_id)
            if not judge.may_end(head):
                return as_json(_OK)  # it has ended for good: late heartbeats say nothing
            now_us = self._own.clock_us()
            self._write(session_id, [*judge.back(head, now_us), Beat(now_us)])
        return as_json(_OK)

    def end(self, request: Request) -> Answer:
        """POST /api/sessions/{id}/end; the first one counts."""
        code = inputs.exit_code(request.json())
        return self._finish(request, lambda now_us: [Close(now_us, code)])

    def crash(self, request: Request) -> Answer:
        """POST /api/sessions/{id}/crash; the first one counts. Whoever reports it saw it, as a daemon does."""
        told = inputs.reason(request.json())
        reason = told if told in END_REASONS["crashed"] else "unknown"
        detail = cut_text(told, MAX_TEXT_CHARS) if told and reason != told else None

        def records(now_us: int) -> list[Record]:
            verdict = Verdict(now_us, "crashed", reason, detail, by="daemon")
            return [verdict, judge.crashed_event(verdict)]

        return self._finish(request, records)

    def register(self, request: Request) -> Answer:
        """POST /api/daemons."""
        told = inputs.daemon(request.json())
        self._leases.register(told, self._own.clock_us())
        return as_json({"id": told["id"], "lease_s": self._live.now.lease_s, "boot": self._own.boot})

    def renew(self, request: Request) -> Answer:
        """POST /api/daemons/{id}/heartbeat."""
        daemon_id = inputs.daemon({"id": request.path["id"]})["id"]
        body = request.json()
        renewal = inputs.sessions(body), inputs.standing(body)
        self._leases.renew(daemon_id, self._own.clock_us(), *renewal, asleep_s=inputs.asleep_s(body))
        return as_json({"lease_s": self._live.now.lease_s, "boot": self._own.boot})

    def daemons(self, request: Request) -> Answer:
        """GET /api/daemons: who is connected."""
        rows = self._leases.rows(self._own.clock_us(), self._live.now.lease_s)
        if request.principal.products:
            for row in rows:
                row["sessions"] = [one for one in row["sessions"] if self._exists_for(request.principal, one)]
            rows = [row for row in rows if row["sessions"]]
        return as_json({"daemons": rows})

    def _exists_for(self, principal: Principal, session_id: str) -> bool:
        try:
            return may_see(principal, self._store.head(session_id).product)
        except (NotFound, Deleted):
            return False

    def _rows(self, kind: str) -> Callable[[Request], Answer]:
        def rows(request: Request) -> Answer:
            query, limit = filters.records(request, (kind,))
            found = list(self._store.records(self._id(request), query))
            more = views.write_cursor(found[limit - 1].position) if len(found) > limit else None
            return as_json({"rows": [views.row_of(row) for row in found[:limit]], "next_cursor": more})

        return rows

    def _whole_sessions(self, heads: Iterator[Head], wanted: views.Wanted, fields: tuple[str, ...]) -> Iterator[bytes]:
        for head in heads:
            try:
                yield msgspec.json.encode(views.whole(self._store, head, wanted, fields))
            except (NotFound, Deleted):
                continue  # deleted while the answer is on its way

    def _id(self, request: Request) -> str:
        try:
            session_id = ids.session_id(request.path["id"])
        except WireError as error:
            raise NotFound(request.path["id"][:80]) from error
        if request.principal.products:
            self._within_scope(request.principal, self._store.head(session_id))
        return session_id

    def _head(self, request: Request) -> Head:
        return self._store.head(self._id(request))

    @staticmethod
    def _within_scope(principal: Principal, head: Head) -> None:
        if "read" in principal.rights:
            check_seen(principal, head)
        else:
            check_writes(principal, head.product)

    def _add(self, request: Request, make: Callable[[int], list[Line]]) -> Answer:
        """Store records that a client sent; it is heard of again when it was believed to be away."""
        session_id = self._id(request)
        self._store.head(session_id)  # an unknown session is said before a bad field
        added = make(self._own.clock_us())
        with self._own.lock(session_id):
            head = self._store.head(session_id)
            now_us = self._own.clock_us()
            again = judge.back(head, now_us) if head.status == "suspended" or judge.is_supposed(head) else []
            if added:
                self._own.write(session_id, [*map(line_of, again), *added])
        return as_json(_OK)

    def _finish(self, request: Request, make: Callable[[int], list[Record]]) -> Answer:
        session_id = self._id(request)
        with self._own.lock(session_id):
            if judge.may_end(self._store.head(session_id)):
                self._write(session_id, make(self._own.clock_us()))
        return as_json(_OK)

    def _write(self, session_id: str, records: list[Record]) -> None:
        self._own.write(session_id, map(line_of, records))


def _array(items: Iterator[bytes]) -> Iterator[bytes]:
    """Yield a JSON array of encoded items in parts of some size."""
    part = [b"["]
    size = 0
    for index, item in enumerate(items):
        part.append(b",\n" + item if index else item)
        size += len(item)
        if size > _CHUNK_BYTES:
            yield b"".join(part)
            part, size = [], 0
    part.append(b"]\n")
    yield b"".join(part)


def _matches(wanted: str, tag: str) -> bool:
    """Return whether If-None-Match names the tag (RFC 9110, 13.1.2: weak comparison)."""
    opaque = tag.removeprefix("W/")
    return any(item.strip().removeprefix("W/") in (opaque, "*") for item in wanted.split(","))
