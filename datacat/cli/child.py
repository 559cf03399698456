"""A child process as `datacat run` needs it: its streams, its signals, and how it ended."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import NamedTuple

FORWARDED = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGBREAK")
_FROM_TERMINAL = ("SIGINT", "SIGQUIT", "SIGHUP")
"""A terminal sends these to every process in its foreground: the child has it already."""


class Usage(NamedTuple):
    """What a child used in all; its own ended children are counted in.

    max_rss_bytes is None for a child that never took more memory than we did: until its exec a child has ours, and the
    system counts that as its own.
    """

    user_s: float
    system_s: float
    max_rss_bytes: int | None


class Ended(NamedTuple):
    """How a child ended: its exit code or its signal; usage is None where the platform does not tell."""

    code: int | None
    signal: int | None
    usage: Usage | None

    @property
    def well(self) -> bool:
        """Whether it ended with exit code 0."""
        return self.code == 0

    @property
    def shell_code(self) -> int:
        """The exit code by which a shell reports it: 128 plus the signal."""
        return 128 + self.signal if self.signal is not None else self.code or 0


def start(command: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start a program with our standard input and two pipes to read. Raises: OSError."""
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0)


def wait(process: subprocess.Popen[bytes]) -> Ended:
    """Wait until the child has ended, and reap it. Signals are handled meanwhile."""
    if sys.platform == "win32":
        return Ended(process.wait(), None, None)
    import resource

    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    # Linux counts kilobytes, macOS bytes (getrusage(2) of each).
    unit = 1 if sys.platform == "darwin" else 1024
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    usage = Usage(used.ru_utime, used.ru_stime, used.ru_maxrss * unit if used.ru_maxrss > own else None)
    code = process.returncode
    return Ended(code if code >= 0 else None, -code if code < 0 else None, usage)


class Forwarder:
    """Pass the signals that we get on to a child, from the moment on that there is one. For the main thread."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._early: list[int] = []

    def to(self, process: subprocess.Popen[bytes]) -> None:
        """Name the child; signals that came before are passed on now."""
        self._process = process
        for number in self._early:
            self._send(number)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Handle the signals, except those that are ignored: the child inherits that they are (nohup)."""
        numbers = [getattr(signal, name) for name in FORWARDED if hasattr(signal, name)]
        handlers: dict[int, Callable[[int, FrameType | None], object] | int | None] = {
            number: signal.getsignal(number) for number in numbers if signal.getsignal(number) is not signal.SIG_IGN
        }
        try:
            for number in handlers:
                signal.signal(number, self._handle)
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if signal.Signals(number).name in _FROM_TERMINAL and _in_foreground():
            return
        if self._process is None:
            self._early.append(number)
        else:
            self._send(number)

    def _send(self, number: int) -> None:
        process = self._process
        if process is not None and process.returncode is None:
            try:
                os.kill(process.pid, number)
            except ProcessLookupError:
                return


def _in_foreground() -> bool:
    """Return whether our process group has the terminal, so that its keys reach the child as well as us."""
    if sys.platform == "win32":
        return True
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
