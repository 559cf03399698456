"""Sink and carrier of a session that has nowhere to go: every call is taken, everything is counted as dropped."""

from collections.abc import Callable
from typing import Any

from datacat.client.ports import Slots


class Deaf:
    """Keeps nothing. The app must not notice that there is no folder to write to."""

    def __init__(self, dropped: Callable[[str], None]) -> None:
        self.slots: Slots = [0, 0]
        self._dropped = dropped
        self._reason = "no_folder"

    def write(self, _line: bytes) -> object:
        """Drop a line."""
        self._dropped(self._reason)
        return None

    def append(self, _line: bytes) -> bool:
        """Drop a line."""
        self._dropped(self._reason)
        return False

    def offset(self) -> int:
        """Return 0."""
        return 0

    def acked(self) -> int:
        """Return less than offset(): nothing will ever be acknowledged."""
        return -1

    def close(self, reason: str = "ended") -> None:
        """Count what still comes for this reason."""
        self._reason = reason

    def watch(self, timeout_s: float, flags: int) -> None:
        """Do nothing."""

    def look(self) -> None:
        """Do nothing."""

    def wake(self) -> None:
        """Do nothing."""

    def note_drops(self, totals: dict[str, int]) -> None:
        """Do nothing."""

    def forget(self) -> None:
        """Do nothing."""

    def details(self) -> dict[str, Any] | None:
        """Return None."""
        return None
