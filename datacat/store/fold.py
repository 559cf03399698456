"""head' = fold(head, state, records): what a session is, told by its records alone. Pure; every store uses it."""

import copy
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from datacat.store import episodes, groups
from datacat.store.columns import Columns, columns_of
from datacat.store.episodes import Crash, Hang, Suspension
from datacat.store.ledger import Stream, ledger
from datacat.store.plain import JUDGED_EVENTS, counted
from datacat.wire import records as wire
from datacat.wire.routes import OPEN_STATUSES, STATUS_CODES
from datacat.wire.state import effective, merge, same
from datacat.wire.times import rfc3339

RANKS = {"app": 3, "daemon": 2, "server": 1}
"""Who is believed: the app's own word, then the observed exit, then the server's guess by lease (0: anybody else)."""
STATEFUL = frozenset({wire.StatePatch, wire.Open, wire.Gap})  # what fold() needs the state for


class Head(msgspec.Struct, omit_defaults=True):
    """Everything about a session but its state and records. Times are Unix us (0: never).

    by is who made the last verdict: app, daemon or server; a later verdict of a lesser judge does not change an end.
    last_seen is when the server last got anything. last_heartbeat is the app's own time. counts has events, metrics,
    states, errors, exceptions, gaps and lost_bytes (what the gaps tell); dropped counts records that the client or
    daemon could not keep, by reason. hangs, suspensions and crash are what episodes.py keeps of the past; crash may be
    known before the verdict and counts only when the status is crashed. skew_us is how far the machine's clock is ahead
    of ours. A Head that a store returned is never changed again; the next batch makes a new one.
    """

    id: str
    product: str
    version: str
    environment: str | None = None
    created_at: int = 0
    updated_at: int = 0
    ended_at: int = 0
    last_seen: int = 0
    last_heartbeat: int = 0
    status: str = "active"
    status_since: int = 0
    end_reason: str | None = None
    end_detail: str | None = None
    exit_code: int | None = None
    exit_signal: int | None = None
    by: str = "app"
    hang_count: int = 0
    hang_seconds: float = 0.0
    has_exception: bool = False
    machine_id: str | None = None
    boot_id: str | None = None
    hostname: str | None = None
    pid: int | None = None
    platform: str | None = None
    daemon_id: str | None = None
    streams: dict[str, Stream] = {}
    counts: dict[str, int] = {}
    dropped: dict[str, int] = {}
    skew_us: int = 0
    hangs: list[Hang] = []
    suspensions: list[Suspension] = []
    crash: Crash | None = None


class Transition(NamedTuple):
    """A change of status: when, to which word, why, and who judged."""

    t: int
    status: str
    reason: str | None
    detail: str | None
    by: str


class HangEnd(NamedTuple):
    """A hang that is over: when, how long it was without sleep, and the status after it."""

    t: int
    seconds: float
    status: str


class Folded(NamedTuple):
    """What records did to a session.

    state_changed tells whether state is another one than before. untraced holds the indexes of records that changed
    nothing and are not to be stored: patches and verdicts without effect, and beats, which live on in the head only.
    """

    head: Head
    state: dict[str, Any]
    state_changed: bool
    untraced: set[int]
    transitions: list[Transition]
    hang_ends: list[HangEnd]


def opening(record: wire.Record) -> wire.Open | None:
    """Return what opens a session: an Open, or the one that a Gap carries; None when the record opens nothing."""
    if isinstance(record, wire.Open):
        return record
    if isinstance(record, wire.Gap) and record.open is not None:
        try:
            carried = msgspec.convert({"t": record.t, **record.open, "k": "open"}, wire.Open)
        except msgspec.ValidationError:
            return None
        return carried if carried.product and carried.version else None
    return None


def new_head(session_id: str, first: wire.Open) -> Head:
    """Return the head of a session that has no records yet; fold() applies the record itself."""
    return Head(id=session_id, product=first.product, version=first.version)


def next_state(state: dict[str, Any], record: wire.Record, *, fresh: bool) -> dict[str, Any]:
    """Return the state after one record; the same object when the record does not change it.

    fresh: nothing came before. A first Open (or Gap with open) gives {product, version} merged with its state; a later
    Open merges its state; the whole state of a Gap replaces what was there.
    """
    if isinstance(record, wire.StatePatch):
        patch = effective(state, record.patch)
        return merge(state, patch) if patch else state
    opened = opening(record)
    if opened is None:
        return state
    if isinstance(record, wire.Gap) and record.state is not None:
        new: dict[str, Any] = merge({}, record.state)
        if fresh:
            new = {"product": opened.product, "version": opened.version, **new}
    else:
        base = {"product": opened.product, "version": opened.version} if fresh else state
        new = merge(base, opened.state or {})
    return state if same(state, new) else new


def fold(head: Head, state: dict[str, Any], records: Iterable[wire.Record]) -> Folded:
    """Return what fold_columns() does for records."""
    return fold_columns(head, state, columns_of(list(records)))


def fold_columns(head: Head, state: dict[str, Any], columns: Columns) -> Folded:
    """Apply records in order; head and state are not changed. Streams and last_seen are the caller's.

    state may be empty when no record is of the STATEFUL types. A head that never had a record comes from new_head().
    """
    before, records = state, columns.records
    fresh = not head.updated_at
    head = copy.copy(head)
    head.dropped = dict(head.dropped)
    events = errors = exceptions = metrics = states = gaps = lost_bytes = 0
    stacks: dict[int, groups.Group] = {}
    untraced: set[int] = set()
    transitions: list[Transition] = []
    hang_ends: list[HangEnd] = []
    guessed = _is_guess(head)
    plain = counted(columns) if head.status != "crashed" else None
    if plain is not None:
        if guessed:
            _set_status(head, "active", records[0].t, None, None, "app", transitions)
        head.updated_at = max(head.updated_at, plain.t_max)
        head.counts = _add(head.counts, plain.counts)
        return Folded(head, state, False, untraced, transitions, hang_ends)
    for index, record in enumerate(records):
        if isinstance(record, wire.Event):
            events += 1
            if record.level in ("error", "critical"):
                errors += 1
            if record.exception_type:
                head.has_exception = True
                exceptions += 1
                if record.level == "critical" and record.name != wire.CRASHED_EVENT:
                    head.crash = episodes.crash_after(head.crash, head.product, record)
            alive = record.name not in JUDGED_EVENTS
            if not alive:
                _told(head, record, stacks)
        elif isinstance(record, wire.Metric):
            metrics += 1
            alive = True
        elif isinstance(record, wire.Verdict):
            hung_before = head.hang_seconds
            if not _verdict(head, record, transitions):
                untraced.add(index)
            if head.hang_seconds != hung_before:
                hang_ends.append(HangEnd(record.t, head.hang_seconds - hung_before, record.status))
            guessed = _is_guess(head)
            continue
        elif isinstance(record, wire.Beat):
            head.last_heartbeat = max(head.last_heartbeat, record.t)
            untraced.add(index)
            alive = True
        elif isinstance(record, wire.StatePatch):
            changed = next_state(state, record, fresh=False)
            if changed is state:
                untraced.add(index)
            else:
                states += 1
            state = changed
            alive = True
        elif isinstance(record, wire.Close):
            if not _close(head, record, transitions):
                untraced.add(index)
            guessed = False
            continue
        elif isinstance(record, (wire.Open, wire.Gap)):
            if isinstance(record, wire.Gap):
                gaps += 1
                lost_bytes += max(0, record.lost_bytes)
            _open(head, record, transitions, fresh=fresh)
            state = next_state(state, record, fresh=fresh)
            fresh = False
            alive = isinstance(record, wire.Open)
        elif isinstance(record, wire.Closing):
            if record.exception_type:
                head.has_exception = True
            alive = True
        elif isinstance(record, wire.Dropped):
            for reason, count in record.counts.items():
                head.dropped[reason] = head.dropped.get(reason, 0) + count
            alive = False
        else:
            alive = False
        if guessed and alive:
            _set_status(head, "active", record.t, None, None, "app", transitions)
            guessed = False
    for t, group in stacks.items():
        head.hangs = episodes.with_stack(head.hangs, t, group)
    if head.status == "crashed" and (head.crash is None or not head.crash.found):
        head.crash = episodes.crash_by_verdict(head.product, head.end_reason, head.exit_code, head.exit_signal)
    head.updated_at = max(head.updated_at, columns.t_max)
    counts = {"events": events, "errors": errors, "exceptions": exceptions, "metrics": metrics, "states": states}
    head.counts = _add(head.counts, {**counts, "gaps": gaps, "lost_bytes": lost_bytes})
    return Folded(head, state, state is not before, untraced, transitions, hang_ends)


def transitions_of(session_id: str, records: Iterable[wire.Record]) -> list[Transition]:
    """Return the changes of status that these records of one session make, in their order.

    Those that cannot change a status may be left out. What opens the session counts first: others may carry an earlier
    time than it.
    """
    all_records = list(records)
    for index, record in enumerate(all_records):
        if first := opening(record):
            ordered = [record, *all_records[:index], *all_records[index + 1 :]]
            return fold(new_head(session_id, first), {}, ordered).transitions
    return []


def public(head: Head) -> dict[str, Any]:
    """Return the head as the session object of the API: RFC 3339 times, booleans derived from the status."""
    return {
        "id": head.id,
        "product": head.product,
        "version": head.version,
        "environment": head.environment,
        "created_at": _shown(head.created_at),
        "updated_at": _shown(head.updated_at),
        "ended_at": _shown(head.ended_at) if head.ended_at else None,
        "last_heartbeat": _shown(head.last_heartbeat) if head.last_heartbeat else None,
        "status": head.status,
        "end_reason": head.end_reason,
        "end_detail": head.end_detail,
        "exit_code": head.exit_code,
        "exit_signal": head.exit_signal,
        "active": head.status in OPEN_STATUSES,
        "suspended": head.status == "suspended",
        "crashed": head.status == "crashed",
        "hung": head.status == "hung",
        "ever_hung": head.hang_count > 0,
        "hang_count": head.hang_count,
        "hang_seconds": head.hang_seconds,
        "machine_id": head.machine_id,
        "hostname": head.hostname,
        "pid": head.pid,
        "platform": head.platform,
        "daemon_id": head.daemon_id,
        "clock_skew_s": round(head.skew_us / 1e6, 3),
        "streams": {name: stream.acked for name, stream in head.streams.items()},
        "counts": {
            **{name: head.counts.get(name, 0) for name in ("events", "metrics", "states", "errors")},
            **ledger(head.streams, head.counts),
            "dropped": dict(head.dropped),
        },
    }


def _shown(us: int) -> str:
    """Return a time as text; one that no calendar has, which a broken clock or writer may send, as the nearest one."""
    return rfc3339(min(max(us, 0), wire.MAX_T_US))


def _told(head: Head, event: wire.Event, stacks: dict[int, groups.Group]) -> None:
    """Note what an event about a hang or a crash tells; the verdict of the hang may stand before or behind it."""
    if event.name == wire.CRASHED_EVENT:
        head.crash = episodes.crash_after(head.crash, head.product, event)
    elif event.name == wire.HUNG_EVENT and (group := groups.of_hang(head.product, event)):
        stacks[event.t] = group


def _is_guess(head: Head) -> bool:
    """Whether the server only supposes that nobody is there, which a sign of life disproves."""
    return head.by == "server" and head.status in ("suspended", "abnormal")


def _open(head: Head, record: wire.Open | wire.Gap, transitions: list[Transition], *, fresh: bool) -> None:
    opened = opening(record)
    if opened is None:
        return
    if fresh:
        head.created_at = opened.t
        transitions.append(Transition(opened.t, "active", None, None, "app"))
        head.status_since = opened.t
    # What is known stays; only the daemon may change while the session lives.
    head.environment = head.environment or opened.environment
    head.hostname = head.hostname or opened.hostname
    head.machine_id = head.machine_id or opened.machine_id
    head.boot_id = head.boot_id or opened.boot_id
    head.pid = head.pid or opened.pid
    head.platform = head.platform or opened.platform
    head.daemon_id = opened.daemon_id or head.daemon_id


def _close(head: Head, record: wire.Close, transitions: list[Transition]) -> bool:
    if head.by == "app" and head.ended_at:
        return _fill(head, record.exit_code, None, None)
    if record.exit_code is not None:
        head.exit_code = record.exit_code
    _set_status(head, "ended", record.t, "clean", None, "app", transitions)
    return True


def _verdict(head: Head, verdict: wire.Verdict, transitions: list[Transition]) -> bool:
    """Apply a verdict; return whether it changed anything.

    One with a status word of a later version changes nothing here, and is kept for those who know it.
    """
    if verdict.status not in STATUS_CODES:
        return True
    if head.ended_at:
        if head.by == "app":
            return _fill(head, verdict.exit_code, verdict.exit_signal, verdict.detail)
        rank, held = RANKS.get(verdict.by, 0), RANKS.get(head.by, 0)
        if rank < held or (rank == held and verdict.t < head.status_since):
            return False
    is_open = verdict.status in OPEN_STATUSES
    if verdict.hang_s:
        head.hang_seconds += verdict.hang_s
    code = head.exit_code if verdict.exit_code is None else verdict.exit_code
    signal = head.exit_signal if verdict.exit_signal is None else verdict.exit_signal
    after = (verdict.status, None if is_open else verdict.reason, code, signal)
    if after == (head.status, head.end_reason, head.exit_code, head.exit_signal) and (is_open or head.by == verdict.by):
        head.by = verdict.by
        return bool(verdict.hang_s)
    if verdict.status == "hung" and head.status != "hung":
        head.hang_count += 1
    head.exit_code, head.exit_signal = code, signal
    _set_status(head, verdict.status, verdict.t, verdict.reason, verdict.detail, verdict.by, transitions)
    return True


def _fill(head: Head, code: int | None, signal: int | None, detail: str | None) -> bool:
    """Add what the app's own end did not say; return whether that was anything."""
    before = (head.exit_code, head.exit_signal, head.end_detail)
    head.exit_code = code if head.exit_code is None else head.exit_code
    head.exit_signal = signal if head.exit_signal is None else head.exit_signal
    head.end_detail = head.end_detail or detail
    return before != (head.exit_code, head.exit_signal, head.end_detail)


def _set_status(
    head: Head,
    status: str,
    t: int,
    reason: str | None,
    detail: str | None,
    by: str,
    transitions: list[Transition],
) -> None:
    is_open = status in OPEN_STATUSES
    if "hung" in (head.status, status) or (head.hangs and head.ended_at):
        head.hangs = episodes.hangs_after(head.hangs, head.status, status, t, head.ended_at)
    if "suspended" in (head.status, status):
        head.suspensions = episodes.suspensions_after(head.suspensions, head.status, status, t)
    head.status = status
    head.status_since = t
    head.by = by
    head.ended_at = 0 if is_open else t
    head.end_reason = None if is_open else reason
    head.end_detail = None if is_open else detail
    transitions.append(Transition(t, status, reason, detail, by))


def _add(counts: dict[str, int], more: dict[str, int]) -> dict[str, int]:
    return {name: total for name in counts | more if (total := counts.get(name, 0) + more.get(name, 0))}
