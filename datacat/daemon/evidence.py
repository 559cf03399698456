"""What an app left behind in its session's folder: the fault file of a crash, stacks that it wrote while it hung."""

from pathlib import Path

from datacat.daemon.dumps import Dump, parse
from datacat.wire.layout import FAULT_FILE, STACKS_FILE

MAX_BYTES = 256 * 1024
"""100 threads of 100 frames are about so much; more is a file that we did not write."""


def crash(folder: Path) -> Dump | None:
    """Return the last fatal dump in a session's fault file; None when there is none."""
    fatal = [dump for dump in parse(_tail(folder / FAULT_FILE, 0)) if dump.fatal]
    return fatal[-1] if fatal else None


def stacks(folder: Path, start: int = 0) -> Dump | None:
    """Return the newest dump in a session's stacks file from byte start on; None when there is none."""
    found = [dump for dump in parse(_tail(folder / STACKS_FILE, start)) if dump.threads]
    return found[-1] if found else None


def size(folder: Path) -> int:
    """Return how large the stacks file is now: what comes later belongs to the next hang."""
    try:
        return (folder / STACKS_FILE).stat().st_size
    except OSError:
        return 0


def _tail(path: Path, start: int) -> str:
    try:
        with path.open("rb") as file:
            end = file.seek(0, 2)
            file.seek(max(start, end - MAX_BYTES))
            return file.read(MAX_BYTES).decode("utf-8", "replace").replace("\0", "")
    except OSError:
        return ""
