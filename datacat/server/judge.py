"""How the server judges sessions that it hears nothing of, and those that it hears of again. Pure.

Only what nobody better placed has said is judged: the store's fold lets an app's own end and a daemon's verdict stand.
"""

import signal
from collections.abc import Callable
from typing import NamedTuple

from datacat.server.leases import Away
from datacat.store import Head
from datacat.wire.records import (
    CRASHED_EVENT,
    HUNG_EVENT,
    RECOVERED_EVENT,
    RESUMED_EVENT,
    SUSPENDED_EVENT,
    Closing,
    Event,
    Record,
    Verdict,
)
from datacat.wire.routes import OPEN_STATUSES
from datacat.wire.times import rfc3339

_US = 1_000_000
SKEW_US = 5 * _US
"""A clock that is less wrong is right: the way of a request takes time too."""
_ASKED_TO_STOP = frozenset({signal.SIGINT, signal.SIGTERM, 1})
"""SIGHUP is 1; Windows has no name for it."""


class Limits(NamedTuple):
    """How long, in us, nothing may be heard: of heartbeats, of a session, of its daemon, and before it is lost."""

    heartbeat_us: int
    contact_us: int
    lease_us: int
    lost_us: int


class Heard(NamedTuple):
    """What is known of a session beside its head, in us of the server's clock.

    seen is when the session or its daemon was last heard of; since is the same, but not before the server could listen
    (its start, the end of its machine's sleep). beat is when the newest heartbeat came, None: there never was one.
    rebooted: its machine was seen again after a reboot, and nobody serves the session. away is the newest silence of
    its daemon that is over.
    """

    seen: int
    since: int
    beat: int | None
    rebooted: bool
    away: Away | None = None


def is_supposed(head: Head) -> bool:
    """Whether the status is only the server's guess, which a sign of life disproves."""
    return head.by == "server" and head.status in ("suspended", "abnormal")


def machine_us(head: Head, now_us: int) -> int:
    """Return what the clock of the session's machine says now: all times of a session are of that clock."""
    return now_us + head.skew_us if abs(head.skew_us) >= SKEW_US else now_us


def back(head: Head, now_us: int, away: Away | None = None) -> list[Record]:
    """Return what is to be written when a session that was hung, suspended or supposed lost is heard of again."""
    at_us = machine_us(head, now_us)
    if head.status == "hung":
        silent_us = max(0, at_us - min(head.last_heartbeat or head.status_since, head.status_since))
        hang_s = silent_us / _US
        return [
            Verdict(at_us, "active", by="server", hang_s=hang_s),
            Event(at_us, RECOVERED_EVENT, data={"duration_s": hang_s}),
        ]
    if head.status == "suspended" or is_supposed(head):
        return [Verdict(at_us, "active", away.cause if away else None, by="server"), resumed(head, at_us, away)]
    return []


def resumed(head: Head, at_us: int, away: Away | None = None) -> Event:
    """Return the event that tells that a session goes on at a time of its machine, and what it was meanwhile.

    head is what it was before. away says whether the machine slept or the network was away.
    """
    data: dict[str, object] = {"status": head.status, "duration_s": max(0, at_us - head.status_since) / _US}
    if away is not None and away.cause is not None and machine_us(head, away.until) >= head.status_since:
        data |= {"cause": away.cause, "slept_s": away.slept_s, "last_seen": rfc3339(away.since)}
    return Event(at_us, RESUMED_EVENT, data=data)


def judge(
    head: Head, heard: Heard, now_us: int, limits: Limits, last_closing: Callable[[], Closing | None]
) -> list[Record]:
    """Return the records of a change of status; empty when everything stays as it is.

    head is of a session that has not ended. last_closing returns the session's closing record when nothing of the app
    came after it; it is asked only when the session would be judged.
    """
    silent_us, at_us = now_us - heard.since, machine_us(head, now_us)
    shipped = head.daemon_id is not None
    contact_us = limits.lease_us if shipped else limits.contact_us
    if is_supposed(head) and now_us - heard.seen <= contact_us:
        return back(head, now_us, heard.away)
    if heard.rebooted:
        return _ended(last_closing(), at_us) or [Verdict(at_us, "abnormal", "reboot", by="server")]
    if silent_us > limits.lost_us:
        detail = f"nothing was heard since {rfc3339(heard.seen)}"
        return _ended(last_closing(), at_us) or [Verdict(at_us, "abnormal", "lost", detail, by="server")]
    if not shipped:
        if heard.beat is not None and (changed := _by_heartbeats(head, heard.beat, now_us, limits, last_closing)):
            return changed
        if silent_us > contact_us and (ended := _ended(last_closing(), at_us)):
            return ended
    may_suspend = ("active", "hung") if shipped else ("active",)
    if silent_us > contact_us and head.status in may_suspend:
        return [
            Verdict(at_us, "suspended", by="server"),
            Event(
                at_us,
                SUSPENDED_EVENT,
                level="warning",
                data={"reason": "contact lost", "last_seen": rfc3339(heard.seen)},
            ),
        ]
    return []


def crashed_event(verdict: Verdict) -> Event:
    """Return the event that goes with a verdict that the app crashed."""
    data = {"reason": verdict.reason, "exit_code": verdict.exit_code, "exit_signal": verdict.exit_signal}
    return Event(verdict.t, CRASHED_EVENT, level="critical", message=verdict.detail, data=data)


def _by_heartbeats(
    head: Head, beat_us: int, now_us: int, limits: Limits, last_closing: Callable[[], Closing | None]
) -> list[Record]:
    silent_us, at_us = now_us - beat_us, machine_us(head, now_us)
    if head.status == "hung" and head.by == "server" and silent_us <= limits.heartbeat_us:
        return back(head, now_us)
    if head.status == "active" and silent_us > limits.heartbeat_us and last_closing() is None:
        data = {"last_heartbeat": rfc3339(head.last_heartbeat), "silent_s": silent_us / _US}
        return [
            Verdict(at_us, "hung", by="server"),
            Event(at_us, HUNG_EVENT, level="error", data=data),
        ]
    return []


def _ended(closing: Closing | None, now_us: int) -> list[Record]:
    """Return the verdict on an app that was about to end when it was last heard of."""
    if closing is None:
        return []
    code, number = closing.exit_code, closing.exit_signal
    status, reason, detail = "ended", "closed", None
    if closing.exception_type:
        status, reason = "crashed", "exception"
        detail = f"{closing.exception_type}: {closing.exception_msg or ''}".rstrip(": ")
    elif number in _ASKED_TO_STOP:
        reason = "terminated"
    elif number:
        status, reason = "crashed", "killed" if number == 9 else "signal"
    elif code:
        status, reason = "crashed", "exit_code"
    elif code == 0 and closing.observed:
        reason = "exit_zero"
    verdict = Verdict(now_us, status, reason, detail, code, number, by="server")
    return [verdict, crashed_event(verdict)] if status == "crashed" else [verdict]


def may_end(head: Head) -> bool:
    """Whether end and crash still count: nobody better placed than the server has said how the session ended."""
    return head.status in OPEN_STATUSES or head.by == "server"
