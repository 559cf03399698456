"""The body of a batch -> checked lines: nearly every line by one call in C, the odd ones by themselves.

A record that is stored must be readable for ever: each member of a line is decoded here, also those that this version
does not know. Of a member that stands twice the last one counts, for the check and for every reader.
"""

from operator import is_
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
import zstandard

from datacat.errors import WireError
from datacat.server.fit import fit, mend
from datacat.server.problems import Refusal
from datacat.wire import lines
from datacat.wire import records as wire
from datacat.wire.lines import Line, Packed
from datacat.wire.records import MAX_DEPTH, MAX_NAME_CHARS, MAX_RECORD_BYTES, MAX_T_US, depth_of

_MAX_NAMED = 20
"""So many bad lines of a batch are named in the answer."""
_MAX_WINDOW_BYTES = 8 * 1024 * 1024
"""RFC 8878 recommends that every decoder takes this; a frame that needs more is not kept as it is."""

_Time: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=MAX_T_US)]
_Name: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME_CHARS)]
_Scalar: TypeAlias = bool | int | float | str | None
_Shallow: TypeAlias = _Scalar | list[_Scalar] | dict[str, _Scalar]
_Object: TypeAlias = dict[str, _Scalar | list[_Shallow] | dict[str, _Shallow]]
"""Objects as deep as real ones are; a deeper one is checked by itself. The types prove the depth while they decode."""


# Every check of wire.records.check() and fit.mend() is in these types, so that a line which they take needs no other.
class _Event(wire.Event, tag="event", gc=False, forbid_unknown_fields=True):
    t: _Time
    name: _Name
    level: Literal["debug", "info", "warning", "error", "critical"] = "info"
    data: _Object | None = None


class _Metric(wire.Metric, tag="metric", gc=False, forbid_unknown_fields=True):
    t: _Time
    name: _Name
    type: Literal["gauge", "counter", "histogram", "timer"] = "gauge"
    metadata: _Object | None = None


_decode = msgspec.json.Decoder(_Event | _Metric).decode


def checked(body: bytes, frame: bytes | None = None) -> Packed:
    """Return the records of a batch within the limits of the wire; frame is the zstd frame that body came in.

    Raises: Refusal 422 that names each line that is no record.
    """
    whole = body.endswith(b"\n")
    raws = body.split(b"\n")
    if whole:
        raws.pop()
    if _are_short(body):
        try:
            records: list[Any] = list(map(_decode, raws))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            pass
        else:
            return Packed(records, raws, frame if frame and whole and _is_worth_keeping(frame, body) else None)
    return _one_by_one([raw for raw in raws if raw], len(raws), body, frame if whole else None)


def _are_short(body: bytes) -> bool:
    """Return whether each line has less than MAX_RECORD_BYTES, by steps from the beginning of a line to a later one."""
    at, size = 0, len(body)
    while size - at >= MAX_RECORD_BYTES:
        newline = body.rfind(b"\n", at, at + MAX_RECORD_BYTES)
        if newline < 0:
            return False
        at = newline + 1
    return True


def _one_by_one(raws: list[bytes], count: int, body: bytes, frame: bytes | None) -> Packed:
    """Check each line by itself; nearly all batches that come here have one or two odd lines."""
    records: list[Any] = []
    kept: list[bytes] = []
    errors: list[dict[str, str]] = []
    for index, raw in enumerate(raws):
        try:
            line = _line(raw)
        except WireError as error:
            errors.append({"pointer": f"/{index}{error.pointer}", "detail": str(error)})
        else:
            records.append(line.record)
            kept.append(line.raw)
    if errors:
        raise Refusal(
            422,
            f"{len(errors)} of {len(raws)} lines are no records; nothing was stored",
            hint="leave them out or repair them",
            errors=errors[:_MAX_NAMED],
        )
    as_they_came = len(raws) == count and all(map(is_, kept, raws))
    keep = frame if frame and as_they_came and _is_worth_keeping(frame, body) else None
    return Packed(records, kept, keep)


def _line(raw: bytes) -> Line:
    """Return one line within the limits, also one that is nested too deeply. Raises: WireError."""
    if len(raw) < MAX_RECORD_BYTES:
        try:
            return Line(_decode(raw), raw)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            pass
    # Members that the types do not know are skipped by a typed decoder: here they are looked into.
    members = lines.decode_object(raw)
    if depth_of(members) > MAX_DEPTH:
        return fit(members)
    return mend(Line(lines.decode(raw), raw))


def _is_worth_keeping(frame: bytes, body: bytes) -> bool:
    """Return whether a store may keep frame: small, readable by everybody without more than it says itself."""
    if len(frame) * 2 > len(body):
        return False
    told = zstandard.get_frame_parameters(frame)
    return told.content_size == len(body) and told.window_size <= _MAX_WINDOW_BYTES and not told.dict_id
