"""Records that a server refuses for good: kept in the session's folder, each with the reason, until they are looked at.

quarantine.ndjson   {"t", "stream", "from", "to", "status", "detail", "record"}, one line for each. Appending the same
bytes of a stream twice (a crash in between) is one entry for readers.
"""

import os
from pathlib import Path
from typing import Any

import msgspec

from datacat.daemon.streams import read_whole
from datacat.errors import JournalError
from datacat.wire.layout import QUARANTINE_FILE

MAX_BYTES = 4 * 1024 * 1024
"""Of one session; what would not fit is only counted."""


class Refused(msgspec.Struct, omit_defaults=True):
    """One record, as it stood in the journal, and what the server said to it. t is Unix us."""

    t: int
    stream: str
    start: int = msgspec.field(name="from")
    end: int = msgspec.field(name="to")
    status: int = 0
    detail: str = ""
    record: str = ""


def keep(folder: Path, refused: Refused) -> bool:
    """Append; False when there is too much already. Raises: JournalError."""
    path = folder / QUARANTINE_FILE
    line = msgspec.json.encode(refused) + b"\n"
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o600)
        with os.fdopen(fd, "ab") as file:
            if file.tell() + len(line) > MAX_BYTES:
                return False
            file.write(line)
    except OSError as error:
        raise JournalError(f"cannot write {path}: {error.strerror}") from error
    return True


def entries(folder: Path) -> list[Refused]:
    """Return what is kept, oldest first; a torn last line is left out."""
    found: dict[tuple[str, int], Refused] = {}
    for line in read_whole(folder / QUARANTINE_FILE).split(b"\n")[:-1]:
        try:
            refused = msgspec.json.decode(line, type=Refused)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            continue
        found.setdefault((refused.stream, refused.start), refused)
    return list(found.values())


def shown(refused: Refused) -> dict[str, Any]:
    """Return an entry as JSON members."""
    members: dict[str, Any] = msgspec.to_builtins(refused)
    return members
