"""Make the hint of a segment from what the store has in memory."""

import logging
import threading
from pathlib import Path

from datacat.store import entry, hints
from datacat.store.heads import Heads
from datacat.store.hints import Hint, Kept
from datacat.store.loading import DAMAGED, Session
from datacat.store.segment import DATA_FILE
from datacat.store.segments import Segments, Unhinted

_log = logging.getLogger(__name__)


class Hinting:
    """Writes hints. Any thread, one at a time; lock guards what readers see of sessions and tombstones."""

    def __init__(
        self,
        root: Path,
        lock: threading.Lock,
        sessions: dict[str, Session],
        tombstones: dict[str, tuple[int, int]],
        heads: Heads,
        segments: Segments,
    ) -> None:
        self._root = root
        self._seen = (lock, sessions, tombstones, heads)
        self._segments = segments

    def step(self, least_bytes: int) -> bool:
        """Write the hint of one segment that lacks it (Segments.lacking_hint); return whether there was one."""
        found = self._segments.lacking_hint(least_bytes)
        if found is None:
            return False
        try:
            hints.save(self._root, found.folder.name, hint_of(found, *self._seen))
        except OSError as error:
            _log.warning("no hint for the next start in %s: %s", self._root, error)
        return True


def hint_of(
    found: Unhinted,
    lock: threading.Lock,
    sessions: dict[str, Session],
    tombstones: dict[str, tuple[int, int]],
    heads: Heads,
) -> Hint:
    """Return the hint of a segment. lock guards what readers see of the sessions."""
    by_session: dict[str, list[tuple[int, int, int]]] = {}
    for key, (offset, size) in found.places.items():
        session_id, rev = entry.split_key(key)
        by_session.setdefault(session_id, []).append((rev, offset, size))
    kept, buried = [], []
    for session_id, places in by_session.items():
        with lock:
            session = sessions.get(session_id)
            tombstone = tombstones.get(session_id)
            if session is None or tombstone is not None:
                buried += [(session_id, *place) for place in places if (place[0], found.number) == tombstone]
                continue
            kept.append(_kept(session_id, session, places, found, heads))
    return Hint(
        found.size, found.time_ns, hints.tail_crc(found.folder / DATA_FILE, found.size), found.seq, kept, buried
    )


def _kept(session_id: str, session: Session, places: list[tuple[int, int, int]], found: Unhinted, heads: Heads) -> Kept:
    places.sort()
    at = {rev: (offset, size) for rev, offset, size in places}
    chunks = [chunk for chunk in session.chunks if chunk.segment == found.number and chunk.rev in at]
    bare = None
    if session.bare is not None and session.bare[1] == found.number and session.bare[0] in at:
        bare = (session.bare[0], *at[session.bare[0]])
    newest = max(session.chunks[-1].rev if session.chunks else 0, session.bare[0] if session.bare else 0)
    here = newest in at and (bare is not None or (bool(chunks) and chunks[-1].rev == newest))
    head = heads.find(session_id) if here else None
    state = session.state
    return Kept(
        session_id,
        chunks,
        [number for chunk in chunks for number in at[chunk.rev]],
        bare,
        head,
        len(session.chunks) + (head.dropped.get(DAMAGED, 0) if head else 0),
        state.rev if state is not None and state.segment == found.number and state.rev in at else 0,
    )
