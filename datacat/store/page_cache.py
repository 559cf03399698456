"""What was read of pages lately: their sections by name, and their cells. The least recently used goes first."""

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, TypeAlias

from datacat.store.lanes import Lanes
from datacat.store.page_files import PageFile, Reader, family_of
from datacat.store.pages import Family, Item, Section, choose
from datacat.store.rollup_query import Gather

Key: TypeAlias = tuple[int, tuple[Any, ...] | None, int, bool]
"""Serial of the page, then None: all its sections; or what is asked for and the view: those chosen; or the family, its
view, and whether with distributions: its cells."""
MAX_COST = 400_000
"""Of about 100 bytes each: a cell costs 4, each of its bins and buckets 1, a place of a section 4."""


class PageCache:
    """Any thread may call. The cells that it gives are not to be changed."""

    def __init__(self, max_cost: int = MAX_COST) -> None:
        self._lock = threading.Lock()
        self._max_cost = max_cost
        self._cost = 0
        self._kept: OrderedDict[Key, tuple[Any, int]] = OrderedDict()

    def read(
        self, file: PageFile, gather: Gather, view: int, *, distributions: bool
    ) -> Iterator[tuple[Family, list[Item]]]:
        """Yield the cells of each family of a page that is asked for.

        The caller keeps the file from being removed. Raises: Corrupt, StoreError.
        """
        with ExitStack() as stack:
            reader: Reader | None = None
            query = gather.query
            asked = (file.serial, (query.product, query.kinds, query.names), view, False)
            chosen: list[Section] | None = self._get(asked)
            if chosen is None:
                sections: list[Section] | None = self._get((file.serial, None, 0, False))
                if sections is None:
                    reader = stack.enter_context(Reader(file))
                    sections = reader.sections
                    self._put((file.serial, None, 0, False), sections, 4 * len(sections))
                chosen = _choose(sections, gather, view)
                self._put(asked, chosen, 1 + len(chosen))
            for section in chosen:
                family = family_of(section)
                detailed = distributions and section.distributions_size > 0
                key = (file.serial, family, section.view, detailed)
                items: list[Item] | None = self._get(key)
                if items is None:
                    if reader is None:
                        reader = stack.enter_context(Reader(file))
                    items = reader.items(section, distributions=detailed)
                    self._put(key, items, _cost(items))
                yield family, items

    def _get(self, key: Key) -> Any:
        with self._lock:
            found = self._kept.get(key)
            if found is None:
                return None
            self._kept.move_to_end(key)
            return found[0]

    def _put(self, key: Key, value: Any, cost: int) -> None:
        with self._lock:
            if key in self._kept or cost > self._max_cost // 4:
                return
            self._kept[key] = (value, cost)
            self._cost += cost
            while self._cost > self._max_cost:
                _, (_, freed) = self._kept.popitem(last=False)
                self._cost -= freed


def _choose(sections: list[Section], gather: Gather, view: int) -> list[Section]:
    names = frozenset(gather.query.names)
    families: dict[Family, dict[int, Section]] = {}
    for section in sections:
        if not names or section.name in names:
            family = family_of(section)
            if gather.wants_family(*family):
                families.setdefault(family, {})[section.view] = section
    return [choose(views, view) for views in families.values()]


def _cost(items: list[Item]) -> int:
    cost = 4 * len(items)
    for _, _, _, cell in items:
        known = cell.distribution
        if isinstance(known, Lanes):
            cost += 1 + known.total.bit_length() // 800
        elif known:
            cost += len(known)
        if cell.layouts:
            cost += sum(len(counts) for _, counts in cell.layouts)
    return cost
