"""What heartbeats say: (now, last beat, held, late) -> transitions and events. Pure.

Durations are measured with a clock that stops while the machine sleeps, so a closed lid is never a hang. An app that is
stopped (SIGSTOP, job control), frozen with its cgroup or traced by a debugger is suspended, not hung. When the daemon's
own tick came late (a paused virtual machine, a swap storm), everything was late: the deadline starts anew.

Before it is hung an app is slow. That is told when it is over, and only of apps that beat at least every second by
themselves, or have not been told to be slow for so long before: an app that beats itself may do so seldom.
"""

from typing import NamedTuple

from datacat.wire import hangs
from datacat.wire.layout import Beat
from datacat.wire.records import (
    HUNG_EVENT,
    RECOVERED_EVENT,
    RESUMED_EVENT,
    SLOW_EVENT,
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
STUTTER_S = 0.2
"""A standstill of the machine from this length on is left out of a silence, when it is too short to be late by."""
PAUSED_S = 3.0
"""A standstill of the whole machine that its clocks did not tell is a suspension from this length on."""
SHORTEST_LOOK_S, LONGEST_LOOK_S, LOOK_PART = 0.1, 5.0, 0.05
"""A silent or held app is looked at again after this part of the time that it lasts: its end is timed to 5 %."""


class Watch(NamedTuple):
    """What is known of one app: its status, the awake time (ns) and Unix time (us) when that status began.

    judged_from_ns is the awake time before which silence does not count. hung_beat_ns is the last beat before a hang,
    lost_ns what is to be left out of its length. slow_beat_ns is the last beat before it was slow (0: it is not),
    slow_from_ns since when that counts, slow_floor_s the silence below which it is not called slow any more.
    """

    status: str = "active"
    since_ns: int = 0
    judged_from_ns: int = 0
    hung_beat_ns: int = 0
    lost_ns: int = 0
    slow_beat_ns: int = 0
    slow_from_ns: int = 0
    slow_floor_s: float = 0.0


class Gaps(NamedTuple):
    """What was missing since the last look.

    By how much the daemon's own tick was late, how long the machine slept, and for how long the daemon did not run
    although nothing kept it busy.
    """

    late_s: float = 0.0
    slept_s: float = 0.0
    paused_s: float = 0.0


class Look(NamedTuple):
    """One look at the app. now_ns is host.awake_ns(), now_us Unix time.

    held is stopped, traced, frozen or empty. timeout_s is for apps that name none; slow_s the silence after which an
    app is slow (0: never).
    """

    now_ns: int
    now_us: int
    beat: Beat
    held: str = ""
    timeout_s: float = 60.0
    slow_s: float = 0.0
    gaps: Gaps = Gaps()


class Step(NamedTuple):
    """The new Watch, the records to write in order, and whether stacks should be looked for."""

    watch: Watch
    records: list[Record]
    hung: bool = False


def step(watch: Watch, look: Look) -> Step:
    """Return what one look changes. A hang is judged by the time of the app's last heartbeat, not by its arrival."""
    records: list[Record] = []
    if look.gaps.slept_s > ASLEEP_S:
        records += _slept(watch, look, look.gaps.slept_s, "sleep", "the machine slept")
    elif look.gaps.paused_s > PAUSED_S and look.beat.on and not _beat_meanwhile(look):
        records += _slept(watch, look, look.gaps.paused_s, "standstill", "the machine stood still")
    if look.gaps.slept_s > ASLEEP_S or look.gaps.late_s > LATE_S or look.gaps.paused_s > LATE_S:
        lost_ns = watch.lost_ns + int(look.gaps.paused_s * 1e9) if watch.status == "hung" else 0
        watch = watch._replace(judged_from_ns=look.now_ns, slow_beat_ns=0, lost_ns=lost_ns)
    elif look.gaps.paused_s > STUTTER_S:
        judged_from_ns = silent_from_ns(watch, look.beat) + int(look.gaps.paused_s * 1e9)
        watch = watch._replace(judged_from_ns=min(judged_from_ns, look.now_ns))
    if look.held:
        if watch.status != "suspended":
            records += _hang_over(watch, look)
            records.append(_suspended(look.now_us, look.held))
            records.append(Verdict(t=look.now_us, status="suspended", detail=look.held))
            watch = watch._replace(status="suspended", since_ns=look.now_ns, slow_beat_ns=0)
        return Step(watch, records)
    if watch.status == "suspended":
        duration_s = (look.now_ns - watch.since_ns) / 1e9
        records.append(_resumed(look.now_us, duration_s))
        records.append(Verdict(t=look.now_us, status="active"))
        watch = Watch("active", look.now_ns, look.now_ns, slow_floor_s=watch.slow_floor_s)
    if watch.status == "hung":
        over = look.beat.awake_ns > watch.hung_beat_ns or look.beat.paused or not look.beat.on
        if over:
            records += _recovered(watch, look)
            watch = Watch("active", look.now_ns, look.now_ns, slow_floor_s=watch.slow_floor_s)
        return Step(watch, records)
    silence_ns = silent_ns(watch, look.beat, look.now_ns)
    timeout_s = look.beat.timeout_s or look.timeout_s
    watch, slow = _slow(watch, look, silence_ns)
    records += slow
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
    hung = Watch("hung", look.now_ns, watch.judged_from_ns, look.beat.awake_ns, slow_floor_s=watch.slow_floor_s)
    return Step(hung, records, hung=True)


def taken_over(last: Verdict | None, beat: Beat, now_ns: int, now_us: int, timeout_s: float) -> Watch:
    """Return the watch of an app whose earlier daemon is gone, by its last verdict.

    A hang or a suspension goes on until it is seen to be over; how long it has lasted is told by Unix time then.
    """
    if last is None or last.status not in ("hung", "suspended"):
        return Watch(judged_from_ns=now_ns)
    since_ns = now_ns - max(0, now_us - last.t) * 1000
    if last.status == "suspended":
        return Watch("suspended", since_ns, now_ns)
    # A beat that came before the verdict is the last one before the hang.
    before_ns = since_ns - int((beat.timeout_s or timeout_s) * 1e9)
    return Watch("hung", since_ns, now_ns, beat.awake_ns if beat.awake_ns < since_ns else before_ns)


def silent_ns(watch: Watch, beat: Beat, now_ns: int) -> int | None:
    """Return for how long the app has been silent; None when it is not judged by heartbeats (it never sent one)."""
    if not beat.on or beat.paused or beat.awake_ns <= 0:
        return None
    return now_ns - max(beat.awake_ns, watch.judged_from_ns)


def deadline_ns(watch: Watch, beat: Beat, timeout_s: float) -> int | None:
    """Return the awake time when the app will be called hung unless it beats; None when it will not."""
    if watch.status != "active" or not beat.on or beat.paused or beat.awake_ns <= 0:
        return None
    return silent_from_ns(watch, beat) + int((beat.timeout_s or timeout_s) * 1e9)


def silent_from_ns(watch: Watch, beat: Beat) -> int:
    """Return the awake time from which silence counts."""
    return max(beat.awake_ns, watch.judged_from_ns)


def points_s(watch: Watch, beat: Beat, timeout_s: float, slow_s: float) -> tuple[float, ...]:
    """Return after how much silence the app is to be sampled."""
    return hangs.points_s(beat.timeout_s or timeout_s, _slow_after_s(watch, beat, slow_s))


def again_ns(watch: Watch, beat: Beat, now_ns: int) -> int | None:
    """Return the awake time when an app that is slow, hung or held is to be looked at again; None for all others."""
    if watch.status == "active" and not watch.slow_beat_ns:
        return None
    began_ns = watch.since_ns if watch.status == "suspended" else beat.awake_ns
    lasts_s = (now_ns - began_ns) / 1e9
    return now_ns + int(min(LONGEST_LOOK_S, max(SHORTEST_LOOK_S, lasts_s * LOOK_PART)) * 1e9)


def hang_s(watch: Watch, now_ns: int) -> float | None:
    """Return how long a hang has lasted; None when the app does not hang."""
    return (now_ns - watch.hung_beat_ns - watch.lost_ns) / 1e9 if watch.status == "hung" else None


def _slow(watch: Watch, look: Look, silence_ns: int | None) -> tuple[Watch, list[Record]]:
    """Return the watch that knows whether the app is slow, and the event when that is over."""
    beat = look.beat
    if silence_ns is None or beat.paused:
        return watch._replace(slow_beat_ns=0), []
    if watch.slow_beat_ns and beat.awake_ns > watch.slow_beat_ns:
        duration_s = (beat.awake_ns - watch.slow_from_ns) / 1e9
        floor_s = watch.slow_floor_s if beat.steady else 2 * duration_s
        text = f"no heartbeat for {duration_s:.1f} s"
        data: dict[str, object] = {"duration_s": round(duration_s, 3)}
        t_us = max(beat.unix_us, 0)
        event = Event(t=t_us, name=SLOW_EVENT, level="warning", category="lifecycle", message=text, data=data)
        return watch._replace(slow_beat_ns=0, slow_floor_s=floor_s), [event]
    after_s = _slow_after_s(watch, beat, look.slow_s)
    if after_s and not watch.slow_beat_ns and silence_ns >= after_s * 1e9:
        watch = watch._replace(slow_beat_ns=beat.awake_ns, slow_from_ns=silent_from_ns(watch, beat))
    return watch, []


def _slow_after_s(watch: Watch, beat: Beat, slow_s: float) -> float:
    return max(slow_s, watch.slow_floor_s) if slow_s and not beat.steady else slow_s


def _beat_meanwhile(look: Look) -> bool:
    """Return whether the app beat while the daemon did not run: then only the daemon stood still."""
    began_ns = look.now_ns - int(look.gaps.paused_s * 1e9)
    return began_ns + 1e9 < look.beat.awake_ns < look.now_ns - 1e9


def _recovered(watch: Watch, look: Look) -> list[Record]:
    beat = look.beat
    beaten = beat.awake_ns > watch.hung_beat_ns
    # The first beat after the hang is not known, only the newest; a tick later at most.
    duration_s = max(0, (beat.awake_ns if beaten else look.now_ns) - watch.hung_beat_ns - watch.lost_ns) / 1e9
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


def _slept(watch: Watch, look: Look, lasted_s: float, reason: str, detail: str) -> list[Record]:
    """Return the two transitions of a sleep that is over already; a session that is held or hung stays so."""
    began_us = look.now_us - int(lasted_s * 1e6)
    events: list[Record] = [_suspended(began_us, reason)]
    if watch.status == "active":
        events.append(Verdict(t=began_us, status="suspended", detail=detail))
    events.append(_resumed(look.now_us, lasted_s))
    if watch.status == "active":
        events.append(Verdict(t=look.now_us, status="active"))
    return events
