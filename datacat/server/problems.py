"""Errors as problem documents (RFC 9457): the one place that knows which error is which HTTP status."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple

import msgspec

from datacat.errors import Busy, DatacatError, Deleted, Mismatch, NotFound, StoreError, WireError
from datacat.wire import ids, routes

RETRY_AFTER_S = 5
"""When a client should try again after the store or the queue of requests could not take it."""

SAFE_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
"""Every answer has these (OWASP, REST Security Cheat Sheet); a page has a policy of its own."""
_MARKUP = ((b"&", b"\\u0026"), (b"<", b"\\u003c"), (b">", b"\\u003e"))


class Refusal(DatacatError):
    """A request that is refused before anything is done.

    status is the HTTP status, headers go with the answer, errors are {pointer, detail} of bad fields.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        hint: str = "",
        headers: Mapping[str, str] | None = None,
        errors: Sequence[Mapping[str, str]] = (),
    ) -> None:
        super().__init__(message, hint=hint, permanent=status < HTTPStatus.INTERNAL_SERVER_ERROR)
        self.status = status
        self.headers = dict(headers or {})
        self.errors = list(errors)


class Problem(NamedTuple):
    """An answer that says what went wrong: HTTP status, further headers, the members of the document."""

    status: int
    headers: dict[str, str]
    members: dict[str, Any]

    @property
    def body(self) -> bytes:
        """The document as JSON, in which nothing that a client sent can be taken for markup."""
        text = msgspec.json.encode(self.members)
        for sign, escape in _MARKUP:
            text = text.replace(sign, escape)
        return text


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None, **members: Any) -> Problem:
    """Return the problem with a status and a sentence; members with the value None are left out."""
    document: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
    }
    document |= {name: value for name, value in members.items() if value is not None}
    all_headers = {"Content-Type": routes.PROBLEM, "Cache-Control": "no-store", **(headers or {})}
    if status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS):
        all_headers.setdefault("Retry-After", str(RETRY_AFTER_S))
    return Problem(status, all_headers, document)


def problem_of(error: Exception) -> Problem:
    """Return the problem that tells of an error; one that is not of our tree says nothing about the inside."""
    match error:
        case Refusal():
            return problem(error.status, str(error), error.headers, errors=error.errors or None)
        case WireError():
            errors = [{"pointer": error.pointer, "detail": error.message}] if error.pointer else None
            return problem(HTTPStatus.UNPROCESSABLE_ENTITY, str(error), errors=errors)
        case NotFound():
            return problem(HTTPStatus.NOT_FOUND, str(error) if _is_id(error.session_id) else "there is no such session")
        case Deleted():
            return problem(HTTPStatus.GONE, str(error), reason="deleted")
        case Mismatch():
            return problem(HTTPStatus.CONFLICT, str(error), acked=error.acked, reason=error.reason)
        case StoreError() | Busy():
            return problem(HTTPStatus.SERVICE_UNAVAILABLE, "the store cannot do this now; try again later")
        case _:
            return problem(HTTPStatus.INTERNAL_SERVER_ERROR, "the server failed; its log says why")


def _is_id(text: str) -> bool:
    try:
        ids.session_id(text)
    except WireError:
        return False
    return True
