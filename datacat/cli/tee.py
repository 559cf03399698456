"""Pass a stream of bytes on as it comes, and keep its last lines."""

import math
import os
import time
from collections import deque
from collections.abc import Callable

TAIL_LINES = 200
"""Last lines of a stream that are kept."""
LINE_CHARS = 500
"""The end of a longer line is lost: 200 lines of both streams have to fit one record of 64 KiB."""
_CHUNK = 64 * 1024
_OPEN_LINE_BYTES = 4 * LINE_CHARS
"""A line that does not end is kept up to here."""


class Tail:
    """The last lines of a stream of bytes; feed and lines are for one thread at a time."""

    def __init__(self, lines: int = TAIL_LINES) -> None:
        self._whole: deque[bytes] = deque(maxlen=lines)
        self._open = b""

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes."""
        # More whole lines than are kept are never needed: a burst is not split further than that.
        *whole, rest = chunk.rsplit(b"\n", self._whole.maxlen or 0)
        if whole:
            _, newline, last = whole[0].rpartition(b"\n")
            whole[0] = last if newline else self._open + last
            self._whole.extend(whole)
            self._open = rest[:_OPEN_LINE_BYTES]
        elif len(self._open) < _OPEN_LINE_BYTES:
            self._open += rest[:_OPEN_LINE_BYTES]

    def lines(self) -> list[str]:
        """Return the lines, the oldest first, without their ends, each cut to LINE_CHARS characters."""
        whole = [*self._whole, *([self._open] if self._open else [])][-(self._whole.maxlen or 0) :]
        return [line.decode("utf-8", "replace").rstrip("\r")[:LINE_CHARS] for line in whole]


class Tee:
    """Copy from one file descriptor to another until the source ends, into a Tail on the way.

    copy() runs in a thread of its own (a worker.Pump); tail and quiet_s() may be asked from another. The source is
    closed at its end, and also when nobody reads the copy any more: so the writer learns it as it would without us.
    """

    def __init__(self, source: int, target: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.tail = Tail()
        self._source = source
        self._target = target
        self._clock = clock
        self._reading_since: float | None = None

    def copy(self) -> None:
        """Copy until the end."""
        try:
            while True:
                self._reading_since = self._clock()
                chunk = os.read(self._source, _CHUNK)
                self._reading_since = None
                if not chunk:
                    return
                self.tail.feed(chunk)
                _write_all(self._target, chunk)
        except BrokenPipeError:
            return
        finally:
            self._reading_since = -math.inf
            os.close(self._source)

    def quiet_s(self) -> float:
        """Return for how long the source has had nothing to read; 0.0 while bytes are written, infinity at its end."""
        since = self._reading_since
        return 0.0 if since is None else self._clock() - since


def _write_all(target: int, chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        view = view[os.write(target, view) :]
