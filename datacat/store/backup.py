"""Back up a store's folder while a server may be at work in it, verify the copy, put it back. Changes no source file.

A backup is a folder: `store`, the files that lie beside the store, and `backup.json`, which lists every file with its
size and CRC-32. It holds every batch that was acknowledged before the last step of the copying began.

Why a copy of files that change is whole: segments only grow, so a prefix of sound records stays what it is. What is
merged or moved is durable in its new place before the old segment is removed. So the order is: all segments; then
roll-ups, the mark first; then what segments of merged entries have grown by, then what the log has. A roll-up therefore
counts nothing that the copied log does not have, and no merged entry stands for batches behind the copied log. When a
segment vanished before it was copied, its entries have moved to where they may have been missed, so all is done once
more. An entry that is there twice counts once, as after a crash.
"""

import contextlib
import os
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec

from datacat.errors import StoreError
from datacat.host import needs_a_person
from datacat.store import checking, durable, page_files, survey
from datacat.store.checking import Report
from datacat.store.page_files import ROLLUPS_DIR
from datacat.store.repair import QUARANTINE_DIR, SEGMENTS_DIR
from datacat.store.sealed import HEADER, examine
from datacat.store.survey import SegmentFile, Step
from datacat.store.version import FORMAT_FILE

MANIFEST = "backup.json"
STORE_DIR = "store"
PARTIAL_SUFFIX = ".partial"
"""A backup in the making; one that stays was left by a process that was killed, and may be removed."""
_FORMAT = 1
_PIECE_BYTES = 1 << 20
_ROUNDS = 20
"""A segment that vanishes in each of so many rounds is no coincidence."""


class Entry(msgspec.Struct, frozen=True):
    """One file of a backup: its path in the folder, with /, its size and the CRC-32 of its bytes."""

    path: str
    size_bytes: int
    crc32: int


class Manifest(msgspec.Struct, frozen=True):
    """What a backup is. made_at is Unix us; sessions, records (stored lines) and deleted_sessions are those in it."""

    format: int
    made_at: int
    datacat: str
    sessions: int
    deleted_sessions: int
    records: int
    files: list[Entry]


class _Copied:
    """What was copied of a segment: so many bytes of a file with that number, the next record's seq, their CRC-32."""

    __slots__ = ("crc", "inode", "seq", "size")

    def __init__(self, inode: int) -> None:
        self.inode = inode
        self.size = 0
        self.seq = 1
        self.crc = 0


def back_up(root: Path, beside: Iterable[Path], target: Path, made_at: int, version: str) -> Iterator[Step]:
    """Copy the store in root, and the files beside it, to the folder target, step by step.

    target must not exist or be empty. Until the copy is verified it is a folder with another name; it is removed when
    the iterator is closed before its end. Raises: StoreError; Corrupt when source or copy are not what was written.
    """
    survey.require(root)
    _require_empty(target)
    partial = target.with_name(f"{target.name}-{os.urandom(4).hex()}{PARTIAL_SUFFIX}")
    try:
        durable.make_dir(partial / STORE_DIR)
        copy = _Copy(root, partial)
        yield from copy.run(beside)
        report = Report()
        for step in checking.check(partial / STORE_DIR, report, deep=False):
            yield Step(step.done, step.total, "reading the copy")
        _require_sound(report, root)
        files = [Entry(path, size, crc) for path, (size, crc) in sorted(copy.files.items())]
        made = Manifest(_FORMAT, made_at, version, report.sessions, report.deleted_sessions, report.lines, files)
        yield from verify(partial, made)
        durable.create(partial / MANIFEST, msgspec.json.format(msgspec.json.encode(made), indent=1) + b"\n")
        _rename(partial, target)
    except OSError as error:
        raise _failed(f"cannot back up {root} to {target}", error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def files_beside(data_dir: Path) -> list[Path]:
    """Return the files of a data folder that belong into a backup beside the store: keys, audit log, alerts."""
    return sorted(path for path in data_dir.iterdir() if path.suffix in (".json", ".ndjson") and path.is_file())


def read_manifest(folder: Path) -> Manifest:
    """Return what a backup says of itself. Raises: StoreError."""
    try:
        found = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
    except FileNotFoundError:
        raise StoreError(
            f"{folder} is no backup: it has no {MANIFEST}",
            hint="name a folder that `store backup` made",
            permanent=True,
        ) from None
    except OSError as error:
        raise _failed(f"cannot read {folder}", error) from error
    except msgspec.MsgspecError as error:
        raise StoreError(f"{folder / MANIFEST} is damaged: {error}", permanent=True) from error
    if found.format != _FORMAT:
        raise StoreError(f"{folder} is a backup of a later datacat", hint="use that one to restore it", permanent=True)
    return found


def verify(folder: Path, manifest: Manifest) -> Iterator[Step]:
    """Read every file of a backup and compare size and checksum. Raises: StoreError that names one that differs."""
    total = sum(entry.size_bytes for entry in manifest.files)
    done = 0
    for entry in manifest.files:
        yield Step(done, total, "verifying")
        crc, size = 0, 0
        try:
            with folder.joinpath(*entry.path.split("/")).open("rb") as file:
                while piece := file.read(_PIECE_BYTES):
                    crc, size = zlib.crc32(piece, crc), size + len(piece)
        except FileNotFoundError:
            raise StoreError(f"the backup {folder} lacks {entry.path}", permanent=True) from None
        except OSError as error:
            raise _failed(f"cannot read the backup {folder}", error) from error
        if (size, crc) != (entry.size_bytes, entry.crc32):
            raise StoreError(f"{entry.path} in the backup {folder} is not what was written", permanent=True)
        done += size
    yield Step(total, total, "verified")


def restore(folder: Path, data_dir: Path) -> Iterator[Step]:
    """Put a backup into a data folder, which must not exist or be empty, step by step.

    The store gets its name last, so that no server ever opens half of it. On POSIX a superuser gives everything to who
    owns the data folder. Raises: StoreError.
    """
    manifest = read_manifest(folder)
    _require_empty(data_dir)
    yield from verify(folder, manifest)
    partial = data_dir / f"{STORE_DIR}{PARTIAL_SUFFIX}"
    total, done = sum(entry.size_bytes for entry in manifest.files), 0
    made: list[Path] = []
    try:
        durable.make_dir(data_dir)
        durable.make_dir(partial)
        made.append(partial)
        for entry in manifest.files:
            first, *rest = _names_of(entry.path)
            place = partial.joinpath(*rest) if first == STORE_DIR else data_dir / first
            if first != STORE_DIR:
                made.append(place)
            durable.make_dir(place.parent)
            for size in _copy_file(folder.joinpath(first, *rest), place, entry):
                done += size
                yield Step(done, total, "copying")
        _give(data_dir, made)
        _rename(partial, data_dir / STORE_DIR)
        made.clear()
    except OSError as error:
        raise _failed(f"cannot restore {folder} to {data_dir}", error) from error
    finally:
        for path in made:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


class _Copy:
    """One backup in the making; files has what was copied: by path, size and CRC-32."""

    def __init__(self, root: Path, target: Path) -> None:
        self.files: dict[str, tuple[int, int]] = {}
        self._root = root
        self._target = target
        self._live = bool(survey.holder(root))
        self._segments: dict[str, _Copied] = {}
        self._done = 0

    def run(self, beside: Iterable[Path]) -> Iterator[Step]:
        """Copy everything. Raises: OSError, StoreError."""
        for _ in range(_ROUNDS):
            listed = survey.segment_files(self._root)
            yield from self._segments_of(listed)
            vanished = [one for one in listed if one.name not in self._segments]
            self._pages()
            listed = survey.segment_files(self._root)
            for merged in (True, False):
                yield from self._segments_of([one for one in listed if one.merged is merged])
            vanished += [one for one in listed if one.name not in self._segments]
            if not vanished:
                break
        else:
            raise StoreError(f"segments in {self._root} vanish as quickly as they are copied", hint="try it again")
        for name, copied in self._segments.items():
            if not copied.size:
                continue
            self.files[f"{STORE_DIR}/{SEGMENTS_DIR}/{name}/data"] = (copied.size, copied.crc)
        self._plain(self._root / FORMAT_FILE, (STORE_DIR, FORMAT_FILE))
        for path in survey.quarantined(self._root):
            self._plain(path, (STORE_DIR, QUARANTINE_DIR, path.name))
        for path in beside:
            self._plain(path, (path.name,))
        for folder in sorted({path.parent for path in survey.files_below(self._target)}):
            durable.sync_dir(folder)

    def _segments_of(self, listed: list[SegmentFile]) -> Iterator[Step]:
        newest = {segment.merged: segment.name for segment in listed}
        for segment in listed:
            left = sum(one.size() for one in listed)
            yield Step(self._done, max(left, self._done), f"segment {segment.number}")
            with contextlib.suppress(FileNotFoundError):
                self._segment(segment, grows=newest[segment.merged] == segment.name)

    def _segment(self, segment: SegmentFile, *, grows: bool) -> None:
        """Copy what a segment has more than was copied. Raises: FileNotFoundError, OSError, StoreError.

        grows: it is written, and what stands behind its last sound record may be a write that is under way.
        """
        inode = segment.path.stat().st_ino
        copied = self._segments.get(segment.name)
        if copied is None or copied.inode != inode or segment.size() < copied.size:
            copied = _Copied(inode)  # new, or a start has repaired it
        base = copied.size
        if base and segment.size() == base:
            return
        data = survey.read(segment.path, base)
        sound, bad = examine(data, segment.salt, base=base, seq=copied.seq)
        end = len(data)
        if bad and bad[-1].end == end and grows and (self._live or bad[-1].reason == "torn"):
            end = bad[-1].offset
        self._segments[segment.name] = copied
        if end + base <= len(HEADER):
            return  # nothing was written to it yet
        place = self._target / STORE_DIR / SEGMENTS_DIR / segment.name / "data"
        durable.make_dir(place.parent)
        _append(place, base, data[:end])
        copied.crc = zlib.crc32(data[:end], copied.crc)
        copied.size = base + end
        copied.seq = sound[-1].seq + 1 if sound else copied.seq
        self._done += end

    def _pages(self) -> None:
        """Copy the roll-ups as they are now, in place of those of an earlier round."""
        folder = self._target / STORE_DIR / ROLLUPS_DIR
        shutil.rmtree(folder, ignore_errors=True)
        prefix = f"{STORE_DIR}/{ROLLUPS_DIR}/"
        self.files = {path: one for path, one in self.files.items() if not path.startswith(prefix)}
        durable.make_dir(folder)
        for name in (page_files.MARK, page_files.CATALOGUE):
            self._plain(self._root / ROLLUPS_DIR / name, (STORE_DIR, ROLLUPS_DIR, name))
        copied: set[str] = set()
        while True:
            # A page that is replaced has the new file beside it before the old one goes.
            names = {file.path.name for file in page_files.known(self._root)}
            if names <= copied:
                return
            for name in names - copied:
                self._plain(self._root / ROLLUPS_DIR / name, (STORE_DIR, ROLLUPS_DIR, name))
            copied |= names

    def _plain(self, source: Path, names: tuple[str, ...]) -> None:
        """Copy a file that is replaced and never changed; nothing when it is not there. Raises: OSError, StoreError."""
        try:
            data = survey.read(source)
        except FileNotFoundError:
            return
        place = self._target.joinpath(*names)
        durable.make_dir(place.parent)
        durable.create(place, data)
        self.files["/".join(names)] = (len(data), zlib.crc32(data))


def _append(path: Path, offset: int, data: bytes) -> None:
    """Let a file be its first offset bytes and data behind them, durable. Raises: OSError."""
    fd = os.open(path, durable.OPEN_FLAGS | os.O_CREAT, 0o600)
    try:
        os.ftruncate(fd, offset)
        durable.write_all(fd, data)
        durable.sync_file(fd)
    finally:
        os.close(fd)


def _copy_file(source: Path, place: Path, entry: Entry) -> Iterator[int]:
    """Copy a file; yield the size of each piece. Raises: OSError, StoreError when it is not what the list says."""
    crc = 0
    fd = os.open(place, durable.OPEN_FLAGS | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with source.open("rb") as file:
            while piece := file.read(_PIECE_BYTES):
                durable.write_all(fd, piece)
                crc = zlib.crc32(piece, crc)
                yield len(piece)
        durable.sync_file(fd)
    finally:
        os.close(fd)
    durable.sync_dir(place.parent)
    if crc != entry.crc32:
        raise StoreError(f"{entry.path} in the backup is not what was written", permanent=True)


def _names_of(path: str) -> list[str]:
    names = path.split("/")
    if any(name in ("", ".", "..") or "\\" in name or ":" in name for name in names):
        raise StoreError(f"the backup has a file with the path {path[:80]!r}", permanent=True)
    return names


def _require_empty(target: Path) -> None:
    try:
        filled = target.exists() and (not target.is_dir() or any(target.iterdir()))
    except OSError as error:
        raise _failed(f"cannot look into {target}", error) from error
    if filled:
        raise StoreError(f"{target} is not empty", hint="name a folder that is empty or does not exist", permanent=True)


def _require_sound(report: Report, root: Path) -> None:
    for trouble in report.troubles:
        if trouble.kind not in checking.NOTES:
            raise StoreError(
                f"the store in {root} is damaged, and so is its copy: {trouble.what}",
                hint="see `datacat store check`; after `datacat store repair` a backup can be made",
            )


def _rename(partial: Path, target: Path) -> None:
    if target.exists():
        target.rmdir()  # an empty folder; rename() replaces one on POSIX only
    partial.rename(target)
    durable.sync_dir(target.parent)


def _give(data_dir: Path, made: list[Path]) -> None:
    """Give what a superuser has made to the owner of the data folder. Raises: OSError."""
    chown: Callable[..., None] | None = getattr(os, "chown", None)
    if chown is None or os.geteuid() != 0:  # type: ignore[attr-defined,unused-ignore]  # not on Windows
        return
    owner = data_dir.stat()
    for path in made:
        for one in [path, *path.rglob("*")]:
            chown(one, owner.st_uid, owner.st_gid)


def _failed(what: str, error: OSError) -> StoreError:
    return StoreError(
        f"{what}: {error}", hint="check the disk, its space and the permissions", permanent=needs_a_person(error)
    )
