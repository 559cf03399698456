"""Fold the stored records of a session again and compare with what the store says that the session is. Pure.

What leaves no trace among the records cannot be told from them: heartbeats, the offsets of streams, when the server
last heard. A heartbeat that comes after the server has guessed also takes the guess back, so status and end are
compared only when no guess of the server's stands among the records.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from datacat.errors import WireError
from datacat.store.chunks import Part, describe
from datacat.store.columns import columns_of
from datacat.store.fold import Head, fold, new_head, opening
from datacat.wire.lines import Line, decode, records_of
from datacat.wire.records import Record, Verdict

_ALWAYS = ("product", "version", "environment", "created_at", "hostname", "machine_id", "boot_id", "pid", "platform")
_UNLESS_GUESSED = ("status", "ended_at", "end_reason", "exit_code", "exit_signal", "by")


class Refold:
    """One session: add() its parts in the order in which they were stored, then differences()."""

    def __init__(self, session_id: str) -> None:
        self._id = session_id
        self._head: Head | None = None
        self._state: dict[str, Any] = {}
        self._guessed = False
        self._ends: dict[str, int] = {}

    def add(self, part: Part, raws: list[bytes]) -> Iterator[str]:
        """Take in a part; yield what is wrong with it in itself."""
        lines: list[Line] = []
        for raw in raws:
            try:
                lines.append(Line(decode(raw), raw))
            except WireError as error:
                yield f"a stored line is no record: {error.message}"
        if len(lines) != len(raws):
            return
        yield from _mistold(part, lines)
        if part.start < self._ends.get(part.stream, 0):
            yield f"bytes {part.start} to {part.end} of the stream {part.stream} are stored twice"
        self._ends[part.stream] = max(part.end, self._ends.get(part.stream, 0))
        self._fold([line.record for line in lines])

    def _fold(self, records: list[Record]) -> None:
        self._guessed = self._guessed or any(
            isinstance(record, Verdict) and record.by not in ("app", "daemon") for record in records
        )
        if self._head is None:
            first = opening(records[0])
            if first is None:
                return
            self._head = new_head(self._id, first)
        folded = fold(self._head, self._state, records)
        self._head, self._state = folded.head, folded.state

    def differences(self, head: Head, state: dict[str, Any]) -> Iterator[str]:
        """Yield how the stored head and state differ from what the records make."""
        mine = self._head
        if mine is None:
            yield "no record opens the session"
            return
        if msgspec.json.encode(state, order="sorted") != msgspec.json.encode(self._state, order="sorted"):
            yield "the state is not what its records make"
        names = _ALWAYS if self._guessed else (*_ALWAYS, *_UNLESS_GUESSED)
        for name in names:
            if getattr(mine, name) != getattr(head, name):
                yield f"{name} is {getattr(head, name)!r}, its records make {getattr(mine, name)!r}"
        for name, count in mine.counts.items():
            if head.counts.get(name, 0) != count:
                yield f"it counts {head.counts.get(name, 0)} {name}, its records are {count}"
        for stream, end in self._ends.items():
            if stream not in head.streams or head.streams[stream].acked < end:
                yield f"the stream {stream} is stored up to {end}, further than it is acknowledged"


def _mistold(part: Part, lines: Iterable[Line]) -> Iterator[str]:
    lines = list(lines)
    if part.lines and part.lines != len(lines):
        yield f"a batch has {len(lines)} records and tells of {part.lines}"
    found = describe(part.stream, part.start, part.end, columns_of(records_of(lines)))
    for name in ("t_min", "t_max", "kinds", "levels", "names"):
        if getattr(found, name) != getattr(part, name):
            yield f"a batch has {name} {getattr(found, name)} and tells of {getattr(part, name)}"
