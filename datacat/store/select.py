"""Select heads: which a query means, in which order, and where a page goes on. Pure."""

import base64
from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec

from datacat.errors import WireError
from datacat.store import Query
from datacat.store.fold import Head
from datacat.wire.state import same

SortKey: TypeAlias = tuple[bool, Any, str]
"""(whether the value is missing, the value, the id): a total order even where values repeat."""

_UNSORTABLE = ("streams", "counts", "dropped", "hangs", "suspensions", "crash")
SORT_FIELDS = frozenset(name for name in Head.__struct_fields__ if name not in _UNSORTABLE)


class Cursor(msgspec.Struct, array_like=True):
    """Where a page ended: the sort it belongs to and the key of the last head that was looked at."""

    sort: str
    missing: bool
    value: str | int | float | bool | None
    id: str


def sort_field(query: Query) -> tuple[str, bool]:
    """Return (field, descending). Raises: WireError when heads cannot be sorted by it."""
    field, descending = query.sort.removeprefix("-"), query.sort.startswith("-")
    if field not in SORT_FIELDS:
        raise WireError(f"sessions cannot be sorted by {field!r}", pointer="/sort", hint="use a field of the session")
    return field, descending


def sort_key(head: Head, field: str) -> SortKey:
    """Return the place of a head in the order by field; missing values come last in ascending order."""
    value = getattr(head, field)
    return (True, 0, head.id) if value is None else (False, value, head.id)


def write_cursor(query: Query, key: SortKey) -> str:
    """Return the text that read_cursor() understands."""
    return base64.urlsafe_b64encode(msgspec.json.encode([query.sort, *key])).decode().rstrip("=")


def read_cursor(query: Query) -> SortKey | None:
    """Return the key that the page begins behind; None at the beginning. Raises: WireError."""
    if not query.cursor:
        return None
    try:
        text = base64.urlsafe_b64decode(query.cursor + "=" * (-len(query.cursor) % 4))
        cursor = msgspec.json.decode(text, type=Cursor)
    except (ValueError, msgspec.DecodeError) as error:
        raise WireError("the cursor is not one of ours", pointer="/cursor", hint="begin without a cursor") from error
    if cursor.sort != query.sort:
        raise WireError(f"the cursor belongs to sort={cursor.sort}", pointer="/cursor", hint="keep sort while you page")
    field, _ = sort_field(query)
    # Only a field whose default is None can be missing.
    fits = (
        getattr(_BARE, field) is None
        if cursor.missing
        else cursor.value is not None and isinstance(cursor.value, str) is isinstance(getattr(_EXAMPLE, field), str)
    )
    if not fits:
        raise WireError("the cursor is not one of ours", pointer="/cursor", hint="begin without a cursor")
    return (cursor.missing, cursor.value, cursor.id)


def head_matches(head: Head, query: Query) -> bool:
    """Return whether a head passes every condition that the head alone can tell."""
    return (
        (not query.product or head.product in query.product)
        and (not query.version or head.version in query.version)
        and (not query.environment or head.environment in query.environment)
        and (not query.status or head.status in query.status)
        and (not query.end_reason or head.end_reason in query.end_reason)
        and (not query.hostname or head.hostname in query.hostname)
        and (not query.machine or head.machine_id in query.machine)
        and (not query.daemon or head.daemon_id in query.daemon)
        and all(_HAS.get(what, _never)(head) for what in query.has)
        and _in_span(head, query)
        and (not query.q or _has_text(head, query.q.casefold()))
    )


def created_span(query: Query) -> tuple[int, int | None]:
    """Return the half-open span outside of which no session can match by its created_at; None: no upper end."""
    return (query.from_us or 0) if query.at == "start" else 0, query.to_us


def needs_records(query: Query) -> bool:
    """Return whether a condition of the query looks into the state or the records."""
    return bool(query.state or query.state_ever or query.event)


def state_has(state: dict[str, Any], path: str, value: Any) -> bool:
    """Return whether the member at the dotted path is this JSON value (1, 1.0 and true are three values)."""
    found: Any = state
    for name in path.split("."):
        if not isinstance(found, dict) or name not in found:
            return False
        found = found[name]
    return same(found, value)


def _in_span(head: Head, query: Query) -> bool:
    start, end = query.from_us, query.to_us
    if query.at == "end":
        if not head.ended_at:
            return start is None and end is None
        return (start is None or head.ended_at >= start) and (end is None or head.ended_at < end)
    if query.at == "overlap":
        return (start is None or not head.ended_at or head.ended_at >= start) and (end is None or head.created_at < end)
    return (start is None or head.created_at >= start) and (end is None or head.created_at < end)


def _has_text(head: Head, text: str) -> bool:
    return any(text in (member or "").casefold() for member in (head.product, head.version, head.hostname, head.id))


def _never(_head: Head) -> bool:
    return False


_HAS: dict[str, Callable[[Head], bool]] = {
    "crash": lambda head: head.status == "crashed",
    "hang": lambda head: head.hang_count > 0,
    "exception": lambda head: head.has_exception,
}

_BARE = Head(id="", product="", version="")
_EXAMPLE = Head(
    id="",
    product="",
    version="",
    environment="",
    end_reason="",
    end_detail="",
    exit_code=0,
    exit_signal=0,
    machine_id="",
    boot_id="",
    hostname="",
    pid=0,
    platform="",
    daemon_id="",
)
"""A head with a value in every field, to tell texts from numbers."""
