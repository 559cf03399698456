"""Make a page out of others: its earlier file, what came since, and pages of finer levels in its span."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from datacat.errors import Corrupt
from datacat.store import pages
from datacat.store.page_files import Reader, family_of
from datacat.store.pages import Family, Item, Names, PageId, Part, Section, View


class Source(NamedTuple):
    """One page that goes into another: its open file, if it has one, and the cells that came since that was written."""

    page: PageId
    reader: Reader | None
    parts: list[Part]


Known = dict[Family, list[tuple[Source, dict[int, Section]]]]
"""The sections of each family in files, by view."""


def build(page: PageId, sources: list[Source], damaged: Callable[[Corrupt], None]) -> Iterator[tuple[Family, View]]:
    """Yield the sections of a page, by family. What cannot be read is left out and told to damaged.

    Raises: StoreError.
    """
    known: Known = {}
    own: set[Family] = set()
    for source in sources:
        found: dict[Family, dict[int, Section]] = {}
        for section in source.reader.sections if source.reader else ():
            found.setdefault(family_of(section), {})[section.view] = section
        for family, views in found.items():
            known.setdefault(family, []).append((source, views))
        if source.page == page:
            own.update(found)
    names = Names(own)
    members: dict[Family, list[Family]] = {}
    new = {family for source in sources for part in source.parts for family in part.families}
    for family in sorted(new.union(known)):
        members.setdefault(names.place(family), []).append(family)
    for family in sorted(members):
        try:
            kept = _kept(page, sources, known, members[family])
        except Corrupt as error:
            damaged(error)
            continue
        if kept is not None:
            yield from ((family, view) for view in kept)
            continue
        items = pages.merge(_items(page, sources, known, members[family], damaged))
        if items:
            yield from ((family, view) for view in pages.pack(items))


def _kept(page: PageId, sources: list[Source], known: Known, members: list[Family]) -> list[View] | None:
    """Return the views as they are, when nothing came to them; None when there is something to merge."""
    if len(members) != 1 or len(known.get(members[0], ())) != 1:
        return None
    source, views = known[members[0]][0]
    if source.page != page or any(members[0] in part.families for one in sources for part in one.parts):
        return None
    assert source.reader is not None
    return [(view, *source.reader.sound(section)) for view, section in views.items()]


def _items(
    page: PageId,
    sources: list[Source],
    known: Known,
    members: list[Family],
    damaged: Callable[[Corrupt], None],
) -> Iterator[Item]:
    for family in members:
        for source, views in known.get(family, ()):
            assert source.reader is not None
            try:
                items = source.reader.items(views[pages.FINE])
            except Corrupt as error:
                damaged(error)
                continue
            yield from items if source.page == page else pages.coarsen(items, source.page, page)
        for source in sources:
            for part in source.parts:
                items = [(at, version, tags, cell.copy()) for at, version, tags, cell in part.items(family)]
                yield from items if source.page == page else pages.coarsen(items, source.page, page)
