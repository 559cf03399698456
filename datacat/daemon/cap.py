"""The cap of the spool: when all sessions of a user take too much, the least useful goes first, and is counted.

First what the server has acknowledged and was only kept in case it is restored from a backup; then, oldest first, the
metrics of sealed segments, then events below warning, then the other events. State, verdicts and ends never go. Owned
by the uplink's thread; one daemon at a time does it, and touches only sessions that it serves or that are done.
"""

import contextlib
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from datacat import host
from datacat.daemon import spool, squeezed
from datacat.daemon.delivery import Delivery
from datacat.daemon.streams import Source, disk_bytes, write_whole
from datacat.errors import HostError
from datacat.host import faults
from datacat.wire import layout
from datacat.wire.layout import segment_name, squeezed_name

_log = logging.getLogger(__name__)

LOCK_FILE = "cap.lock"
"""In the folder of the owners' locks."""
ROOM = 0.9
"""What goes makes room down to this share of the cap, so that it does not go record by record."""


class _Candidate(NamedTuple):
    age_s: float
    delivery: Delivery
    source: Source
    number: int


class Cap:
    """Keeps a spool below max_bytes."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._tried: dict[Path, int] = {}

    def enforce(self, deliveries: Iterable[Delivery]) -> int:
        """Make room if it is needed; return how many bytes went. Raises: JournalError."""
        total = spool.total_bytes(self._folder)
        if total <= self._max_bytes:
            return 0
        try:
            lock = host.lock(self._folder / layout.OWNERS_DIR / LOCK_FILE)
        except HostError:
            return 0  # another daemon is at it
        try:
            mine = list(deliveries)
            need = total - round(self._max_bytes * ROOM)
            freed = spool.forget_acknowledged(self._folder, need)
            for delivery in mine:
                if freed < need:
                    freed += delivery.trim(kept_bytes=0)
            for stage in range(1, len(squeezed.REASONS) + 1):
                for candidate in self._candidates(mine, stage):
                    if freed >= need:
                        return freed
                    freed += self._squeeze(candidate, stage)
        finally:
            lock.release()
        if freed < need:
            _log.warning(
                "the spool takes %d bytes, %d are allowed, and nothing more may be given up",
                total - freed,
                self._max_bytes,
            )
        return freed

    def _candidates(self, deliveries: list[Delivery], stage: int) -> list[_Candidate]:
        """Return the sealed segments that were not squeezed so far, oldest first."""
        found = []
        for delivery in deliveries:
            acked = delivery.acked()
            for source in delivery.plain_sources():
                for number in source.segments()[:-1]:
                    if number * source.segment_bytes < acked.get(source.id, 0):
                        continue
                    path = source.folder / segment_name(number)
                    if self._tried.get(path, 0) < stage:
                        found.append(_Candidate(_changed_s(source.folder, number), delivery, source, number))
        return sorted(found, key=lambda one: (one.age_s, one.number))

    def _squeeze(self, candidate: _Candidate, stage: int) -> int:
        _, delivery, source, number = candidate
        path, small = source.folder / segment_name(number), source.folder / squeezed_name(number)
        self._tried[path] = stage
        before = disk_bytes(path) + disk_bytes(small)
        segment = source.segment(number)
        if segment is None:
            return 0
        segment, went = squeezed.squeeze(segment, stage)
        if not went:
            return 0
        write_whole(small, squeezed.dump(segment))
        faults.at("squeeze.written")
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        delivery.gave_up(went)
        return before - disk_bytes(small)


def _changed_s(folder: Path, number: int) -> float:
    for name in (segment_name(number), squeezed_name(number)):
        with contextlib.suppress(OSError):
            return (folder / name).stat().st_mtime
    return 0.0
