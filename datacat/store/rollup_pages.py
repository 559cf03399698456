"""Roll-ups on disk: deltas gather in memory, are written into pages now and then, and grow coarser as they age.

The deltas themselves are in the log, in the entries of their batches, each exactly once: whoever copies an entry leaves
its delta out. A page (and the catalogue) holds the deltas up to a position of the log, all of them and no other. After
a crash a delta counts in a page when it lies behind the page's position, as in ARIES (Mohan et al., 1992), where pages
carry the number of the last log record that they include. The mark is a position that nothing needs to be read before.
A segment may be removed when the mark is behind it.
"""

import logging
import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path

from datacat.errors import Corrupt, StoreError
from datacat.store import page_files
from datacat.store.catalogue import Catalogue, CatalogueQuery, Entry
from datacat.store.distinct import hash_of
from datacat.store.page_build import Source, build
from datacat.store.page_cache import PageCache
from datacat.store.page_files import START, PageFile, Reader
from datacat.store.pages import LEVELS, TOTAL, UNTAGGED, WHOLE, Ages, PageId, Part
from datacat.store.redo import deltas_behind
from datacat.store.rollup import MINUTE_US, Delta
from datacat.store.rollup_query import Gather, RollupQuery, Rollups
from datacat.store.sealed import Position
from datacat.store.segments import Segments

_log = logging.getLogger(__name__)

WRITE_INTERVAL_S = 60.0
"""So often what gathered in memory is written into pages."""
MAX_CELLS = 100_000
"""In memory at a time; beyond, whoever stored the batch writes a page before it goes on."""
_DAY_MIN = 24 * 60


class RollupPages:
    """The roll-ups of one store. Any thread may call; apply() and passed() in the order of the log.

    Pages in memory: open ones take deltas; waiting ones are being written, or could not be, and do not change. _coarse
    are pages of coarser levels, written or not, that take what falls into their span; _folds what goes into them.
    Locks, outermost first: _writing (who writes pages), _lock.
    """

    def __init__(self, root: Path, ages: Ages, clock: Callable[[], float]) -> None:
        """Find what is on disk. Raises: StoreError."""
        self._root = root
        self._ages = ages
        self._clock = clock
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._cache = PageCache()
        self._open: dict[PageId, Part] = {}
        self._waiting: dict[PageId, Part] = {}
        self._folds: dict[PageId, set[PageId]] = {}
        self._damaged: set[PageId] = set()
        self.damaged = 0
        try:
            self._files = {file.id: file for file in page_files.find(root)}
            self._catalogued, self._catalogue, self.mark = START, Catalogue(), START
            try:
                self._catalogued, self._catalogue = page_files.read_catalogue(root)
                self.mark = page_files.read_mark(root)
            except Corrupt as error:
                # The whole log is read then, and counts in what is not of a later position.
                self._set_aside(error)
        except OSError as error:
            raise StoreError(f"cannot read the roll-ups in {root}: {error}", hint="check the disk") from error
        self._coarse = {page for page in self._files if page.level}
        self._at = self.mark
        self.latest = max([self.mark, self._catalogued, *[file.position for file in self._files.values()]])
        """The last position that anything on disk knows of."""
        self._stale = False
        self._gathered = 0
        self._written_s = clock()
        self._todo: list[PageId] | None = None
        self._goal = self._at
        self._growing = False

    def redo(self, found: Iterable[tuple[Position, str, Delta]], end: Position) -> None:
        """Take in what is in the log behind the mark, in its order; end is where it ends. Raises: StoreError."""
        for position, session_id, delta in found:
            self.apply(position, session_id, delta, again=True)
            self.relieve()
        self.passed(end)

    def apply(self, position: Position, session_id: str, delta: Delta, *, again: bool = False) -> None:
        """Take in the delta of an entry that is durable, at its position. again: it may be in pages already."""
        product, version = delta.product, delta.version
        part, start, end, cell_min = Part(), 0, 0, 1
        counts = True
        with self._lock:
            for minute, kind, name, tags, cell in delta.rows:
                if not start <= minute < end:
                    page = self._page_of(minute)
                    file = self._files.get(page) if again else None
                    counts = file is None or position > file.position
                    start, end, cell_min = page.start_min, page.end_min, LEVELS[page.level].cell_min
                    if counts:
                        part = self._open.get(page) or self._open.setdefault(page, Part())
                if counts:
                    at = (minute - start) // cell_min
                    part.add((product, kind, name), at, version, tags, cell)
            if not again or position > self._catalogued:
                self._catalogue.add(delta, hash_of(session_id))
                self._stale = True
            self._at = max(self._at, position)
            self._gathered += len(delta.rows)

    def passed(self, position: Position) -> None:
        """Take note that everything up to a position was applied, if it had a delta."""
        with self._lock:
            self._at = max(self._at, position)

    def rollups(self, query: RollupQuery) -> Rollups:
        """See Store.rollups."""
        gather = Gather(query)
        files: list[PageFile] = []
        with self._lock:
            for page in sorted({*self._files, *self._waiting, *self._open}):
                if not _overlaps(page, query):
                    continue
                for part in (self._waiting.get(page), self._open.get(page)):
                    if part is not None:
                        _gather_part(gather, page, part)
                file = self._files.get(page)
                if file is not None:
                    file.readers += 1
                    files.append(file)
        try:
            for file in files:
                self._gather_file(gather, file)
        finally:
            self._release(files)
        return gather.answer

    def catalogue(self, query: CatalogueQuery) -> list[Entry]:
        """See Store.catalogue."""
        with self._lock:
            return self._catalogue.entries(query)

    def stats(self) -> dict[str, int]:
        """Return rollup_pages, rollup_cells (in memory), rollups_limited (rows under OTHER since they were opened)."""
        with self._lock:
            parts = [*self._open.values(), *self._waiting.values()]
            return {
                "rollup_pages": len(self._files),
                "rollup_cells": sum(part.cells for part in parts),
                "rollups_limited": sum(part.limited for part in parts),
            }

    def step(self, now_us: int) -> bool:
        """Write one page, or fold one, or forget old ones, when it is time; True when there is more to do right now.

        What cannot be written is tried again after WRITE_INTERVAL_S; never raises.
        """
        if not self._writing.acquire(blocking=False):
            return False
        try:
            due = self._clock() - self._written_s >= WRITE_INTERVAL_S
            if self._todo is None and not due and not self._growing:
                return False
            if not self._growing and self._write_next():
                return True
            self._growing = self._grow_old(now_us // MINUTE_US)
            return self._growing
        except (OSError, StoreError) as error:
            self._todo, self._growing, self._written_s = None, False, self._clock()
            _log.warning("roll-ups were not written and stay in memory and in the log: %s", error)
            return False
        finally:
            self._writing.release()

    def covers(self, position: Position) -> bool:
        """Return whether the log may be removed up to a position; if not, the next step() sees to it."""
        if self.mark >= position:
            return True
        self._written_s = self._clock() - WRITE_INTERVAL_S
        return False

    def relieve(self) -> None:
        """Write pages when too much gathered in memory; for the thread that stored a batch. Never raises."""
        if self._gathered <= MAX_CELLS or not self._writing.acquire(blocking=False):
            return
        try:
            while True:
                with self._lock:
                    self._gathered = sum(part.cells for part in self._open.values())
                    largest = max(self._open, key=lambda page: self._open[page].cells, default=None)
                if self._gathered <= MAX_CELLS // 2 or largest is None:
                    return
                self._write_page(largest)
        except (OSError, StoreError) as error:
            _log.warning("roll-ups were not written and stay in memory and in the log: %s", error)
        finally:
            self._writing.release()

    def write_all(self) -> None:
        """Write everything that gathered in memory, and the mark. What cannot be is in the log: never raises."""
        with self._writing:
            try:
                self._todo = None
                while self._write_next():
                    pass
            except (OSError, StoreError) as error:
                _log.warning("roll-ups were not written; the next start reads them from the log: %s", error)

    def _write_next(self) -> bool:
        """Write one of the pages that changed, then the catalogue, then the mark; False when nothing is left."""
        if self._todo is None:
            with self._lock:
                folded = {page for sources in self._folds.values() for page in sources}
                dirty = {*self._open, *self._waiting, *self._folds, *self._damaged} - folded
                self._goal = self._at
                if not dirty and not self._stale and self._goal == self.mark:
                    return False
                self._todo = sorted(dirty)
        if self._todo:
            self._write_page(self._todo[-1])
            self._todo.pop()
            return True
        if self._stale:
            self._write_catalogue()
        if self._goal > self.mark:
            page_files.write_mark(self._root, self._goal)
        self.mark, self._todo, self._written_s = self._goal, None, self._clock()
        return False

    def _write_catalogue(self) -> None:
        with self._lock:
            position, self._stale = max(self._at, self._catalogued), False
            packed = page_files.pack_catalogue(position, self._catalogue)
        try:
            page_files.write_catalogue(self._root, packed)
        except OSError:
            self._stale = True
            raise
        self._catalogued = position

    def _write_page(self, page: PageId) -> None:
        """Write a page with all that belongs into it. Raises: OSError, StoreError; it stays in memory then."""
        with self._lock:
            sources = sorted({page, *self._folds.get(page, ())})
            for one in sources:
                came = self._open.pop(one, None)
                if came is None:
                    continue
                waiting = self._waiting.get(one)
                if waiting is None:
                    self._waiting[one] = came
                else:
                    waiting.take(came)
            position = max([self._at, *[self._files[one].position for one in sources if one in self._files]])
            old = [(one, self._files.get(one), self._waiting.get(one)) for one in sources]
        with ExitStack() as stack:
            parts = [
                Source(one, self._reader(file, stack), [part] if part is not None else []) for one, file, part in old
            ]
            new = page_files.write(self._root, page, position, build(page, parts, self._set_aside))
        with self._lock:
            replaced = [file for _, file, _ in old if file is not None and file.path != new.path]
            for one in sources:
                self._waiting.pop(one, None)
                self._files.pop(one, None)
                self._folds.pop(one, None)
            self._damaged.discard(page)
            self._files[page] = new
            for file in replaced:
                file.replaced = True
        self._release(replaced, counted=False)

    def _grow_old(self, now_min: int) -> bool:
        """Fold one page whose span is old enough, or forget old pages; True when there is more to do."""
        if self._ages.keep_days:
            self._forget(now_min - round(self._ages.keep_days * _DAY_MIN))
        for level, days in ((1, self._ages.minutes_days), (2, self._ages.hours_days)):
            oldest = now_min - round(days * _DAY_MIN)
            with self._lock:
                known = sorted({*self._files, *self._waiting, *self._open})
                fine = next(
                    (page for page in known if page.level < level and _parent(page, level).end_min <= oldest), None
                )
                if fine is None:
                    continue
                coarse = _parent(fine, level)
                self._folds[coarse] = {page for page in known if page.level < level and coarse.holds(page.start_min)}
                self._coarse.add(coarse)
            self._write_page(coarse)
            return True
        return False

    def _forget(self, oldest_min: int) -> None:
        with self._lock:
            old = {page for page in {*self._files, *self._waiting, *self._open} if page.end_min <= oldest_min}
            files = [self._files.pop(page) for page in old & self._files.keys()]
            for page in old:
                self._open.pop(page, None)
                self._waiting.pop(page, None)
                self._folds.pop(page, None)
                self._coarse.discard(page)
            for file in files:
                file.replaced = True
            if self._catalogue.forget(oldest_min * MINUTE_US):
                self._stale = True
        self._release(files, counted=False)

    def _page_of(self, minute: int) -> PageId:
        for level in (2, 1):
            page = PageId(level, minute // LEVELS[level].page_min)
            if page in self._coarse:
                return page
        return PageId(0, minute // LEVELS[0].page_min)

    def _gather_file(self, gather: Gather, file: PageFile) -> None:
        start_us, cell_min = file.id.start_min * MINUTE_US, LEVELS[file.id.level].cell_min
        view = 0 if gather.needs_tags else UNTAGGED
        if gather.takes_whole(start_us, file.id.end_min * MINUTE_US):
            view |= WHOLE
        elif view and not gather.needs_versions:
            view = TOTAL
        found = self._cache.read(file, gather, view, distributions=gather.query.distributions)
        try:
            for family, items in found:
                gather.resolution(cell_min * 60)
                gather.add_all(family, items, start_us, cell_min * MINUTE_US)
        except Corrupt as error:
            _log.error("roll-ups are damaged: %s; what is sound of the page is kept by the next tend", error)
            with self._lock:
                self._damaged.add(file.id)
            raise

    def _reader(self, file: PageFile | None, stack: ExitStack) -> Reader | None:
        if file is None:
            return None
        try:
            return stack.enter_context(Reader(file))
        except Corrupt as error:
            self._set_aside(error)
            return None

    def _release(self, files: list[PageFile], *, counted: bool = True) -> None:
        with self._lock:
            for file in files:
                file.readers -= counted
            unused = [file for file in files if file.replaced and not file.readers]
        for file in unused:
            page_files.remove(file)

    def _set_aside(self, error: Corrupt) -> None:
        kept = page_files.set_aside(self._root, Path(error.path))
        self.damaged += 1
        _log.error("roll-ups are damaged: %s kept=%s", error, kept)


def _parent(page: PageId, level: int) -> PageId:
    return PageId(level, page.start_min // LEVELS[level].page_min)


def _overlaps(page: PageId, query: RollupQuery) -> bool:
    return (query.from_us is None or page.end_min * MINUTE_US > query.from_us) and (
        query.to_us is None or page.start_min * MINUTE_US < query.to_us
    )


def _gather_part(gather: Gather, page: PageId, part: Part) -> None:
    cell_min = LEVELS[page.level].cell_min
    for family in part.families:
        if gather.wants_family(*family):
            gather.resolution(cell_min * 60)
            gather.add_all(family, part.items(family), page.start_min * MINUTE_US, cell_min * MINUTE_US)


def open_pages(root: Path, segments: Segments, ages: Ages, clock: Callable[[], float]) -> RollupPages:
    """Return the roll-ups of a store that has just been opened, as its log says. Raises: StoreError."""
    rollups = RollupPages(root, ages, clock)
    opened, end = segments.log()
    if rollups.latest > end:
        # Part of the log is gone: what comes now must lie behind what pages include.
        segments.begin_behind(rollups.latest.segment)
        opened, end = segments.log()
    segments.may_remove, segments.passed = rollups.covers, rollups.passed
    rollups.redo(deltas_behind(opened, rollups.mark), end)
    return rollups
