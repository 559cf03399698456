"""Processes seen from outside: is it still the same one, how did it end, what is it doing. Not for the client.

Linux uses pidfd and /proc, macOS kqueue and libproc (through psutil), Windows process handles. Every class and function
can be imported everywhere; what the operating system offers is an argument where canned answers test it.
"""

import os
import select
import signal as signals
import struct
import sys
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from datacat import host
from datacat.errors import HostError, NotPermitted, ProcessGone

PIDFD_GET_INFO = 3 << 30 | 80 << 16 | 0xFF << 8 | 11
"""_IOWR(0xFF, 11, struct pidfd_info of 80 bytes); Linux 6.13. Source: include/uapi/linux/pidfd.h."""
PIDFD_INFO_EXIT = 1 << 3
"""Set in the answer's mask once the process is reaped; Linux 6.15."""
_INFO = struct.Struct("=Q52xi16x")
"""Of struct pidfd_info: the mask and, at byte 60, the wait status."""

NOTE_EXITSTATUS = 0x04000000
"""Not in the select module. Source: xnu, bsd/sys/event.h."""

_REAPING_S = 0.1
"""A process that has ended and whose status we may not read in /proc: its parent may be reaping it just now."""

SYNCHRONIZE = 0x00100000
PROCESS_QUERY_LIMITED_INFORMATION = 0x1000
WAIT_OBJECT_0 = 0


class Target(NamedTuple):
    """One process for good: pid and host.process_start(pid)."""

    pid: int
    start: int


class Exit(NamedTuple):
    """How a process ended: its code or its signal; known is false when nobody could tell."""

    code: int | None
    signal: int | None
    core: bool
    known: bool


UNKNOWN_EXIT = Exit(None, None, core=False, known=False)


class ExitWatch(Protocol):
    """See the end of one process. Owned by one thread."""

    def fileno(self) -> int | None:
        """Return what becomes readable at the end, for a selector; None where only wait() tells."""

    def wait(self, timeout_s: float) -> Exit | None:
        """Return how it ended, waiting for that at most timeout_s seconds; None while it runs."""

    def close(self) -> None:
        """Let go; idempotent."""


def alive(target: Target, root: str = "/") -> bool:
    """Whether the process runs. One that is dead and not yet reaped does not; neither does a later owner of its pid."""
    try:
        if host.process_start(target.pid) != target.start:
            return False
    except ProcessGone:
        return False
    except HostError:
        return True  # it is there, we may not look
    return not _is_zombie(target.pid, root)


def watch(target: Target, fd: int = -1) -> ExitWatch:
    """Return the best watch that this system has; fd is an inherited pidfd of the same process.

    Raises: ProcessGone when it has ended before anybody watched it.
    """
    if sys.platform == "win32":
        return HandleWatch(target)
    if hasattr(select, "kqueue"):
        return KqueueWatch(target)
    if fd >= 0:
        return PidfdWatch(target, fd)
    try:
        return PidfdWatch(target, _pidfd_open(target))
    except NotPermitted:
        return PollWatch(target)


class PidfdWatch:
    """Linux: a pidfd is readable when the process has ended and tells its wait status once it is reaped."""

    def __init__(self, target: Target, fd: int, root: str = "/") -> None:
        self.target = target
        self._fd = fd
        self._root = root
        self._told_by_pidfd = True

    def fileno(self) -> int | None:
        """Return the pidfd."""
        return self._fd if self._fd >= 0 else None

    def wait(self, timeout_s: float) -> Exit | None:
        """See ExitWatch."""
        if self._fd < 0:
            return UNKNOWN_EXIT
        if not _readable(self._fd, timeout_s):
            return None
        # Before its parent has reaped it /proc tells the status, afterwards the pidfd does.
        status = self._from_pidfd()
        if status is None:
            status = self._from_proc()
        if status is None and self._told_by_pidfd and _hung_up(self._fd, _REAPING_S):
            status = self._from_pidfd()
        return UNKNOWN_EXIT if status is None else from_wait_status(status)

    def close(self) -> None:
        """Close the pidfd."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _from_pidfd(self) -> int | None:
        if sys.platform == "win32":
            return None
        import fcntl

        info = bytearray(_INFO.size)
        struct.pack_into("=Q", info, 0, PIDFD_INFO_EXIT)
        try:
            fcntl.ioctl(self._fd, PIDFD_GET_INFO, info)
        except ProcessLookupError:  # it was reaped while the kernel looked: the next look tells
            return None
        except OSError:  # an older kernel
            self._told_by_pidfd = False
            return None
        mask, status = _INFO.unpack(info)
        return int(status) if mask & PIDFD_INFO_EXIT else None

    def _from_proc(self) -> int | None:
        if sys.platform == "win32":
            return None
        folder = Path(self._root, "proc", str(self.target.pid))
        try:
            # Field 52 reads 0 for those who may not trace the process: 0 from a stranger is no success.
            if os.geteuid() not in (0, folder.stat().st_uid):
                return None
            fields = (folder / "stat").read_bytes().rpartition(b")")[2].split()
        except OSError:
            return None
        # X is a process that is being reaped just now.
        if fields[0] not in (b"Z", b"X") or int(fields[19]) != self.target.start:
            return None
        return int(fields[49])


class KqueueWatch:
    """macOS, BSD: EVFILT_PROC. The exit status is told for every process that we may signal (xnu, kern_event.c)."""

    def __init__(self, target: Target, module: Any = select) -> None:
        self.target = target
        self._module = module
        self._exit: Exit | None = None
        self._queue = module.kqueue()
        try:
            self._register(module.KQ_NOTE_EXIT | NOTE_EXITSTATUS)
        except PermissionError:
            self._register(module.KQ_NOTE_EXIT)
        except ProcessLookupError:
            self._exit = UNKNOWN_EXIT
        # A process that ended and whose pid was taken before we registered is seen by its start.
        if self._exit is None and not alive(target):
            self._exit = self._next(0.0) or UNKNOWN_EXIT

    def fileno(self) -> int | None:
        """Return the kqueue's descriptor."""
        return int(self._queue.fileno()) if self._exit is None else None

    def wait(self, timeout_s: float) -> Exit | None:
        """See ExitWatch."""
        if self._exit is None:
            self._exit = self._next(timeout_s)
        return self._exit

    def close(self) -> None:
        """Close the kqueue."""
        self._queue.close()

    def _register(self, notes: int) -> None:
        module = self._module
        event = module.kevent(self.target.pid, module.KQ_FILTER_PROC, module.KQ_EV_ADD | module.KQ_EV_ONESHOT, notes)
        self._queue.control([event], 0, 0)
        self._with_status = bool(notes & NOTE_EXITSTATUS)

    def _next(self, timeout_s: float) -> Exit | None:
        events = self._queue.control([], 1, timeout_s)
        if not events:
            return None
        return from_wait_status(int(events[0].data)) if self._with_status else UNKNOWN_EXIT


class HandleWatch:
    """Windows: an open handle pins the pid, and tells the exit code of any process."""

    def __init__(self, target: Target, kernel32: Any = None) -> None:
        self.target = target
        self._kernel32 = kernel32 or _kernel32()
        self._handle = self._kernel32.OpenProcess(SYNCHRONIZE | PROCESS_QUERY_LIMITED_INFORMATION, False, target.pid)
        if not self._handle:
            raise ProcessGone(f"there is no process {target.pid}, or it may not be watched", permanent=True)
        if host.process_start(target.pid) != target.start:
            self.close()
            raise ProcessGone(f"pid {target.pid} belongs to another process now", permanent=True)

    def fileno(self) -> int | None:
        """Return None: a handle cannot be selected."""
        return None

    def wait(self, timeout_s: float) -> Exit | None:
        """See ExitWatch."""
        if not self._handle:
            return UNKNOWN_EXIT
        if self._kernel32.WaitForSingleObject(self._handle, max(0, int(timeout_s * 1000))) != WAIT_OBJECT_0:
            return None
        import ctypes

        code = ctypes.c_uint32()
        if not self._kernel32.GetExitCodeProcess(self._handle, ctypes.byref(code)):
            return UNKNOWN_EXIT
        return Exit(code.value, None, core=False, known=True)

    def close(self) -> None:
        """Close the handle."""
        handle, self._handle = self._handle, None
        if handle:
            self._kernel32.CloseHandle(handle)


class PollWatch:
    """Where nothing tells (a kernel before 5.3, a filter that forbids pidfd): look whenever asked."""

    def __init__(self, target: Target) -> None:
        self.target = target

    def fileno(self) -> int | None:
        """Return None."""
        return None

    def wait(self, timeout_s: float) -> Exit | None:
        """Look once; timeout_s is not used, the caller comes back."""
        del timeout_s
        return None if alive(self.target) else UNKNOWN_EXIT

    def close(self) -> None:
        """Do nothing."""


def from_wait_status(status: int) -> Exit:
    """Return the exit in a wait status (wait(2)): low 7 bits the signal, bit 7 a core dump, else the code above."""
    if signal := status & 0x7F:
        return Exit(None, signal, core=bool(status & 0x80), known=True)
    return Exit(status >> 8 & 0xFF, None, core=False, known=True)


def signal_name(number: int) -> str:
    """Return the name of a signal: SIGKILL; signal 99 for one that has none here."""
    try:
        return signals.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _readable(fd: int, timeout_s: float) -> bool:
    if sys.platform == "win32":
        return False
    poll = select.poll()  # not select(), which refuses descriptors above 1023
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(max(0, int(timeout_s * 1000))))


def _hung_up(fd: int, timeout_s: float) -> bool:
    """Wait until a process that has ended is reaped: its pidfd then says POLLHUP (Linux 6.9)."""
    if sys.platform == "win32":
        return False
    poll = select.poll()
    poll.register(fd, 0)
    return bool(poll.poll(max(0, int(timeout_s * 1000))))


def _pidfd_open(target: Target) -> int:
    if sys.platform != "linux":
        raise NotPermitted("there is no pidfd here")
    try:
        fd = os.pidfd_open(target.pid)
    except ProcessLookupError as error:
        raise ProcessGone(f"there is no process {target.pid}", permanent=True) from error
    except OSError as error:
        raise NotPermitted(f"no pidfd of {target.pid}: {error.strerror}") from error
    # The pid may have been given away before the pidfd was opened; after that it cannot be.
    try:
        if host.process_start(target.pid) == target.start:
            return fd
    except HostError:
        pass
    os.close(fd)
    raise ProcessGone(f"pid {target.pid} belongs to another process now", permanent=True)


def _is_zombie(pid: int, root: str) -> bool:
    if sys.platform == "linux":
        try:
            fields = (Path(root) / f"proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        except OSError:
            return False
        # A main thread that has ended while others go on is shown as Z too.
        return fields[0] in (b"Z", b"X") and int(fields[17]) <= 1
    if sys.platform == "win32":
        return False
    import psutil

    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _kernel32() -> Any:
    if sys.platform != "win32":
        raise HostError("kernel32 is not known here")
    import ctypes

    kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
    kernel32.OpenProcess.restype = ctypes.c_void_p
    kernel32.WaitForSingleObject.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
    kernel32.GetExitCodeProcess.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    kernel32.CloseHandle.argtypes = [ctypes.c_void_p]
    return kernel32
