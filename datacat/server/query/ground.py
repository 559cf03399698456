"""What the functions of the query layer stand on: the store, and where people look at a session."""

from dataclasses import dataclass

from datacat.server.pulse import Pulse
from datacat.store import Store


@dataclass(frozen=True, slots=True)
class Ground:
    """The store, and the pulse of this server.

    public_url is the address of the web UI without a slash at the end, empty when it is not known.
    """

    store: Store
    public_url: str = ""
    pulse: Pulse | None = None

    def session_url(self, session_id: str) -> str:
        """Return where the page of a session is: absolute when the public address is known."""
        return f"{self.public_url}/sessions/{session_id}"
