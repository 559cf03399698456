"""Verify a store's folder without changing it: every checksum, every entry, every session, roll-ups and hints."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import zstandard

from datacat.errors import Corrupt, StoreError
from datacat.store import entry, hints, page_files, pages, survey
from datacat.store.chunks import Chunk, chunks_of, state_of
from datacat.store.fold import Head
from datacat.store.loading import Collector, alive_of
from datacat.store.page_files import ROLLUPS_DIR, Reader
from datacat.store.refold import Refold
from datacat.store.sealed import Record, examine, is_foreign
from datacat.store.survey import Entries, SegmentFile, Step

REMEDIES = {
    "torn": "cut off; nobody was told that it is stored, unless the disk did this",
    "damaged": "moved to quarantine; the records behind it are kept",
    "missing": "nothing is left to repair; the session counts it as dropped.damaged",
    "foreign": "give the folder its old name back, or move it out of the store",
    "twice": "move the copy out of the store",
    "entry": "restore a backup, and report it: no disk does this",
    "session": "restore a backup, and report it: no disk does this",
    "lost": "restore a backup, or go without; the session counts it as dropped.damaged",
    "gone": "nothing: the bytes are in quarantine; the session counts it as dropped.damaged",
    "rollup": "moved to quarantine; what is sound of the page is kept",
    "names": "made again from what the log still has",
    "hint": "removed; the next start reads the segment instead",
    "stray": "removed",
    "other": "left alone",
}
"""Kinds of trouble, and what `repair` does about each."""
NOTES = frozenset({"stray", "other", "gone"})
"""What a crash may leave, and what a repair has told already; nothing is wrong with the store by it."""


class Trouble(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something that is not as it was written: the file, the bytes in it, what is wrong, which session it costs."""

    kind: str
    path: str
    offset: int
    size_bytes: int
    what: str
    session: str = ""

    @property
    def remedy(self) -> str:
        """What `repair` does about it."""
        return REMEDIES[self.kind]


@dataclass
class Report:
    """What was looked at, and what was found. live: a server was at work meanwhile, so sessions were not compared."""

    live: bool = False
    segments: int = 0
    bytes: int = 0
    records: int = 0
    sessions: int = 0
    deleted_sessions: int = 0
    lines: int = 0
    pages: int = 0
    hints: int = 0
    quarantined: int = 0
    troubles: list[Trouble] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether everything is as it was written."""
        return all(trouble.kind in NOTES for trouble in self.troubles)

    def add(
        self, kind: str, path: Path | str, what: str, offset: int = 0, size_bytes: int = 0, session: str = ""
    ) -> None:
        """Note trouble."""
        self.troubles.append(Trouble(kind, str(path), offset, size_bytes, what, session))


def check(root: Path, report: Report, *, deep: bool = True) -> Iterator[Step]:
    """Verify a store, step by step; what is found is put into the report.

    deep: the records of each session are folded again and compared with its head and state. Not while report.live is
    set: then a server has the store open, and what it writes or removes meanwhile is left out. Raises: StoreError.
    """
    survey.require(root)
    report.quarantined = len(survey.quarantined(root))
    segments = survey.segment_files(root)
    total = sum(segment.size() for segment in segments) * (2 if deep and not report.live else 1)
    done = 0
    seen = Collector()
    numbers: set[int] = set()
    for segment in segments:
        yield Step(done, total, f"segment {segment.number}")
        if segment.number in numbers:
            report.add("twice", segment.path, "two segments have the same number")
            continue
        numbers.add(segment.number)
        done += _check_segment(segment, seen, report)
    _check_strays(root, report)
    _check_rollups(root, report)
    if not report.live:
        _check_hints(root, segments, seen, report)
        for size in _check_sessions(segments, seen, report, deep=deep):
            done += size
            yield Step(min(done, total), total, "sessions")
    report.sessions = len(seen.sessions.keys() - seen.tombstones.keys())
    report.deleted_sessions = len(seen.tombstones)
    yield Step(total, total, "done")


def _check_segment(segment: SegmentFile, seen: Collector, report: Report) -> int:
    try:
        data = survey.read(segment.path)
    except FileNotFoundError:
        return 0  # a stray of a start, or removed by the server meanwhile
    sound, bad = examine(data, segment.salt)
    if not sound and is_foreign(data):
        report.add("foreign", segment.path, "the segment was written under another name", 0, len(data))
        return len(data)
    for region in bad:
        # The end of a file that grows may be a write that is under way.
        if not (report.live and region.end == len(data)):
            words = {
                "torn": "an unfinished write at the end",
                "damaged": "bytes that are not what was written",
                "missing": "a record is missing between two others",
            }
            report.add(region.reason, segment.path, words[region.reason], region.offset, region.end - region.offset)
    view = memoryview(data)
    for one in sound:
        try:
            _check_entry(segment, one, view[one.payload : one.end - 4], seen, report)
        except (StoreError, msgspec.MsgspecError, zstandard.ZstdError, ValueError) as error:
            told = f"an entry cannot be read: {error}"
            report.add("entry", segment.path, told, one.offset, one.end - one.offset, entry.session_of(one.key))
    report.segments += 1
    report.bytes += len(data)
    report.records += len(sound)
    return len(data)


def _check_entry(segment: SegmentFile, one: Record, payload: memoryview, seen: Collector, report: Report) -> None:
    """Read every part of an entry. Raises: StoreError, what msgspec and zstandard raise."""
    data = bytes(payload)
    opened = entry.whole(data)
    front = opened.front
    if one.key != entry.key_of(front.id, front.first or front.rev, front.rev):
        raise StoreError("it lies under the key of another one")
    if not front.deleted:
        head = entry.head_of(front.head)
        if head.id != front.id:
            raise StoreError("it has the head of another session")
        entry.delta_of(front)
        if text := entry.state_text(data):
            msgspec.json.decode(text)
        report.lines += sum(len(raws) for _, raws in entry.pieces_of(data))
    seen.visit(segment.number, one, payload)


def _check_strays(root: Path, report: Report) -> None:
    for path in survey.strays(root):
        kind = "stray" if path.name.endswith(".new") or path.name == "compact" else "other"
        report.add(kind, path, "left by a crash" if kind == "stray" else "no file of the store's")


def _check_rollups(root: Path, report: Report) -> None:
    for check_one, name in ((page_files.read_mark, "mark"), (page_files.read_catalogue, "catalogue")):
        try:
            check_one(root)
        except Corrupt as error:
            report.add("names", error.path, error.message)
        except (OSError, msgspec.MsgspecError, zstandard.ZstdError, ValueError, TypeError) as error:
            report.add("names", root / ROLLUPS_DIR / name, f"it cannot be read: {error}")
    for file in page_files.known(root):
        report.pages += 1
        try:
            with Reader(file) as reader:
                end = reader.start
                for section in reader.sections:
                    end = max(end, reader.start + section.offset + section.values_size + section.distributions_size)
                    try:
                        reader.sound(section)
                        reader.items(section)
                    except (Corrupt, ValueError, IndexError) as error:
                        size = section.values_size + section.distributions_size
                        report.add("rollup", file.path, str(error), reader.start + section.offset, size)
                size = file.path.stat().st_size
                if size != end:
                    report.add("rollup", file.path, "the page has another size than it tells", end, size - end)
        except (Corrupt, msgspec.MsgspecError) as error:
            report.add("rollup", file.path, str(error), 0, pages.HEADER_START)
        except (StoreError, FileNotFoundError) as error:
            if not report.live:
                report.add("rollup", file.path, str(error))


def _check_hints(root: Path, segments: list[SegmentFile], seen: Collector, report: Report) -> None:
    rows: dict[int, set[tuple[str, int, int, int, int]]] = {}
    for session_id, one in seen.sessions.items():
        for chunk in chunks_of(one.rows):
            rows.setdefault(chunk.segment, set()).add(_row(session_id, chunk))
    names = {segment.name: segment for segment in segments}
    for path in sorted((root / hints.HINTS_DIR).glob("*")):
        report.hints += 1
        segment = names.get(path.name)
        if segment is None:
            report.add("stray", path, "a hint of a segment that is not there")
            continue
        if not hints.is_whole(root, path.name):
            report.add("hint", path, "the hint is not what was written", 0, path.stat().st_size)
            continue
        hint = hints.load(root, path.name, segment.path)
        if hint is None:
            continue  # the segment was changed since: no start believes it
        there = rows.get(segment.number, set())
        for packed in hint.sessions:
            kept = hints.decode_kept(packed)
            if any(_row(kept.id, chunk) not in there for chunk in chunks_of(kept.rows)):
                report.add("hint", path, "the hint tells of an entry that is not there", session=kept.id)


def _row(session_id: str, chunk: Chunk) -> tuple[str, int, int, int, int]:
    return session_id, chunk.first, chunk.last, chunk.segment, chunk.offset


def _check_sessions(segments: list[SegmentFile], seen: Collector, report: Report, *, deep: bool) -> Iterator[int]:
    """Compare each session with its records; yield how many bytes were read."""
    with Entries(segments) as entries:
        for session_id, one in seen.sessions.items():
            if session_id in seen.tombstones or not isinstance(one.head, msgspec.Raw):
                continue
            alive = alive_of(chunks_of(one.rows), one.rev)
            head = entry.head_of(one.head)
            missing = one.total - sum(chunk.batches for chunk in alive)
            where = next(segment.path for segment in segments if segment.number == alive[-1].segment)
            if missing:
                kind = "gone" if report.quarantined else "lost"
                report.add(kind, where, f"{missing} of {one.total} batches are not there", session=session_id)
            elif deep:
                try:
                    for what in _refold(session_id, head, alive, entries):
                        report.add("session", where, what, session=session_id)
                except (StoreError, msgspec.MsgspecError, zstandard.ZstdError, ValueError) as error:
                    report.add("session", where, f"its records cannot be read: {error}", session=session_id)
            yield sum(chunk.size_bytes for chunk in alive)


def _refold(session_id: str, head: Head, alive: list[Chunk], entries: Entries) -> Iterator[str]:
    refold = Refold(session_id)
    newest = state_of(alive)
    state = b"{}"
    for chunk in alive:
        key = entry.key_of(session_id, chunk.first, chunk.last)
        payload = entries.payload(chunk.segment, key, chunk.offset, chunk.size_bytes)
        if chunk is newest:
            state = entry.state_text(payload)
        for part, raws in sorted(entry.pieces_of(payload), key=lambda piece: piece[0].rev):
            yield from refold.add(part, raws)
    yield from refold.differences(head, msgspec.json.decode(state))
