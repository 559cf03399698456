"""Make the hint of a segment from what the store has in memory."""

import logging
from pathlib import Path

from datacat.store import hints
from datacat.store.chunks import chunks_of, lies_in, row_of
from datacat.store.hints import Hint, Kept
from datacat.store.index import Index, Session
from datacat.store.loading import DAMAGED
from datacat.store.segment import DATA_FILE
from datacat.store.segments import Segments, Unhinted
from datacat.store.summary import LAYOUT

_log = logging.getLogger(__name__)


class Hinting:
    """Writes hints. Any thread, one at a time."""

    def __init__(self, root: Path, index: Index, segments: Segments) -> None:
        self._root = root
        self._index = index
        self._segments = segments

    def step(self, least_bytes: int) -> bool:
        """Write the hint of one segment that lacks it (Segments.lacking_hint); return whether there was one."""
        found = self._segments.lacking_hint(least_bytes)
        if found is None:
            return False
        try:
            hints.save(self._root, found.folder.name, hint_of(found, self._index))
        except OSError as error:
            _log.warning("no hint for the next start in %s: %s", self._root, error)
        return True


def hint_of(found: Unhinted, index: Index) -> Hint:
    """Return the hint of a segment. Raises: OSError."""
    kept = []
    for session_id, session in list(index.sessions.items()):
        if lies_in(session.table, found.number):
            with index.lock:
                one = _kept(session_id, session, found, index)
            if one is not None:
                kept.append(hints.packed(one))
    buried = [
        (session_id, one.rev, one.at_us, one.erase, one.offset, one.size_bytes)
        for session_id, one in list(index.tombstones.items())
        if one.segment == found.number and one.offset < found.size
    ]
    crc = hints.tail_crc(found.folder / DATA_FILE, found.size)
    return Hint(LAYOUT, found.size, found.time_ns, crc, found.seq, kept, buried)


def _kept(session_id: str, session: Session, found: Unhinted, index: Index) -> Kept | None:
    chunks = chunks_of(session.table)
    # What was shown since the size was taken lies behind it.
    here = [chunk for chunk in chunks if chunk.segment == found.number and chunk.offset < found.size]
    summary = index.heads.summary(session_id)
    if not here or summary is None:
        return None
    total = 0
    newest = here[-1] is chunks[-1]
    if newest:
        total = sum(chunk.batches for chunk in chunks)
        total += summary.dropped.get(DAMAGED, 0)
    return Kept(session_id, b"".join(map(row_of, here)), summary if newest else None, total)
