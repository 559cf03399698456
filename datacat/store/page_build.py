"""Make a page out of others: its earlier file, what came since, and pages of finer levels in its span."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from datacat.errors import Corrupt
from datacat.store import pages
from datacat.store.page_files import Reader, family_of
from datacat.store.pages import Family, Item, Names, PageId, Part, Section


class Source(NamedTuple):
    """One page that goes into another: its open file, if it has one, and the cells that came since that was written."""

    page: PageId
    reader: Reader | None
    parts: list[Part]


def build(
    page: PageId, sources: list[Source], damaged: Callable[[Corrupt], None]
) -> Iterator[tuple[Family, bytes, bytes]]:
    """Yield the sections of a page, by family. What cannot be read is left out and told to damaged.

    Raises: StoreError.
    """
    known: dict[Family, list[tuple[Source, Section]]] = {}
    for source in sources:
        for section in source.reader.sections if source.reader else ():
            known.setdefault(family_of(section), []).append((source, section))
    names = Names(
        family_of(section) for one in sources if one.page == page and one.reader for section in one.reader.sections
    )
    members: dict[Family, list[Family]] = {}
    for family in {*known, *(family for source in sources for part in source.parts for family in part.families)}:
        members.setdefault(names.place(family), []).append(family)
    for family in sorted(members):
        try:
            kept = _kept(page, sources, known, members[family])
        except Corrupt as error:
            damaged(error)
            continue
        if kept is not None:
            yield family, *kept
            continue
        items = pages.merge(_items(page, sources, known, members[family], damaged))
        if items:
            yield family, *pages.pack(items)


def _kept(
    page: PageId,
    sources: list[Source],
    known: dict[Family, list[tuple[Source, Section]]],
    members: list[Family],
) -> tuple[bytes, bytes] | None:
    """Return the sections as they are, when nothing came to them; None when there is something to merge."""
    if len(members) != 1 or len(known.get(members[0], ())) != 1:
        return None
    source, section = known[members[0]][0]
    if source.page != page or any(members[0] in part.families for one in sources for part in one.parts):
        return None
    assert source.reader is not None
    return source.reader.sound(section)


def _items(
    page: PageId,
    sources: list[Source],
    known: dict[Family, list[tuple[Source, Section]]],
    members: list[Family],
    damaged: Callable[[Corrupt], None],
) -> Iterator[Item]:
    for family in members:
        for source, section in known.get(family, ()):
            assert source.reader is not None
            try:
                items = source.reader.items(section)
            except Corrupt as error:
                damaged(error)
                continue
            yield from items if source.page == page else pages.coarsen(items, source.page, page)
        for source in sources:
            for part in source.parts:
                items = [(at, version, tags, cell.copy()) for at, version, tags, cell in part.items(family)]
                yield from items if source.page == page else pages.coarsen(items, source.page, page)
