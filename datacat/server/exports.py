"""Sessions as lines over HTTP: an export of what a query finds, streamed, and the import of such lines."""

from collections.abc import Callable, Iterator

import msgspec

from datacat.errors import NotFound, WireError
from datacat.server import bodies, filters
from datacat.server.audit import Audit
from datacat.server.principal import check_seen, narrow
from datacat.server.problems import Refusal
from datacat.server.router import Answer, Request, Route, as_json
from datacat.store import Head, Query, Store, transfer
from datacat.wire import ids, routes

EXPORT = "/api/export"
IMPORT = "/api/import"
FORMATS = {"ndjson": routes.NDJSON, "csv": "text/csv; charset=utf-8; header=present"}
MAX_IMPORT_BYTES = 64 * 1024 * 1024
"""Of one request, unpacked: a batch as large as any is, with what an export adds to each record."""


class Exports:
    """The handlers. Any thread."""

    def __init__(self, store: Store, audit: Audit, clock_us: Callable[[], int]) -> None:
        self._store = store
        self._audit = audit
        self._clock_us = clock_us

    def routes(self) -> list[Route]:
        """Return the table of routes."""
        return [
            Route("GET", EXPORT, self.export, "read", (*filters.SESSIONS, "id", "format")),
            Route("POST", IMPORT, self.take, "admin"),
        ]

    def export(self, request: Request) -> Answer:
        """GET /api/export: sessions as NDJSON or CSV, sent while it is made."""
        form = filters.word("format", request.one("format", "ndjson"), tuple(FORMATS))
        wanted = filters.items(request, "id")
        heads: Iterator[Head]
        if wanted:
            heads = iter([check_seen(request.principal, self._store.head(_id(one))) for one in wanted])
        else:
            limited = "limit" in request.query
            query = narrow(filters.sessions(request, limit=filters.MAX_LIMIT), request.principal)
            heads = every(self._store, query, limited=limited)
        return Answer(200, lines(self._store, heads, form), {"Content-Type": FORMATS[form]})

    def take(self, request: Request) -> Answer:
        """POST /api/import: lines of an export. Whole batches only; what is there already changes nothing."""
        if request.content_type not in (routes.NDJSON, ""):
            raise Refusal(
                415, f"the content type {request.content_type[:80]!r} is not NDJSON", hint=f"use {routes.NDJSON}"
            )
        body = bodies.read(request.environ, MAX_IMPORT_BYTES)
        told = transfer.Imported()
        importer = transfer.Importer(self._store, told, self._clock_us)
        try:
            for number, raw in enumerate(body.split(b"\n"), 1):
                if raw.strip():
                    try:
                        importer.take(raw)
                    except WireError as error:
                        raise WireError(f"line {number}: {error.message}", hint=error.hint) from error
            importer.close()
        finally:
            if told.batches:
                by = request.principal
                self._audit.write(
                    "imported", "sessions", who=by.who, key_id=by.key_id, address=by.address,
                    sessions=told.sessions, records=told.records,
                )  # fmt: skip
        return as_json(msgspec.to_builtins(told))


def every(store: Store, query: Query, *, limited: bool) -> Iterator[Head]:
    """Return the heads of all pages of a query; of the first one only when limited. Raises: WireError, at once."""
    page = store.heads(query)

    def rest() -> Iterator[Head]:
        now = page
        while True:
            yield from now.heads
            if limited or not now.next_cursor:
                return
            now = store.heads(filters.next_page(query, now.next_cursor))

    return rest()


def lines(store: Store, heads: Iterator[Head], form: str) -> Iterator[bytes]:
    """Yield sessions in a form of FORMATS. Raises: Corrupt, StoreError."""
    if form == "csv":
        yield transfer.csv_header()
    for head in heads:
        yield from transfer.csv_lines(store, head) if form == "csv" else transfer.session_lines(store, head)


def _id(text: str) -> str:
    try:
        return ids.session_id(text)
    except WireError as error:
        raise NotFound(text[:80]) from error
