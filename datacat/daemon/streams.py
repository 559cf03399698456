"""Streams on disk: read one from an offset as wire.layout says, and append to one of our own."""

import contextlib
import os
import sys
from pathlib import Path
from typing import NamedTuple

from datacat.daemon import squeezed
from datacat.errors import JournalError
from datacat.wire.layout import SEGMENT_BYTES, TAIL_BYTES, segment_name, squeezed_name, tail_crc, whole_lines

_CHUNK_BYTES = 64 * 1024
_ANY_BLOCKS = 1 << 62  # Windows does not tell
_SUFFIXES = (segment_name(0)[8:], squeezed_name(0)[8:])


class Piece(NamedTuple):
    """Whole lines of a stream, the offset behind them (filler included), and whether a sealed segment ended torn.

    records is how many records of the journal they stand for.
    """

    data: bytes
    end: int
    torn: bool
    records: int


class Source:
    """One stream to read. Holds no file open; any thread may use its own.

    A stream may stand in for another one that cannot be continued on the server: then its bytes are prefix (a gap
    record), followed by the bytes of the folder's segments from base on.
    """

    def __init__(self, stream: str, folder: Path, segment_bytes: int, *, prefix: bytes = b"", base: int = 0) -> None:
        self.id = stream
        self.folder = folder
        self.segment_bytes = max(1, segment_bytes)
        self.prefix = prefix
        self.base = base

    def read(self, start: int, limit: int, max_lines: int = sys.maxsize, stop: int = sys.maxsize) -> Piece:
        """Return the whole lines from offset start on, at most limit bytes and max_lines, but one when there is one.

        Nothing from offset stop on is read; stop is an offset where a line or a segment ends.

        Raises: JournalError when a segment cannot be read.
        """
        if start < len(self.prefix):
            return Piece(self.prefix[start:], len(self.prefix), torn=False, records=1)
        shift = self.base - len(self.prefix)
        piece = self._read(start + shift, limit, max_lines, stop + shift)
        return piece._replace(end=piece.end - shift)

    def rest(self, start: int) -> bytes:
        """Return all whole lines from offset start on."""
        parts: list[bytes] = []
        while (piece := self.read(start, SEGMENT_BYTES)).data:
            parts.append(piece.data)
            start = piece.end
        return b"".join(parts)

    def crc(self, offset: int) -> int | None:
        """Return the CRC-32 of the up to 4 KiB before an offset; None when those bytes were squeezed out."""
        start = max(0, offset - TAIL_BYTES)
        head = self.prefix[start:offset]
        if offset <= len(self.prefix):
            return tail_crc(head)
        shift = self.base - len(self.prefix)
        body = self._bytes(max(start, len(self.prefix)) + shift, offset + shift)
        return None if body is None else tail_crc(head + body)

    def first(self) -> int:
        """Return the first offset that can still be read; 0 when there are no segments yet."""
        numbers = self.segments()
        start = numbers[0] * self.segment_bytes if numbers else 0
        return start - self.base + len(self.prefix) if start > self.base else 0

    def end(self) -> int:
        """Return the offset where the stream may grow next: behind its last whole line."""
        numbers = self.segments()
        start = numbers[-1] * self.segment_bytes if numbers else self.base
        shift = self.base - len(self.prefix)
        return max(self.read(max(0, start - shift), self.segment_bytes).end, len(self.prefix))

    def segments(self) -> list[int]:
        """Return the numbers of the segments on disk, in order."""
        try:
            names = [path.name for path in self.folder.iterdir()]
        except OSError:
            return []
        return sorted({int(name[:8]) for name in names if name[8:] in _SUFFIXES and name[:8].isdigit()})

    def torn_tail(self) -> bool:
        """Whether an unfinished record follows the last whole line; only meaningful when the writer is gone."""
        numbers = self.segments()
        if not numbers:
            return False
        start = max(numbers[-1] * self.segment_bytes, self.base)
        body = self._segment(numbers[-1], start % self.segment_bytes)
        return bool(body[len(whole_lines(body, 0)) :].strip(b"\0"))

    def _read(self, start: int, limit: int, max_lines: int, stop: int) -> Piece:
        parts: list[bytes] = []
        size = records = 0
        torn = False
        while size < limit and max_lines > 0 and start < stop:
            number, within = divmod(start, self.segment_bytes)
            # Asked before the segment is read: what is read of a sealed segment is all of it.
            sealed = self._has(number + 1)
            body = self._segment(number, within)
            if not body and (small := self.squeezed(number)) is not None:
                base = number * self.segment_bytes
                cut = squeezed.cut(small, within, limit - size, max_lines, stop - base)
                parts += cut.lines
                size += sum(map(len, cut.lines))
                records += cut.records
                max_lines -= len(cut.lines)
                torn = torn or (small.torn and cut.whole)
                start = base + (self.segment_bytes if cut.whole else cut.end)
                if not cut.whole:
                    break
                continue
            lines = whole_lines(body, 0)
            end = min(len(lines), stop - start)
            if end > limit - size:
                end = lines.rfind(b"\n", 0, limit - size) + 1 or (0 if size else lines.find(b"\n") + 1)
            if lines.count(b"\n", 0, end) > max_lines:
                end = _nth_line(lines, max_lines)
            if end < len(lines):
                parts.append(lines[:end])
                records += lines.count(b"\n", 0, end)
                start += end
                break
            parts.append(lines)
            records += (count := lines.count(b"\n"))
            size += len(lines)
            max_lines -= count
            start += len(lines)
            if not sealed:
                break
            torn = torn or bool(body[len(lines) :].strip(b"\0"))
            start = (number + 1) * self.segment_bytes
        return Piece(b"".join(parts), start, torn, records)

    def segment(self, number: int) -> squeezed.Segment | None:
        """Return a segment of a stream as it is on disk, squeezed or not, as entries. Raises: JournalError."""
        body = self._segment(number, 0)
        return squeezed.of_bytes(body, self.segment_bytes) if body else self.squeezed(number)

    def squeezed(self, number: int) -> squeezed.Segment | None:
        """Return a segment that was squeezed; None when it was not. Raises: JournalError."""
        text = read_whole(self.folder / squeezed_name(number))
        return squeezed.load(text) if text else None

    def _has(self, number: int) -> bool:
        return (self.folder / segment_name(number)).exists() or (self.folder / squeezed_name(number)).exists()

    def _segment(self, number: int, within: int) -> bytes:
        """Return a segment's bytes from within on, up to somewhere behind the first zero: the rest is empty space."""
        parts: list[bytes] = []
        try:
            with (self.folder / segment_name(number)).open("rb", buffering=0) as file:
                file.seek(within)
                while within < self.segment_bytes:
                    part = file.read(min(_CHUNK_BYTES, self.segment_bytes - within))
                    parts.append(part)
                    within += len(part)
                    if not part or b"\0" in part:
                        break
            return b"".join(parts)
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise JournalError(f"cannot read {self.folder / segment_name(number)}: {error.strerror}") from error

    def _bytes(self, start: int, end: int) -> bytes | None:
        parts: list[bytes] = []
        while start < end:
            number, within = divmod(start, self.segment_bytes)
            size = min(end - start, self.segment_bytes - within)
            # A file that is shorter than a segment stands for one that is filled up with zeros.
            try:
                with (self.folder / segment_name(number)).open("rb", buffering=0) as file:
                    file.seek(within)
                    parts.append(file.read(size).ljust(size, b"\0"))
            except FileNotFoundError:
                small = self.squeezed(number)
                if small is None:
                    raise JournalError(f"there is no {self.folder / segment_name(number)}") from None
                if within < self.segment_bytes - len(small.tail):
                    return None
                at = within - (self.segment_bytes - len(small.tail))
                parts.append(small.tail[at : at + size])
            except OSError as error:
                raise JournalError(f"cannot read {self.folder}: {error.strerror}") from error
            start += size
        return b"".join(parts)


class Writer:
    """Append to a stream of our own in a session's folder; owned by one thread. Survives a crash of the process."""

    def __init__(self, session_folder: Path, *, stream: str = "", segment_bytes: int = SEGMENT_BYTES) -> None:
        self.id = stream or os.urandom(8).hex()
        self.folder = session_folder / self.id
        self.segment_bytes = segment_bytes
        self._number = -1
        self._size = 0
        self._fd = -1

    @property
    def offset(self) -> int:
        """Where the next record begins."""
        return max(0, self._number) * self.segment_bytes + self._size

    def append(self, line: bytes) -> None:
        """Write one line. Raises: JournalError when it cannot be written whole; nothing of it is left then."""
        if len(line) > self.segment_bytes:
            raise JournalError(f"a record of {len(line)} bytes does not fit a segment of {self.folder}")
        try:
            if self._fd < 0 or self._size + len(line) > self.segment_bytes:
                self._rotate()
            written = os.write(self._fd, line)
            if written != len(line):
                os.ftruncate(self._fd, self._size)
                raise JournalError(f"no space for {len(line)} bytes in {self.folder}")
            self._size += written
        except OSError as error:
            raise JournalError(f"cannot write to {self.folder}: {error.strerror}") from error

    def close(self) -> None:
        """Close the file; idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _rotate(self) -> None:
        self.folder.mkdir(mode=0o700, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | getattr(os, "O_BINARY", 0)
        fd = os.open(self.folder / segment_name(self._number + 1), flags | getattr(os, "O_CLOEXEC", 0), 0o600)
        self.close()
        self._fd = fd
        self._number += 1
        self._size = 0


def _nth_line(lines: bytes, count: int) -> int:
    """Return where the first count lines end."""
    end = 0
    for _ in range(count):
        end = lines.index(b"\n", end) + 1
    return end


def write_whole(path: Path, text: bytes) -> None:
    """Replace a small file at once: readers see the old or the new text. Raises: JournalError."""
    temp = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fd = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(text)
        temp.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temp.unlink()
        raise JournalError(f"cannot write {path}: {error.strerror}") from error


def read_whole(path: Path) -> bytes:
    """Return what a small file says; empty when it is not there or cannot be read."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def disk_bytes(path: Path) -> int:
    """Return the disk space that a file takes; 0 when there is none."""
    try:
        info = path.lstat()
    except OSError:
        return 0
    return min(info.st_size, getattr(info, "st_blocks", _ANY_BLOCKS) * 512)
