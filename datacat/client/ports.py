"""What a session writes to and through: the two protocols, the totals of drops, and the cheap checks of arguments."""

import threading
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import msgspec

from datacat.wire import records

_MAX_BRACKETS = records.MAX_DEPTH - 2


class Slots(Protocol):
    """Two numbers that are written in place."""

    def __getitem__(self, index: int, /) -> int: ...

    def __setitem__(self, index: int, value: int, /) -> None: ...


class Sink(Protocol):
    """Where lines go: the journal, or the queue of simple mode. Its methods may be called from any thread."""

    @property
    def write(self) -> Callable[[bytes], object]:
        """Take a line at once, or raise: then append() is the way."""

    def append(self, line: bytes) -> bool:
        """Take a line whatever it needs; False when it was dropped and counted."""

    def offset(self) -> int:
        """Return how many bytes the stream has."""

    def records(self) -> int:
        """Return how many records were taken."""

    def close(self, reason: str = "ended") -> None:
        """Take nothing more; what still comes is dropped for this reason."""

    def forget(self) -> None:
        """Become harmless in a forked child."""


class Carrier(Protocol):
    """Who brings the lines to the server, as seen from the app. Only drain and details wait."""

    slots: Slots
    """The last heartbeat: host.awake_ns() and Unix us."""

    def watch(self, timeout_s: float, *, on: bool, paused: bool) -> None:
        """Say whether heartbeats are to be judged."""

    def look(self) -> None:
        """See that somebody ships the session, and start somebody when nobody does."""

    def wake(self) -> None:
        """Ask for what is there to be shipped now."""

    def acked(self) -> int:
        """Return how many bytes of the stream the server has, as far as is known here."""

    def note_drops(self, totals: dict[str, int]) -> None:
        """Tell the totals of what could not be kept."""

    def drain(self) -> None:
        """Do at the end of the interpreter what must be done in it."""

    def close(self) -> None:
        """Let go of what the session held; the shipping goes on without it."""

    def forget(self) -> None:
        """Become harmless in a forked child."""

    def details(self) -> dict[str, Any] | None:
        """Ask for the session object; None when nobody answers."""


class Drops:
    """Totals of what could not be kept, by reason; told on with every change. From any thread."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._totals: dict[str, int] = {}
        self.tell: Callable[[dict[str, int]], None] | None = None

    def count(self, reason: str, number: int = 1) -> None:
        """Add number records that were dropped for a reason."""
        with self._lock:
            self._totals[reason] = self._totals.get(reason, 0) + number
            if self.tell is not None:
                self.tell(self._totals)

    def totals(self) -> dict[str, int]:
        """Return the totals by reason."""
        with self._lock:
            return dict(self._totals)

    def forget(self) -> None:
        """Start anew in a forked child."""
        self._lock = threading.RLock()
        self._totals = {}
        self.tell = None


def texts(items: object) -> bool:
    """Return whether items is a list of texts."""
    if type(items) is not list:
        return False
    for item in items:  # noqa: SIM110  a generator costs as much as the whole rest of the call
        if type(item) is not str:
            return False
    return True


def fits(data: object, line: bytes) -> bool:
    """Return whether a member that is encoded in line passes every border. Few brackets prove that it is shallow."""
    return (
        type(data) is dict
        and (b"null" not in line or _finite(data))
        and line.count(b"{") + line.count(b"[") <= _MAX_BRACKETS
    )


def bounds(buckets: Iterable[float]) -> list[float]:
    """Return the upper bounds of buckets in order, without the infinite one; empty when they are no numbers."""
    try:
        return sorted({float(bound) for bound in buckets} - {float("inf")})
    except (TypeError, ValueError):
        return []


def _finite(data: object) -> bool:
    """Return whether data holds no NaN or infinity, also in what encodes itself: dataclasses, sets."""
    return records.is_finite_json(msgspec.to_builtins(data))
