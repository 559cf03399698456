"""When a daemon leaves. Pure: (now, what is left to do) -> stay, or go."""

from typing import NamedTuple

STOP_PATIENCE_S = 20.0
"""A daemon that is told to stop together with its app waits so long for the app's end."""
EMPTY_PATIENCE_S = 30.0
"""A daemon whose owner never showed a session leaves; the client starts another one when it needs it."""
LAST_CALL_S = 60.0
"""A daemon with a long backlog and a server that takes it stays up to so long after its work is over."""
STOP_CALL_S = 2.0
"""How long a daemon that was told to stop tries to ship what is left; it is safe on disk."""
BY_HAND_CALL_S = 4.0
"""The same for one that was started by hand, which is to end within 5 s."""


class Work(NamedTuple):
    """What a daemon has to do. now_s, started_s and told_s (told to stop; None: it was not) are monotonic seconds.

    owned: a client started it. owner_gone: that process has ended and its sessions are judged. sessions counts those
    that are served, ended whether none of them can get more, shipped whether the server has everything, taking whether
    the server takes what it gets.
    """

    now_s: float
    started_s: float
    told_s: float | None
    owned: bool
    owner_gone: bool
    sessions: int
    ended: bool
    shipped: bool
    taking: bool


def is_quiet(work: Work) -> bool:
    """Whether nothing more can come."""
    if not work.owned:
        return work.told_s is not None
    if work.told_s is not None and work.now_s - work.told_s >= STOP_PATIENCE_S:
        return True
    if work.owner_gone:
        return True
    if work.sessions:
        return work.ended
    return work.now_s - work.started_s >= EMPTY_PATIENCE_S


def is_time_to_leave(work: Work, quiet_since_s: float, linger_s: float) -> bool:
    """Whether a daemon that is quiet since then should leave now."""
    quiet_s = work.now_s - quiet_since_s
    if not work.owned:
        return work.shipped or quiet_s >= BY_HAND_CALL_S
    if work.told_s is not None:
        return work.shipped or quiet_s >= STOP_CALL_S
    if quiet_s < linger_s:
        return False
    return work.shipped or not work.taking or quiet_s >= LAST_CALL_S
