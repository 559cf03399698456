"""A sealed segment that gave up some of its records, because the spool was full: format and reading. Pure.

    00000003.squeezed   {"squeezed_segment": true, "end": N, "torn": bool, "tail": base64}
                        then lines: those that stayed, as they were, and in the place of those that went
                        {"squeezed": [c, ...], "k": "dropped", "t": us, "counts": {reason: n}}

It stands for the bytes of the segment that it was made from, so offsets go on as before: N is where its last whole line
ended, tail its last 4 KiB, and each c is the size of a line that went times 4, plus the number of its reason. A reader
that stops or begins inside such a run still counts exactly those lines that lie behind its offset. A server sees
ordinary dropped records.
"""

import base64
from typing import Any, NamedTuple

import msgspec

from datacat.errors import JournalError, WireError
from datacat.wire.layout import TAIL_BYTES, whole_lines
from datacat.wire.lines import decode, encode
from datacat.wire.records import Dropped, Event, Metric

REASONS = ("spool_full_metrics", "spool_full_events", "spool_full_warnings")
"""In the order in which they go. Everything else stays: state, verdicts, ends, gaps."""
_RUN = b'{"squeezed":'
_RUN_LINES = 2000
"""In one run, so that its line stays far below the limit of a record."""
_LOW = frozenset({"debug", "info"})


class Entry(NamedTuple):
    """One line that stayed (codes is empty), or a run of lines that went (line is empty); t is Unix us."""

    line: bytes
    codes: tuple[int, ...] = ()
    t: int = 0

    @property
    def size(self) -> int:
        """How many bytes of the segment it stands for."""
        return len(self.line) or sum(code >> 2 for code in self.codes)

    @property
    def records(self) -> int:
        """How many records of the segment it stands for."""
        return len(self.codes) or 1

    def shown(self) -> bytes:
        """Return the line that a reader gets."""
        return self.line or encode(Dropped(t=self.t, counts=self.counts()))

    def counts(self) -> dict[str, int]:
        """Return what went, by reason."""
        found: dict[str, int] = {}
        for code in self.codes:
            reason = REASONS[code & 3]
            found[reason] = found.get(reason, 0) + 1
        return found

    def behind(self, skip_bytes: int) -> "Entry":
        """Return the part of a run that lies behind its first skip_bytes."""
        for index, code in enumerate(self.codes):
            if skip_bytes <= 0:
                return Entry(b"", self.codes[index:], self.t)
            skip_bytes -= code >> 2
        return Entry(b"", (), self.t)


class Segment(NamedTuple):
    """A segment as entries. end: where its last whole line ended. torn: more followed. tail: its last 4 KiB."""

    entries: list[Entry]
    end: int
    torn: bool
    tail: bytes


class Cut(NamedTuple):
    """What a reader gets of a segment: lines, the offset behind them, how many records, and whether that is all."""

    lines: list[bytes]
    end: int
    records: int
    whole: bool


def of_bytes(body: bytes, segment_bytes: int) -> Segment:
    """Return a segment whose bytes are known."""
    lines = whole_lines(body, 0)
    entries = [Entry(line + b"\n") for line in lines.split(b"\n")[:-1]]
    torn = bool(body[len(lines) :].strip(b"\0"))
    return Segment(entries, len(lines), torn, body.ljust(segment_bytes, b"\0")[-TAIL_BYTES:])


def load(text: bytes) -> Segment:
    """Return the segment that a squeezed file tells of. Raises: JournalError."""
    try:
        head, *rest = text.split(b"\n")[:-1]
        about: dict[str, Any] = msgspec.json.decode(head)
        entries = [_run(line) if line.startswith(_RUN) else Entry(line + b"\n") for line in rest]
        return Segment(entries, about["end"], about["torn"], base64.b64decode(about["tail"]))
    except (msgspec.MsgspecError, ValueError, KeyError, TypeError) as error:
        raise JournalError(f"no squeezed segment: {error}") from error


def dump(segment: Segment) -> bytes:
    """Return the text of the file."""
    about = {
        "squeezed_segment": True,
        "end": segment.end,
        "torn": segment.torn,
        "tail": base64.b64encode(segment.tail).decode(),
    }
    lines = [msgspec.json.encode(about) + b"\n"]
    for entry in segment.entries:
        if entry.line:
            lines.append(entry.line)
        else:
            run = {"squeezed": entry.codes, "k": "dropped", "t": entry.t, "counts": entry.counts()}
            lines.append(msgspec.json.encode(run) + b"\n")
    return b"".join(lines)


def squeeze(segment: Segment, reasons: int) -> tuple[Segment, dict[str, int]]:
    """Give up the records of the first reasons of REASONS; return the smaller segment and what went, by reason."""
    entries: list[Entry] = []
    codes: list[int] = []
    t = 0
    went: dict[str, int] = {}

    def close_run() -> None:
        if codes:
            entries.append(Entry(b"", tuple(codes), t))
            codes.clear()

    for entry in segment.entries:
        if entry.codes and len(codes) + len(entry.codes) <= _RUN_LINES:
            codes.extend(entry.codes)
            t = entry.t
        elif entry.line and (found := _reason(entry.line)) is not None and found[0] < reasons:
            code, t = found
            codes.append(len(entry.line) * 4 + code)
            went[REASONS[code]] = went.get(REASONS[code], 0) + 1
            if len(codes) >= _RUN_LINES:
                close_run()
        else:
            close_run()
            entries.append(entry)
    close_run()
    return segment._replace(entries=entries), went


def cut(segment: Segment, within: int, limit: int, max_lines: int, stop: int) -> Cut:
    """Return the lines that lie from offset within on, at most limit bytes and max_lines, but one when there is one.

    All offsets count from the segment's beginning; nothing from stop on is read.
    """
    lines: list[bytes] = []
    size = records = at = 0
    for entry in segment.entries:
        start, at = at, at + entry.size
        if at <= within:
            continue
        if start >= stop or len(lines) >= max_lines:
            return Cut(lines, max(start, within), records, whole=False)
        if start < within:  # only a run: offsets of batches lie between lines
            entry = entry.behind(within - start)  # noqa: PLW2901  the part that was not read yet
            if not entry.codes:
                continue
        shown = entry.shown()
        if lines and size + len(shown) > limit:
            return Cut(lines, max(start, within), records, whole=False)
        lines.append(shown)
        size += len(shown)
        records += entry.records
    return Cut(lines, max(segment.end, within), records, whole=True)


def _run(line: bytes) -> Entry:
    members = msgspec.json.decode(line)
    return Entry(b"", tuple(members["squeezed"]), members["t"])


def _reason(line: bytes) -> tuple[int, int] | None:
    """Return the number of the reason by which a line may go, and its time; None: it stays."""
    if line.startswith(_RUN):
        return None
    try:
        record = decode(line[:-1])
    except WireError:
        return None
    if isinstance(record, Metric):
        return 0, record.t
    if isinstance(record, Event):
        return (1 if record.level in _LOW else 2), record.t
    return None
