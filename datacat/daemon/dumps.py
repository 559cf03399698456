"""Texts of faulthandler as threads and frames, and those as JSON and as lines of a traceback. Pure.

A file may hold several dumps, the last one cut short because the process died while writing it. Checked against what
Python 3.11 to 3.13 write, and the form of 3.14 (names of threads, a C stack behind the Python one).
"""

import re
import signal as signals
from collections.abc import Iterable
from typing import Any, NamedTuple

MAX_FRAMES = 200
"""Of one thread; faulthandler itself writes at most 100."""

_HEAD = re.compile(
    r"(?:Fatal Python error: (?P<fatal>.*)|Timeout \((?P<timeout>[\d:.]+)\)!|Windows fatal exception: (?P<win>.*))"
)
_THREAD = re.compile(
    r"(?P<current>Current t|T)hread 0x(?P<id>[0-9a-fA-F]+)(?: \[(?P<name>.*)\])? \(most recent call first\):"
)
_OWN = "Stack (most recent call first):"
"""The head of a dump of one thread, which it does not name. CPython 3.11 to 3.14, Python/traceback.c."""
_FRAME = re.compile(r'  File "(?P<file>.*)", line (?P<line>\d+|\?\?\?) in (?P<function>.*)')

_FATAL_SIGNALS = {
    "Segmentation fault": "SIGSEGV",
    "Aborted": "SIGABRT",
    "Bus error": "SIGBUS",
    "Floating point exception": "SIGFPE",
    "Illegal instruction": "SIGILL",
}
"""The names that faulthandler gives to signals. Source: CPython, Modules/faulthandler.c."""


class Frame(NamedTuple):
    """One call: the file's name, the line where it is known, the function's name."""

    file: str
    line: int | None
    function: str


class Thread(NamedTuple):
    """One thread of a dump: its id as faulthandler writes it, its name where that is told, frames innermost last.

    The id is empty in a dump of one thread, the one that wrote it.
    """

    id: str
    name: str | None
    current: bool
    frames: tuple[Frame, ...]


class Dump(NamedTuple):
    """One dump: why it was made (a fatal error; empty for a timeout or on request) and every thread."""

    fatal: str
    threads: tuple[Thread, ...]

    @property
    def signal(self) -> int | None:
        """The number of the fatal signal; None when none is named."""
        name = _FATAL_SIGNALS.get(self.fatal)
        return getattr(signals, name, None) if name else None

    @property
    def frames(self) -> tuple[Frame, ...]:
        """The frames of the thread that failed, else of the main one (the oldest, written last)."""
        for thread in self.threads:
            if thread.current and self.fatal:
                return thread.frames
        return self.threads[-1].frames if self.threads else ()


def parse(text: str) -> list[Dump]:
    """Return the dumps in a text of faulthandler, in order. Never raises: what it does not know it skips."""
    dumps: list[tuple[str, list[tuple[str, str | None, bool, list[Frame]]]]] = []
    frames: list[Frame] | None = None
    for line in text.splitlines():
        if head := _HEAD.fullmatch(line):
            dumps.append((head["fatal"] or head["win"] or "", []))
            frames = None
        elif thread := _THREAD.fullmatch(line):
            if not dumps or any(known[0] == thread["id"] for known in dumps[-1][1]):
                dumps.append(("", []))
            frames = []
            dumps[-1][1].append((thread["id"], thread["name"], thread["current"] == "Current t", frames))
        elif line == _OWN:
            if not dumps or dumps[-1][1]:
                dumps.append(("", []))
            frames = []
            dumps[-1][1].append(("", None, True, frames))
        elif frames is not None and (frame := _FRAME.fullmatch(line)) and len(frames) < MAX_FRAMES:
            number = int(frame["line"]) if frame["line"].isdigit() else None
            frames.append(Frame(frame["file"], number, frame["function"]))
        elif line.startswith("Current thread's C stack trace"):
            frames = None
    return [
        Dump(fatal, tuple(Thread(id_, name, current, tuple(reversed(found))) for id_, name, current, found in threads))
        for fatal, threads in dumps
    ]


def traceback(frames: Iterable[Frame]) -> list[str]:
    """Return frames as the lines of a Python traceback, most recent call last."""
    return [f'  File "{frame.file}", line {_shown(frame.line)}, in {frame.function}' for frame in frames]


def as_json(threads: Iterable[Thread], *, most: int, frames: int) -> list[dict[str, Any]]:
    """Return threads as an event's data has them: the current one first, at most so many, of each the newest calls.

    [{"name": text or null, "id": text, "current": bool, "frames": [{"file", "line" (or null), "function"}]}], the most
    recent call last. frames_cut counts the outer calls of a thread that were left out.
    """
    ordered = sorted(threads, key=lambda thread: not thread.current)
    return [_thread(thread, frames) for thread in ordered[:most]]


def _thread(thread: Thread, most: int) -> dict[str, Any]:
    kept = thread.frames[-most:] if most else ()
    found: dict[str, Any] = {
        "name": thread.name,
        "id": thread.id,
        "current": thread.current,
        "frames": [frame._asdict() for frame in kept],
    }
    if len(kept) < len(thread.frames):
        found["frames_cut"] = len(thread.frames) - len(kept)
    return found


def _shown(line: int | None) -> str:
    return "?" if line is None else str(line)
