"""What a session's journal says about its end, read as it grows: close, closing, verdicts, drops. Cheap per record."""

import contextlib
from pathlib import Path

from datacat.daemon.streams import Source
from datacat.errors import WireError
from datacat.wire.layout import SEGMENT_BYTES, Meta
from datacat.wire.lines import decode
from datacat.wire.records import OUTPUT_EVENT, Close, Closing, Dropped, Event, Open, Verdict
from datacat.wire.routes import OPEN_STATUSES

STOP_EVENT = "daemon_told_to_stop"
"""A daemon that was told to stop together with its app says so; a later one knows that the machine was shut down."""
# A record of these kinds or names contains one of these texts, however it was encoded; most others do not.
_SIGNS = (b'"close"', b'"closing"', b'"verdict"', b'"open"', b'"dropped"', STOP_EVENT.encode(), OUTPUT_EVENT.encode())


class Facts:
    """Owned by one thread. scan() reads on from where it stopped."""

    def __init__(self, folder: Path, meta: Meta) -> None:
        self.opened = False
        self.close: Close | None = None
        self.closing: Closing | None = None
        self.observed: Closing | None = None
        self.final: Verdict | None = None
        self.newest: Verdict | None = None
        """The newest verdict, an end or not."""
        self.told_to_stop = False
        self.stderr: list[str] = []
        """The last lines, where a parent has them."""
        self.dropped: dict[str, int] = {}
        self.last_t = 0
        self._folder = folder
        self._meta = meta
        self._cursors: dict[str, int] = {}

    @property
    def ended(self) -> bool:
        """Whether the session has its end on record."""
        return self.close is not None or self.final is not None

    def scan(self, *, all_streams: bool) -> bool:
        """Read what is new in the app's stream, or in all; whether there was anything. Raises: JournalError."""
        names = [self._meta.stream]
        if all_streams:
            names += [path.name for path in stream_folders(self._folder) if path.name != self._meta.stream]
        grown = False
        for name in names:
            source = Source(name, self._folder / name, self._meta.segment_bytes)
            start = max(self._cursors.get(name, 0), source.first())
            while (piece := source.read(start, SEGMENT_BYTES)).data:
                self._look(piece.data)
                start = piece.end
                grown = True
            self._cursors[name] = start
        return grown

    def torn(self) -> bool:
        """Whether the app's stream ends in the middle of a record; asked when its writer is gone."""
        return Source(self._meta.stream, self._folder / self._meta.stream, self._meta.segment_bytes).torn_tail()

    def _look(self, data: bytes) -> None:
        last = data[data.rfind(b"\n", 0, len(data) - 1) + 1 : -1]
        with contextlib.suppress(WireError):
            self.last_t = max(self.last_t, decode(last).t)
        if not any(sign in data for sign in _SIGNS):
            return
        for raw in data.split(b"\n"):
            if any(sign in raw for sign in _SIGNS):
                self._note(raw)

    def _note(self, raw: bytes) -> None:
        try:
            record = decode(raw)
        except WireError:
            return
        if isinstance(record, Open):
            self.opened = True
        elif isinstance(record, Close):
            self.close = self.close or record
        elif isinstance(record, Closing):
            if record.observed:
                self.observed = record
            else:
                self.closing = _merged(self.closing, record)
        elif isinstance(record, Verdict):
            self.final = None if record.status in OPEN_STATUSES else record
            if self.newest is None or record.t >= self.newest.t:
                self.newest = record
        elif isinstance(record, Dropped):
            for reason, count in record.counts.items():
                self.dropped[reason] = self.dropped.get(reason, 0) + count
        elif isinstance(record, Event) and record.name == STOP_EVENT:
            self.told_to_stop = True
        elif isinstance(record, Event) and record.name == OUTPUT_EVENT and record.data:
            lines = record.data.get("stderr")
            self.stderr = [line for line in lines if isinstance(line, str)] if isinstance(lines, list) else []


def _merged(before: Closing | None, after: Closing) -> Closing:
    """Return the later closing; an exception that ended the app stays, whatever the interpreter says afterwards."""
    if before is None or after.exception_type or not before.exception_type:
        return after
    return before


def stream_folders(folder: Path) -> list[Path]:
    """Return the folders of a session's streams, by name."""
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir())
    except OSError:
        return []
