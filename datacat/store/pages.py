"""Pages of roll-ups: cells of one span of time, in memory and as the bytes of a file. Pure.

    file        MAGIC, header length u32, CRC-32 of the header u32 (big endian), header, sections
    header      MessagePack: the struct Header
    section     a zstd frame of MessagePack: the struct Values, or the struct Distributions of the same cells

A level has cells of one length in pages of one span: minutes by the hour, hours by the day, days by 32 days, all
aligned to the epoch in UTC. A family is (product, kind, name); each of its views has a section of values and one
of distributions.
"""

import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, TypeAlias

import msgspec
import zstandard

from datacat.errors import StoreError
from datacat.store import lanes
from datacat.store.cell import Cell, Layout
from datacat.store.lanes import Bins, Lanes, Packed
from datacat.store.rollup import KINDS, OTHER
from datacat.store.sealed import Position

MAX_TAG_SETS = 200
"""Of one family in one page; the smallest beyond count under the tag OTHER."""
MAX_VERSIONS = 200
"""Of one family in one page; the smallest beyond count under the version OTHER."""
MAX_NAMES = 1000
"""Of one product and kind in one page; what comes beyond counts as OTHER."""
MAX_PRODUCTS = 1000

_MAGIC = b"datacat page 1\n"
_SIZES = struct.Struct("!II")
_LEVEL = 3
"""Of zstd."""

Family: TypeAlias = tuple[str, str, str]
Item: TypeAlias = tuple[int, str, tuple[str, ...], Cell]
"""Which of the page's cells in order of time, version, tags, cell."""
View: TypeAlias = tuple[int, bytes, bytes]
"""Which view of a family, the section of its values, that of its distributions."""


FINE, UNTAGGED, WHOLE, UNTAGGED_WHOLE, TOTAL = range(5)
"""Views of a family's cells: each; all tags together; the page's whole span together; both; all versions and tags
together. One that would have as many cells as a finer one is left out."""
_FINER = {
    FINE: (),
    UNTAGGED: (FINE,),
    WHOLE: (FINE,),
    UNTAGGED_WHOLE: (UNTAGGED, WHOLE, FINE),
    TOTAL: (UNTAGGED, FINE),
}


class Level(NamedTuple):
    """Length of a cell and of a page, in minutes."""

    cell_min: int
    page_min: int


LEVELS = (Level(1, 60), Level(60, 24 * 60), Level(24 * 60, 32 * 24 * 60))


class Ages(NamedTuple):
    """How old cells are, in days, when minutes become hours, hours become days, and days are forgotten (0: never)."""

    minutes_days: float = 2
    hours_days: float = 90
    keep_days: float = 400


DEFAULT_AGES = Ages()


class PageId(NamedTuple):
    """A page: index of its level, and how many pages of that level come before it since 1970."""

    level: int
    number: int

    @property
    def start_min(self) -> int:
        """Its first minute."""
        return self.number * LEVELS[self.level].page_min

    @property
    def end_min(self) -> int:
        """The minute behind its last."""
        return (self.number + 1) * LEVELS[self.level].page_min

    def holds(self, minute: int) -> bool:
        """Return whether the minute is in its span."""
        return self.start_min <= minute < self.end_min


class Values(msgspec.Struct, array_like=True, gc=False):
    """Columns of cells; version and tag_set are indexes. A column of zeros is empty."""

    versions: list[str]
    tag_sets: list[tuple[str, ...]]
    at: list[int]
    version: list[int]
    tag_set: list[int]
    count: list[int]
    last_t: list[int]
    sum: list[int | float]
    min: list[int | float]
    max: list[int | float]
    last: list[int | float]


class Distributions(msgspec.Struct, array_like=True, gc=False):
    """bins (as a map, or as lanes) and layouts of the same cells in the same order."""

    bins: list[Bins | Packed | None]
    layouts: list[list[Layout] | None]


class Section(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """Where a view of a family lies behind the header, and checksums. No distributions: size 0."""

    product: str
    kind: str
    name: str
    view: int
    offset: int
    values_size: int
    values_crc: int
    distributions_size: int
    distributions_crc: int


class Header(msgspec.Struct, array_like=True, gc=False):
    """What a page is, up to which position of the log its cells count, and its sections."""

    level: int
    number: int
    position: Position
    sections: list[Section]


_pack = msgspec.msgpack.Encoder().encode
_read_header = msgspec.msgpack.Decoder(Header).decode
_read_values = msgspec.msgpack.Decoder(Values).decode
_read_distributions = msgspec.msgpack.Decoder(Distributions).decode

HEADER_START = len(_MAGIC) + _SIZES.size


class Part:
    """Cells of one page that came since it was written, by family. One thread at a time."""

    __slots__ = ("cells", "families", "limited", "names")

    def __init__(self) -> None:
        self.families: dict[Family, dict[tuple[int, str, tuple[str, ...]], Cell]] = {}
        self.names: dict[tuple[str, str], int] = {}
        self.cells = 0
        self.limited = 0

    def add(self, family: Family, at: int, version: str, tags: tuple[str, ...], cell: Cell) -> None:
        """Take a cell over. Rows beyond the limits count under OTHER."""
        cells = self.families.get(family)
        if cells is None:
            cells = self._family(family)
        known = cells.get((at, version, tags))
        if known is not None:
            known.merge(cell)
            return
        if len(cells) >= 4 * MAX_TAG_SETS and (tags or version):
            # Rare enough to look at them all.
            if tags and len({key[2] for key in cells} | {tags}) > 2 * MAX_TAG_SETS:
                tags = (OTHER,)
                self.limited += 1
            if len({key[1] for key in cells} | {version}) > 2 * MAX_VERSIONS:
                version = OTHER
                self.limited += 1
            known = cells.get((at, version, tags))
            if known is not None:
                known.merge(cell)
                return
        cells[at, version, tags] = cell
        self.cells += 1

    def take(self, more: "Part") -> None:
        """Take over the cells of another part of the same page."""
        self.limited += more.limited
        for family, cells in more.families.items():
            for (at, version, tags), cell in cells.items():
                self.add(family, at, version, tags, cell)

    def items(self, family: Family) -> Iterator[Item]:
        """Yield the cells of a family."""
        for (at, version, tags), cell in self.families.get(family, {}).items():
            yield at, version, tags, cell

    def _family(self, family: Family) -> dict[tuple[int, str, tuple[str, ...]], Cell]:
        product, kind, name = family
        size = self.names.get((product, kind), 0)
        if size >= MAX_NAMES and name != OTHER:
            self.limited += 1
            return self._known((product, kind, OTHER))
        if not size and len(self.names) >= MAX_PRODUCTS * len(KINDS) and product != OTHER:
            self.limited += 1
            return self._known((OTHER, kind, name))
        self.names[product, kind] = size + 1
        return self.families.setdefault(family, {})

    def _known(self, family: Family) -> dict[tuple[int, str, tuple[str, ...]], Cell]:
        return self.families[family] if family in self.families else self._family(family)


class Names:
    """Says under which family a new one is kept in a page that has others already."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._families = set(families)
        self._sizes: dict[tuple[str, str], int] = {}
        for product, kind, _ in self._families:
            self._sizes[product, kind] = self._sizes.get((product, kind), 0) + 1

    def place(self, family: Family) -> Family:
        """Return the family itself, or that of OTHER names."""
        product, kind, name = family
        if family in self._families or name == OTHER:
            return family
        size = self._sizes.get((product, kind), 0)
        if size >= MAX_NAMES:
            return (product, kind, OTHER)
        self._sizes[product, kind] = size + 1
        self._families.add(family)
        return family


def encode(page: PageId, position: Position, sections: Iterable[tuple[Family, View]]) -> bytes:
    """Return the file of a page; views come from pack() or are those of an earlier file."""
    rows: list[Section] = []
    body: list[bytes] = []
    offset = 0
    for family, (view, values, distributions) in sections:
        crcs = zlib.crc32(values), zlib.crc32(distributions)
        rows.append(Section(*family, view, offset, len(values), crcs[0], len(distributions), crcs[1]))
        body += (values, distributions)
        offset += len(values) + len(distributions)
    header = _pack(Header(*page, position, rows))
    return b"".join((_MAGIC, _SIZES.pack(len(header), zlib.crc32(header)), header, *body))


def header_size(start: bytes) -> int | None:
    """Return how long the header is, by the first HEADER_START bytes of a file; None when that is no page."""
    if len(start) < HEADER_START or not start.startswith(_MAGIC):
        return None
    return int(_SIZES.unpack_from(start, len(_MAGIC))[0])


def decode_header(start: bytes, header: bytes) -> Header:
    """Return the header, by the first HEADER_START bytes of a file and those behind. Raises: StoreError."""
    if zlib.crc32(header) != _SIZES.unpack_from(start, len(_MAGIC))[1]:
        raise StoreError("the header of a page is not what was written")
    return _read_header(header)


def pack(items: list[Item]) -> Iterator[View]:
    """Yield every view of a family's cells, each of which is there once."""
    sizes = {FINE: len(items)}
    yield FINE, *_pack_items(items)
    for view in (UNTAGGED, WHOLE, UNTAGGED_WHOLE, TOTAL):
        cells: dict[tuple[int, str, tuple[str, ...]], Cell] = {}
        for at, version, tags, cell in items:
            key = (0 if view & WHOLE else at, "" if view == TOTAL else version, tags if view in (FINE, WHOLE) else ())
            known = cells.get(key)
            if known is None:
                cells[key] = cell.copy()
            else:
                known.merge(cell)
        if len(cells) < min(sizes.get(finer, sizes[FINE]) for finer in _FINER[view]):
            sizes[view] = len(cells)
            yield view, *_pack_items([(*key, cell) for key, cell in cells.items()])


def choose(views: dict[int, Section], view: int) -> Section:
    """Return the smallest section that has all that a view has."""
    return min((views[one] for one in (view, *_FINER[view]) if one in views), key=lambda section: section.values_size)


def _pack_items(items: list[Item]) -> tuple[bytes, bytes]:
    ordered = sorted(items, key=lambda item: (item[1], item[2], item[0]))
    versions = {version: index for index, version in enumerate(dict.fromkeys(item[1] for item in ordered))}
    tag_sets = {tags: index for index, tags in enumerate(dict.fromkeys(item[2] for item in ordered))}
    cells = [item[3] for item in ordered]
    values = Values(
        list(versions),
        list(tag_sets),
        [item[0] for item in ordered],
        [versions[item[1]] for item in ordered],
        [tag_sets[item[2]] for item in ordered],
        [cell.count for cell in cells],
        [cell.last_t for cell in cells],
        *(_column([getattr(cell, name) for cell in cells]) for name in ("sum", "min", "max", "last")),
    )
    distributions = b""
    if any(cell.distribution or cell.layouts for cell in cells):
        bins = [_packed(cell.distribution) for cell in cells]
        distributions = _pack(Distributions(bins, [cell.layouts for cell in cells]))
    squeeze = zstandard.ZstdCompressor(level=_LEVEL).compress
    return squeeze(_pack(values)), squeeze(distributions) if distributions else b""


def _packed(distribution: Bins | Lanes | None) -> Bins | Packed | None:
    if not distribution:
        return None
    if isinstance(distribution, Lanes):
        return lanes.pack(distribution)
    dense = lanes.of_bins(distribution)
    return distribution if dense is None else lanes.pack(dense)


def unpack(values: bytes, distributions: bytes, section: Section) -> list[Item]:
    """Return the cells of a family; without their distributions when those are not given. Raises: StoreError."""
    if zlib.crc32(values) != section.values_crc or (
        distributions and zlib.crc32(distributions) != section.distributions_crc
    ):
        raise StoreError("a section of a page is not what was written")
    expand = zstandard.ZstdDecompressor().decompress
    table = _read_values(expand(values))
    zeros: list[int | float] = [0] * len(table.at)
    columns: list[Iterable[Any]] = [
        table.count, table.sum or zeros, table.min or zeros, table.max or zeros, table.last or zeros, table.last_t,
    ]  # fmt: skip
    if distributions:
        known = _read_distributions(expand(distributions))
        bins = [lanes.unpack(one) if isinstance(one, tuple) else one for one in known.bins]
        columns += [bins, known.layouts]
    versions, tag_sets = table.versions, table.tag_sets
    return [
        (at, versions[version], tag_sets[tags], cell)
        for at, version, tags, cell in zip(table.at, table.version, table.tag_set, map(Cell, *columns), strict=True)
    ]


def merge(items: Iterable[Item]) -> list[Item]:
    """Return each series and time once, with the smallest versions and tag sets beyond the limits under OTHER.

    Cells are taken over or merged into.
    """
    merged: dict[tuple[int, str, tuple[str, ...]], Cell] = {}
    for at, version, tags, cell in items:
        known = merged.get((at, version, tags))
        if known is None:
            merged[at, version, tags] = cell
        else:
            known.merge(cell)
    versions = _largest([(version, cell.count) for (_, version, _), cell in merged.items()], MAX_VERSIONS)
    tag_sets = _largest([(tags, cell.count) for (_, _, tags), cell in merged.items()], MAX_TAG_SETS)
    if versions is None and tag_sets is None:
        return [(*key, cell) for key, cell in merged.items()]
    limited: dict[tuple[int, str, tuple[str, ...]], Cell] = {}
    for (at, version, tags), cell in merged.items():
        new_version = version if versions is None or version in versions else OTHER
        new_tags = tags if tag_sets is None or tags in tag_sets else (OTHER,)
        known = limited.get((at, new_version, new_tags))
        if known is None:
            limited[at, new_version, new_tags] = cell
        else:
            known.merge(cell)
    return [(*key, cell) for key, cell in limited.items()]


def coarsen(items: Iterable[Item], fine: PageId, coarse: PageId) -> Iterator[Item]:
    """Yield the cells of a page as cells of the page of a coarser level that has its span."""
    cell_min, length_min = LEVELS[fine.level].cell_min, LEVELS[coarse.level].cell_min
    shift = fine.start_min - coarse.start_min
    for at, version, tags, cell in items:
        yield (at * cell_min + shift) // length_min, version, tags, cell


def _largest(sizes: list[tuple[Any, int]], limit: int) -> set[Any] | None:
    """Return the limit - 1 with the greatest counts; None when there are no more than limit."""
    totals: dict[Any, int] = {}
    for one, count in sizes:
        totals[one] = totals.get(one, 0) + abs(count)
    if len(totals) <= limit:
        return None
    return set(sorted(totals, key=lambda one: (-totals[one], one))[: limit - 1])


def _column(numbers: list[int | float]) -> list[int | float]:
    if not any(numbers):
        return []
    # Sums of integers may outgrow what MessagePack can hold.
    return [float(one) if type(one) is int and not -(2**63) <= one < 2**63 else one for one in numbers]
