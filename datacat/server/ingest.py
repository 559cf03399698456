"""The hot path: batches of a stream, stored exactly once, and what is acknowledged of each stream.

Beside CherryPy, whose request cycle would cost more than storing a batch does.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from http import HTTPStatus
from typing import Any, NamedTuple, TypeAlias

from datacat.errors import DatacatError, Deleted, NotFound, StoreError, WireError
from datacat.host import faults
from datacat.server import bodies, judge
from datacat.server.checking import checked
from datacat.server.gate import Gate
from datacat.server.leases import Away, Leases
from datacat.server.own import OwnStream, line_of
from datacat.server.pressure import Pressure
from datacat.server.principal import Principal, check_writes
from datacat.server.problems import Refusal, problem, problem_of
from datacat.server.pulse import ROUTE
from datacat.server.router import Answer, Request, as_answer, as_json, encoded, failed, query_of
from datacat.store import Batch, Head, Written
from datacat.store.fold import opening
from datacat.wire import ids, routes
from datacat.wire.lines import Packed
from datacat.wire.records import MAX_BATCH_BYTES, Close, Closing, Gap, Open, Verdict

StartResponse: TypeAlias = Callable[[str, list[tuple[str, str]]], object]

PATH = re.compile(r"/api/sessions/([^/]+)/(batches|acked)")
SENT_HEADER = "HTTP_DATACAT_SENT_AT"
"""When a batch was sent, in Unix seconds of the sender's clock."""
ASLEEP_HEADER = "HTTP_DATACAT_ASLEEP"
"""How long the sender's machine has slept since its boot, in seconds."""
PRIORITY_HEADER = "HTTP_DATACAT_PRIORITY"
"""A sender says `Datacat-Priority: first` of a batch that others should wait for."""
_URGENT = frozenset({Open, Gap, Closing, Close, Verdict})
_MAX_URGENT = 200
_MOST_S = 253_402_300_800.0  # the year 10000
DAEMON_HEADER = "HTTP_DATACAT_DAEMON"
"""A batch with the header Datacat-Daemon renews the lease of that daemon."""
_PARAMETERS = ("stream", "from", "to", "crc", "end_crc", "records", "pending")
_TYPES = frozenset({"", routes.NDJSON, "application/ndjson", "application/octet-stream"})
_MAX_OFFSET = 2**63
MAX_QUICK_BYTES = 512 * 1024
"""A batch of more than this, unpacked, keeps the interpreter busy for so long that others would have to wait for it."""


class _Sender(NamedTuple):
    """Whose batch it is: the newest silence of its daemon, and how far its clock is ahead (None: it does not say)."""

    away: Away | None
    skew_us: int | None


class _Come(NamedTuple):
    """A batch that has come; before is the head of its session, None when there was none."""

    session_id: str
    request: Request
    sender: _Sender
    before: Head | None
    stream: str
    start: int
    end: int


class Held(NamedTuple):
    """A batch that is written: once its ticket is committed, or that failed with an error, end() returns the answer."""

    ticket: int
    end: Callable[[StoreError | None], Answer]


class Ingest:
    """Batches and acked, as a WSGI application, and batches for a thread that must not wait. Any thread.

    A batch is durable once it is answered with 200.
    """

    def __init__(self, own: OwnStream, leases: Leases, gate: Gate, pressure: Pressure) -> None:
        self._own = own
        self._store = own.store
        self._leases = leases
        self._gate = gate
        self._pressure = pressure

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request whose path matches PATH."""
        answer = self.begin(environ, waits=True)
        if isinstance(answer, Held):
            failure = None
            try:
                self._store.commit(answer.ticket)
            except StoreError as error:
                failure = error
            answer = answer.end(failure)
        body, headers = encoded(answer, environ.get("HTTP_ACCEPT_ENCODING", ""))
        start_response(f"{answer.status} {HTTPStatus(answer.status).phrase}", list(headers.items()))
        return [body] if isinstance(body, bytes) and environ["REQUEST_METHOD"] != "HEAD" else []

    def is_quick(self, environ: Mapping[str, Any], body: bytes) -> bool:
        """Return whether begin() with this request need not wait for anything; body is its body as it travels.

        Not for a large one, and not when it is to be told that a session is back: that is another write.
        """
        found = PATH.fullmatch(environ["PATH_INFO"])
        if found is None or bodies.plain_size(body, bodies.encoding_of(environ), MAX_BATCH_BYTES) > MAX_QUICK_BYTES:
            return False
        try:
            return not _is_away(self._store.head(found[1].lower()))
        except (NotFound, Deleted):
            return True

    def begin(self, environ: dict[str, Any], *, waits: bool) -> Answer | Held:
        """Write the batch of a request, or answer it. Never raises; the answer to a batch that is held comes later."""
        try:
            return self._answer(environ, waits=waits)
        except Exception as error:
            return self._failed(error)

    def _answer(self, environ: dict[str, Any], *, waits: bool) -> Answer | Held:
        found = PATH.fullmatch(environ["PATH_INFO"])
        if found is None:
            raise Refusal(404, "there is nothing at this path")
        method, what = environ["REQUEST_METHOD"], found[2]
        environ.get(ROUTE, [""])[0] = f"/api/sessions/{{id}}/{what}"
        allowed = ("POST",) if what == "batches" else ("GET", "HEAD")
        if method not in allowed:
            raise Refusal(405, "this method is not possible here", headers={"Allow": ", ".join(allowed)})
        principal = self._gate.admit(environ, "ingest")
        query = query_of(environ, _PARAMETERS if what == "batches" else ())
        try:
            session_id = ids.session_id(found[1])
        except WireError as error:
            raise NotFound(found[1][:80]) from error
        request = Request(environ, {"id": session_id}, query, principal)
        if what == "acked":
            return self._acked(session_id, principal)
        return self._batch(session_id, request, waits=waits)

    def _acked(self, session_id: str, principal: Principal) -> Answer:
        head = self._store.head(session_id)
        check_writes(principal, head.product)
        streams = {name: stream.acked for name, stream in head.streams.items()}
        return as_json({"streams": streams, "boot": self._own.boot})

    def _batch(self, session_id: str, request: Request, *, waits: bool) -> Answer | Held:
        if request.content_type not in _TYPES:
            raise Refusal(
                415, f"the content type {request.content_type[:80]!r} is not NDJSON", hint=f"use {routes.NDJSON}"
            )
        stream, start, end = _stream(request), _number(request, "from"), _number(request, "to")
        if end < start:
            raise Refusal(400, f"to={end} is before from={start}")
        daemon_id = request.environ.get(DAEMON_HEADER)
        now_us = self._own.clock_us()
        away = None
        if daemon_id:
            asleep_s = _seconds(request.environ.get(ASLEEP_HEADER))
            away = self._leases.renew(str(daemon_id)[:64], now_us, asleep_s=asleep_s)
        sent_s = _seconds(request.environ.get(SENT_HEADER))
        sender = _Sender(away, None if sent_s is None else round(sent_s * 1e6) - now_us)
        try:
            before = self._store.head(session_id)
        except NotFound:
            before = None
            if start > 0:
                # A store that was restored from a backup, or a daemon that remembers too much: it begins again.
                return self._conflict(f"there is no session {session_id} yet; begin at 0")
        if before is not None:
            check_writes(request.principal, before.product)
        known = before.streams.get(stream) if before else None
        if known and end <= known.acked:
            return self._stored(known.acked)
        come = _Come(session_id, request, sender, before, stream, start, end)
        body = bodies.receive(request.environ, MAX_BATCH_BYTES)
        encoding = bodies.encoding_of(request.environ)
        if not waits:
            return self._write(come, body, encoding, waits=False)
        with self._pressure.unpacked(bodies.plain_size(body, encoding, MAX_BATCH_BYTES)):
            return self._write(come, body, encoding, waits=True)

    def _write(self, come: _Come, body: bytes, encoding: str, *, waits: bool) -> Held:
        request, before = come.request, come.before
        found = checked(bodies.decompress(body, encoding, MAX_BATCH_BYTES), body if encoding == "zstd" else None)
        batch = Batch(
            come.stream,
            found,
            come.start,
            come.end,
            _optional_number(request, "crc"),
            _optional_number(request, "end_crc"),
            _optional_number(request, "records"),
            _optional_number(request, "pending") or 0,
            come.sender.skew_us,
        )
        if before is None and found and (opened := opening(found.records[0])) is not None:
            check_writes(request.principal, opened.product)
        urgent = before is None or request.environ.get(PRIORITY_HEADER) == "first" or is_urgent(found)
        token = self._pressure.begin(is_urgent=urgent, waits=waits)
        try:
            faults.at("ingest.read")
            written = self._store.write(come.session_id, batch, received_us=self._own.clock_us())
        except BaseException:
            self._pressure.end(token)
            raise
        return Held(written.ticket, partial(self._end, come, written, token))

    def _end(self, come: _Come, written: Written, token: object, failure: StoreError | None) -> Answer:
        """Return the answer to a batch whose commit has ended."""
        self._pressure.end(token)
        if failure is not None:
            return self._failed(failure)
        try:
            after = written.outcome()
            faults.at("ingest.stored")
            if come.before is not None and _is_away(come.before):
                self._welcome(come.before, after, come.sender.away)
        except Exception as error:
            return self._failed(error)
        return self._stored(after.streams[come.stream].acked if come.stream in after.streams else 0)

    def _stored(self, acked: int) -> Answer:
        return as_json({"acked": acked, "boot": self._own.boot})

    def _conflict(self, detail: str) -> Answer:
        return as_answer(problem(409, detail, acked=0, boot=self._own.boot, reason="offset"))

    def _welcome(self, before: Head, after: Head, away: Away | None) -> None:
        """Write that a session which the server believed to be away is heard of again."""
        with self._own.lock(after.id):
            now = self._store.head(after.id)
            if now.status == "hung" and now.last_heartbeat > before.last_heartbeat:
                told = judge.back(before, self._own.clock_us())
            elif judge.is_supposed(before) and now.status == "active" and now.status_since == after.status_since:
                if now.streams.get(self._own.boot) != after.streams.get(self._own.boot):
                    return  # another batch has told it meanwhile
                told = [judge.resumed(before, judge.machine_us(after, self._own.clock_us()), away)]
            else:
                return
            self._own.write(after.id, map(line_of, told))

    def _failed(self, error: Exception) -> Answer:
        """Return the answer to a batch that was not stored; what a daemon acts on has acked, boot and reason."""
        if not isinstance(error, DatacatError):
            return failed(error)
        told = problem_of(error)
        members: dict[str, Any] = {"boot": self._own.boot}
        if isinstance(error, (Deleted, NotFound)):
            members |= {"acked": 0, "reason": "deleted" if isinstance(error, Deleted) else "unknown"}
        return as_answer(told._replace(members={**told.members, **members}))


def _is_away(head: Head) -> bool:
    """Return whether the server believes that nobody is there; what comes of the session says otherwise."""
    return head.by == "server" and head.status in ("hung", "suspended", "abnormal")


def is_urgent(found: Packed) -> bool:
    """Return whether a batch opens, ends or judges a session; in a large one that is not looked for."""
    return len(found) <= _MAX_URGENT and not _URGENT.isdisjoint(map(type, found.records))


def _stream(request: Request) -> str:
    try:
        return ids.stream_id(request.one("stream"))
    except WireError as error:
        raise Refusal(400, error.message) from error


def _number(request: Request, name: str) -> int:
    number = _optional_number(request, name)
    if number is None:
        raise Refusal(400, f"the parameter {name} is missing")
    return number


def _optional_number(request: Request, name: str) -> int | None:
    text = request.one(name)
    if not text:
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > 19 or int(text) >= _MAX_OFFSET:
        raise Refusal(400, f"{name}={text[:40]} is no offset", hint="use a whole number of bytes")
    return int(text)


def _seconds(text: object) -> float | None:
    """Return a header's number of seconds; None when there is none, or it is none that can be."""
    try:
        seconds = float(str(text)) if text is not None else -1.0
    except ValueError:
        return None
    return seconds if 0 <= seconds < _MOST_S else None
