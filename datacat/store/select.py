"""Select heads: which a query means, in which order, and where a page goes on. Pure."""

import base64
from collections.abc import Callable
from itertools import compress
from operator import attrgetter
from typing import Any, TypeAlias

import msgspec

from datacat.errors import WireError
from datacat.store import Query
from datacat.store.fold import Head
from datacat.store.summary import Summary
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


def sort_key(head: Summary, field: str) -> SortKey:
    """Return the place of a head in the order by field; missing values come last in ascending order."""
    value = getattr(head, field)
    return (True, 0, head.id) if value is None else (False, value, head.id)


def always_there(field: str) -> bool:
    """Return whether every head has a value for the field."""
    return getattr(_BARE, field) is not None


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


def sieve(heads: list[Summary], query: Query) -> list[Summary]:
    """Return those of the heads that pass every condition that the head alone can tell, in their order."""
    for name, wanted in _MEMBERS:
        if words := wanted(query):
            # All in C: with 100,000 heads a loop here would be what a page costs.
            heads = list(compress(heads, map(frozenset(words).__contains__, map(attrgetter(name), heads))))
    for what in query.has:
        has = _HAS.get(what, _never)
        heads = [head for head in heads if has(head)]
    if query.from_us is not None or query.to_us is not None:
        heads = [head for head in heads if _in_span(head, query)]
    if query.q:
        text = query.q.casefold()
        heads = [head for head in heads if _has_text(head, text)]
    return heads


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


def _in_span(head: Summary, query: Query) -> bool:
    start, end = query.from_us, query.to_us
    if query.at == "end":
        if not head.ended_at:
            return start is None and end is None
        return (start is None or head.ended_at >= start) and (end is None or head.ended_at < end)
    if query.at == "overlap":
        return (start is None or not head.ended_at or head.ended_at >= start) and (end is None or head.created_at < end)
    return (start is None or head.created_at >= start) and (end is None or head.created_at < end)


def _has_text(head: Summary, text: str) -> bool:
    return any(text in (member or "").casefold() for member in (head.product, head.version, head.hostname, head.id))


def _never(_head: Summary) -> bool:
    return False


_HAS: dict[str, Callable[[Summary], bool]] = {
    "crash": lambda head: head.status == "crashed",
    "hang": lambda head: head.hang_count > 0,
    "exception": lambda head: head.has_exception,
}

_MEMBERS: tuple[tuple[str, Callable[[Query], tuple[str, ...]]], ...] = (
    ("product", attrgetter("product")),
    ("version", attrgetter("version")),
    ("environment", attrgetter("environment")),
    ("status", attrgetter("status")),
    ("end_reason", attrgetter("end_reason")),
    ("hostname", attrgetter("hostname")),
    ("machine_id", attrgetter("machine")),
    ("daemon_id", attrgetter("daemon")),
)
"""Members of heads, and which of their values a query wants (empty: any)."""

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
