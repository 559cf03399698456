"""What an app left behind: stacks of a hang, the fault file of a crash. The texts are those of faulthandler.

A file may hold several dumps, the last one cut short because the process died while writing it.
"""

import re
import signal as signals
from pathlib import Path
from typing import NamedTuple

from datacat.wire.layout import FAULT_FILE, STACKS_FILE

MAX_BYTES = 256 * 1024
"""100 threads of 100 frames are about so much; more is a file that we did not write."""
MAX_FRAMES = 200

_HEAD = re.compile(
    r"(?:Fatal Python error: (?P<fatal>.*)|Timeout \((?P<timeout>[\d:.]+)\)!|Windows fatal exception: (?P<win>.*))"
)
_THREAD = re.compile(
    r"(?P<current>Current t|T)hread 0x(?P<id>[0-9a-fA-F]+)(?: \[(?P<name>.*)\])? \(most recent call first\):"
)
_FRAME = re.compile(r'  File "(?P<file>.*)", line (?P<line>\d+|\?\?\?) in (?P<function>.*)')

_FATAL_SIGNALS = {
    "Segmentation fault": "SIGSEGV",
    "Aborted": "SIGABRT",
    "Bus error": "SIGBUS",
    "Floating point exception": "SIGFPE",
    "Illegal instruction": "SIGILL",
}
"""The names that faulthandler gives to signals. Source: CPython, Modules/faulthandler.c."""


class Thread(NamedTuple):
    """One thread of a dump, frames outermost first, as `file:line in function`."""

    id: str
    current: bool
    frames: tuple[str, ...]


class Dump(NamedTuple):
    """One dump: why it was made (a fatal error, a timeout, or empty when it was asked for) and every thread."""

    fatal: str
    threads: tuple[Thread, ...]

    @property
    def signal(self) -> int | None:
        """The number of the fatal signal; None when none is named."""
        name = _FATAL_SIGNALS.get(self.fatal)
        return getattr(signals, name, None) if name else None

    @property
    def frames(self) -> tuple[str, ...]:
        """The frames of the thread that failed, else of the main one (the oldest, written last)."""
        for thread in self.threads:
            if thread.current and self.fatal:
                return thread.frames
        return self.threads[-1].frames if self.threads else ()


def crash(folder: Path) -> Dump | None:
    """Return the last fatal dump in a session's fault file; None when there is none."""
    fatal = [dump for dump in parse(_tail(folder / FAULT_FILE, 0)) if dump.fatal]
    return fatal[-1] if fatal else None


def stacks(folder: Path, start: int = 0) -> Dump | None:
    """Return the newest dump in a session's stacks file from byte start on; None when there is none."""
    dumps = [dump for dump in parse(_tail(folder / STACKS_FILE, start)) if dump.threads]
    return dumps[-1] if dumps else None


def size(folder: Path) -> int:
    """Return how large the stacks file is now: what comes later belongs to the next hang."""
    try:
        return (folder / STACKS_FILE).stat().st_size
    except OSError:
        return 0


def parse(text: str) -> list[Dump]:
    """Return the dumps in a text of faulthandler, in order. Never raises: what it does not know it skips."""
    dumps: list[tuple[str, list[tuple[str, bool, list[str]]]]] = []
    frames: list[str] | None = None
    for line in text.splitlines():
        if head := _HEAD.fullmatch(line):
            dumps.append((head["fatal"] or head["win"] or "", []))
            frames = None
        elif thread := _THREAD.fullmatch(line):
            if not dumps or any(known == thread["id"] for known, _, _ in dumps[-1][1]):
                dumps.append(("", []))
            frames = []
            dumps[-1][1].append((thread["id"], thread["current"] == "Current t", frames))
        elif frames is not None and (frame := _FRAME.fullmatch(line)) and len(frames) < MAX_FRAMES:
            frames.append(f"{frame['file']}:{frame['line']} in {frame['function']}")
        elif line.startswith("Current thread's C stack trace"):
            frames = None
    return [
        Dump(fatal, tuple(Thread(name, current, tuple(reversed(found))) for name, current, found in threads))
        for fatal, threads in dumps
    ]


def threads_text(dump: Dump, limit: int = 10, frames: int = 30) -> list[dict[str, object]]:
    """Return the threads as JSON for an event's data, the current one first; of each the innermost frames."""
    ordered = sorted(dump.threads, key=lambda thread: not thread.current)
    chosen = ordered[:limit]
    return [{"thread": one.id, "current": one.current, "frames": list(one.frames[-frames:])} for one in chosen]


def _tail(path: Path, start: int) -> str:
    try:
        with path.open("rb") as file:
            end = file.seek(0, 2)
            file.seek(max(start, end - MAX_BYTES))
            return file.read(MAX_BYTES).decode("utf-8", "replace").replace("\0", "")
    except OSError:
        return ""
