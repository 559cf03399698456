"""Fold the lines of one piece of a stream into one batch. Pure: it depends on the bytes alone, so any cut is fine.

Events stay as they are. State updates keep what really changes; those within 25 ms are composed into one, unless
another record stands between them or they have no composition. Counters are summed, histograms and timers merged over
10 s at most (a batch that catches up with a long time away keeps its shape), gauges keep one point a second.
"""

from typing import NamedTuple

from datacat.daemon import mend
from datacat.daemon.samples import Samples
from datacat.errors import WireError
from datacat.wire import state as law
from datacat.wire.lines import encode
from datacat.wire.records import Beat, Dropped, Gap, Metric, Open, Patch, State, StatePatch

STATE_WINDOW_US = 25_000


class Folded(NamedTuple):
    """The lines of a batch, each with its newline; the state behind it, when it is known; why lines were dropped."""

    lines: list[bytes]
    state: State | None
    dropped: dict[str, int]


def fold(
    data: bytes, *, state: State | None = None, last: bool = False, torn: bool = False, daemon_id: str = ""
) -> Folded:
    """Return the batch for whole lines of one stream.

    state is the state before them, None when unknown: then every change is sent. last keeps every record on its own,
    for the final seconds of a session. torn says that an unfinished record was among them. daemon_id is set in an open
    that names no daemon, so that the server knows who judges this session.
    """
    batch = _Batch(state)
    for raw in data.split(b"\n"):
        if not raw:
            continue
        found = mend.read(raw, batch.t)
        if isinstance(found, str):
            batch.drop(found)
            continue
        record, line = found
        batch.t = record.t
        if isinstance(record, Open) and daemon_id and record.daemon_id is None:
            record.daemon_id = daemon_id
            line = encode(record)[:-1]
        if last:
            batch.keep(line + b"\n")
        elif isinstance(record, StatePatch):
            batch.change(record, line + b"\n")
        elif isinstance(record, Metric):
            batch.measure(record, line + b"\n")
        elif isinstance(record, Beat):
            batch.beat = line + b"\n"
        else:
            batch.keep(line + b"\n")
            if isinstance(record, Open):
                batch.state = law.merge({"product": record.product, "version": record.version}, record.state or {})
            elif isinstance(record, Gap) and record.state is not None:
                batch.state = record.state
    if torn:
        batch.drop("torn")
    return batch.finish(state_known=not last)


class _Batch:
    def __init__(self, state: State | None) -> None:
        self.t = 0
        self.state = state
        self.beat = b""
        self._slots: list[bytes] = []
        self._samples = Samples()
        self._patch: Patch = {}
        self._patch_t = 0
        self._patch_first_t = 0
        self._patch_line = b""
        self._dropped: dict[str, int] = {}

    def keep(self, line: bytes) -> None:
        self._flush()
        self._slots.append(line)

    def drop(self, reason: str) -> None:
        self._dropped[reason] = self._dropped.get(reason, 0) + 1

    def change(self, record: StatePatch, line: bytes) -> None:
        patch = record.patch
        if self.state is not None:
            patch = law.effective(self.state, patch)
            if not patch:
                return
            self.state = law.merge(self.state, patch)
        if self._patch_t and 0 <= record.t - self._patch_first_t <= STATE_WINDOW_US:
            try:
                self._patch = law.compose(self._patch, patch)
            except WireError:
                self._flush()
            else:
                self._patch_t = record.t
                self._patch_line = b""
                return
        self._flush()
        self._patch, self._patch_t, self._patch_first_t = patch, record.t, record.t
        self._patch_line = line if patch is record.patch else b""

    def measure(self, metric: Metric, line: bytes) -> None:
        # A slot is kept where the newest sample stands, so that the batch stays in the order of time.
        self._samples.add(metric, line, len(self._slots))
        self._slots.append(b"")

    def finish(self, *, state_known: bool) -> Folded:
        self._flush()
        for slot, line in self._samples.lines():
            self._slots[slot] = line
        if self._dropped:
            self._slots.append(encode(Dropped(t=self.t, counts=dict(self._dropped))))
        if self.beat:
            self._slots.append(self.beat)
        return Folded([line for line in self._slots if line], self.state if state_known else None, self._dropped)

    def _flush(self) -> None:
        if self._patch_t:
            self._slots.append(self._patch_line or encode(StatePatch(t=self._patch_t, patch=self._patch)))
        self._patch, self._patch_t, self._patch_line = {}, 0, b""
