"""Which sessions a question is about, grouped by its dimensions: filters and by -> groups of shelves."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from datacat.server.query.asked import Asked, Filter, dimension
from datacat.server.query.spans import Span
from datacat.store import Fleet, Head
from datacat.store.shelf import Facts, Shelf, facts_of

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
    rows: dict[Dims, _Rows] = {}
    for shelf in mine.values():
        paused = frozenset(shelf.paused)
        for at in shelf.overlapping(span.start - 1, span.stop):
            seen = fleet.glance(shelf.ids[at])
            if seen is None or not passes(asked, seen):
                continue
            eventful = seen.hang_count or seen.has_exception or seen.id in paused
            head = fleet.lookup(seen.id) if eventful else seen
            if head is not None:
                part = rows.setdefault(tuple([dimension(seen, name) or "" for name in by]), _Rows([], set()))
                part.facts.append(facts_of(head, eventful=bool(eventful)))
                part.heard = max(part.heard, seen.last_seen)
                # Those that ended just when the span begins count for what happened then, but were not there.
                if seen.created_at >= span.start or not 0 < seen.ended_at <= span.start:
                    part.versions.add(seen.version)
    return {
        dims: Cohort([Shelf(part.facts)], [None], part.heard, frozenset(part.versions)) for dims, part in rows.items()
    }


@dataclass(slots=True)
class _Rows:
    """What comes together for the shelf of one group."""

    facts: list[Facts]
    versions: set[str]
    heard: int = 0


def heads_in(asked: Asked, fleet: Fleet, shelves: Mapping[tuple[str, str], Shelf], span: Span) -> Iterator[Head]:
    """Yield the heads that pass all filters of the sessions that were there in the span, its limits included."""
    for seen in glances_in(asked, fleet, shelves, span):
        head = fleet.lookup(seen.id)
        if head is not None:
            yield head


def glances_in(asked: Asked, fleet: Fleet, shelves: Mapping[tuple[str, str], Shelf], span: Span) -> Iterator[Any]:
    """Yield the same as glances, which cost less."""
    for shelf in shelves.values():
        ids = shelf.ids
        for at in shelf.overlapping(span.start - 1, span.stop):
            seen = fleet.glance(ids[at])
            if seen is not None and passes(asked, seen):
                yield seen


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
