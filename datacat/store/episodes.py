"""What a head remembers of its session's past: hangs, suspensions, and why it crashed. Pure.

All three are absent for healthy sessions and bounded for the others, so that heads stay small.
"""

from typing import NamedTuple

import msgspec

from datacat.store import groups
from datacat.store.groups import Group
from datacat.wire.records import CRASHED_EVENT, Event
from datacat.wire.routes import OPEN_STATUSES

MAX_HANGS = 64
"""The newest hangs of a session that its head lists."""
MAX_SUSPENSIONS = 32
_SAME_US = 5_000_000
"""The event of a hang may carry the time of its first sample, a little before the verdict."""


class Hang(msgspec.Struct, array_like=True, frozen=True):
    """One hang, from the verdict hung to the next one, in Unix us; end_us is 0 while it goes on.

    outcome: ongoing, recovered, suspended (nobody knows how it went on), crashed, or ended. signature and title are
    those of its group, when its stack is known.
    """

    start_us: int
    end_us: int = 0
    outcome: str = "ongoing"
    signature: str | None = None
    title: str | None = None


class Suspension(NamedTuple):
    """A span in Unix us in which the session was suspended; end_us is 0 while it goes on."""

    start_us: int
    end_us: int


class Crash(msgspec.Struct, array_like=True, frozen=True):
    """Why a session crashed: the group's signature, title and type.

    found says how well it is known: 0 by the verdict alone, 1 an exception without its stack, 2 the exception that
    ended the app, 3 what a witness wrote about the end.
    """

    signature: str
    title: str
    type: str
    found: int


def hangs_after(hangs: list[Hang], before: str, status: str, t_us: int, was_ended_at: int) -> list[Hang]:
    """Return the hangs after a change of status at t_us; was_ended_at is when it had ended (0: it was open)."""
    if before == "hung" and status != "hung" and hangs and not hangs[-1].end_us:
        hangs = [*hangs[:-1], _closed(hangs[-1], status, t_us)]
    elif was_ended_at and hangs and hangs[-1].end_us >= was_ended_at and hangs[-1].outcome in ("crashed", "ended"):
        # A better judge corrects how the session ended.
        hangs = [*hangs[:-1], _closed(hangs[-1], status, t_us)]
    if status == "hung" and before != "hung":
        hangs = [*hangs[1 - MAX_HANGS :], Hang(t_us)]
    return hangs


def suspensions_after(spans: list[Suspension], before: str, status: str, t_us: int) -> list[Suspension]:
    """Return the suspensions after a change of status at t_us.

    Of more than MAX_SUSPENSIONS the two oldest become one of the same length in all.
    """
    if before == "suspended" and status != "suspended" and spans and not spans[-1].end_us:
        spans = [*spans[:-1], Suspension(spans[-1].start_us, max(t_us, spans[-1].start_us))]
    if status == "suspended" and before != "suspended":
        spans = [*spans, Suspension(t_us, 0)]
        if len(spans) > MAX_SUSPENSIONS:
            first, second = spans[:2]
            spans = [Suspension(second.start_us - (first.end_us - first.start_us), second.end_us), *spans[2:]]
    return spans


def with_stack(hangs: list[Hang], t_us: int, group: Group) -> list[Hang]:
    """Return the hangs with what an event at t_us tells about the one of that time; unchanged when there was none."""
    for index in range(len(hangs) - 1, -1, -1):
        hang = hangs[index]
        if hang.start_us <= t_us + _SAME_US and (not hang.end_us or t_us <= hang.end_us):
            known = msgspec.structs.replace(hang, signature=group.signature, title=group.title)
            return [*hangs[:index], known, *hangs[index + 1 :]]
    return hangs


def crash_after(crash: Crash | None, product: str, event: Event) -> Crash | None:
    """Return what is known of the crash after an event that may tell of it."""
    group = groups.of_event(product, event)
    if event.name == CRASHED_EVENT:
        is_exception = bool(event.exception_type) or (event.data or {}).get("reason") == "exception"
        found = 1 if is_exception and not group.has_frames else 3
    else:
        found = 2
    if crash is not None and crash.found > found:
        return crash
    return Crash(group.signature, group.title, group.type, found)


def crash_by_verdict(product: str, reason: str | None, exit_code: int | None, exit_signal: int | None) -> Crash:
    """Return what the verdict alone tells of a crash."""
    group = groups.of_verdict(product, reason, exit_code, exit_signal)
    return Crash(group.signature, group.title, group.type, 0)


def _closed(hang: Hang, status: str, t_us: int) -> Hang:
    if status == "active":
        outcome = "recovered"
    elif status in OPEN_STATUSES:
        outcome = "suspended"
    else:
        outcome = "crashed" if status == "crashed" else "ended"
    return msgspec.structs.replace(hang, end_us=max(t_us, hang.start_us), outcome=outcome)
