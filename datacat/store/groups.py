"""Which crashes and which hangs are the same one: a signature of what and where, the same on every machine. Pure.

A signature is made of the product, what happened (an exception's type, a signal, another reason) and the innermost
frames of the app's own code. Addresses, line numbers and folders differ between machines and versions and are left out;
frames of libraries count only where the app has none of its own.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from datacat.wire.records import Event

OWN_FRAMES = 3
"""So many of the innermost own frames tell one failure from another; more would split by who called."""
MAX_TITLE_CHARS = 120
_MAX_READ_FRAMES = 200
_SIGNATURE_BYTES = 8

_PYTHON_FRAME = re.compile(r'\s*File "(?P<file>[^"]*)", line \S+,? in (?P<function>.+)')
"""A line of Python's own traceback, and of faulthandler's, which has no comma."""
_SHORT_FRAME = re.compile(r"\s*(?P<file>\S.*):(?:\d+|\?+) in (?P<function>.+)")
_LINKS = ("caused this:", "and while that was handled:", "The above exception was", "During handling of the above")
"""Lines between an exception and the one that it caused: only the last one of a chain ended the app."""
_LIBRARY = re.compile(
    r"[/\\](?:site-packages|dist-packages)[/\\]|[/\\]lib(?:64)?[/\\]python\d|[/\\]python\d[\d.]*[/\\]lib[/\\]|python\d+\.zip|^<",
    re.IGNORECASE,
)
_NUMBERS = re.compile(r"0x[0-9a-fA-F]+|\+\d+")
_ANONYMOUS_FILES = frozenset({"__init__.py", "__main__.py"})


class Frame(NamedTuple):
    """One call: the file's name without its folder, the function, and whether it belongs to a library."""

    file: str
    function: str
    library: bool


class Group(NamedTuple):
    """What failures of one kind have in common. type is an exception's type or a reason; title is for people."""

    signature: str
    title: str
    type: str
    has_frames: bool


def of_event(product: str, event: Event) -> Group:
    """Return the group of an exception, or of what a daemon or server wrote about a crash."""
    data = event.data or {}
    frames = _frames(event)
    kind = event.exception_type or _reason(data)
    return group(product, kind, frames)


def of_hang(product: str, event: Event) -> Group | None:
    """Return the group of a hang by its verdict and the main thread's stack; None when the event has no stack."""
    data = event.data or {}
    frames = _frames(event)
    if not frames:
        return None
    return group(product, _text(data.get("verdict")) or "hang", frames)


def of_verdict(product: str, reason: str | None, exit_code: int | None, exit_signal: int | None) -> Group:
    """Return the group of a crash of which only the verdict is known."""
    return group(product, _reason({"reason": reason, "exit_code": exit_code, "exit_signal": exit_signal}), ())


def group(product: str, kind: str, frames: Sequence[Frame]) -> Group:
    """Return the group of a failure; frames are outermost first."""
    own = [frame for frame in frames if not frame.library]
    telling = _folded(own or frames)[-OWN_FRAMES:]
    parts = [product, kind, *(f"{frame.file}:{frame.function}" for frame in reversed(telling))]
    digest = hashlib.blake2b("\n".join(parts).encode("utf-8", "replace"), digest_size=_SIGNATURE_BYTES).hexdigest()
    title = f"{kind} in {telling[-1].function} ({telling[-1].file})" if telling else kind
    return Group(digest, title[:MAX_TITLE_CHARS], kind[:MAX_TITLE_CHARS], bool(telling))


def frames_of(lines: Iterable[Any]) -> list[Frame]:
    """Return the frames in lines of a traceback, outermost first; of a chain of exceptions those of the last one."""
    found: list[Frame] = []
    for line in lines:
        if not isinstance(line, str):
            continue
        if line.startswith(_LINKS):
            found = []
        elif match := _PYTHON_FRAME.match(line) or _SHORT_FRAME.match(line):
            frame = frame_of(match["file"], match["function"])
            if not found or found[-1] != frame:  # how deep a recursion went tells nothing
                found.append(frame)
    return found


def frame_of(file: str, function: str) -> Frame:
    """Return a frame without what differs between machines: folder, addresses."""
    parts = [part for part in re.split(r"[/\\]", file) if part]
    name = "/".join(parts[-2:] if parts and parts[-1] in _ANONYMOUS_FILES else parts[-1:])
    return Frame(name or "?", _NUMBERS.sub("", function).strip() or "?", bool(_LIBRARY.search(file)))


def _frames(event: Event) -> list[Frame]:
    """Return the frames that an event tells: its stack as text, else those of the thread that matters, else native."""
    if event.stacktrace and (found := frames_of(event.stacktrace)):
        return found
    data = event.data or {}
    threads = data.get("threads")
    if isinstance(threads, list) and (thread := _thread(threads)):
        frames = thread.get("frames")
        if isinstance(frames, list) and (found := _read(frames)):
            return found
    native = data.get("native_frames")
    if isinstance(native, list) and (found := _read(native)):
        return found
    if event.source_function:
        return [frame_of(event.source_file or "", event.source_function)]
    return []


def _thread(threads: list[Any]) -> dict[str, Any] | None:
    """Return the current thread, else the main one, else the first."""
    known = [thread for thread in threads if isinstance(thread, dict)]
    for thread in known:
        if thread.get("current") is True:
            return thread
    for thread in known:
        if thread.get("name") in ("MainThread", "main"):
            return thread
    return known[0] if known else None


def _read(frames: list[Any]) -> list[Frame]:
    found = []
    for frame in frames[-_MAX_READ_FRAMES:]:
        if isinstance(frame, dict):
            if function := _text(frame.get("function")):
                found.append(frame_of(_text(frame.get("file")), function))
        elif isinstance(frame, str):
            found.extend(frames_of([frame]) or [frame_of("", frame)])
    return found


def _folded(frames: Sequence[Frame]) -> list[Frame]:
    """Return frames with each run of the same one once."""
    return [frame for index, frame in enumerate(frames) if not index or frame != frames[index - 1]]


def _reason(data: dict[str, Any]) -> str:
    reason = _text(data.get("reason")) or "unknown"
    if reason == "signal":
        name = _text(data.get("signal_name")) or _text(data.get("fatal"))
        number = data.get("exit_signal")
        return name or (f"signal {number}" if type(number) is int else reason)
    code = data.get("exit_code")
    return f"exit code {code}" if reason == "exit_code" and type(code) is int else reason


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
