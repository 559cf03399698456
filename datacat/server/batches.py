"""Batches for a thread that must not wait: counted and logged as every other request, without WSGI."""

from collections.abc import Mapping
from typing import Any

from datacat.errors import StoreError
from datacat.server.access import REQUEST_ID, Access, Asked
from datacat.server.gate import HEADERS
from datacat.server.ingest import Held, Ingest
from datacat.server.pulse import Pulse
from datacat.server.router import Answer, encoded


class Begun:
    """One batch that was begun. ticket is the one that has to be committed before it is answered, 0 when none has."""

    __slots__ = ("asked", "began", "environ", "outcome")

    def __init__(self, environ: dict[str, Any], asked: Asked, began: float, outcome: Answer | Held) -> None:
        self.environ = environ
        self.asked = asked
        self.began = began
        self.outcome = outcome

    @property
    def is_held(self) -> bool:
        """Whether it waits for a commit."""
        return isinstance(self.outcome, Held)

    @property
    def ticket(self) -> int:
        """What it waits for."""
        return self.outcome.ticket if isinstance(self.outcome, Held) else 0


class Batches:
    """Any thread; none of it waits."""

    def __init__(self, ingest: Ingest, pulse: Pulse, access: Access) -> None:
        self._ingest = ingest
        self._pulse = pulse
        self._access = access

    def is_quick(self, environ: Mapping[str, Any], body: bytes) -> bool:
        """See Ingest.is_quick."""
        return self._ingest.is_quick(environ, body)

    def begin(self, environ: dict[str, Any]) -> Begun:
        """Begin with a request; its environment is as WSGI has it."""
        environ[HEADERS] = {}
        asked, began = self._access.begin(), self._pulse.begin(environ)
        outcome = self._ingest.begin(environ, waits=False)
        del environ["wsgi.input"]  # many may be held, for as long as a disk stands still
        return Begun(environ, asked, began, outcome)

    def end(self, batch: Begun, failure: StoreError | None) -> tuple[Answer, dict[str, str], bytes]:
        """Return the answer, its headers and its body; failure is why the commit failed."""
        answer = batch.outcome
        if isinstance(answer, Held):
            answer = answer.end(failure)
        body, headers = encoded(answer, batch.environ.get("HTTP_ACCEPT_ENCODING", ""))
        headers |= batch.environ[HEADERS]
        headers[REQUEST_ID] = batch.asked.id
        self._pulse.end(batch.environ, batch.began, answer.status)
        whole = body if isinstance(body, bytes) else b"".join(body)
        self._access.end(batch.asked, batch.environ, answer.status, len(whole))
        return answer, headers, whole
