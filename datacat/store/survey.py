"""Look at a store's folder without opening the store: which files there are, what lies in a segment. Changes nothing.

A server may be at work in the folder meanwhile: what was found may be gone a moment later, and a segment may grow.
"""

import re
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Self

from datacat import host
from datacat.errors import Corrupt, StoreError
from datacat.store import durable, version
from datacat.store.page_files import ROLLUPS_DIR
from datacat.store.repair import QUARANTINE_DIR, SEGMENTS_DIR
from datacat.store.sealed import unseal_record
from datacat.store.segment import DATA_FILE, MERGED

LOCK_FILE = "lock"
_SEGMENT = re.compile(rf"(\d{{8}})-([0-9a-f]{{8}})({MERGED})?", re.ASCII)
_MOST_OPEN = 32


class Step(NamedTuple):
    """How far a long work is. done and total are bytes; total may grow."""

    done: int
    total: int
    doing: str


class SegmentFile(NamedTuple):
    """One segment as its folder's name tells it. merged: of merged and moved entries, not of the log."""

    number: int
    salt: int
    merged: bool
    name: str
    path: Path

    def size(self) -> int:
        """Return the size of the file in bytes, 0 when it is not there."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0


def require(root: Path) -> None:
    """Raise StoreError when the folder is no store that this datacat can read."""
    try:
        found = (root / version.FORMAT_FILE).read_bytes()
    except FileNotFoundError:
        raise StoreError(
            f"there is no store in {root}", hint="name the data folder with --data-dir", permanent=True
        ) from None
    except OSError as error:
        raise StoreError(f"cannot read {root}: {error}", permanent=host.needs_a_person(error)) from error
    trouble = version.trouble(found)
    if trouble:
        raise StoreError(f"{root} {trouble}", hint="use the datacat that wrote it, or a later one", permanent=True)


def holder(root: Path) -> str:
    """Return the pid of the process that has the store open (`?` when it does not tell), empty when nobody has."""
    path = root / LOCK_FILE
    if not host.held(path):
        return ""
    try:
        return path.read_text(encoding="ascii", errors="replace").strip() or "?"
    except OSError:
        return "?"


def segment_files(root: Path) -> list[SegmentFile]:
    """Return the segments by number. Raises: StoreError."""
    found = []
    for folder in _names(root / SEGMENTS_DIR):
        name = _SEGMENT.fullmatch(folder.name)
        if name is not None:
            found.append(SegmentFile(int(name[1]), int(name[2], 16), bool(name[3]), folder.name, folder / DATA_FILE))
    return found


def strays(root: Path) -> list[Path]:
    """Return what a crash left half-made, and what is none of the store's. Raises: StoreError."""
    found = [path for path in _names(root) if path.name.endswith(durable.NEW_SUFFIX)]
    for folder in _names(root / SEGMENTS_DIR):
        if _SEGMENT.fullmatch(folder.name) is None:
            found.append(folder)
            continue
        found += [path for path in _names(folder) if path.name != DATA_FILE]
    for other in (ROLLUPS_DIR, "hints", QUARANTINE_DIR):
        found += [path for path in _names(root / other) if path.name.endswith(durable.NEW_SUFFIX)]
    return found


def quarantined(root: Path) -> list[Path]:
    """Return the files that repairs have set aside. Raises: StoreError."""
    return _names(root / QUARANTINE_DIR)


def read(path: Path, offset: int = 0) -> bytes:
    """Return a file from an offset on. Raises: FileNotFoundError, StoreError."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error}", hint="check the disk and its permissions") from error


class Entries:
    """Entries of a store that nobody writes, read one by one; close() or `with` lets go of the files. One thread."""

    def __init__(self, segments: list[SegmentFile]) -> None:
        self._segments = {segment.number: segment for segment in segments}
        self._files: OrderedDict[int, int] = OrderedDict()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the files."""
        while self._files:
            durable.close(self._files.popitem()[1])

    def payload(self, number: int, key: bytes, offset: int, size: int) -> bytes:
        """Return the payload of the record there. Raises: Corrupt, StoreError."""
        segment = self._segments[number]
        try:
            fd = self._files.get(number)
            if fd is None:
                if len(self._files) >= _MOST_OPEN:
                    durable.close(self._files.popitem(last=False)[1])
                fd = durable.open_to_read(segment.path)
                self._files[number] = fd
            self._files.move_to_end(number)
            found = unseal_record(segment.salt, key, durable.read_at(fd, size, offset))
        except OSError as error:
            raise StoreError(f"cannot read {segment.path}: {error}", hint="check the disk") from error
        if found is None:
            raise Corrupt("a record is not what was written", path=str(segment.path), offset=offset)
        return found


def _names(folder: Path) -> list[Path]:
    """Return what is in a folder, by name; nothing when it is not there. Raises: StoreError."""
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise StoreError(f"cannot read {folder}: {error}", permanent=host.needs_a_person(error)) from error


def files_below(folder: Path) -> Iterator[Path]:
    """Yield the plain files of a folder that is not changed meanwhile, by name, depth first."""
    for path in _names(folder):
        if path.is_dir() and not path.is_symlink():
            yield from files_below(path)
        else:
            yield path
