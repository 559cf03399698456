"""What is asked of roll-ups, and how cells are gathered into the answer. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

from datacat.errors import WireError
from datacat.store.cell import Cell
from datacat.store.rollup import MINUTE_US, Delta

Group: TypeAlias = tuple[str | None, ...]
_DIMENSIONS = ("product", "version", "kind", "name", "level", "category", "exception", "tags")
_US = 1_000_000


@dataclass(frozen=True, slots=True)
class RollupQuery:
    """Which cells, and merged into which groups.

    Counted are cells that begin in [from_us, to_us): minutes, and for older data hours (after 2 days) and days (after
    90), each aligned to the epoch in UTC. So spans that follow each other never count anything twice. The tuples are
    alternatives, empty ones no condition; kinds are those of rollup.py; tags are whole texts ("room:kitchen"), for
    events "level:error", "category:db", "exception:ValueError".

    interval_s, a multiple of 60, is the length of a bucket, aligned to the epoch; None: the whole span is one bucket.
    by has dimensions: product, version, kind, name, level, category and exception (of events), tag:KEY (what follows
    KEY: or KEY= in a tag; the empty text when the tag is just KEY; None without such a tag), tags (all of them, joined
    by commas). distributions False leaves out bins and layouts, which is faster when no quantile is wanted.
    """

    from_us: int | None = None
    to_us: int | None = None
    interval_s: int | None = None
    product: tuple[str, ...] = ()
    version: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    by: tuple[str, ...] = ()
    distributions: bool = True

    def check(self) -> None:
        """Raise WireError when interval_s or by is not as described."""
        if self.interval_s is not None and (self.interval_s <= 0 or self.interval_s % 60):
            raise WireError(f"interval_s={self.interval_s} is no multiple of 60", pointer="/interval_s")
        for dimension in self.by:
            if dimension not in _DIMENSIONS and not dimension.startswith("tag:"):
                raise WireError(f"there is no dimension {dimension!r}", pointer="/by")


@dataclass(slots=True)
class Rollups:
    """The answer: cells by (start of the bucket in us, group in the order of by).

    Without interval_s the start is from_us, or 0. resolution_s is the length of the coarsest cells that were counted:
    60, 3600 or 86400; a longer one than interval_s means that such a cell stands as a whole in the bucket in which it
    begins. Buckets without samples are missing. The cells are the caller's.
    """

    cells: dict[tuple[int, Group], Cell] = field(default_factory=dict)
    resolution_s: int = 60


class Gather:
    """Merges cells into the answer to one query. One thread."""

    def __init__(self, query: RollupQuery) -> None:
        """Raises: WireError when the query is not as described."""
        query.check()
        self.query = query
        self.answer = Rollups()
        self._interval_us = None if query.interval_s is None else query.interval_s * _US
        self._whole = query.from_us or 0
        self._low = query.from_us if query.from_us is not None else -1
        self._high = query.to_us if query.to_us is not None else 1 << 62
        self._tags = frozenset(query.tags)
        self._groups: dict[tuple[str, str, str, str, tuple[str, ...]], Group | None] = {}

    def add(
        self, product: str, version: str, kind: str, name: str, tags: tuple[str, ...], start_us: int, cell: Cell
    ) -> None:
        """Merge a cell that begins at start_us, if it is asked for; the cell stays as it is."""
        self.add_all((product, kind, name), [(0, version, tags, cell)], start_us, 0)

    def add_all(
        self,
        family: tuple[str, str, str],
        items: Iterable[tuple[int, str, tuple[str, ...], Cell]],
        start_us: int,
        cell_us: int,
    ) -> None:
        """Merge cells (at, version, tags, cell) of a family, which begin at start_us + at * cell_us."""
        product, kind, name = family
        low, high, interval, cells = self._low, self._high, self._interval_us, self.answer.cells
        distributions = self.query.distributions
        series: tuple[str, tuple[str, ...]] | None = None
        group: Group | None = None
        for at, version, tags, cell in items:
            begin_us = start_us + at * cell_us
            if not low <= begin_us < high:
                continue
            if series is None or series[0] is not version or series[1] is not tags:
                series = (version, tags)
                group = self._group_of(product, version, kind, name, tags)
            if group is None:
                continue
            key = (self._whole if interval is None else begin_us - begin_us % interval, group)
            known = cells.get(key)
            detailed = distributions and (cell.distribution is not None or cell.layouts is not None)
            if known is None:
                if detailed:
                    cells[key] = cell.copy()
                else:
                    cells[key] = Cell(cell.count, cell.sum, cell.min, cell.max, cell.last, cell.last_t)
            elif detailed:
                known.merge(cell)
            else:
                known.merge_values(cell)

    @property
    def needs_tags(self) -> bool:
        """Whether the answer depends on tags."""
        plain = ("product", "version", "kind", "name")
        return bool(self.query.tags) or any(dimension not in plain for dimension in self.query.by)

    @property
    def needs_versions(self) -> bool:
        """Whether the answer depends on versions."""
        return bool(self.query.version) or "version" in self.query.by

    def takes_whole(self, start_us: int, end_us: int) -> bool:
        """Return whether everything from start_us to end_us goes into the same bucket."""
        span = end_us - start_us
        return (
            self._low <= start_us
            and end_us <= self._high
            and (self._interval_us is None or self._interval_us % span == 0)
        )

    def wants_family(self, product: str, kind: str, name: str) -> bool:
        """Return whether any cell of these can be asked for."""
        query = self.query
        return (
            (not query.product or product in query.product)
            and (not query.kinds or kind in query.kinds)
            and (not query.names or name in query.names)
        )

    def resolution(self, seconds: int) -> None:
        """Take note that cells of that length were counted."""
        self.answer.resolution_s = max(self.answer.resolution_s, seconds)

    def _group_of(self, product: str, version: str, kind: str, name: str, tags: tuple[str, ...]) -> Group | None:
        key = (product, version, kind, name, tags)
        try:
            return self._groups[key]
        except KeyError:
            group = self._groups[key] = self._group(*key)
            return group

    def _group(self, product: str, version: str, kind: str, name: str, tags: tuple[str, ...]) -> Group | None:
        query = self.query
        if not self.wants_family(product, kind, name) or (query.version and version not in query.version):
            return None
        if self._tags and self._tags.isdisjoint(tags):
            return None
        known: dict[str, str | None] = {"product": product, "version": version, "kind": kind, "name": name}
        known["tags"] = ",".join(tags)
        return tuple(known[one] if one in known else tag_value(tags, one.removeprefix("tag:")) for one in query.by)


def tag_value(tags: Iterable[str], key: str) -> str | None:
    """Return what the first tag with that key says: "v" for key:v and key=v, "" for key alone; None without one."""
    for tag in tags:
        if tag.startswith(key):
            rest = tag[len(key) :]
            if not rest:
                return ""
            if rest[0] in ":=":
                return rest[1:]
    return None


def collect(deltas: Iterable[Delta], query: RollupQuery) -> Rollups:
    """Return the answer of all these deltas, by looking at each: the obvious way, for comparison and small stores."""
    gather = Gather(query)
    for delta in deltas:
        for minute, kind, name, tags, cell in delta.rows:
            gather.add(delta.product, delta.version, kind, name, tags, minute * MINUTE_US, cell)
    return gather.answer
