"""What heartbeats say: (now, last beat, held, late) -> transitions and events. Pure.

Durations are measured with a clock that stops while the machine sleeps, so a closed lid is never a hang. An app that is
stopped (SIGSTOP, job control) or traced by a debugger is suspended, not hung. When the daemon's own tick came late
(a frozen virtual machine, a swap storm), everything was late: the deadline starts anew.
"""

from typing import NamedTuple

from datacat.wire.layout import Beat
from datacat.wire.records import (
    HUNG_EVENT,
    RECOVERED_EVENT,
    RESUMED_EVENT,
    SUSPENDED_EVENT,
    Event,
    Record,
    Verdict,
)
from datacat.wire.times import rfc3339

LATE_S = 0.5
"""A tick later than this means that the machine stood still, not the app (a busy machine is late by less)."""
ASLEEP_S = 1.0
"""Shorter sleeps are not worth a transition."""


class Watch(NamedTuple):
    """What is known of one app: its status, the awake time (ns) and Unix time (us) when that status began.

    judged_from_ns is the awake time before which silence does not count. hung_beat_ns is the last beat before a hang.
    """

    status: str = "active"
    since_ns: int = 0
    judged_from_ns: int = 0
    hung_beat_ns: int = 0


class Look(NamedTuple):
    """One look at the app. now_ns is host.awake_ns(), now_us Unix time.

    held is stopped, traced or empty. slept_s is how long the machine slept since the last look, late_s by how much the
    daemon's own tick was late. timeout_s is for apps that name none.
    """

    now_ns: int
    now_us: int
    beat: Beat
    held: str = ""
    slept_s: float = 0.0
    late_s: float = 0.0
    timeout_s: float = 60.0


class Step(NamedTuple):
    """The new Watch, the records to write in order, and whether stacks should be looked for."""

    watch: Watch
    records: list[Record]
    hung: bool = False


def step(watch: Watch, look: Look) -> Step:
    """Return what one look changes. A hang is judged by the time of the app's last heartbeat, not by its arrival."""
    records: list[Record] = []
    if look.slept_s > ASLEEP_S:
        records += _slept(watch, look)
    if look.slept_s > ASLEEP_S or look.late_s > LATE_S:
        watch = watch._replace(judged_from_ns=look.now_ns)
    if look.held:
        if watch.status != "suspended":
            records += _hang_over(watch, look)
            records.append(_suspended(look.now_us, look.held))
            records.append(Verdict(t=look.now_us, status="suspended", detail=look.held))
            watch = watch._replace(status="suspended", since_ns=look.now_ns)
        return Step(watch, records)
    if watch.status == "suspended":
        duration_s = (look.now_ns - watch.since_ns) / 1e9
        records.append(_resumed(look.now_us, duration_s))
        records.append(Verdict(t=look.now_us, status="active"))
        watch = Watch("active", look.now_ns, look.now_ns)
    if watch.status == "hung":
        over = look.beat.awake_ns > watch.hung_beat_ns or look.beat.paused or not look.beat.on
        if over:
            records += _recovered(watch, look)
            watch = Watch("active", look.now_ns, max(watch.judged_from_ns, look.now_ns))
        return Step(watch, records)
    silence_ns = silent_ns(watch, look.beat, look.now_ns)
    timeout_s = look.beat.timeout_s or look.timeout_s
    if silence_ns is None or silence_ns <= timeout_s * 1e9:
        return Step(watch, records)
    quiet_s = (look.now_ns - look.beat.awake_ns) / 1e9
    data: dict[str, object] = {
        "last_heartbeat": rfc3339(look.beat.unix_us),
        "silent_s": round(quiet_s, 3),
        "timeout_s": timeout_s,
    }
    text = f"no heartbeat for {quiet_s:.1f} s"
    event = Event(t=look.now_us, name=HUNG_EVENT, level="error", category="lifecycle", message=text, data=data)
    records += [event, Verdict(t=look.now_us, status="hung", detail=text)]
    return Step(Watch("hung", look.now_ns, watch.judged_from_ns, look.beat.awake_ns), records, hung=True)


def silent_ns(watch: Watch, beat: Beat, now_ns: int) -> int | None:
    """Return for how long the app has been silent; None when it is not judged by heartbeats (it never sent one)."""
    if not beat.on or beat.paused or beat.awake_ns <= 0:
        return None
    return now_ns - max(beat.awake_ns, watch.judged_from_ns)


def deadline_ns(watch: Watch, beat: Beat, timeout_s: float) -> int | None:
    """Return the awake time when the app will be called hung unless it beats; None when it will not."""
    if watch.status != "active" or not beat.on or beat.paused or beat.awake_ns <= 0:
        return None
    return max(beat.awake_ns, watch.judged_from_ns) + int((beat.timeout_s or timeout_s) * 1e9)


def hang_s(watch: Watch, now_ns: int) -> float | None:
    """Return how long a hang has lasted; None when the app does not hang."""
    return (now_ns - watch.hung_beat_ns) / 1e9 if watch.status == "hung" else None


def _recovered(watch: Watch, look: Look) -> list[Record]:
    beat = look.beat
    beaten = beat.awake_ns > watch.hung_beat_ns
    # The first beat after the hang is not known, only the newest; a tick later at most.
    duration_s = ((beat.awake_ns if beaten else look.now_ns) - watch.hung_beat_ns) / 1e9
    t = max(beat.unix_us, 0) if beaten else look.now_us
    data = {"duration_s": round(duration_s, 3), "by": "heartbeat" if beaten else "pause"}
    text = f"hung for {duration_s:.1f} s"
    event = Event(t=t, name=RECOVERED_EVENT, level="info", category="lifecycle", message=text, data=data)
    return [event, Verdict(t=t, status="active", hang_s=round(duration_s, 6))]


def _hang_over(watch: Watch, look: Look) -> list[Record]:
    """Return the end of a hang that turned into a suspension: its length must not be lost."""
    duration_s = hang_s(watch, look.now_ns)
    return [] if duration_s is None else [Verdict(t=look.now_us, status="active", hang_s=round(duration_s, 6))]


def _suspended(t_us: int, reason: str) -> Event:
    return Event(t=t_us, name=SUSPENDED_EVENT, level="info", category="lifecycle", data={"reason": reason})


def _resumed(t_us: int, duration_s: float) -> Event:
    data = {"duration_s": round(duration_s, 3)}
    return Event(t=t_us, name=RESUMED_EVENT, level="info", category="lifecycle", data=data)


def _slept(watch: Watch, look: Look) -> list[Record]:
    """Return the two transitions of a sleep that is over already; a session that is held or hung stays so."""
    began_us = look.now_us - int(look.slept_s * 1e6)
    events: list[Record] = [_suspended(began_us, "sleep")]
    if watch.status == "active":
        events.append(Verdict(t=began_us, status="suspended", detail="the machine slept"))
    events.append(_resumed(look.now_us, look.slept_s))
    if watch.status == "active":
        events.append(Verdict(t=look.now_us, status="active"))
    return events
