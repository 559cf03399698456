"""The stacks of a hang, written by the app itself to its session's stacks file. wire/hangs.py has its form.

Stacks of several threads are only ever read by a thread of ours that holds the interpreter's lock: then none of them
moves. faulthandler offers to read them without it, after a time or in the handler of a signal; while other threads run
it comes upon frames that are freed, and ends the app (python/cpython#116008, #131580). So the daemon's signal has but
one stack written: that of the thread it interrupts, the main one. Even that one is whole only while no Python runs in
it: CPython 3.11.7, 3.12.1 and 3.13.0 ended after 2,000 to 24,000 signals into calls that C makes. So the signal is sent
to a main thread that waits, or keeps the lock in C code (daemon/sampler.py), and only where the system tells that.

The file is the process's own: all its sessions share it by hard links; a forked child lets go of it.
"""

import contextlib
import faulthandler
import operator
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

from datacat.client.folder import create_file
from datacat.wire import hangs, layout

_HIGH_FD_BELOW = 1024
_HIGH_FD_ROOM = 24
_MOST_IN_DUMP = 100
"""faulthandler writes the 100 newest threads; the main one is the oldest. CPython, Python/traceback.c."""
_WHERE = ("f_code.co_filename", "f_code.co_name", "f_lineno", "f_lasti")
_innermost = operator.attrgetter(*_WHERE)


class _File(NamedTuple):
    """The open stacks file: a folder that has it, the descriptor, its device and inode, the signal (0: none).

    handler is what signal.getsignal() said of the signal before it was ours.
    """

    folder: Path
    fd: int
    inode: tuple[int, int]
    signal: int
    handler: Any


_file: _File | None = None
_folders: list[Path] = []
"""Sessions that have this file."""


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
            _file = _File(folder, fd, (found.st_dev, found.st_ino), *_register(way, fd))
            if _file.signal:
                main = threading.main_thread()
                head = hangs.handle_line(hangs.Handle(_file.signal, fd))
                os.write(fd, (head + hangs.thread_line(main.ident or 0, main.name)).encode())
        _folders.append(folder)


def remove(folder: Path | None) -> None:
    """Take out a session that has ended; with the last one the file is closed and the signal given back."""
    global _file
    if folder not in _folders or _file is None:
        return
    _folders.remove(folder)
    if _folders:
        _file = _file._replace(folder=_folders[0])
        return
    file, _file = _file, None
    _close(file)


def in_child() -> None:
    """Let go of the parent's file in a forked child."""
    global _file
    file, _file = _file, None
    _folders.clear()
    if file is not None:
        _close(file)


def writes(folder: Path | None) -> bool:
    """Return whether write() can write for a session: it has a stacks file, and the interpreter has one lock for all.

    Without that lock (free-threaded builds) no thread can look at the others while they stand still.
    """
    return folder in _folders and getattr(sys, "_is_gil_enabled", lambda: True)()


def write(folder: Path | None) -> None:
    """Write the stacks of all threads now; called by a thread that can run while the main one cannot."""
    fd = _writable()
    if fd >= 0 and writes(folder):
        with contextlib.suppress(OSError, ValueError):
            os.write(fd, (_names() + f"{hangs.AT_LINE}{time.time_ns() // 1000}\n" + _main_stack()).encode())
            faulthandler.dump_traceback(fd, all_threads=True)


def main_frame(depth: int = 0) -> tuple[str, str, int | None, int] | None:
    """Return file, function, line and instruction of a call of the main thread, 0 being the innermost; None for none.

    One call into C finds it and lets go of it, and nothing else of the app runs meanwhile. Were its frame held for
    longer, the main thread might leave it, and its variables would end in our thread: windows, images, connections to
    databases must not.
    """
    where = operator.attrgetter(*("f_back." * depth + name for name in _WHERE)) if depth else _innermost
    ident = threading.main_thread().ident
    looks = iter(sys._current_frames, None)  # noqa: SLF001  the documented way to look at other threads
    try:
        return next(map(where, map(operator.itemgetter(ident), looks)))
    except (AttributeError, KeyError):  # no such call; the main thread has ended, and the other threads go on
        return None


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


def _register(way: str, fd: int) -> tuple[int, Any]:
    """Have faulthandler write on the signal; returns its number, 0 when there is none, and whose it was before."""
    if sys.platform != "linux" or way == "thread":
        return 0, None
    number = signal.Signals["SIGURG" if way == "auto" else way]
    handler = signal.getsignal(number)
    # Chained only to a handler of the app's own: chaining lets more system calls be interrupted (no SA_RESTART).
    theirs = handler not in (signal.SIG_DFL, signal.SIG_IGN)
    faulthandler.register(number, file=fd, all_threads=False, chain=theirs)
    return int(number), handler


def _close(file: _File) -> None:
    # A handler that the app has set since is in our place already, and giving back the one before would remove it.
    if file.signal and sys.platform == "linux" and signal.getsignal(file.signal) == file.handler:
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


def _main_stack() -> str:
    """Return the stack of the main thread when a dump would not have it: it has the newest threads only."""
    if threading.active_count() <= _MOST_IN_DUMP:
        return ""
    lines = [f"Thread 0x{threading.main_thread().ident or 0:016x} (most recent call first):"]
    for depth in range(_MOST_IN_DUMP):
        found = main_frame(depth)
        if found is None:
            break
        file, function, line, _ = found
        lines.append(f'  File "{file}", line {"???" if line is None else line} in {function}')
    return "\n".join([*lines, "", ""])
