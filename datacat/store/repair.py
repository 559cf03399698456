"""Make the folder of a semidbm store safe to open after any crash: runs before every open, under the store's lock.

    <store>/segments/<number>-<salt>/data          a semidbm file; number has 8 decimal, salt 8 hexadecimal digits
    <store>/segments/<number>-<salt>-merged/data   one of merged and moved entries
    <store>/hints/<segment>                 hints.py
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
from datacat.store.descriptors import Descriptors
from datacat.store.hints import Hint
from datacat.store.sealed import HEADER, Record, Region, examine, is_foreign, record
from datacat.store.segment import DATA_FILE, MERGED, Known, Segment

SEGMENTS_DIR = "segments"
QUARANTINE_DIR = "quarantine"

_NAME = re.compile(rf"(\d{{8}})-([0-9a-f]{{8}})(?:{MERGED})?", re.ASCII)
_COMPACT_DIR = "compact"
"""What semidbm's own compaction leaves when it is interrupted; merging it would bring deleted keys back."""

Visit = Callable[[int, Record, memoryview], None]
"""Called with (segment number, record, payload) for every sound record, in the order of writing."""
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


def make_segment(root: Path, number: int, salt: int, descriptors: Descriptors, *, merged: bool = False) -> Segment:
    """Create an empty segment, durable before it is used. Raises: StoreError."""
    folder = root / SEGMENTS_DIR / f"{number:08d}-{salt:08x}{MERGED if merged else ''}"
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
    return Segment(folder, number, salt, descriptors)


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


def open_segments(
    root: Path, descriptors: Descriptors, visit: Visit, visit_hint: VisitHint | None = None
) -> tuple[list[Segment], list[Finding]]:
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
                known = _behind(folder, salt, known, findings, partial(visit, number))
                segments.append(Segment(folder, number, salt, descriptors, known))
                continue
            known = _sound(root, folder, salt, findings, partial(visit, number))
            if visit_hint and any(finding.kept for finding in findings):
                raise Distrust(findings)
            segments.append(Segment(folder, number, salt, descriptors, known))
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
    folder: Path, salt: int, known: Known, findings: list[Finding], visit: Callable[[Record, memoryview], None]
) -> Known:
    """Visit the sound records behind the bytes that a hint tells of; return what is known then. Raises: Distrust."""
    path = folder / DATA_FILE
    start = known.size
    with path.open("r+b") as file:
        file.seek(start)
        data = file.read()
    sound, bad = examine(data, salt, base=start, seq=known.seq)
    if any(region.reason != "torn" for region in bad):
        raise Distrust(findings)
    view = memoryview(data)
    for one in sound:
        placed = one._replace(offset=start + one.offset, end=start + one.end, payload=start + one.payload)
        visit(placed, view[one.payload : one.end - 4])
        known = Known(placed.end, placed.seq + 1)
    for region in bad:
        findings.append(Finding(path, start + region.offset, region.end - region.offset, region.reason, None))
        durable.truncate(path, start + region.offset)
    return known


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
    root: Path, folder: Path, salt: int, findings: list[Finding], visit: Callable[[Record, memoryview], None]
) -> Known:
    """Visit the sound records of a segment and leave a file that holds nothing else, of which that is known then."""
    path = folder / DATA_FILE
    with path.open("r+b") as file:  # what cannot be written is told now, not at the first batch
        data = file.read()
    sound, bad = examine(data, salt)
    if not sound and is_foreign(data):
        raise Corrupt(
            "the segment was written under another name",
            path=str(path),
            offset=len(HEADER),
            hint="give its folder the old name back, or move it out of the store",
        )
    for region in bad:
        kept = None if region.reason == "torn" else _quarantine(root, folder, region, data)
        findings.append(Finding(path, region.offset, region.end - region.offset, region.reason, kept))
    if bad and bad[0].offset >= len(HEADER) and bad[0].end == len(data):
        durable.truncate(path, bad[0].offset)
    elif bad:
        rewritten = [record(salt, seq, one.key, data[one.payload : one.end - 4]) for seq, one in enumerate(sound, 1)]
        data = HEADER + b"".join(rewritten)
        durable.create(path, data)
        sound = examine(data, salt)[0]
    view = memoryview(data)
    for one in sound:
        visit(one, view[one.payload : one.end - 4])
    return Known(sound[-1].end, sound[-1].seq + 1) if sound else Known(len(HEADER), 1)


def _quarantine(root: Path, folder: Path, region: Region, data: bytes) -> Path:
    place = root / QUARANTINE_DIR / f"{folder.name}-{region.offset}"
    durable.make_dir(place.parent)
    durable.create(place, data[region.offset : region.end])
    return place
