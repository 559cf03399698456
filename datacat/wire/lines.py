"""Records <-> NDJSON: one JSON object a line. A torn last line is reported, never fatal."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, overload

import msgspec

from datacat.errors import WireError
from datacat.wire.records import KINDS, MAX_DEPTH, Known, Record, Unknown, check, depth_of

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Known] = msgspec.json.Decoder(Known)
_unknown: msgspec.json.Decoder[Unknown] = msgspec.json.Decoder(Unknown)
_object: msgspec.json.Decoder[dict[str, Any]] = msgspec.json.Decoder(dict[str, Any])


class Line(NamedTuple):
    """A record as it was read, with the bytes that it was read from (without the newline)."""

    record: Record
    raw: bytes


class Packed(Sequence[Line]):
    """The lines of one NDJSON body, held as columns: a line is made when somebody asks for it.

    frame is the body as it came, one whole zstd frame of the raws with a newline behind each; None when there is none
    that says exactly this. A store may keep it instead of compressing the lines again. Immutable.
    """

    __slots__ = ("frame", "raws", "records")

    def __init__(self, records: list[Record], raws: list[bytes], frame: bytes | None = None) -> None:
        self.records = records
        self.raws = raws
        self.frame = frame

    def __len__(self) -> int:
        return len(self.records)

    @overload
    def __getitem__(self, index: int) -> Line: ...

    @overload
    def __getitem__(self, index: slice) -> list[Line]: ...

    def __getitem__(self, index: int | slice) -> Line | list[Line]:
        if isinstance(index, slice):
            return list(map(Line, self.records[index], self.raws[index]))
        return Line(self.records[index], self.raws[index])

    def __iter__(self) -> Iterator[Line]:
        return map(Line, self.records, self.raws)


class Refused(NamedTuple):
    """A line that is no record: its bytes and what is wrong with it."""

    raw: bytes
    error: WireError


def records_of(some: Iterable[Line]) -> list[Record]:
    """Return the records of lines; not to be changed."""
    return some.records if isinstance(some, Packed) else [line.record for line in some]


def raws_of(some: Iterable[Line]) -> list[bytes]:
    """Return the bytes of lines; not to be changed."""
    return some.raws if isinstance(some, Packed) else [line.raw for line in some]


def encode(record: Record) -> bytes:
    """Return a record as one line, newline included."""
    return _encoder.encode(record) + b"\n"


def decode(raw: bytes) -> Record:
    """Return the record in one line (without its newline).

    Raises: WireError with the pointer of the member when it is no JSON object, lacks t or k, has a member of the wrong
    type, or is nested deeper than MAX_DEPTH.
    """
    try:
        record: Record = _decoder.decode(raw)
    except msgspec.ValidationError as error:
        record = _decode_unknown(raw, error)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"not a JSON object: {error}") from error
    # Each level needs a bracket: few brackets prove that the line is shallow, without walking it.
    if raw.count(b"{") + raw.count(b"[") > MAX_DEPTH and depth_of(decode_object(raw)) > MAX_DEPTH:
        raise WireError(f"nested deeper than {MAX_DEPTH} levels")
    check(record)
    return record


def decode_object(raw: bytes) -> dict[str, Any]:
    """Return one line as a plain dict with every member, known or not. Raises: WireError when it is no JSON object."""
    try:
        return _object.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"not a JSON object: {error}") from error


def decode_lines(body: bytes) -> tuple[list[Line], list[Refused]]:
    """Return the records of a whole NDJSON body in order, and the lines that are none. Empty lines are skipped."""
    good: list[Line] = []
    bad: list[Refused] = []
    for raw in body.split(b"\n"):
        if not raw:
            continue
        try:
            good.append(Line(decode(raw), raw))
        except WireError as error:
            bad.append(Refused(raw, error))
    return good, bad


def split_torn(body: bytes) -> tuple[bytes, bytes]:
    """Return (whole lines with their newlines, the torn rest after the last newline)."""
    end = body.rfind(b"\n") + 1
    return body[:end], body[end:]


def _decode_unknown(raw: bytes, error: msgspec.ValidationError) -> Unknown:
    """Return a record of a kind that is not in Known; raise the first error when the kind is known after all."""
    try:
        unknown = _unknown.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        unknown = None
    if unknown is None or unknown.k in KINDS:
        text, _, path = str(error).partition(" - at `$")
        pointer = path.rstrip("`").replace("[", "/").replace("]", "").replace(".", "/").replace("...", "")
        raise WireError(text, pointer=pointer) from error
    return unknown
