"""What stays known of a stream when its oldest segments go: who opened it, the whole state, and stand-in streams.

base.json   {"<stream>": {"offset", "open", "state", "stand_in", "stand_in_base", "prefix"}}, in the session's folder
"""

from pathlib import Path
from typing import Any

import msgspec

from datacat.daemon.streams import Source, read_whole, write_whole
from datacat.errors import WireError
from datacat.wire import state as law
from datacat.wire.layout import SEGMENT_BYTES
from datacat.wire.lines import decode, decode_object
from datacat.wire.records import Gap, Open, State, StatePatch

BASE_FILE = "base.json"


class Base(msgspec.Struct, omit_defaults=True):
    """Up to offset of a stream: its open record (None: not seen) and the state.

    stand_in is the id of the stream that continues it on the server; it begins with prefix, then the bytes from
    stand_in_base on.
    """

    offset: int = 0
    open: dict[str, Any] | None = None
    state: State = {}
    stand_in: str = ""
    stand_in_base: int = 0
    prefix: str = ""


def load(folder: Path) -> dict[str, Base]:
    """Return what is known of the streams of a session folder; an unreadable file is an empty one."""
    try:
        return msgspec.json.decode(read_whole(folder / BASE_FILE) or b"{}", type=dict[str, Base])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}


def save(folder: Path, bases: dict[str, Base]) -> None:
    """Write it. Raises: JournalError."""
    write_whole(folder / BASE_FILE, msgspec.json.encode(bases))


def advance(base: Base, source: Source, end: int) -> Base:
    """Return base moved on to offset end of its source, a stream as it is on disk. Raises: JournalError."""
    opened, state, offset = base.open, base.state, max(base.offset, source.first())
    while offset < end:
        piece = source.read(offset, SEGMENT_BYTES, stop=end)
        if piece.end <= offset:
            break
        for raw in piece.data.split(b"\n"):
            if not (b'"state"' in raw or b'"open"' in raw):
                continue
            try:
                record = decode(raw)
            except WireError:
                continue
            if isinstance(record, Open):
                opened = decode_object(raw)
                state = law.merge({"product": record.product, "version": record.version}, record.state or {})
            elif isinstance(record, StatePatch):
                state = law.merge(state, record.patch)
            elif isinstance(record, Gap) and record.state is not None:
                opened, state = record.open or opened, record.state
        offset = piece.end
    return Base(max(offset, base.offset), opened, state, base.stand_in, base.stand_in_base, base.prefix)
