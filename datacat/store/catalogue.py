"""The catalogue: which metrics, events, categories, groups, exceptions and tags each product has, and how often. Pure.

It is told by the same deltas as the roll-ups, and holds no session: how many had it is counted by distinct.py.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

from datacat.store.distinct import Distinct
from datacat.store.rollup import MINUTE_US, OTHER, Delta
from datacat.wire.records import METRIC_TYPES

MAX_NAMES = 1000
"""Of one kind and product; what comes beyond counts as OTHER."""
_MAX_PLACES = 20_000
_UNLISTED = ("status", "hang")
KINDS = (*METRIC_TYPES, "event", "category", "group", "exception", "tag")

Key: TypeAlias = tuple[str, str, str]
"""Product, kind, name."""


@dataclass(frozen=True, slots=True)
class CatalogueQuery:
    """Which entries: tuples are alternatives, empty ones no condition; since_us: seen at that time or later."""

    product: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    since_us: int | None = None


@dataclass(slots=True)
class Entry:
    """One name. kind is one of KINDS; a tag's name is its whole text ("room:kitchen").

    count is samples (of metrics) or events, since the name was first seen; sessions how many logged it (exact up to
    128, about 3 % wrong beyond). unit, last, min and max are those of metrics. Times are Unix us; first_seen is the
    beginning of the minute.
    """

    product: str
    kind: str
    name: str
    count: int = 0
    sessions: int = 0
    unit: str | None = None
    last: float | None = None
    min: float | None = None
    max: float | None = None
    first_seen: int = 0
    last_seen: int = 0


class Listing:
    """What was seen of one name; packs to a list (in the order of _FIELDS, the sessions as bytes)."""

    _FIELDS = ("count", "first_seen", "last", "last_seen", "last_t", "max", "min", "sessions", "unit")
    __slots__ = ("_session", *_FIELDS)

    def __init__(self) -> None:
        self._session = -1
        self.count = 0
        self.first_seen = 0
        self.last: float | None = None
        self.last_seen = 0
        self.last_t = 0
        self.max: float | None = None
        self.min: float | None = None
        self.sessions = Distinct()
        self.unit: str | None = None

    def add(self, count: int, minute_us: int, newest: int, session: int) -> None:
        """Count something that a session, told by its hash, did in a minute, the last time at newest (us)."""
        self.count += count
        if session != self._session:
            self.sessions.add(session)
            self._session = session
        self.last_seen = max(self.last_seen, newest)
        if minute_us < self.first_seen or not self.first_seen:
            self.first_seen = minute_us

    def add_values(self, low: float, high: float, last: float, last_t: int) -> None:
        """Take in what is known of a metric's values."""
        if self.min is None or low < self.min:
            self.min = low
        if self.max is None or high > self.max:
            self.max = high
        if self.last is None or (last_t, last) > (self.last_t, self.last):
            self.last, self.last_t = last, last_t

    def pack(self) -> list[Any]:
        """Return all of it as what MessagePack has."""
        return [self.sessions.pack() if name == "sessions" else getattr(self, name) for name in self._FIELDS]

    @classmethod
    def unpack(cls, packed: list[Any]) -> "Listing":
        """Return what pack() wrote."""
        made = cls()
        for name, value in zip(cls._FIELDS, packed, strict=True):
            setattr(made, name, Distinct.unpack(value) if name == "sessions" else value)
        return made


class Catalogue:
    """Every name of every product. One thread at a time."""

    def __init__(self) -> None:
        self.listings: dict[Key, Listing] = {}
        self._sizes: dict[tuple[str, str], int] = {}
        self._places: dict[tuple[str, str, str, tuple[str, ...]], list[Listing]] = {}

    def add(self, delta: Delta, session: int) -> None:
        """Take in a delta of the session with that hash."""
        product, units, places = delta.product, delta.units, self._places
        newest = 0
        for minute, kind, name, tags, cell in delta.rows:
            if kind in _UNLISTED:
                continue
            count, last_t, minute_us = cell.count, cell.last_t, minute * MINUTE_US
            newest = max(newest, last_t)
            found = places.get((product, kind, name, tags))
            if found is None:
                found = self._place(product, kind, name, tags)
            for listing in found:
                listing.add(count, minute_us, last_t, session)
            if kind != "event":
                found[0].add_values(cell.min, cell.max, cell.last, last_t)
                if name in units:
                    found[0].unit = units[name]
        for group, count in delta.groups.items():
            self._listing(product, "group", group).add(count, newest - newest % MINUTE_US, newest, session)

    def entries(self, query: CatalogueQuery) -> list[Entry]:
        """Return what query asks for, by product, kind and name."""
        return [
            Entry(
                *key,
                count=one.count,
                sessions=one.sessions.count(),
                unit=one.unit,
                last=one.last,
                min=one.min,
                max=one.max,
                first_seen=one.first_seen,
                last_seen=one.last_seen,
            )
            for key, one in sorted(self.listings.items())
            if _wants(query, key) and (query.since_us is None or one.last_seen >= query.since_us)
        ]

    def forget(self, before_us: int) -> bool:
        """Forget names that nobody used since then; return whether there were any."""
        old = [key for key, one in self.listings.items() if one.last_seen < before_us]
        for key in old:
            del self.listings[key]
            self._sizes[key[:2]] -= 1
        if old:
            self._places.clear()
        return bool(old)

    def fill(self, listings: Iterable[tuple[Key, Listing]]) -> None:
        """Take over listings that were kept."""
        for key, listing in listings:
            self.listings[key] = listing
            self._sizes[key[:2]] = self._sizes.get(key[:2], 0) + 1

    def _place(self, product: str, kind: str, name: str, tags: tuple[str, ...]) -> list[Listing]:
        """Return every listing that a row counts in, that of its name first; remember them for the next time."""
        found = [self._listing(product, kind, name)]
        for tag in tags:
            what, _, text = tag.partition(":") if kind == "event" else ("tag", "", tag)
            if what != "level":
                found.append(self._listing(product, what, text))
        if len(self._places) >= _MAX_PLACES:
            self._places.clear()
        self._places[product, kind, name, tags] = found
        return found

    def _listing(self, product: str, kind: str, name: str) -> Listing:
        key = (product, kind, name)
        found = self.listings.get(key)
        if found is None:
            size = self._sizes.get((product, kind), 0)
            if size >= MAX_NAMES and name != OTHER:
                return self._listing(product, kind, OTHER)
            self._sizes[product, kind] = size + 1
            found = self.listings[key] = Listing()
        return found


def _wants(query: CatalogueQuery, key: Key) -> bool:
    product, kind, name = key
    return (
        (not query.product or product in query.product)
        and (not query.kinds or kind in query.kinds)
        and (not query.names or name in query.names)
    )
