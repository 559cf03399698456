"""Times of sessions whose machine has a wrong clock: people see the server's clock, JSON has the machine's own."""

from collections.abc import Mapping
from typing import Any

from datacat.wire.times import rfc3339, to_us

SKEW_S = 5.0
"""A clock that is less wrong is right: the way of a request takes time too."""
_TIMES = ("created_at", "updated_at", "ended_at", "last_heartbeat", "timestamp")
_LISTS = ("events", "metrics", "state_history")


def skew_s(session: Mapping[str, Any]) -> float:
    """Return how far the clock of the session's machine is ahead, in seconds; 0.0 when it is right enough."""
    skew = session.get("clock_skew_s")
    return float(skew) if isinstance(skew, (int, float)) and abs(skew) >= SKEW_S else 0.0


def corrected(session: Mapping[str, Any]) -> dict[str, Any]:
    """Return a session object, or a head, with its times on the server's clock."""
    skew = skew_s(session)
    shown = dict(session)
    if skew:
        shown = shifted(session, skew)
        for name in _LISTS:
            if isinstance(rows := session.get(name), list):
                shown[name] = [shifted(row, skew) for row in rows]
    return shown


def shifted(row: Mapping[str, Any], skew: float) -> dict[str, Any]:
    """Return a row with its times so much earlier."""
    return {
        name: rfc3339(max(0, to_us(value) - round(skew * 1e6))) if name in _TIMES and isinstance(value, str) else value
        for name, value in row.items()
    }
