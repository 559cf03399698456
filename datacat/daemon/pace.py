"""When the daemon's loop has to wake up, and how late it did: that is the machine's fault, not the app's. Pure."""

from collections.abc import Iterable
from typing import NamedTuple

from datacat.daemon.watch import LATE_S

_SOON_S = 0.01
"""What is due already is looked at again after so long, and what is due, when that is surely past."""


class Nap(NamedTuple):
    """One wait of the loop: until a tick is due, or a look at an app that may have fallen silent (monotonic seconds).

    began_s and began_ns are the clocks at its begin: time.monotonic() and host.awake_ns().
    """

    tick_s: float
    look_s: float
    began_s: float
    began_ns: int

    @property
    def wait_s(self) -> float:
        """For how long to wait at most."""
        return max(0.0, min(self.tick_s, self.look_s) - self.began_s)

    def late_s(self, now_s: float) -> float:
        """Return by how much what is due is late, for whatever reason."""
        return max(0.0, now_s - min(self.tick_s, self.look_s))

    def paused_s(self, now_ns: int) -> float:
        """Return for how long the wait lasted beyond what was asked for, sleep of the machine left out."""
        return max(0.0, (now_ns - self.began_ns) / 1e9 - self.wait_s)

    def is_over(self, now_s: float) -> bool:
        """Return whether it is time for a tick, apart from silent apps."""
        return now_s >= self.tick_s or self.late_s(now_s) > LATE_S


def nap(
    tick_s: float, sooner_s: Iterable[float | None], looks_ns: Iterable[int | None], now_s: float, now_ns: int
) -> Nap:
    """Return the next wait. tick_s is when the next tick is due, sooner_s are reasons for an earlier one.

    looks_ns are the awake times when apps are to be looked at unless they beat.
    """
    tick_s = min([tick_s, *(each for each in sooner_s if each is not None)])
    return Nap(tick_s, look_s(looks_ns, now_s, now_ns), now_s, now_ns)


def look_s(looks_ns: Iterable[int | None], now_s: float, now_ns: int) -> float:
    """Return the monotonic time of the first of these awake times; infinite when there is none."""
    due = [now_s + max(_SOON_S, (each - now_ns) / 1e9 + _SOON_S) for each in looks_ns if each is not None]
    return min(due, default=float("inf"))


def is_due(looks_ns: Iterable[int | None], now_ns: int) -> bool:
    """Return whether an app is to be looked at now."""
    return any(each is not None and each <= now_ns for each in looks_ns)
