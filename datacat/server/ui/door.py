"""Signing in with a key, signing out, and what a browser sees instead of a problem document."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, urlencode

from datacat.server.audit import Audit
from datacat.server.gate import Gate, client_address, is_secure
from datacat.server.keys import Key
from datacat.server.principal import RIGHTS
from datacat.server.problems import Problem, Refusal
from datacat.server.router import Answer, Request, Route
from datacat.server.signin import cookie_of, is_token, local_path, set_cookie
from datacat.server.ui.frame import Templates

PATH = "/sign-in"
_FORM = "application/x-www-form-urlencoded"
_SAY = {
    400: "This address asks for something that does not exist",
    403: "You may not see this",
    404: "There is nothing here",
    410: "This has been deleted",
    429: "Too many requests",
    503: "The server is busy",
}
"""Headings of the pages that tell of a problem; any other status is a failure of the server."""


class Door:
    """The handlers. Any thread."""

    def __init__(self, templates: Templates, doors: Gate, audit: Audit) -> None:
        self._templates = templates
        self._doors = doors
        self._audit = audit

    def routes(self) -> list[Route]:
        """Return the table of routes."""
        return [
            Route("GET", PATH, self.form, None, ("next",)),
            Route("POST", PATH, self.sign_in, None),
            Route("POST", "/sign-out", self.sign_out, None),
        ]

    def form(self, request: Request) -> Answer:
        """GET /sign-in: asks for a key; who needs none goes on."""
        self._doors.check_names(request.environ)
        wanted = local_path(request.one("next"))
        if not self._doors.ring or self._signed_in(request.environ):
            return Answer(303, b"", {"Location": wanted, "Cache-Control": "no-store"})
        return self._ask(wanted)

    def sign_in(self, request: Request) -> Answer:
        """POST /sign-in: takes a key that may read, gives the browser a new cookie, and goes on to the page."""
        self._doors.check_names(request.environ)
        told = _form(request)
        wanted = local_path(told.get("next", ""))
        try:
            key = self._doors.key(request.environ, told.get("key", "").strip())
            if "read" not in RIGHTS[key.role]:
                raise Refusal(403, f"a key with the role {key.role} may not read", hint="use one that may")
        except Refusal as refusal:
            return self._ask(wanted, refusal)
        text = self._doors.sign_ins.begin(key.id, cookie_of(request.environ))
        self._tell("signed_in", key, request)
        return _go(wanted, set_cookie(text, secure=self._is_secure(request)))

    def sign_out(self, request: Request) -> Answer:
        """POST /sign-out: the cookie is worth nothing from now on; needs the token of the page's form."""
        self._doors.check_names(request.environ)
        cookie = cookie_of(request.environ)
        key = self._signed_in(request.environ)
        if key is not None:
            if not is_token(_form(request).get("token", ""), cookie):
                raise Refusal(403, "this form is not of a page that is open here", hint="load the page again")
            self._doors.sign_ins.end(cookie)
            self._tell("signed_out", key, request)
        return _go(PATH, set_cookie("", secure=self._is_secure(request)))

    def page_of(self, environ: Mapping[str, Any], told: Problem) -> Answer | None:
        """Return what a person sees of a problem; None for a program, which gets the problem document."""
        path = str(environ.get("PATH_INFO") or "/")
        if environ.get("HTTP_HX_REQUEST"):
            # A part of a page that is open: the page is loaded again, and asks for the key.
            return Answer(401, b"", {**told.headers, "HX-Refresh": "true"}) if told.status == 401 else None
        asks = environ.get("REQUEST_METHOD") in ("GET", "POST") and "text/html" in str(environ.get("HTTP_ACCEPT", ""))
        if not asks or path.startswith("/api/"):
            return None
        if told.status == HTTPStatus.UNAUTHORIZED:
            return self._lead_in(environ, path)
        answer = self._templates.page(
            "problem.html", "", heading=_SAY.get(told.status, "The server failed"),
            detail=str(told.members["detail"]), status=told.status, is_ours=told.status >= 500,
        )  # fmt: skip
        kept = {name: value for name, value in told.headers.items() if name not in ("Content-Type", "Cache-Control")}
        return Answer(told.status, answer.body, {**answer.headers, **kept})

    def _lead_in(self, environ: Mapping[str, Any], path: str) -> Answer:
        query = str(environ.get("QUERY_STRING", ""))
        wanted = local_path(f"{path}?{query}" if query else path)
        if environ.get("HTTP_SEC_FETCH_SITE") == "cross-site":
            # A link of another site brings no strict cookie along; the same link of our own page does.
            return self._templates.page("again.html", "", wanted=wanted)
        where = PATH if wanted == "/" else f"{PATH}?{urlencode({'next': wanted})}"
        return Answer(302, b"", {"Location": where, "Cache-Control": "no-store"})

    def _ask(self, wanted: str, refusal: Refusal | None = None) -> Answer:
        problem = "" if refusal is None else str(refusal)
        answer = self._templates.page("sign_in.html", PATH, wanted=wanted, problem=problem)
        if refusal is None:
            return answer
        return Answer(refusal.status, answer.body, {**answer.headers, **refusal.headers})

    def _signed_in(self, environ: Mapping[str, Any]) -> Key | None:
        """Return the key that the cookie stands for."""
        cookie = cookie_of(environ)
        return self._doors.ring.get(self._doors.sign_ins.key_id(cookie)) if cookie else None

    def _is_secure(self, request: Request) -> bool:
        return is_secure(request.environ, frozenset(self._doors.live.now.trusted_proxies))

    def _tell(self, act: str, key: Key, request: Request) -> None:
        address = client_address(request.environ, frozenset(self._doors.live.now.trusted_proxies))
        self._audit.write(act, key.id, who=key.name, key_id=key.id, address=address)


def _go(where: str, cookie: str) -> Answer:
    return Answer(303, b"", {"Location": where, "Set-Cookie": cookie, "Cache-Control": "no-store"})


def _form(request: Request) -> dict[str, str]:
    if request.content_type != _FORM:
        raise Refusal(415, "this takes a form of its own page")
    try:
        return dict(parse_qsl(request.body.decode("ascii"), keep_blank_values=True, max_num_fields=20))
    except ValueError as error:
        raise Refusal(400, "the form cannot be read") from error
