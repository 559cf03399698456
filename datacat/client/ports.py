"""What a session writes to and through: the two protocols, the totals of drops, and the cheap checks of arguments."""

import itertools
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import msgspec

from datacat.wire import records

FIRST_PAUSE_S = 0.002
LONGEST_PAUSE_S = 0.128
"""flush() looks so often: at first when the daemon may have it already, then when it waits for a server."""
_MAX_BRACKETS = records.MAX_DEPTH - 2
_MAX_FLAT = 8
_MAX_BUCKETS = 1000


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

    def close(self, reason: str = "ended") -> None:
        """Take nothing more; what still comes is dropped for this reason."""

    def forget(self) -> None:
        """Become harmless in a forked child."""


class Carrier(Protocol):
    """Who brings the lines to the server, as seen from the app. Only details waits."""

    slots: Slots
    """The last heartbeat: host.awake_ns() and Unix us."""

    def watch(self, timeout_s: float, flags: int) -> None:
        """Say how heartbeats are to be judged; flags are those of the beat slot (layout.beat_flags())."""

    def look(self) -> None:
        """See that somebody ships the session, and start somebody when nobody does."""

    def wake(self) -> None:
        """Ask for what is there to be shipped now."""

    def acked(self) -> int:
        """Return how many bytes of the stream the server has, as far as is known here."""

    def note_drops(self, totals: dict[str, int]) -> None:
        """Tell the totals of what could not be kept."""

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


def wait_acked(carrier: Carrier, goal: int, timeout_s: float) -> bool:
    """Wait until the server has goal bytes of the stream, waking who ships it; False when the time is over."""
    pause = threading.Event()
    deadline = time.monotonic() + timeout_s
    pause_s = FIRST_PAUSE_S
    while carrier.acked() < goal:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            return False
        if pause_s in (FIRST_PAUSE_S, LONGEST_PAUSE_S):
            carrier.wake()
        pause.wait(min(left_s, pause_s))
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
    return True


def texts(items: object) -> bool:
    """Return whether items is a list of texts."""
    if type(items) is not list:
        return False
    for item in items:  # noqa: SIM110  a generator costs as much as the whole rest of the call
        if type(item) is not str:
            return False
    return True


def fits(data: object, line: bytes) -> bool:
    """Return whether a member that is encoded in line passes every border: no NaN, no infinity, not too deep.

    Encoders write NaN as null. A flat object is looked through value by value, which is the cheapest for the usual few;
    else the line is searched, and few brackets prove that it is shallow.
    """
    if type(data) is not dict:
        return False
    if len(data) <= _MAX_FLAT:
        for value in data.values():
            kind = type(value)
            if kind is str or kind is int or kind is bool or (kind is float and value - value == 0):
                continue
            break
        else:
            return True
    # rfind takes half the time of `in` (3.11: 100 to 210 ns in 160 bytes).
    return (line.rfind(b"null") < 0 or _finite(data)) and line.count(b"{") + line.count(b"[") <= _MAX_BRACKETS


def with_bounds(metadata: object, buckets: Iterable[float]) -> dict[str, Any]:
    """Return metadata with the upper bounds of buckets, in order and without the infinite one; never raises.

    They are empty when buckets are no numbers. Metadata of a wrong type is kept as its member `value`.
    """
    try:
        given = itertools.islice(buckets, _MAX_BUCKETS)
        bounds = sorted({float(bound) for bound in given} - {float("inf")})
    except Exception:  # whatever an object of the app raises
        bounds = []
    members = metadata if isinstance(metadata, dict) else {} if metadata is None else {"value": metadata}
    return {**members, "buckets": bounds}


def _finite(data: object) -> bool:
    """Return whether data holds no NaN or infinity, also in what encodes itself: dataclasses, sets."""
    return records.is_finite_json(msgspec.to_builtins(data))
