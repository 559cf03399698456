"""What a crashed app left behind in its session's folder: the last fatal dump in its fault file."""

from pathlib import Path

from datacat.daemon.dumps import Dump, parse
from datacat.wire.layout import FAULT_FILE

MAX_BYTES = 256 * 1024
"""100 threads of 100 frames are about so much; more is a file that we did not write."""


def crash(folder: Path) -> Dump | None:
    """Return the last fatal dump in a session's fault file; None when there is none."""
    fatal = [dump for dump in parse(_tail(folder / FAULT_FILE, 0)) if dump.fatal]
    return fatal[-1] if fatal else None


def _tail(path: Path, start: int) -> str:
    try:
        with path.open("rb") as file:
            end = file.seek(0, 2)
            file.seek(max(start, end - MAX_BYTES))
            return file.read(MAX_BYTES).decode("utf-8", "replace").replace("\0", "")
    except OSError:
        return ""
