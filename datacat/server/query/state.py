"""Time travel: the state of a session at any time, flat; what differs between two times."""

from collections.abc import Iterator
from typing import Any

import msgspec

from datacat.errors import Deleted, NotFound
from datacat.server.query.asked import Asked
from datacat.server.query.ground import Ground
from datacat.server.query.shape import Column, Result, Row
from datacat.server.query.spans import US
from datacat.store import Head, Store
from datacat.store.history import states
from datacat.wire.state import same
from datacat.wire.times import rfc3339

COLUMNS = (
    Column("path", "text", "names joined by dots; a dot in a name is \\."),
    Column("value", "text", "the value as text; JSON for what is none; null when it is not there", optional=True),
    Column("type", "text", "string, number, boolean, array, object (an empty one) or none"),
    Column("changed_at", "time", "when it last changed before", optional=True),
)
DIFF = (
    Column("change", "text", "added, removed or changed"),
    Column("before", "text", "the value at the earlier time", optional=True),
)


def state(asked: Asked, ground: Ground) -> Result:
    """Answer /api/query/state: the state at a time, or with diff or before_end only what differs."""
    try:
        head = ground.store.head(asked["session"])
        if not asked.sees_product(head.product):
            return Result(COLUMNS, [])
        at, since = _times(asked, head)
        now, then, changed = _travel(ground.store, head, at, since)
    except (NotFound, Deleted):
        return Result(COLUMNS, [])
    meta = {"at": at // 1000, "diff": None if since is None else since // 1000}
    if since is None:
        rows = [_row(path, value, changed.get(path)) for path, value in now.items()]
        return Result(COLUMNS, sorted(rows, key=lambda row: row["path"]), meta=meta)
    rows = []
    for path in sorted(now.keys() | then.keys()):
        if path in now and path in then and same(now[path], then[path]):
            continue
        change = "changed" if path in now and path in then else "added" if path in now else "removed"
        before = text_of(then[path]) if path in then else None
        row = _row(path, now[path], changed.get(path)) if path in now else _gone(path, changed.get(path))
        rows.append({**row, "change": change, "before": before})
    return Result((*COLUMNS, *DIFF), rows, meta=meta)


def _times(asked: Asked, head: Head) -> tuple[int, int | None]:
    """Return the time of the state and the one that it is compared with."""
    if asked["before_end"] is not None:
        end = head.ended_at or head.updated_at
        return end, max(0, end - asked["before_end"] * US)
    at = asked.now_us if asked["at"] is None else asked["at"]
    since = asked["diff"]
    return (max(at, since), min(at, since)) if since is not None else (at, None)


def _travel(
    store: Store, head: Head, at: int, since: int | None
) -> tuple[dict[str, Any], dict[str, Any], dict[str, int]]:
    """Return the flat state at a time, at the earlier one, and when each path last changed."""
    flat: dict[str, Any] = {}
    then: dict[str, Any] = {}
    changed: dict[str, int] = {}
    for t, whole in states(store, head.id, to_us=at + 1):
        after = dict(flatten(whole))
        for path in after.keys() | flat.keys():
            if path not in after or path not in flat or not same(after[path], flat[path]):
                changed[path] = t
        flat = after
        if since is not None and t <= since:
            then = after
    return flat, then, changed


def flatten(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (path, value) of every member that is no object, and of empty objects; not of an empty whole."""
    if isinstance(value, dict) and (value or not path):
        for name, inner in value.items():
            plain = name.replace("\\", "\\\\").replace(".", "\\.")
            yield from flatten(inner, f"{path}.{plain}" if path else plain)
    else:
        yield path, value


def _row(path: str, value: Any, changed: int | None) -> Row:
    return {
        "path": path,
        "value": text_of(value),
        "type": _TYPES.get(type(value), "number"),
        "changed_at": None if changed is None else rfc3339(changed),
    }


def _gone(path: str, changed: int | None) -> Row:
    return {"path": path, "value": None, "type": "none", "changed_at": None if changed is None else rfc3339(changed)}


_TYPES = {str: "string", bool: "boolean", list: "array", dict: "object", type(None): "none"}


def text_of(value: Any) -> str:
    """Return a value as text: a string as it is, anything else as JSON."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
