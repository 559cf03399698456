"""macOS: sysctl and libproc through ctypes, mach clocks, F_PREALLOCATE. Never run here; canned bytes test the parsers.

Numbers are those of the SDK's headers: sys/proc_info.h, sys/fcntl.h.
"""

import ctypes
import hashlib
import os
import struct
import sys
import time

from datacat.errors import HostError, ProcessGone

PROC_PIDTBSDINFO = 3
_BSDINFO_BYTES = 136
_START_OFFSET = 120
"""struct proc_bsdinfo ends with pbi_start_tvsec and pbi_start_tvusec, two uint64."""
F_PREALLOCATE = 42
F_ALLOCATECONTIG = 2
F_ALLOCATEALL = 4
F_PEOFPOSMODE = 3

awake_ns = time.monotonic_ns  # mach_absolute_time, which stops in sleep


def machine_id() -> str:
    """Return a hash of the hardware's UUID; empty when it cannot be read."""
    text = _hardware_uuid()
    return hashlib.sha256(b"datacat " + text.encode()).hexdigest()[:32] if text else ""


def boot_id() -> str:
    """Return the kernel's random id of this boot; empty when it cannot be read."""
    return _sysctl(b"kern.bootsessionuuid")


def asleep_s() -> float:
    """Return the seconds that the machine has slept since its boot; only CLOCK_MONOTONIC_RAW counts them."""
    if sys.platform != "darwin":
        return 0.0
    return max(0.0, time.clock_gettime(time.CLOCK_MONOTONIC_RAW) - time.clock_gettime(time.CLOCK_UPTIME_RAW))


def process_start(pid: int) -> int:
    """Return when a process started, in Unix microseconds. Raises: ProcessGone."""
    info = ctypes.create_string_buffer(_BSDINFO_BYTES)
    got = _libc().proc_pidinfo(pid, PROC_PIDTBSDINFO, ctypes.c_uint64(0), info, _BSDINFO_BYTES)
    if got < _BSDINFO_BYTES:
        raise ProcessGone(f"there is no process {pid}", permanent=True)
    return parse_bsdinfo(info.raw)


def parse_bsdinfo(info: bytes) -> int:
    """Return the start time in Unix microseconds out of a struct proc_bsdinfo."""
    seconds, microseconds = struct.unpack_from("=QQ", info, _START_OFFSET)
    return int(seconds * 1_000_000 + microseconds)


def process_image(pid: int) -> str:
    """Return an empty text: only NOTE_EXEC of a kqueue would tell, and nobody listens when it happens."""
    del pid
    return ""


def pid_namespace() -> int:
    """Return 0: there are no pid namespaces."""
    return 0


def preallocate(fd: int, size_bytes: int) -> None:
    """Give a new file its blocks and its size. Raises: HostError when the disk, a quota or a limit says no."""
    if sys.platform == "win32":
        raise HostError("F_PREALLOCATE is not known here")
    import fcntl

    try:
        try:
            fcntl.fcntl(fd, F_PREALLOCATE, pack_fstore(F_ALLOCATECONTIG | F_ALLOCATEALL, size_bytes))
        except OSError:  # no room in one piece
            fcntl.fcntl(fd, F_PREALLOCATE, pack_fstore(F_ALLOCATEALL, size_bytes))
        os.ftruncate(fd, size_bytes)
    except OSError as error:
        raise HostError(f"cannot allocate {size_bytes} bytes: {error.strerror}") from error


def pack_fstore(flags: int, size_bytes: int) -> bytes:
    """Return a struct fstore: flags and mode (uint32, int), offset, length and bytes allocated (int64)."""
    return struct.pack("=Iiqqq", flags, F_PEOFPOSMODE, 0, size_bytes, 0)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _sysctl(name: bytes) -> str:
    try:
        sysctlbyname = _libc().sysctlbyname
    except AttributeError:
        return ""
    size = ctypes.c_size_t(64)
    text = ctypes.create_string_buffer(size.value)
    if sysctlbyname(name, text, ctypes.byref(size), None, ctypes.c_size_t(0)) != 0:
        return ""
    return text.value.decode("ascii", "replace")


def _hardware_uuid() -> str:
    try:
        gethostuuid = _libc().gethostuuid
    except AttributeError:
        return ""
    uuid = ctypes.create_string_buffer(16)
    wait = struct.pack("=qq" if ctypes.sizeof(ctypes.c_long) == 8 else "=ll", 1, 0)
    return uuid.raw.hex() if gethostuuid(uuid, wait) == 0 else ""
