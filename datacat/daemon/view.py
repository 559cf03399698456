"""The daemon's own view of a session, folded from its journal: for callers while the server is away, for last_run."""

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from datacat.daemon import checkpoint
from datacat.daemon.facts import stream_folders
from datacat.daemon.streams import Source
from datacat.errors import WireError
from datacat.store import fold
from datacat.wire.layout import SEGMENT_BYTES, Meta, Summary
from datacat.wire.lines import decode
from datacat.wire.records import Event, Gap, Metric, Open, Record, StatePatch
from datacat.wire.times import rfc3339

NEWEST = 1000
"""Events, metrics and state changes in a session object, as the server gives them by default."""


class View:
    """A head, the state, and the newest records of one session."""

    def __init__(self, folder: Path, meta: Meta) -> None:
        """Read the whole journal. Raises: JournalError."""
        opened = Open(t=meta.created_us, product=meta.product, version=meta.version)
        self.head = fold.new_head(meta.id, opened)
        self.state: dict[str, Any] = {}
        self.events: deque[dict[str, Any]] = deque(maxlen=NEWEST)
        self.metrics: deque[dict[str, Any]] = deque(maxlen=NEWEST)
        self.history: deque[dict[str, Any]] = deque(maxlen=NEWEST)
        for records in _pieces(folder, meta):
            self._apply(records)
        if not self.head.created_at:
            self.head.created_at = meta.created_us

    def session(self) -> dict[str, Any]:
        """Return the session object of the API."""
        lists = {"state": self.state, "state_history": list(self.history)}
        return {**fold.public(self.head), **lists, "events": list(self.events), "metrics": list(self.metrics)}

    def summary(self) -> Summary:
        """Return what last_run tells."""
        head = self.head
        return Summary(
            id=head.id,
            product=head.product,
            version=head.version,
            created_us=head.created_at,
            ended_us=head.ended_at,
            status=head.status,
            end_reason=head.end_reason,
            end_detail=head.end_detail,
            exit_code=head.exit_code,
            exit_signal=head.exit_signal,
            hung=head.hang_count > 0,
            hang_seconds=head.hang_seconds,
            state=self.state,
        )

    def _apply(self, records: list[Record]) -> None:
        folded = fold.fold(self.head, self.state, records)
        self.head, self.state = folded.head, folded.state
        for index, record in enumerate(records):
            if index in folded.untraced:
                continue
            row = {"timestamp": rfc3339(max(0, record.t))}
            if isinstance(record, Event):
                self.events.append(row | _members(record))
            elif isinstance(record, Metric):
                delta = {"delta": record.value} if record.type == "counter" else {}
                self.metrics.append(row | _members(record) | delta)
            elif isinstance(record, StatePatch):
                self.history.append(row | {"patch": record.patch})


def _members(record: Event | Metric) -> dict[str, Any]:
    members: dict[str, Any] = msgspec.structs.asdict(record)
    del members["t"]
    return members


def _pieces(folder: Path, meta: Meta) -> Iterator[list[Record]]:
    """Yield the records piece by piece, the app's stream first; of what is gone its checkpoint."""
    bases = checkpoint.load(folder)
    names = [path.name for path in stream_folders(folder)]
    names.sort(key=lambda name: (name != meta.stream, (folder / name).stat().st_ctime, name))
    for name in names:
        source = Source(name, folder / name, meta.segment_bytes)
        start = source.first()
        base = bases.get(name)
        if start > 0 and base is not None and base.open is not None:
            yield [Gap(t=int(base.open.get("t", meta.created_us)), open=base.open, state=base.state)]
        while (piece := source.read(start, SEGMENT_BYTES)).data:
            yield _decoded(piece.data)
            start = piece.end


def _decoded(data: bytes) -> list[Record]:
    records = []
    for raw in data.split(b"\n"):
        try:
            records.append(decode(raw))
        except WireError:
            continue
    return records
