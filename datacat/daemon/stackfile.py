"""The stacks file of a session as its daemon reads it: new dumps, who wrote each, the signal that asks for one."""

import contextlib
import os
from pathlib import Path
from typing import NamedTuple

from datacat.daemon.dumps import Thread, parse
from datacat.wire import hangs
from datacat.wire.layout import STACKS_FILE

MAX_BYTES = 512 * 1024
"""More is a file that we did not see growing: of it the end is read."""
EMPTY_ABOVE_BYTES = 256 * 1024
"""A file that has been read and is larger than this is emptied: the app writes to its end, wherever that is."""
OWN_THREAD = "datacat-"
MAIN_THREAD = "MainThread"
BY_THREAD, BY_SIGNAL = "thread", "signal"


class Stacks(NamedTuple):
    """The stacks of threads at one moment, the main thread first and marked current. source says who wrote them.

    A thread of the app writes all threads, the handler of the signal the main one alone.
    """

    source: str
    threads: tuple[Thread, ...]


class StackFile:
    """Owns the place up to which the file was read. Of the daemon's main thread."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / STACKS_FILE
        self._read_to = 0
        self._names: dict[str, str] = {}

    def size(self) -> int:
        """Return how large the file is; 0 when there is none."""
        try:
            return self.path.stat().st_size
        except OSError:
            return 0

    def handle(self) -> hangs.Handle | None:
        """Return the signal that makes the app write, and its descriptor; None when it has none."""
        return hangs.handle_of(self._text(0, 100))

    def has_news(self, after_us: int) -> bool:
        """Return whether something was written since the last read, and after a moment in Unix us."""
        try:
            found = self.path.stat()
        except OSError:
            return False
        return found.st_size > self._read_to and found.st_mtime_ns // 1000 >= after_us

    def newest(self, after_us: int) -> Stacks | None:
        """Return the newest stacks among the news; None when there are none. What was read is not read again.

        Those of all threads go before that of one.
        """
        if not self.has_news(after_us):
            return None
        end = self.size()
        text = self._text(max(self._read_to, end - MAX_BYTES), MAX_BYTES)
        self._read_to = end
        found, names = read(text)
        self._names |= names
        if not found:
            return None
        whole = [each for each in found if each.source == BY_THREAD]
        return arranged((whole or found)[-1], self._names)

    def skip(self) -> None:
        """Leave aside what is there, and give its disk space back when that is much."""
        self._read_to = self.size()
        if self._read_to > EMPTY_ABOVE_BYTES:
            handle = self.handle()
            with contextlib.suppress(OSError):
                os.truncate(self.path, len(hangs.handle_line(handle)) if handle else 0)
            self._read_to = self.size()

    def _text(self, start: int, size: int) -> str:
        try:
            with self.path.open("rb") as file:
                file.seek(start)
                return file.read(size).decode("utf-8", "replace").replace("\0", "")
        except OSError:
            return ""


def read(text: str) -> tuple[list[Stacks], dict[str, str]]:
    """Return the stacks in a text in the order in which they were written, and the names of threads by id."""
    names: dict[str, str] = {}
    parts: list[tuple[str, list[str]]] = [(BY_SIGNAL, [])]
    for line in text.splitlines():
        if line.startswith(hangs.THREAD_LINE):
            ident, _, name = line.removeprefix(hangs.THREAD_LINE).partition(" ")
            names[hangs.thread_id(ident)] = name
        elif line.startswith(hangs.AT_LINE):
            parts.append((BY_THREAD, []))
        else:
            parts[-1][1].append(line)
    found: list[Stacks] = []
    for source, lines in parts:
        for dump in parse("\n".join(lines)):
            own = [thread for thread in dump.threads if not thread.id]
            if own and not _is_started(own[0]):
                found.append(Stacks(BY_SIGNAL, (own[0]._replace(name=MAIN_THREAD),)))
            elif dump.threads and not own:
                found.append(Stacks(source, dump.threads))
    return found, names


def arranged(stacks: Stacks, names: dict[str, str]) -> Stacks:
    """Return stacks with names, without our own threads, the main thread first; by its name, else it is the oldest.

    It is missing in a dump of more than 100 threads that it did not help to write; then none is marked.
    """
    ids = {name: ident for ident, name in names.items()}
    if not stacks.threads[0].id:
        (own,) = stacks.threads
        return Stacks(stacks.source, (own._replace(id=ids.get(MAIN_THREAD, "").rjust(16, "0")),))
    named = [
        thread._replace(name=thread.name or names.get(hangs.thread_id(thread.id)), current=False)
        for thread in stacks.threads
    ]
    theirs = [thread for thread in named if not (thread.name or "").startswith(OWN_THREAD)]
    if not theirs:
        return Stacks(stacks.source, ())
    oldest = None if MAIN_THREAD in ids else theirs[-1]
    main = next((thread for thread in theirs if thread.name == MAIN_THREAD), oldest)
    if main is None:
        return Stacks(stacks.source, tuple(theirs))
    rest = [thread for thread in theirs if thread is not main]
    return Stacks(stacks.source, (main._replace(current=True), *rest))


def _is_started(thread: Thread) -> bool:
    """Return whether a stack is that of a thread that Python has started, so not that of the main one."""
    return bool(thread.frames) and thread.frames[0].function == "_bootstrap"
