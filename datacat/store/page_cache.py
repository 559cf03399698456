"""What was read of pages lately: their sections by name, and their cells. The least recently used goes first."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

from datacat.store.page_files import PageFile, Reader, family_of
from datacat.store.pages import Family, Item, Section

MAX_COST = 400_000
"""Of about 100 bytes each: a cell costs 4, each of its bins and buckets 1, a place of a section 4."""


class PageCache:
    """Any thread may call. The cells that it gives are not to be changed."""

    def __init__(self, max_cost: int = MAX_COST) -> None:
        self._lock = threading.Lock()
        self._max_cost = max_cost
        self._cost = 0
        self._kept: OrderedDict[tuple[int, Family | None, bool], tuple[Any, int]] = OrderedDict()

    def read(
        self, file: PageFile, names: tuple[str, ...], wants: Callable[[str, str, str], bool], *, distributions: bool
    ) -> Iterator[tuple[Family, list[Item]]]:
        """Yield the cells of each family of a page that is wanted; names, when there are any, are all that can be.

        The caller keeps the file from being removed. Raises: Corrupt, StoreError.
        """
        with ExitStack() as stack:
            reader: Reader | None = None
            by_name: dict[str, list[Section]] | None = self._get((file.serial, None, False))
            if by_name is None:
                reader = stack.enter_context(Reader(file))
                by_name = {}
                for section in reader.sections:
                    by_name.setdefault(section.name, []).append(section)
                self._put((file.serial, None, False), by_name, 4 * len(reader.sections))
            for name in names or by_name:
                for section in by_name.get(name, ()):
                    family = family_of(section)
                    if not wants(*family):
                        continue
                    detailed = distributions and section.distributions_size > 0
                    key = (file.serial, family, detailed)
                    items: list[Item] | None = self._get(key)
                    if items is None:
                        if reader is None:
                            reader = stack.enter_context(Reader(file))
                        items = reader.items(section, distributions=detailed)
                        self._put(key, items, _cost(items))
                    yield family, items

    def _get(self, key: tuple[int, Family | None, bool]) -> Any:
        with self._lock:
            found = self._kept.get(key)
            if found is None:
                return None
            self._kept.move_to_end(key)
            return found[0]

    def _put(self, key: tuple[int, Family | None, bool], value: Any, cost: int) -> None:
        with self._lock:
            if key in self._kept or cost > self._max_cost // 4:
                return
            self._kept[key] = (value, cost)
            self._cost += cost
            while self._cost > self._max_cost:
                _, (_, freed) = self._kept.popitem(last=False)
                self._cost -= freed


def _cost(items: list[Item]) -> int:
    return sum(
        4 + len(cell.bins or ()) + sum(len(counts) for _, counts in cell.layouts or ()) for _, _, _, cell in items
    )
