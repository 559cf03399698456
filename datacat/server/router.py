"""Which handler answers a method and a path: one table of routes, served through CherryPy's request cycle.

A handler takes a Request and returns an Answer; it knows neither CherryPy nor a socket, and raises errors of our tree.
What CherryPy adds is the life cycle of a request around it.
"""

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import parse_qsl

import cherrypy
import msgspec

from datacat.server import bodies
from datacat.server.gate import Gate
from datacat.server.principal import NOBODY, Principal, Right
from datacat.server.problems import SAFE_HEADERS, Problem, Refusal, problem_of
from datacat.server.pulse import ROUTE
from datacat.wire import routes
from datacat.wire.records import MAX_BATCH_BYTES

_log = logging.getLogger(__name__)

_JSON_TYPES = re.compile(r"application/(?:[\w.+-]+\+)?json", re.ASCII)
_PLAIN_QUERY = re.compile(r"[a-z_]+=[0-9A-Za-z_-]*(?:&[a-z_]+=[0-9A-Za-z_-]*){0,19}")
_PHRASE_CHARS = 120
_DECODER = msgspec.json.Decoder()


@dataclass(frozen=True)
class Request:
    """One request: names of the path, the query's parameters with all their values, the WSGI environment, who asks."""

    environ: dict[str, Any]
    path: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, list[str]] = field(default_factory=dict)
    principal: Principal = NOBODY

    @cached_property
    def body(self) -> bytes:
        """The body, decompressed. Raises: Refusal."""
        return bodies.read(self.environ, MAX_BATCH_BYTES)

    def json(self, *, more_types: tuple[str, ...] = ()) -> Any:
        """Return the body as JSON; None when it is empty. Raises: Refusal 400 when it is none, 415 for another type."""
        content_type = self.content_type
        if content_type and not _JSON_TYPES.fullmatch(content_type) and content_type not in more_types:
            raise Refusal(415, f"the content type {content_type[:80]!r} is not JSON", hint=f"use {routes.JSON}")
        if not self.body.strip():
            return None
        try:
            return _DECODER.decode(self.body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise Refusal(400, f"the body is no JSON: {error}") from error

    @property
    def content_type(self) -> str:
        """The media type of the body without parameters, in lower case; empty when it is not told."""
        return str(self.environ.get("CONTENT_TYPE", "")).partition(";")[0].strip().lower()

    def one(self, name: str, default: str = "") -> str:
        """Return the value of a parameter that may stand once. Raises: Refusal 400 when it stands twice."""
        values = self.query.get(name)
        if not values:
            return default
        if len(values) > 1:
            raise Refusal(400, f"the parameter {name} stands {len(values)} times")
        return values[0]


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer: body is bytes, or an iterator of bytes that is sent while it is made.

    reason stands beside the status instead of its usual phrase: some programs, Grafana among them, show only that.
    """

    status: int = 200
    body: bytes | Iterator[bytes] = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""


Handler = Callable[[Request], Answer]
PageOf = Callable[[Mapping[str, Any], Problem], Answer | None]


@dataclass(frozen=True, slots=True)
class Route:
    """One row: method, path with {names}, its handler, the right that it needs, the parameters that it knows."""

    method: str
    path: str
    handler: Handler
    need: Right | None
    parameters: tuple[str, ...] = ()

    @property
    def pattern(self) -> re.Pattern[str]:
        """Matches the path; a name is everything but a slash."""
        return re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(self.path)))


def as_json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    """Return an answer with a JSON body."""
    return Answer(status, msgspec.json.encode(value), {"Content-Type": routes.JSON, **(headers or {})})


class Router:
    """The table of routes as a CherryPy dispatcher. Any thread.

    page_of: what a person's browser is shown of a problem; None from it, or without it: the problem document.
    """

    def __init__(self, table: Iterable[Route], gate: Gate, page_of: PageOf | None = None) -> None:
        self._gate = gate
        self._page_of = page_of
        self._paths: dict[re.Pattern[str], dict[str, Route]] = {}
        for route in table:
            self._paths.setdefault(route.pattern, {})[route.method] = route

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]]:
        """Return the route and the names in the path. Raises: Refusal 404, or 405 with Allow."""
        for pattern, methods in self._paths.items():
            if found := pattern.fullmatch(path):
                route = methods.get("GET" if method == "HEAD" else method)
                if route is None:
                    allowed = sorted({*methods, *(("HEAD",) if "GET" in methods else ())})
                    raise Refusal(405, "this method is not possible here", headers={"Allow": ", ".join(allowed)})
                return route, found.groupdict()
        raise Refusal(404, "there is nothing at this path")

    def answer(self, environ: dict[str, Any]) -> Answer:
        """Return the answer to a WSGI request. Raises: errors of our tree."""
        route, path = self.find(environ["REQUEST_METHOD"], environ.get("PATH_INFO") or "/")
        environ.get(ROUTE, [""])[0] = route.path
        principal = self._gate.admit(environ, route.need)
        return route.handler(Request(environ, path, query_of(environ, route.parameters), principal))

    def __call__(self, path_info: str) -> None:
        """Choose the handler of the current CherryPy request."""
        del path_info  # CherryPy joins and decodes it; the environment has what the client said
        request = cherrypy.serving.request
        request.config = request.app.config["/"].copy()
        request.handler = self._serve

    def _serve(self) -> Any:
        environ: dict[str, Any] = cherrypy.serving.request.wsgi_environ
        response = cherrypy.serving.response
        try:
            answer = self.answer(environ)
        except Exception as error:
            told = told_of(error)
            answer = (self._page_of and self._page_of(environ, told)) or as_answer(told)
        body, headers = encoded(answer, environ.get("HTTP_ACCEPT_ENCODING", ""))
        response.status = f"{answer.status} {answer.reason}" if answer.reason else answer.status
        response.headers.clear()
        response.headers.update(headers)
        if not isinstance(body, bytes):
            response.stream = True
        return body


def told_of(error: Exception) -> Problem:
    """Return the problem that tells of an error; one that is not of our tree is logged with its stack."""
    told = problem_of(error)
    if told.status >= 500:
        _log.error("a request failed: %s", error, exc_info=error)
    return told


def failed(error: Exception) -> Answer:
    """Return the problem document that tells of an error."""
    return as_answer(told_of(error))


def as_answer(told: Problem) -> Answer:
    """Return a problem as an answer."""
    reason = _phrase(str(told.members["detail"])) if told.status == 400 else ""
    return Answer(told.status, told.body, told.headers, reason)


def _phrase(text: str) -> str:
    """Return a text in the letters that a status line may have (RFC 9112, 4), not too long."""
    return "".join(letter if " " <= letter <= "~" else "?" for letter in text)[:_PHRASE_CHARS]


def encoded(answer: Answer, accept_encoding: str) -> tuple[bytes | Iterator[bytes], dict[str, str]]:
    """Return body and headers as they travel: compressed when asked for and worth it, with their length if known."""
    headers = {**SAFE_HEADERS, **answer.headers}
    headers.setdefault("Cache-Control", "no-cache")
    body = answer.body
    worth = not isinstance(body, bytes) or len(body) >= bodies.MIN_COMPRESSED_BYTES
    if worth:
        headers["Vary"] = "Accept-Encoding"
    if worth and (encoding := bodies.negotiate(accept_encoding)):
        headers["Content-Encoding"] = encoding
        packed = bodies.compress([body] if isinstance(body, bytes) else body, encoding)
        body = b"".join(packed) if isinstance(body, bytes) else packed
    if isinstance(body, bytes) and answer.status not in (204, 304):
        headers["Content-Length"] = str(len(body))
    return body, headers


def query_of(environ: Mapping[str, Any], known: tuple[str, ...]) -> dict[str, list[str]]:
    """Return the parameters of a request. Raises: Refusal 400 for one that is not known, and for bad UTF-8."""
    text = str(environ.get("QUERY_STRING", ""))
    try:
        if _PLAIN_QUERY.fullmatch(text):  # what daemons send needs no decoding
            pairs = [(name, value) for name, _, value in (part.partition("=") for part in text.split("&"))]
        else:
            pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=200)
    except ValueError as error:
        raise Refusal(400, f"the query cannot be read: {error}") from error
    query: dict[str, list[str]] = {}
    for name, value in pairs:
        if name not in known:
            raise Refusal(
                400,
                f"the parameter {name[:80]!r} is not known here",
                hint=f"use {', '.join(known)}" if known else "this takes none",
            )
        query.setdefault(name, []).append(value)
    return query


def application(router: Router) -> Any:
    """Return the CherryPy application (a WSGI callable) that serves the routes."""
    app = cherrypy.Application(None, "", {"/": {"request.dispatch": router}})
    app.request_class = _CherryRequest
    app.log.screen = False
    app.log.access = _silent  # one line a request would cost more than the request
    return app


class _CherryRequest(cherrypy._cprequest.Request):  # noqa: SLF001  the class has no public name
    """CherryPy's request; what it finds wrong itself, also before there is a route, is told as a problem document."""

    show_tracebacks = False
    process_request_body = False  # the handler reads it, within limits

    def process_query_string(self) -> None:
        """Leave the query to the route, which knows its parameters."""


def _silent() -> None:
    """Write no access log."""


def _error_page(status: str, message: str, **_: object) -> bytes:
    """Return the problem document for an error that CherryPy itself found (a malformed header or query)."""
    told = as_answer(problem_of(Refusal(int(status.split(maxsplit=1)[0]), message)))
    headers = cherrypy.serving.response.headers
    headers.pop("Server", None)  # CherryPy's name and version; the HTTP server puts its own name there
    headers.update(told.headers)
    body = told.body
    return body if isinstance(body, bytes) else b""


_CherryRequest.error_page = {"default": _error_page}
