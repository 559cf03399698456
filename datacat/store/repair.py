"""Make the folder of a semidbm store safe to open after any crash: runs before every open, under the store's lock.

    <store>/segments/<number>-<salt>/data   a semidbm file; number has 8 decimal, salt 8 hexadecimal digits
    <store>/hints/<number>-<salt>           hints.py
    <store>/quarantine/<segment>-<offset>   bytes that were no sound records, kept for a person to look at

What a crash leaves is put right in silence or with a warning: files that were being made are removed, a torn tail is
cut. Damage is never silent: the bytes go to quarantine, the sound records behind them are kept, and the finding is
reported. Repair is interrupted safely: it can be run again from any point.
"""

import contextlib
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from datacat.errors import Corrupt, StoreError
from datacat.host import needs_a_person
from datacat.store import durable, hints
from datacat.store.hints import Hint
from datacat.store.sealed import HEADER, Record, Region, examine, is_foreign, record
from datacat.store.segment import DATA_FILE, Known, Segment

SEGMENTS_DIR = "segments"
QUARANTINE_DIR = "quarantine"

_NAME = re.compile(r"(\d{8})-([0-9a-f]{8})", re.ASCII)
_COMPACT_DIR = "compact"
"""What semidbm's own compaction leaves when it is interrupted; merging it would bring deleted keys back."""

Visit = Callable[[int, bytes, memoryview], None]
"""Called with (segment number, key, payload) for every sound record, in the order of writing."""
VisitHint = Callable[[int, Hint], Known]
"""Called with (segment number, hint) instead, for the bytes that the hint tells of."""


class Distrust(Exception):
    """Something is not as it was written, so the segments are to be read without hints. findings: what was repaired."""

    def __init__(self, findings: list["Finding"]) -> None:
        super().__init__()
        self.findings = findings


class Finding(NamedTuple):
    """Something that was not as it was written. kept is where the bytes are now, None when they were cut."""

    path: Path
    offset: int
    size_bytes: int
    reason: str
    kept: Path | None


def segment_folder(root: Path, number: int, salt: int) -> Path:
    """Return the folder of a segment."""
    return root / SEGMENTS_DIR / f"{number:08d}-{salt:08x}"


def make_segment(root: Path, number: int, salt: int) -> Segment:
    """Create an empty segment, durable before it is used. Raises: StoreError."""
    folder = segment_folder(root, number, salt)
    try:
        durable.make_dir(folder)
        durable.create(folder / DATA_FILE, HEADER)
    except OSError as error:
        with contextlib.suppress(OSError):  # what stays is removed at the next start
            _is_stray(folder)
        raise StoreError(
            f"cannot create {folder}: {error}",
            hint="check the disk and its permissions",
            permanent=needs_a_person(error),
        ) from error
    return Segment(folder, number, salt)


def remove_segment(segment: Segment) -> None:
    """Let go of a segment and remove its files. Raises: StoreError; the rest is removed at the next start."""
    segment.retire()
    try:
        (segment.folder / DATA_FILE).unlink()
        segment.folder.rmdir()
        durable.sync_dir(segment.folder.parent)
        hints.forget(segment.folder.parent.parent, segment.folder.name)
    except OSError as error:
        raise StoreError(f"cannot remove {segment.folder}: {error}") from error


def open_segments(root: Path, visit: Visit, visit_hint: VisitHint | None = None) -> tuple[list[Segment], list[Finding]]:
    """Repair and open every segment, oldest first. One file is in memory at a time.

    With visit_hint the bytes that hints tell of are not read. Raises: StoreError, Corrupt; with visit_hint Distrust.
    """
    segments: list[Segment] = []
    findings: list[Finding] = []
    try:
        durable.make_dir(root / SEGMENTS_DIR)
        for folder in sorted((root / SEGMENTS_DIR).iterdir()):
            name = _NAME.fullmatch(folder.name)
            if name is None or _is_stray(folder):
                continue
            number, salt = int(name[1]), int(name[2], 16)
            if segments and segments[-1].number == number:
                raise Corrupt("two segments have the same number", path=str(folder), offset=0, hint="remove the copy")
            hint = hints.load(root, folder.name, folder / DATA_FILE) if visit_hint else None
            if visit_hint and hint:
                known = visit_hint(number, hint)
                sound = _behind(folder, salt, hint, findings, partial(visit, number))
                segments.append(Segment(folder, number, salt, sound, known))
                continue
            sound = _sound(root, folder, salt, findings, partial(visit, number))
            if visit_hint and any(finding.kept for finding in findings):
                raise Distrust(findings)
            segments.append(Segment(folder, number, salt, sound))
    except (OSError, StoreError, Distrust) as error:
        for segment in segments:
            segment.retire()
        if not isinstance(error, OSError):
            raise
        raise StoreError(
            f"cannot repair {root}: {error}",
            hint="check the disk and its permissions",
            permanent=needs_a_person(error),
        ) from error
    hints.forget_others(root, {segment.folder.name for segment in segments})
    return segments, findings


def _behind(
    folder: Path, salt: int, hint: Hint, findings: list[Finding], visit: Callable[[bytes, memoryview], None]
) -> list[Record]:
    """Visit the sound records behind the bytes that a hint tells of; return where they lie. Raises: Distrust."""
    path = folder / DATA_FILE
    with path.open("rb") as file:
        file.seek(hint.size)
        data = file.read()
    sound, bad = examine(data, salt, base=hint.size, seq=hint.seq)
    if any(region.reason != "torn" for region in bad):
        raise Distrust(findings)
    view = memoryview(data)
    for one in sound:
        visit(one.key, view[one.payload : one.end - 4])
    for region in bad:
        findings.append(Finding(path, hint.size + region.offset, region.end - region.offset, region.reason, None))
        durable.truncate(path, hint.size + region.offset)
    return [
        one._replace(offset=one.offset + hint.size, end=one.end + hint.size, payload=one.payload + hint.size)
        for one in sound
    ]


def _is_stray(folder: Path) -> bool:
    """Remove what a crash left half-made; return whether that was the whole folder."""
    (folder / (DATA_FILE + durable.NEW_SUFFIX)).unlink(missing_ok=True)
    compact = folder / _COMPACT_DIR
    if compact.is_dir():
        (compact / DATA_FILE).unlink(missing_ok=True)
        compact.rmdir()
    data = folder / DATA_FILE
    if data.exists() and data.stat().st_size > len(HEADER):
        return False
    # A segment without any record is one whose making or removing was interrupted.
    data.unlink(missing_ok=True)
    folder.rmdir()
    durable.sync_dir(folder.parent)
    return True


def _sound(
    root: Path, folder: Path, salt: int, findings: list[Finding], visit: Callable[[bytes, memoryview], None]
) -> list[Record]:
    """Visit the sound records of a segment and leave a file that holds nothing else; return where they lie now."""
    path = folder / DATA_FILE
    data = path.read_bytes()
    sound, bad = examine(data, salt)
    if not sound and is_foreign(data):
        raise Corrupt(
            "the segment was written under another name",
            path=str(path),
            offset=len(HEADER),
            hint="give its folder the old name back, or move it out of the store",
        )
    view = memoryview(data)
    for one in sound:
        visit(one.key, view[one.payload : one.end - 4])
    if not bad:
        return sound
    for region in bad:
        kept = None if region.reason == "torn" else _quarantine(root, folder, region, data)
        findings.append(Finding(path, region.offset, region.end - region.offset, region.reason, kept))
    first = bad[0]
    if first.offset >= len(HEADER) and first.end == len(data):
        durable.truncate(path, first.offset)
        return sound
    rewritten = [record(salt, seq, one.key, data[one.payload : one.end - 4]) for seq, one in enumerate(sound, 1)]
    durable.create(path, HEADER + b"".join(rewritten))
    return examine(path.read_bytes(), salt)[0]


def _quarantine(root: Path, folder: Path, region: Region, data: bytes) -> Path:
    place = root / QUARANTINE_DIR / f"{folder.name}-{region.offset}"
    durable.make_dir(place.parent)
    durable.create(place, data[region.offset : region.end])
    return place
