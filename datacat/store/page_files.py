"""The files of pages: found by name, read in parts, replaced so that a crash leaves the old one or the new one.

    <store>/rollups/<level>-<number>-<segment>-<seq>-<offset>   a page (pages.py) and the position up to which it counts
    <store>/rollups/catalogue                                   names (catalogue.py)
    <store>/rollups/mark                                        all up to that position is in pages and catalogue

Of two files of one page the one with the later position counts. A page makes those of finer levels in its span void.
"""

import contextlib
import itertools
import os
import re
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

import msgspec
import zstandard

from datacat.errors import Corrupt, StoreError
from datacat.store import durable, pages
from datacat.store.catalogue import Catalogue, Listing
from datacat.store.pages import Family, Item, PageId, Section, View
from datacat.store.repair import QUARANTINE_DIR
from datacat.store.sealed import Position

ROLLUPS_DIR = "rollups"
CATALOGUE = "catalogue"
MARK = "mark"
_NAME = re.compile(r"(\d)-(\d{1,9})-(\d{1,12})-(\d{1,12})-(\d{1,12})", re.ASCII)
_MAGIC = b"datacat rollups 1\n"
_CRC = struct.Struct("!I")
_serials = itertools.count()
START = Position(0, 0, 0)
"""Before everything."""


class PageFile:
    """One page on disk. It belongs to its store's lock; the file itself never changes.

    readers counts those who use it: a file that was replaced is removed when the last of them is done. serial tells
    apart what this process has found or made, also under the same path.
    """

    __slots__ = ("id", "path", "position", "readers", "replaced", "serial")

    def __init__(self, page: PageId, position: Position, path: Path) -> None:
        self.id = page
        self.position = position
        self.path = path
        self.readers = 0
        self.replaced = False
        self.serial = next(_serials)


def find(root: Path) -> list[PageFile]:
    """Return the files that count, and remove the others and what was being made. Raises: OSError."""
    folder = root / ROLLUPS_DIR
    durable.make_dir(folder)
    newest: dict[PageId, PageFile] = {}
    void = [path for path in sorted(folder.iterdir()) if path.name.endswith(durable.NEW_SUFFIX)]
    for file in known(root):
        other = newest.get(file.id)
        if other is not None:
            void.append(min(file, other, key=lambda one: one.position).path)
        newest[file.id] = max(file, other, key=lambda one: one.position) if other else file
    coarse = [page for page in newest if page.level]
    hidden = [page for page in newest if any(one.level > page.level and one.holds(page.start_min) for one in coarse)]
    void += [newest.pop(page).path for page in hidden]
    for path in void:
        path.unlink(missing_ok=True)
    return list(newest.values())


def known(root: Path) -> list[PageFile]:
    """Return every file of a page, by name, whether it counts or not. Raises: OSError."""
    folder = root / ROLLUPS_DIR
    files = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        name = _NAME.fullmatch(path.name)
        if name is not None:
            level, number, *position = map(int, name.groups())
            files.append(PageFile(PageId(level, number), Position(*position), path))
    return files


def write(root: Path, page: PageId, position: Position, sections: Iterable[tuple[Family, View]]) -> PageFile:
    """Make a page durable. Raises: OSError."""
    path = root / ROLLUPS_DIR / "-".join(map(str, (*page, *position)))
    durable.create(path, pages.encode(page, position, sections))
    return PageFile(page, position, path)


class Reader:
    """An open page: its sections by family, their bytes, their cells. Raises: Corrupt, StoreError."""

    def __init__(self, file: PageFile) -> None:
        self._path = file.path
        try:
            self._fd = os.open(file.path, (durable.OPEN_FLAGS & ~(os.O_APPEND | os.O_RDWR)) | os.O_RDONLY)
        except OSError as error:
            raise StoreError(f"cannot open {file.path}: {error}", hint="check the disk") from error
        try:
            self.sections = self._header(file)
        except BaseException:
            os.close(self._fd)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def raw(self, section: Section, *, distributions: bool = True) -> tuple[bytes, bytes]:
        """Return the bytes of values and of distributions, unchecked."""
        size = section.values_size + (section.distributions_size if distributions else 0)
        data = self._read(size, self.start + section.offset)
        return data[: section.values_size], data[section.values_size :]

    def items(self, section: Section, *, distributions: bool = True) -> list[Item]:
        """Return the cells of a family."""
        try:
            return pages.unpack(*self.raw(section, distributions=distributions), section)
        except (StoreError, msgspec.DecodeError, zstandard.ZstdError) as error:
            raise Corrupt(str(error), path=str(self._path), offset=self.start + section.offset) from error

    def sound(self, section: Section) -> tuple[bytes, bytes]:
        """Return the bytes of values and of distributions, as they were written."""
        values, distributions = self.raw(section)
        if (zlib.crc32(values), zlib.crc32(distributions)) != (section.values_crc, section.distributions_crc):
            place = self.start + section.offset
            raise Corrupt("a section of a page is not what was written", path=str(self._path), offset=place)
        return values, distributions

    def _header(self, file: PageFile) -> list[Section]:
        start = self._read(pages.HEADER_START, 0)
        size = pages.header_size(start)
        try:
            if size is None:
                raise StoreError("the file is no page of roll-ups")
            header = pages.decode_header(start, self._read(size, pages.HEADER_START))
        except (StoreError, msgspec.DecodeError) as error:
            raise Corrupt(str(error), path=str(self._path), offset=0) from error
        if (PageId(header.level, header.number), header.position) != (file.id, file.position):
            raise Corrupt("the file has the name of another page", path=str(self._path), offset=0)
        self.start = pages.HEADER_START + size
        return header.sections

    def _read(self, size: int, offset: int) -> bytes:
        try:
            return durable.read_at(self._fd, size, offset)
        except OSError as error:
            raise StoreError(f"cannot read {self._path}: {error}", hint="check the disk") from error


def family_of(section: Section) -> Family:
    """Return the family that a section belongs to."""
    return section.product, section.kind, section.name


def write_mark(root: Path, position: Position) -> None:
    """Note that everything up to a position is in pages and catalogue. Raises: OSError."""
    durable.create(root / ROLLUPS_DIR / MARK, _sealed(list(position)))


def read_mark(root: Path) -> Position:
    """Return what write_mark() noted; START when there is nothing. Raises: Corrupt, OSError."""
    found = _load(root / ROLLUPS_DIR / MARK)
    return START if found is None else Position(*found)


def pack_catalogue(position: Position, catalogue: Catalogue) -> bytes:
    """Return the file of a catalogue as of a position."""
    rows = [[*key, listing.pack()] for key, listing in catalogue.listings.items()]
    return _sealed([list(position), rows])


def write_catalogue(root: Path, packed: bytes) -> None:
    """Make a catalogue durable. Raises: OSError."""
    durable.create(root / ROLLUPS_DIR / CATALOGUE, packed)


def read_catalogue(root: Path) -> tuple[Position, Catalogue]:
    """Return what write_catalogue() wrote; an empty one as of START when there is none. Raises: Corrupt, OSError."""
    catalogue = Catalogue()
    found = _load(root / ROLLUPS_DIR / CATALOGUE)
    if found is None:
        return START, catalogue
    catalogue.fill(((product, kind, name), Listing.unpack(row)) for product, kind, name, row in found[1])
    return Position(*found[0]), catalogue


def remove(file: PageFile) -> None:
    """Remove a file that does not count any more; one that stays is removed at the next start."""
    with contextlib.suppress(OSError):
        file.path.unlink(missing_ok=True)


def set_aside(root: Path, path: Path) -> Path:
    """Copy a damaged file to quarantine, where it stays when it is replaced; return where. Raises: OSError."""
    place = root / QUARANTINE_DIR / f"{ROLLUPS_DIR}-{path.name}"
    durable.make_dir(place.parent)
    durable.create(place, path.read_bytes())
    return place


def _sealed(content: list[Any]) -> bytes:
    body = zstandard.ZstdCompressor(level=3).compress(msgspec.msgpack.encode(content))
    return _MAGIC + _CRC.pack(zlib.crc32(body)) + body


def _load(path: Path) -> list[Any] | None:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    start = len(_MAGIC) + _CRC.size
    sound = data.startswith(_MAGIC) and len(data) > start
    if not sound or zlib.crc32(data[start:]) != _CRC.unpack_from(data, len(_MAGIC))[0]:
        raise Corrupt("it is not what was written", path=str(path), offset=0)
    found: list[Any] = msgspec.msgpack.decode(zstandard.ZstdDecompressor().decompress(data[start:]))
    return found
