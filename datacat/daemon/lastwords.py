"""What a crashed app leaves to read: threads, stderr, last events, last state; fitted into one record.

Each part gets an equal share of the room; what one does not need is the others'. What had to go is told in `cut`.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from datacat.daemon import checkpoint, dumps
from datacat.daemon.dumps import Thread
from datacat.daemon.streams import Source
from datacat.errors import JournalError, WireError
from datacat.wire.layout import Meta
from datacat.wire.lines import decode
from datacat.wire.records import MAX_DEPTH, MAX_RECORD_BYTES, Event, safe_form
from datacat.wire.times import rfc3339

LAST_EVENTS = 50
LAST_LINES = 200
ROOM_BYTES = MAX_RECORD_BYTES - 12 * 1024
"""For all parts together; the rest of the record is for the verdict, the message and the stack of the crash."""
STACK_BYTES = 8 * 1024
_LOOK_BACK_SEGMENTS = 4
"""Events are looked for in so many of the newest segments of the app's stream."""
_DEPTH = MAX_DEPTH - 6
_THREADS_AND_FRAMES = ((200, 100), (200, 40), (100, 25), (60, 15), (30, 10), (10, 10), (3, 8), (1, 8), (0, 0))
_TEXT_CHARS = (4096, 512, 128)


class Words(NamedTuple):
    """members are threads, stderr, last_events and last_state, those that there are, and cut.

    traceback is that of the exception that ended the app, as lines of text; empty when there was none.
    """

    members: dict[str, Any]
    traceback: tuple[str, ...]


def last_state(folder: Path, meta: Meta) -> dict[str, Any]:
    """Return the state that the app's stream ends with. Raises: JournalError."""
    source = Source(meta.stream, folder / meta.stream, meta.segment_bytes)
    base = checkpoint.load(folder).get(meta.stream, checkpoint.Base())
    return checkpoint.advance(base, source, source.end()).state


def last_events(folder: Path, meta: Meta) -> list[dict[str, Any]]:
    """Return the newest events of the app, oldest first, as rows of the API. Raises: JournalError."""
    source = Source(meta.stream, folder / meta.stream, meta.segment_bytes)
    found: list[dict[str, Any]] = []
    for number in reversed(source.segments()[-_LOOK_BACK_SEGMENTS:]):
        start = number * source.segment_bytes
        lines = source.read(start, source.segment_bytes, stop=start + source.segment_bytes).data.split(b"\n")
        for raw in reversed(lines):
            if b'"event"' in raw and (row := _row(raw)):
                found.append(row)
                if len(found) == LAST_EVENTS:
                    return found[::-1]
    return found[::-1]


def of(folder: Path, meta: Meta, threads: Sequence[Thread], stderr: Sequence[str]) -> Words:
    """Return what there is to read of a crash."""
    try:
        events, state = last_events(folder, meta), last_state(folder, meta)
    except JournalError:  # what can be said without the journal is worth more than nothing
        events, state = [], {}
    return Words(fit(threads, list(stderr)[-LAST_LINES:], events, state), _traceback(events))


def stack(lines: Sequence[str]) -> tuple[str, ...]:
    """Return the innermost lines of a stack, at most STACK_BYTES of JSON."""
    return tuple(_newest(safe_form(list(lines), 2, 1024), STACK_BYTES)[0])


def fit(
    threads: Sequence[Thread],
    stderr: list[str],
    events: list[dict[str, Any]],
    state: dict[str, Any],
    room: int = ROOM_BYTES,
) -> dict[str, Any]:
    """Return the parts that are not empty, at most room bytes of JSON, and `cut`: what each part lost. Pure."""
    parts: dict[str, Callable[[int], tuple[Any, Any]]] = {}
    if threads:
        parts["threads"] = lambda left: _threads(threads, left)
    if stderr:
        parts["stderr"] = lambda left: _newest([safe_form(line, 1) for line in stderr], left)
    if events:
        parts["last_events"] = lambda left: _newest([_slim(event, left) for event in events], left)
    if state:
        parts["last_state"] = lambda left: _state(state, left)
    whole = {name: _size(part(1 << 60)[0]) for name, part in parts.items()}
    found: dict[str, Any] = {}
    cut: dict[str, Any] = {}
    # The smallest first: what it leaves of its share is shared by those behind it.
    for index, name in enumerate(sorted(parts, key=lambda name: whole[name])):
        share = room // (len(parts) - index)
        found[name], lost = parts[name](share)
        room -= min(_size(found[name]), share)
        if lost:
            cut[name] = lost
    ordered = {name: found[name] for name in parts}
    return ordered | ({"cut": cut} if cut else {})


def _threads(threads: Sequence[Thread], left: int) -> tuple[Any, int]:
    for most, frames in _THREADS_AND_FRAMES:
        found = safe_form(dumps.as_json(threads, most=most, frames=frames), _DEPTH, 512)
        if _size(found) <= left:
            return found, max(0, len(threads) - most)
    return [], len(threads)


def _newest(rows: list[Any], left: int) -> tuple[list[Any], int]:
    """Return the newest rows that fit, and how many older ones did not."""
    kept = 0
    left -= 2
    for row in reversed(rows):
        left -= _size(row) + 1
        if left < 0:
            break
        kept += 1
    return rows[len(rows) - kept :], len(rows) - kept


def _slim(event: dict[str, Any], left: int) -> dict[str, Any]:
    """Return an event that does not take more than a quarter of the room: without its stack, with shorter texts."""
    for chars in _TEXT_CHARS:
        slim: dict[str, Any] = safe_form(event, _DEPTH, chars)
        if _size(slim) <= left // 4:
            return slim
        event = {name: value for name, value in event.items() if name != "stacktrace"}
    return {name: slim[name] for name in ("timestamp", "name", "level", "message") if name in slim}


def _state(state: dict[str, Any], left: int) -> tuple[dict[str, Any], list[str]]:
    """Return the state with texts cut as needed, then without its largest members; and the names of those."""
    for chars in _TEXT_CHARS:
        found: dict[str, Any] = safe_form(state, _DEPTH, chars)
        if _size(found) <= left:
            return found, []
    kept: dict[str, Any] = {}
    left -= 2
    for name in sorted(found, key=lambda name: _size(found[name])):
        left -= _size(name) + _size(found[name]) + 2
        if left < 0:
            break
        kept[name] = found[name]
    lost = [name for name in found if name not in kept]
    return {name: found[name] for name in found if name in kept}, lost[:50]


def _traceback(events: list[dict[str, Any]]) -> tuple[str, ...]:
    for event in reversed(events):
        if event.get("exception_type") and event["level"] == "critical":
            return tuple(event.get("stacktrace") or ())
    return ()


def _row(raw: bytes) -> dict[str, Any] | None:
    try:
        record = decode(raw)
    except WireError:
        return None
    if not isinstance(record, Event):
        return None
    members = {name: value for name, value in msgspec.structs.asdict(record).items() if value is not None}
    return {"timestamp": rfc3339(max(0, members.pop("t"))), **members}


def _size(value: Any) -> int:
    return len(msgspec.json.encode(value))
