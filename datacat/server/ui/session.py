"""One session: its facts, the stacks of its crash and hangs, and its timeline as columns for the script."""

from collections.abc import Iterator
from typing import Any

from datacat.host.process import signal_name
from datacat.server import views
from datacat.server.ui.words import US, compact, rfc
from datacat.store import Head, RecordQuery, Store
from datacat.store.fold import public
from datacat.store.groups import frame_of, frames_of
from datacat.store.history import states
from datacat.wire.records import CRASHED_EVENT, HUNG_EVENT, LEVELS
from datacat.wire.routes import OPEN_STATUSES
from datacat.wire.times import to_us

STACKS = 6
"""Crashes and hangs whose stacks the page shows, newest first."""
MAX_EVENTS = 100_000
"""Events on the time axis; a session with more shows its newest."""
MAX_POINTS = 200_000
MAX_CHARTS = 24
TEXT_CHARS = 160
LAST_US = 60 * US
MOMENT_US = 5 * US
"""Events so long before the moment that is looked at stand beside its state."""


def facts(head: Head) -> list[tuple[str, str, str]]:
    """Return what is known about the session: (name, value, form); form is time, code or nothing."""
    told = public(head)
    rows = [
        ("Started", rfc(head.created_at), "time"),
        ("Ended", rfc(head.ended_at), "time"),
        ("Last heartbeat", rfc(head.last_heartbeat), "time"),
        ("Last heard from", rfc(head.last_seen), "time"),
        ("Exit code", "" if head.exit_code is None else str(head.exit_code), ""),
        ("Signal", f"{signal_name(head.exit_signal)} ({head.exit_signal})" if head.exit_signal else "", ""),
        ("Judged by", {"app": "the app itself", "daemon": "the daemon beside it", "server": "the server"}[head.by], ""),
        ("Host", head.hostname or "", ""),
        ("Platform", head.platform or "", ""),
        ("Environment", head.environment or "", ""),
        ("Process", str(head.pid) if head.pid else "", ""),
        ("Machine", head.machine_id or "", "code"),
        ("Session", told["id"], "code"),
    ]
    return [row for row in rows if row[1]]


_LEDGER = (
    ("written", "records that the app and its daemon wrote"),
    ("acknowledged", "of those, stored here"),
    ("waiting", "not sent yet when the newest batch was"),
    ("shipped", "lines on the wire: repeated metrics and states travel folded"),
    ("events", ""),
    ("errors", "events of level error and above"),
    ("metrics", ""),
    ("states", "changes of the state"),
)


def ledger(head: Head) -> list[tuple[str, int, str, bool]]:
    """Return what was recorded, and what was lost by reason: (name, how many, what that is, whether it is a loss)."""
    counts = dict(public(head)["counts"])
    counts["waiting"] = counts["written"] - counts["acknowledged"]
    rows = [(name, counts[name], what, False) for name, what in _LEDGER]
    rows.append(("gaps", counts["gaps"], f"{counts['lost_bytes']} bytes are missing", bool(counts["gaps"])))
    drops = sorted(counts["dropped"].items())
    return rows + [(f"dropped: {reason.replace('_', ' ')}", lost, "", True) for reason, lost in drops]


def stacks(store: Store, head: Head) -> list[dict[str, Any]]:
    """Return the events that carry stacks, the crash and the hangs and exceptions, newest first."""
    names = (CRASHED_EVENT, HUNG_EVENT)
    rows = list(store.records(head.id, RecordQuery(("event",), names, newest_first=True, limit=STACKS)))
    if head.has_exception:
        errors = RecordQuery(("event",), (), ("error", "critical"), newest_first=True, limit=50)
        rows += [row for row in store.records(head.id, errors)
                 if row.record.get("exception_type") and row.record["name"] not in names][:STACKS]  # fmt: skip
    rows.sort(key=lambda row: row.position, reverse=True)
    found = [_stack(row.record, views.row_of(row)) for row in rows[:STACKS]]
    return [{**stack, "number": number} for number, stack in enumerate(found) if stack["threads"]]


def _stack(record: dict[str, Any], event: dict[str, Any]) -> dict[str, Any]:
    data = event["data"] if isinstance(event["data"], dict) else {}
    threads = [thread for item in _list(data.get("threads")) if (thread := _thread(item))]
    if not threads and event["stacktrace"]:
        lines = [line for line in event["stacktrace"] if isinstance(line, str)]
        threads = [{"name": "traceback", "current": True, "frames": _text_frames(lines)}]
    what = event["exception_type"] or data.get("signal_name") or data.get("verdict") or data.get("reason") or ""
    return {
        "t": record["t"],
        "timestamp": event["timestamp"],
        "kind": "hang" if event["name"] == HUNG_EVENT else "crash" if event["name"] == CRASHED_EVENT else "exception",
        "what": str(what),
        "message": event["exception_msg"] or event["message"] or "",
        "threads": sorted(threads, key=lambda thread: not thread["current"]),
        "stderr": [str(line) for line in _list(data.get("stderr"))],
    }


def _thread(item: Any) -> dict[str, Any] | None:
    if not isinstance(item, dict):
        return None
    frames = [
        _frame(str(frame.get("file") or "?"), frame.get("line"), str(frame.get("function") or "?"))
        for frame in _list(item.get("frames"))
        if isinstance(frame, dict)
    ]
    return {"name": str(item.get("name") or item.get("id") or "thread"), "current": item.get("current") is True,
            "frames": frames[::-1]} if frames else None  # fmt: skip


def _text_frames(lines: list[str]) -> list[dict[str, Any]]:
    """Return the frames of a traceback's lines, innermost first; other lines stand as they are."""
    found = []
    for line in lines:
        frames = frames_of([line])
        if frames and 'File "' in line:
            path = line.split('File "', 1)[1].split('"', 1)[0]
            number = line.split("line ", 1)[-1].split(",", 1)[0].split(" ", 1)[0]
            found.append(_frame(path, int(number) if number.isdigit() else None, frames[0].function))
        elif line.strip():
            found.append({"text": line.strip(), "file": "", "line": None, "function": "", "library": False})
    return found[::-1]


def _frame(path: str, line: Any, function: str) -> dict[str, Any]:
    return {"text": "", "file": path, "line": line if type(line) is int else None, "function": function,
            "library": frame_of(path, function).library}  # fmt: skip


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def timeline(store: Store, head: Head, now_us: int, since_us: int = 0) -> dict[str, Any]:
    """Return everything that the time axis shows, as columns. Times are us since `from`.

    since_us: only records from then on, for a page that has those before.
    """
    start, stop = head.created_at, head.ended_at or max(now_us, head.updated_at)
    events: dict[str, list[Any]] = {"t": [], "level": [], "name": [], "text": []}
    names: dict[str, int] = {}
    changes: list[int] = []
    metrics: dict[str, dict[str, Any]] = {}
    kept = 0
    for row in _records(store, head, since_us):
        record, t = row.record, row.position[0] - start
        kind = record["k"]
        if kind == "event":
            events["t"].append(t)
            events["level"].append(LEVELS.index(record.get("level", "info")))
            events["name"].append(names.setdefault(record["name"], len(names)))
            events["text"].append(_brief(record))
        elif kind == "metric":
            name = record["name"]
            chart = metrics.get(name)
            if chart is None:
                chart = metrics[name] = {"name": name, "type": record.get("type", "gauge"), "unit": record.get("unit"),
                                         "t": [], "v": []}  # fmt: skip
            if kept < MAX_POINTS:
                chart["t"].append(t)
                chart["v"].append(record.get("value", 0))
                kept += 1
        elif kind in views.STATE_KINDS:
            changes.append(t)
    ribbon = [[to_us(change["timestamp"]) - start, change["status"]] for change in views.transitions(store, head.id)]
    charts = sorted(metrics.values(), key=lambda chart: (-len(chart["t"]), chart["name"]))
    return {
        "from": start,
        "to": stop,
        "open": head.status in OPEN_STATUSES,
        "updated": head.updated_at,
        "levels": LEVELS,
        "status": ribbon,
        "names": list(names),
        "events": events,
        "changes": changes,
        "metrics": charts[:MAX_CHARTS],
        "hidden_metrics": max(0, len(charts) - MAX_CHARTS),
        "more_events": max(0, head.counts.get("events", 0) - MAX_EVENTS),
    }


def _records(store: Store, head: Head, since_us: int) -> Iterator[Any]:
    kinds = ("event", "metric", *views.STATE_KINDS)
    if since_us:
        yield from store.records(head.id, RecordQuery(kinds, from_us=since_us))
        return
    if head.counts.get("events", 0) <= MAX_EVENTS:
        yield from store.records(head.id, RecordQuery(kinds))
        return
    newest = list(store.records(head.id, RecordQuery(("event",), newest_first=True, limit=MAX_EVENTS)))
    yield from reversed(newest)
    yield from store.records(head.id, RecordQuery(kinds[1:]))


def _brief(record: dict[str, Any]) -> str:
    """Return the text that stands beside an event's name in the list."""
    said = record.get("message") or ""
    if record.get("exception_type"):
        said = f"{record['exception_type']}: {record.get('exception_msg') or said}"
    if not said and record.get("data"):
        said = compact(record["data"])
    return said[:TEXT_CHARS]


def moment(store: Store, head: Head, at_us: int, since_us: int | None) -> dict[str, Any]:
    """Return the session at one time: its state, what changed since since_us (else last), events, metrics.

    Rows of the state are (path, value now, value before or None when it did not change, and whether it is gone).
    """
    before: dict[str, Any] = {}
    now: dict[str, Any] = {"product": head.product, "version": head.version}
    changed_at = head.created_at
    for t, state in states(store, head.id, to_us=at_us + 1):
        if since_us is None or t <= since_us:
            before = now if since_us is None else state
        now, changed_at = state, t
    old, new = dict(leaves(before)), dict(leaves(now))
    rows = [(path, value, old.get(path, "") if old.get(path) != value else None, False) for path, value in new.items()]
    rows += [(path, "", value, True) for path, value in old.items() if path not in new]
    around = RecordQuery(
        ("event",), from_us=(since_us or at_us - MOMENT_US), to_us=at_us + 1, newest_first=True, limit=50
    )
    events = [views.row_of(row) for row in store.records(head.id, around)]
    return {
        "at": rfc(at_us),
        "offset_s": (at_us - head.created_at) / US,
        "changed_at": rfc(changed_at),
        "rows": sorted(rows, key=lambda row: (row[2] is None, row[0])),
        "changes": sum(row[2] is not None for row in rows),
        "events": events,
        "metrics": _last_values(store, head, at_us),
    }


def _last_values(store: Store, head: Head, at_us: int) -> list[dict[str, Any]]:
    """Return the newest value of each metric at a time, of those written in the minutes before it."""
    query = RecordQuery(("metric",), from_us=at_us - 5 * LAST_US, to_us=at_us + 1, newest_first=True, limit=500)
    found: dict[str, dict[str, Any]] = {}
    for row in store.records(head.id, query):
        found.setdefault(row.record["name"], views.row_of(row))
    return [found[name] for name in sorted(found)]


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield (dotted path, value as text) of every member of a state that is no object."""
    if isinstance(value, dict) and value:
        for name, item in value.items():
            yield from leaves(item, f"{path}.{name}" if path else str(name))
    else:
        yield path, compact(value)
