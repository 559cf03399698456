"""The stacks of a hang, written by the app itself to its session's stacks file. wire/hangs.py has its form.

Three ways lead there, and only the third disturbs anything (a C library's own wait may end early by a signal):
the heartbeat thread writes while the main thread is stuck; faulthandler's timer, armed anew with each beat, fires when
not even that thread can run because C code keeps the interpreter's lock; and a signal from the daemon does, for an app
that was not asked for stacks in time by any of these. An app that beats itself arms the timer by its beats, once it has
asked to be watched; one that only beats does so where there are no signals, or they are not wanted.

The file is the process's own: all its sessions share it by hard links; a forked child lets go of it.
"""

import contextlib
import faulthandler
import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from datacat.client import alarm
from datacat.client.folder import create_file
from datacat.wire import hangs, layout

_HIGH_FD_BELOW = 1024
_HIGH_FD_ROOM = 24
NAMES_EVERY_NS = 10_000_000_000
_MOST_IN_DUMP = 100
"""faulthandler writes the 100 newest threads; the main one is the oldest. CPython, Python/traceback.c."""


class _File(NamedTuple):
    """The open stacks file: a folder that has it, the descriptor, its device and inode, the signal (0: none)."""

    folder: Path
    fd: int
    inode: tuple[int, int]
    signal: int


_file: _File | None = None
_folders: list[Path] = []
"""Sessions that have this file."""
_driven = False
"""Whether a heartbeat thread arms the timer."""
_named: tuple[int, frozenset[int | None]] = (0, frozenset())
"""When names of threads were last written, and of which."""


def install(folder: Path | None, way: str) -> None:
    """Open the stacks file of a session and register the signal; a further session of the process shares it.

    way is a word of hangs.STACKS_WORDS or the name of a signal.
    """
    global _file
    if folder is None or way == "off":
        return
    path = folder / layout.STACKS_FILE
    with contextlib.suppress(OSError, ValueError, RuntimeError):
        if _file is not None:
            os.link(_file.folder / layout.STACKS_FILE, path)
        else:
            fd = open_high(path)
            found = os.fstat(fd)
            _file = _File(folder, fd, (found.st_dev, found.st_ino), _register(way, fd))
            if _file.signal:
                os.write(fd, hangs.handle_line(hangs.Handle(_file.signal, fd)).encode())
        _folders.append(folder)


def remove(folder: Path | None) -> None:
    """Take out a session that has ended; with the last one the file is closed and the signal given back."""
    global _file, _named
    if folder not in _folders or _file is None:
        return
    _folders.remove(folder)
    if _folders:
        _file = _file._replace(folder=_folders[0])
        return
    file, _file = _file, None
    disarm()
    _named = (0, frozenset())
    _close(file)


def in_child() -> None:
    """Let go of the parent's file in a forked child."""
    global _file, _driven, _named
    file, _file = _file, None
    _driven, _named = False, (0, frozenset())
    _folders.clear()
    alarm.in_child()
    if file is not None:
        _close(file)


def write(folder: Path | None) -> None:
    """Write the stacks of all threads now; called by a thread that can run while the main one cannot."""
    fd = _writable()
    if fd >= 0 and folder in _folders:
        with contextlib.suppress(OSError, ValueError):
            os.write(fd, (_names() + f"{hangs.AT_LINE}{time.time_ns() // 1000}\n" + _main_stack()).encode())
            faulthandler.dump_traceback(fd, all_threads=True)


def arm(folder: Path | None, after_s: float, now_ns: int) -> None:
    """Let the timer write the stacks after after_s seconds unless it is armed again; for a heartbeat thread."""
    global _driven
    fd = _writable()
    if fd >= 0 and folder in _folders:
        _driven = True
        _write_names(fd, now_ns)
        alarm.arm(fd, after_s, now_ns)


def disarm() -> None:
    """Let the timer not fire."""
    global _driven
    _driven = False
    alarm.disarm()


def beaten(timeout_s: float, now_ns: int) -> None:
    """Note a beat of the app's own; timeout_s is 0 unless it has asked to be watched, which may cost a thread of C."""
    if _file is None or _driven or (_file.signal and not timeout_s):
        return
    fd = _writable()
    if fd >= 0:
        timeout_s = timeout_s or 60.0
        alarm.arm(fd, hangs.points_s(timeout_s, 0)[0] - 2 * hangs.lead_s(timeout_s), now_ns)


def open_high(path: Path) -> int:
    """Open a file of ours for appending, at a number that apps seldom reach, close-on-exec. Raises: OSError.

    An app that closes all descriptors and opens its own file must not get the number that a crash is written to.
    """
    fd = create_file(path, os.O_WRONLY | os.O_APPEND)
    if sys.platform == "win32":
        return fd
    import fcntl
    import resource

    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = _HIGH_FD_BELOW if soft == resource.RLIM_INFINITY else min(soft, _HIGH_FD_BELOW)
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, max(3, limit - _HIGH_FD_ROOM))
    finally:
        os.close(fd)


def _register(way: str, fd: int) -> int:
    """Have faulthandler write on the signal; returns its number, 0 when there is none."""
    if sys.platform == "win32" or way == "timer":
        return 0
    number = getattr(signal, "SIGURG" if way == "auto" else way, None)
    if number is None:
        return 0
    # Chained only to a handler of the app's own: chaining lets more system calls be interrupted (no SA_RESTART).
    theirs = signal.getsignal(number) not in (signal.SIG_DFL, signal.SIG_IGN)
    faulthandler.register(number, file=fd, all_threads=True, chain=theirs)
    return int(number)


def _close(file: _File) -> None:
    if file.signal and sys.platform != "win32":
        faulthandler.unregister(file.signal)
    with contextlib.suppress(OSError):
        if _is(file, os.fstat(file.fd)):
            os.close(file.fd)


def _writable() -> int:
    """Return the descriptor while it is still our file and has room, else -1."""
    if _file is None:
        return -1
    try:
        found = os.fstat(_file.fd)
    except OSError:  # the app has closed it
        return -1
    return _file.fd if _is(_file, found) and found.st_size < hangs.MAX_STACKS_BYTES else -1


def _is(file: _File, found: os.stat_result) -> bool:
    return (found.st_dev, found.st_ino) == file.inode


def _names() -> str:
    return "".join(hangs.thread_line(thread.ident or 0, thread.name) for thread in threading.enumerate()[:1000])


def _write_names(fd: int, now_ns: int) -> None:
    """Write the names of threads when there are others than before: neither the timer nor a signal can."""
    global _named
    idents = frozenset(thread.ident for thread in threading.enumerate())
    if idents != _named[1] and (not _named[1] or now_ns - _named[0] > NAMES_EVERY_NS):
        _named = (now_ns, idents)
        with contextlib.suppress(OSError):
            os.write(fd, _names().encode())


def _main_stack() -> str:
    """Return the stack of the main thread when a dump would not have it: it has the newest threads only."""
    if threading.active_count() <= _MOST_IN_DUMP:
        return ""
    ident = threading.main_thread().ident or 0
    frame: FrameType | None = sys._current_frames().get(ident)  # noqa: SLF001  the documented way to look
    lines = [f"Thread 0x{ident:016x} (most recent call first):"]
    while frame is not None and len(lines) <= _MOST_IN_DUMP:
        code = frame.f_code
        lines.append(f'  File "{code.co_filename}", line {frame.f_lineno} in {code.co_name}')
        frame = frame.f_back
    return "\n".join([*lines, "", ""])
