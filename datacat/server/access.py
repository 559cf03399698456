"""One line for each request: id, route, status, time, bytes; never a path, a query, a body or a key.

A batch that was stored has its line at the level debug alone: each app sends one every few seconds, and a thousand
lines a second in a journal cost more than the batches do, and drown the others.
"""

import itertools
import logging
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from datacat.server.pulse import ROUTE

_log = logging.getLogger("datacat.requests")

REQUEST_ID = "X-Request-Id"
"""Every answer of an application has it; a client that names it can be found in the log."""
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

_MANY = ("POST", "/api/sessions/{id}/batches", 200)
"""Method, route and status of the requests that are told at debug alone."""

Application = Callable[[dict[str, Any], Any], Iterable[bytes]]


class Asked(NamedTuple):
    """A request that has come: its id, and when (the clock of perf_counter)."""

    id: str
    began: float


class Access:
    """Writes the lines. Any thread; form() is one of config.FORMS as it is set now."""

    def __init__(self, form: Callable[[], str]) -> None:
        self._form = form
        self._prefix = secrets.token_hex(3)
        self._number = itertools.count(1)

    def around(self, app: Application) -> Application:
        """Return the application with every request logged once, when its answer is complete."""

        def serve(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            asked = self.begin()
            told: list[int] = []

            def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
                told[:] = [int(status[:3])]
                return start_response(status, [*headers, (REQUEST_ID, asked.id)], *more)

            answered = app(environ, start)

            def done(size: int) -> None:
                self.end(asked, environ, told[0] if told else 500, size)

            if isinstance(answered, list):
                done(sum(map(len, answered)))
                return answered
            return _Counted(answered, done)

        return serve

    def begin(self) -> Asked:
        """Return the id of a request that has come, and when that was."""
        return Asked(f"{self._prefix}-{next(self._number):x}", time.perf_counter())

    def end(self, asked: Asked, environ: Mapping[str, Any], status: int, size: int) -> None:
        """Write the line of a request whose answer is complete."""
        method, route = environ.get("REQUEST_METHOD", ""), environ.get(ROUTE, ["other"])[0]
        level = logging.DEBUG if (method, route, status) == _MANY else logging.INFO
        if not _log.isEnabledFor(level) or self._form() == "off":
            return
        self._write(
            level,
            {
                "id": asked.id,
                "method": method if method in _METHODS else "other",
                "route": route,
                "status": status,
                "ms": round((time.perf_counter() - asked.began) * 1000, 3),
                "bytes": size,
                "client": environ.get("REMOTE_ADDR", ""),
            },
        )

    def refused(self, status: int, address: str) -> None:
        """Write the line of a request that the HTTP server answered itself."""
        if self._form() != "off":
            request_id = f"{self._prefix}-{next(self._number):x}"
            line = {"id": request_id, "method": "other", "route": "none", "status": status, "client": address}
            self._write(logging.INFO, line)

    def _write(self, level: int, told: dict[str, Any]) -> None:
        if self._form() == "json":
            now = time.time()
            stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1e6):06d}Z"
            _log.log(level, "%s", msgspec.json.encode({"timestamp": stamp, **told}).decode(), extra={"bare": True})
        else:
            _log.log(level, "%s", " ".join([f"{name}={value}" for name, value in told.items()]))


class _Counted:
    """An answer that is made while it is sent; done is told its size, once, however it ends."""

    def __init__(self, answered: Iterable[bytes], done: Callable[[int], None]) -> None:
        self._answered = answered
        self._done: Callable[[int], None] | None = done
        self._size = 0

    def __iter__(self) -> Iterator[bytes]:
        for part in self._answered:
            self._size += len(part)
            yield part

    def close(self) -> None:
        """Let go of the answer; the server calls it in any case."""
        try:
            close = getattr(self._answered, "close", None)
            if close is not None:
                close()
        finally:
            done, self._done = self._done, None
            if done is not None:
                done(self._size)
