"""Which sessions a question is about, grouped by its dimensions: filters and by -> groups of shelves."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, TypeAlias

from datacat.server.query.asked import HEAD_FIELDS, Asked, Filter, dimension
from datacat.server.query.spans import Span
from datacat.store import Fleet, Head
from datacat.store.shelf import Facts, Plain, Shelf, facts_of, glanced_facts_of

Dims: TypeAlias = tuple[str, ...]
_HAS = {
    "crash": lambda head: head.status == "crashed",
    "hang": lambda head: head.hang_count > 0,
    "exception": lambda head: head.has_exception,
}
_DEEPER = ("q", "has", "signature")
_OF_SHELVES = frozenset({"product", "version"})


@dataclass(slots=True)
class Cohort:
    """The sessions of one group: shelves with the version that each has, None for one of many versions.

    heard is when the server last got anything of them; versions are those of the shelf of many.
    """

    shelves: list[Shelf] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)
    heard: int = 0
    versions: frozenset[str] = frozenset()

    def merged(self, other: "Cohort") -> "Cohort":
        """Return both in one."""
        return Cohort(
            self.shelves + other.shelves,
            self.names + other.names,
            max(self.heard, other.heard),
            self.versions | other.versions,
        )


def cohorts(asked: Asked, fleet: Fleet, shelves: Mapping[tuple[str, str], Shelf], span: Span) -> dict[Dims, Cohort]:
    """Return the groups of what is asked; the caller holds the fleet.

    By product and version alone a group has all its sessions of all time, else those that were there in the span.
    """
    by: Sequence[str] = asked.values.get("by") or ()
    mine = {key: shelf for key, shelf in shelves.items() if of_shelf(asked, *key) and len(shelf)}
    if is_plain(asked) and _OF_SHELVES.issuperset(by):
        found: dict[Dims, Cohort] = {}
        for (product, version), shelf in mine.items():
            dims = tuple(product if name == "product" else version for name in by)
            group = found.setdefault(dims, Cohort())
            group.shelves.append(shelf)
            group.names.append(version)
            group.heard = max(group.heard, fleet.heard.get((product, version), 0))
        return found
    found_by: dict[Any, list[Any]] = {}
    members_of = _members_of(by)
    paused: set[str] = set()
    for shelf in mine.values():
        glances = _glances(asked, fleet, shelf, span)
        for members, seen in zip(map(members_of, glances), glances, strict=True):
            found_by.setdefault(members, []).append(seen)
        paused.update(shelf.paused)
    groups: dict[Dims, list[Any]] = {}
    for glances in found_by.values():
        # A member that is missing and one that is empty are one group.
        dims = tuple([dimension(glances[0], name) or "" for name in by])
        groups.setdefault(dims, []).extend(glances)
    return {
        dims: _cohort(rows, glances, span)
        for dims, glances in groups.items()
        if (rows := _rows(fleet, glances, paused))
    }


def _members_of(by: Sequence[str]) -> Callable[[Any], Any]:
    """Return the function that tells a head's members of these dimensions, as they are."""
    return attrgetter(*(HEAD_FIELDS[name] for name in by)) if by else _no_members


def _no_members(_head: Any) -> Any:
    return ()


def _rows(fleet: Fleet, glances: Iterable[Any], paused: set[str]) -> list[Facts | Plain]:
    """Return what a shelf needs to know of each session; only an eventful one's head has to be looked up."""
    rows: list[Facts | Plain] = []
    for seen in glances:
        if not (seen.hang_count or seen.has_exception or seen.id in paused):
            rows.append(glanced_facts_of(seen))
        elif (head := fleet.lookup(seen.id)) is not None:
            rows.append(facts_of(head))
    return rows


def _cohort(rows: list[Facts | Plain], glances: Sequence[Any], span: Span) -> Cohort:
    # Those that ended just when the span begins count for what happened then, but were not there.
    start = span.start
    versions = {seen.version for seen in glances if seen.created_at >= start or not 0 < seen.ended_at <= start}
    return Cohort([Shelf(rows)], [None], max([seen.last_seen for seen in glances]), frozenset(versions))


def heads_in(asked: Asked, fleet: Fleet, shelves: Mapping[tuple[str, str], Shelf], span: Span) -> Iterator[Head]:
    """Yield the heads that pass all filters of the sessions that were there in the span, its limits included."""
    for seen in glances_in(asked, fleet, shelves, span):
        head = fleet.lookup(seen.id)
        if head is not None:
            yield head


def glances_in(asked: Asked, fleet: Fleet, shelves: Mapping[tuple[str, str], Shelf], span: Span) -> Iterator[Any]:
    """Yield the same as glances, which cost less."""
    for key, shelf in shelves.items():
        if of_shelf(asked, *key):
            yield from _glances(asked, fleet, shelf, span)


def _glances(asked: Asked, fleet: Fleet, shelf: Shelf, span: Span) -> list[Any]:
    """Return the glances of one shelf, whose product and version are asked for."""
    ids = shelf.ids
    found = map(fleet.glance, [ids[at] for at in shelf.overlapping(span.start - 1, span.stop)])
    there = [seen for seen in found if seen is not None]
    return there if is_plain(asked) else [seen for seen in there if passes(asked, seen)]


def is_plain(asked: Asked) -> bool:
    """Whether no filter looks at anything but product and version."""
    return _OF_SHELVES.issuperset(asked.filters) and not any(map(asked.values.get, _DEEPER))


def of_shelf(asked: Asked, product: str, version: str) -> bool:
    """Return whether the filters let sessions of this product and version pass."""
    return asked.sees_product(product) and asked.filters.get("version", _ANY).passes(version)


def passes(asked: Asked, head: Head) -> bool:
    """Return whether a session passes every filter."""
    if asked.products and head.product not in asked.products:
        return False
    for name, wanted in asked.filters.items():
        if not wanted.passes(dimension(head, name)):
            return False
    if any(not _HAS[what](head) for what in asked.values.get("has") or ()):
        return False
    signatures = asked.values.get("signature")
    if signatures and not has_signature(head, signatures):
        return False
    text = asked.values.get("q")
    return not text or _has_text(head, text.casefold())


def has_signature(head: Head, wanted: Filter) -> bool:
    """Return whether the session's crash, or one of its hangs, is of a group that is wanted."""
    own = [head.crash.signature] if head.status == "crashed" and head.crash else []
    if head.hang_count:
        own += [hang.signature for hang in head.hangs if hang.signature]
    return any(map(wanted.passes, own))


def biggest(groups: dict[Dims, Cohort], count: int, span: Span, as_of: int) -> dict[Dims, Cohort]:
    """Return the groups with the most sessions in the span, the rest as one named other."""
    if len(groups) <= count:
        return groups
    from datacat.server.query.columns import Columns

    sizes = {dims: Columns(group.shelves, (span.start, span.stop), as_of).present[0] for dims, group in groups.items()}
    ordered = sorted(groups, key=lambda dims: (-sizes[dims], dims))
    kept = {dims: groups[dims] for dims in ordered[:count]}
    rest = Cohort()
    for dims in ordered[count:]:
        rest = rest.merged(groups[dims])
    other = ("other",) * len(ordered[0])
    kept[other] = kept[other].merged(rest) if other in kept else rest
    return kept


def _has_text(head: Head, text: str) -> bool:
    return any(text in (member or "").casefold() for member in (head.product, head.version, head.hostname, head.id))


_ANY = Filter()
