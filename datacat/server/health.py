"""Whether the process lives, and whether it can do its work: /livez, /readyz and /health."""

from collections.abc import Callable

from datacat import __version__
from datacat.errors import StoreError
from datacat.server.problems import Refusal
from datacat.server.router import Answer, Request, Route, as_json
from datacat.store import Store


class Health:
    """The handlers. Any thread; is_draining says whether the service has begun to stop."""

    def __init__(self, store: Store, is_draining: Callable[[], bool]) -> None:
        self._store = store
        self._is_draining = is_draining

    def routes(self) -> list[Route]:
        """Return the table of routes; they need no key and tell nothing about sessions."""
        return [
            Route("GET", "/livez", self.live, None),
            Route("GET", "/readyz", self.ready, None),
            Route("GET", "/health", self.health, None),
        ]

    def live(self, _request: Request) -> Answer:
        """GET /livez: the process answers."""
        return Answer(200, b"ok\n", {"Content-Type": "text/plain; charset=utf-8"})

    def ready(self, _request: Request) -> Answer:
        """GET /readyz: the store takes writes and the service does not stop."""
        self._check()
        return Answer(200, b"ok\n", {"Content-Type": "text/plain; charset=utf-8"})

    def health(self, _request: Request) -> Answer:
        """GET /health: the same with a JSON body."""
        self._check()
        return as_json({"status": "ok", "version": __version__})

    def _check(self) -> None:
        if self._is_draining():
            raise Refusal(503, "the server stops")
        try:
            self._store.check()
        except StoreError as error:
            raise Refusal(503, f"the store cannot take writes: {error.message}") from error
