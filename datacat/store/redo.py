"""Read the deltas of roll-ups behind a position of the log, also those in entries that are dead by now."""

from collections.abc import Iterable, Iterator

from datacat.errors import StoreError
from datacat.store import entry
from datacat.store.rollup import Delta
from datacat.store.sealed import Position, examine
from datacat.store.segment import DATA_FILE, Segment


def deltas_behind(segments: Iterable[Segment], mark: Position) -> Iterator[tuple[Position, str, Delta]]:
    """Yield (position, session id, delta) in the order of the log. segments come oldest first.

    Each segment is synced before: what a killed process has written must not count in pages and then be lost with the
    power. One file is in memory at a time. Raises: StoreError.
    """
    seen: set[bytes] | None = None
    if not mark.segment:
        # A store of an early version: it left deltas in the copies of entries that it moved.
        seen = set()
    for segment in segments:
        if segment.number < mark.segment or segment.end <= mark:
            continue
        segment.sync()
        for position, key, payload in _records_behind(segment, mark):
            opened = entry.open_front(payload)
            if opened is None:
                raise StoreError(f"an entry in segment {segment.number} has no front", permanent=True)
            delta = entry.delta_of(opened.front)
            if delta is None or (seen is not None and key in seen):
                continue
            if seen is not None:
                seen.add(key)
            yield position, opened.front.id, delta


def _records_behind(segment: Segment, mark: Position) -> Iterator[tuple[Position, bytes, memoryview]]:
    path = segment.folder / DATA_FILE
    first, base = (mark.seq, mark.offset) if segment.number == mark.segment else (0, 0)
    try:
        with path.open("rb") as file:
            file.seek(base)
            data = file.read(segment.size_bytes - base)
            sound, bad = examine(data, segment.salt, base=base, seq=first + 1)
            if bad and base:
                # The segment was repaired since, so its records lie elsewhere.
                file.seek(0)
                data, base = file.read(segment.size_bytes), 0
                sound, _ = examine(data, segment.salt)
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error}", hint="check the disk") from error
    view = memoryview(data)
    for one in sound:
        if one.seq > first:
            yield Position(segment.number, one.seq, base + one.end), one.key, view[one.payload : one.end - 4]
