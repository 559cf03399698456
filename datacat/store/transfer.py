"""Sessions as lines of text: out of a store as NDJSON or CSV, and NDJSON back into one, each batch exactly once.

NDJSON has for each session its head, a line for each stored record in the order in which the batches came, and an end:

    {"session": id, "head": {...}}
    {"session": id, "batch": [stream, start, end, records], "record": {...}}
    {"session": id, "end": true}

records is how many lines the batch has; start and end are the stream's bytes (Batch). The head tells where the streams
end, also when what stands at their end left no trace among the records.
"""

import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from datacat.errors import Deleted, Mismatch, NotFound, StoreError, WireError
from datacat.store import Batch, Head, RecordQuery, Store
from datacat.store.ledger import Stream
from datacat.wire import ids
from datacat.wire.lines import Line, decode, encode
from datacat.wire.records import KINDS, Beat
from datacat.wire.times import rfc3339

CSV_COLUMNS = (
    "session", "product", "version", "hostname", "time", "kind", "name", "level", "value", "unit", "message", "more",
)  # fmt: skip
"""more has the members of the record that have no column, as JSON."""
_FLAT = ("name", "level", "value", "unit", "message")
_PIECE_CHARS = 64 * 1024
_MAX_RECORDS = 1_000_000


class _Line(msgspec.Struct, omit_defaults=True):
    """One line of NDJSON."""

    session: str
    batch: tuple[str, int, int, int] | None = None
    record: msgspec.Raw = msgspec.Raw(b"")
    head: Head | None = None
    end: bool = False


_read_line = msgspec.json.Decoder(_Line).decode
_write = msgspec.json.Encoder().encode


def session_lines(store: Store, head: Head) -> Iterator[bytes]:
    """Yield a session as NDJSON, a batch at a time; nothing more when it is deleted meanwhile.

    Raises: Corrupt, StoreError.
    """
    start = b'{"session":%b,' % _write(head.id)
    yield start + b'"head":%b}\n' % _write(head)
    try:
        for part, raws in store.batches(head.id):
            if part.stream in head.streams and part.end > head.streams[part.stream].acked:
                continue  # came behind the head
            before = start + b'"batch":%b,"record":' % _write([part.stream, part.start, part.end, len(raws)])
            yield b"".join(before + raw + b"}\n" for raw in raws)
    except (NotFound, Deleted):
        return
    yield start + b'"end":true}\n'


def csv_header() -> bytes:
    """Return the first line of CSV (RFC 4180)."""
    return (",".join(CSV_COLUMNS) + "\r\n").encode()


def csv_lines(store: Store, head: Head) -> Iterator[bytes]:
    """Yield the records of a session as CSV in the order of their times, many rows at a time.

    Raises: Corrupt, StoreError.
    """
    out = io.StringIO()
    rows = csv.writer(out)
    try:
        for row in store.records(head.id, RecordQuery(kinds=KINDS)):
            rows.writerow(_csv_row(head, row.record))
            if out.tell() > _PIECE_CHARS:
                yield out.getvalue().encode()
                out.seek(0)
                out.truncate()
    except (NotFound, Deleted):
        pass
    yield out.getvalue().encode()


def _csv_row(head: Head, record: dict[str, Any]) -> list[Any]:
    more = {name: value for name, value in record.items() if name not in ("t", "k", *_FLAT)}
    flat = [_safe(record.get(name)) for name in _FLAT]
    base = [head.id, _safe(head.product), _safe(head.version), _safe(head.hostname)]
    return [*base, rfc3339(max(record["t"], 0)), record["k"], *flat, _write(more).decode() if more else ""]


def _safe(value: object) -> object:
    """Return a value that no spreadsheet takes for a formula (OWASP, CSV injection)."""
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return "'" + value
    return "" if value is None else value


@dataclass
class Imported:
    """What became of what was imported. batches and records are new ones; known are batches that were there already."""

    sessions: int = 0
    batches: int = 0
    records: int = 0
    known: int = 0
    refused: list[str] = field(default_factory=list)


class Importer:
    """Takes in lines; one thread. Batches that are there already change nothing, so all may be repeated."""

    def __init__(self, store: Store, told: Imported, clock_us: Callable[[], int]) -> None:
        self._store = store
        self._told = told
        self._clock_us = clock_us
        self._open: tuple[str, tuple[str, int, int, int]] | None = None
        self._lines: list[Line] = []
        self._heads: dict[str, Head] = {}
        self._refused: set[str] = set()

    def take(self, raw: bytes) -> None:
        """Take in one line, without its newline. Raises: WireError when it is none of an export; StoreError."""
        try:
            line = _read_line(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise WireError(f"it is no line of an export: {error}") from error
        session_id = ids.session_id(line.session)
        if line.head is not None or line.end:
            self.close()
            if line.head is not None:
                self._heads = {session_id: line.head}
            elif session_id in self._heads:
                self._end(session_id, self._heads[session_id])
            return
        if line.batch is None or not line.record:
            raise WireError("it has neither a record with its batch nor a head")
        if self._open != (session_id, line.batch):
            self.close()
            _check(line.batch)
            self._open = (session_id, line.batch)
        record = bytes(line.record)
        self._lines.append(Line(decode(record), record))
        if len(self._lines) == line.batch[3]:
            self._store_batch()

    def close(self) -> None:
        """Say that no more lines come: the rest of a batch that was cut off is left out. Raises: WireError for one."""
        if self._open is None:
            return
        session_id, (stream, start, _, records) = self._open
        found, self._open, self._lines = len(self._lines), None, []
        raise WireError(f"{found} of {records} records of the batch at {start} of {stream} of {session_id} are there")

    def _store_batch(self) -> None:
        assert self._open is not None
        (session_id, (stream, start, end, _)), lines = self._open, self._lines
        self._open, self._lines = None, []
        if session_id in self._refused:
            return
        try:
            known = self._store.head(session_id)
        except NotFound:
            known = None
        except Deleted:
            self._refuse(session_id, "it was deleted here")
            return
        acked = known.streams[stream].acked if known and stream in known.streams else 0
        if end <= acked:
            self._told.known += 1
            return
        if start < acked:
            self._refuse(session_id, f"the stream {stream} ends at {acked} here, within a batch")
            return
        head = self._heads.get(session_id)
        traced = len(lines)
        if known is None and head is not None and head.last_heartbeat:
            beat = Beat(head.last_heartbeat)  # leaves no trace among the records, but in the head
            lines.append(Line(beat, encode(beat)[:-1]))
        if known is not None and start > acked:
            # What left no trace is not exported: a stream may go on behind a gap.
            known = self._append(session_id, Batch(stream, [], acked, start, records=0)) or known
        batch = Batch(stream, lines, start, end, records=traced)
        if head is not None and stream in head.streams:
            last = _last(batch, head.streams[stream], known)
            # What a server wrote itself came on no way, and is in no ledger.
            batch = (
                last if head.streams[stream].acked == end else replace(batch, records=min(traced, last.records or 0))
            )
        if self._append(session_id, batch):
            self._told.batches += 1
            self._told.records += traced
            self._told.sessions += known is None

    def _end(self, session_id: str, head: Head) -> None:
        """Let the streams of a session end where they did: what stood there may have left no trace."""
        if session_id in self._refused:
            return
        try:
            known = self._store.head(session_id)
        except Deleted:
            self._refuse(session_id, "it was deleted here")
            return
        except NotFound:
            self._refuse(session_id, "no record opens it")
            return
        for name, stream in head.streams.items():
            acked = known.streams[name].acked if name in known.streams else 0
            if acked < stream.acked:
                self._append(session_id, _last(Batch(name, [], acked, stream.acked), stream, known))

    def _append(self, session_id: str, batch: Batch) -> Head | None:
        head = self._heads.get(session_id)
        received_us = head.last_seen if head is not None else self._clock_us()
        try:
            return self._store.append(session_id, batch, received_us=received_us)
        except (Mismatch, NotFound, Deleted) as error:
            self._refuse(session_id, str(error))
        except StoreError as error:
            raise StoreError(f"session {session_id} was not imported whole: {error}", hint="run it again") from error
        return None

    def _refuse(self, session_id: str, why: str) -> None:
        self._refused.add(session_id)
        self._told.refused.append(f"{session_id}: {why}")


def _last(batch: Batch, stream: Stream, known: Head | None) -> Batch:
    """Return the batch with which a stream ends where it did, with all that was counted of it."""
    there = known.streams.get(batch.stream) if known else None
    records = max(0, stream.records - (there.records if there else 0))
    return replace(batch, end_crc=stream.end_crc, records=records, pending=stream.pending)


def _check(batch: tuple[str, int, int, int]) -> None:
    stream, start, end, records = batch
    ids.stream_id(stream)
    if not (0 <= start < end < 1 << 62 and 0 < records <= _MAX_RECORDS):
        raise WireError(f"a batch cannot be {list(batch)}")
