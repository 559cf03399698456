"""Windows: the registry, kernel32 through ctypes, msvcrt locks. Never run here; canned values test the conversions."""

import contextlib
import ctypes
import hashlib
import os
import sys

from datacat.errors import HostError, NotPermitted, ProcessGone

PROCESS_QUERY_LIMITED_INFORMATION = 0x1000
ERROR_ACCESS_DENIED = 5
_LOCKED_BYTE = 1 << 30
"""msvcrt locks are mandatory: a byte far behind the text is locked, so that the holder's pid stays readable."""
_BOOT_KEY = r"SYSTEM\CurrentControlSet\Control\Session Manager\Memory Management\PrefetchParameters"


def machine_id() -> str:
    """Return a hash of the installation's MachineGuid; empty when it cannot be read."""
    text = _registry(r"SOFTWARE\Microsoft\Cryptography", "MachineGuid")
    return hashlib.sha256(b"datacat " + text.encode()).hexdigest()[:32] if text else ""


def boot_id() -> str:
    """Return the number of this boot, which Windows counts; empty when it cannot be read."""
    return _registry(_BOOT_KEY, "BootId")


def hostname() -> str:
    """Return the name of the machine."""
    return os.environ.get("COMPUTERNAME", "")


def platform() -> str:
    """Return system, release and machine in one line: Windows 10.0.22631 AMD64."""
    if sys.platform != "win32":
        return ""
    version = sys.getwindowsversion()
    return f"Windows {version.major}.{version.minor}.{version.build} {os.environ.get('PROCESSOR_ARCHITECTURE', '')}"


def awake_ns() -> int:
    """Return the interrupt time without sleep, in ns (QueryUnbiasedInterruptTime counts 100 ns)."""
    if sys.platform != "win32":
        raise HostError("kernel32 is not known here")
    ticks = ctypes.c_ulonglong()
    ctypes.windll.kernel32.QueryUnbiasedInterruptTime(ctypes.byref(ticks))
    return ticks.value * 100


def asleep_s() -> float:
    """Return the seconds that the machine has slept since its boot: GetTickCount64 counts them, awake_ns does not."""
    if sys.platform != "win32":
        return 0.0
    with_sleep_ms = ctypes.c_ulonglong(ctypes.windll.kernel32.GetTickCount64()).value
    return max(0.0, with_sleep_ms / 1e3 - awake_ns() / 1e9)


def process_start(pid: int) -> int:
    """Return when a process started, as a FILETIME (100 ns since 1601). Raises: ProcessGone, NotPermitted."""
    if sys.platform != "win32":
        raise HostError("kernel32 is not known here")
    kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
    kernel32.OpenProcess.restype = ctypes.c_void_p
    kernel32.GetProcessTimes.argtypes = [ctypes.c_void_p] * 5
    kernel32.CloseHandle.argtypes = [ctypes.c_void_p]
    handle = kernel32.OpenProcess(PROCESS_QUERY_LIMITED_INFORMATION, 0, pid)
    if not handle:
        if ctypes.get_last_error() == ERROR_ACCESS_DENIED:
            raise NotPermitted(f"cannot look at process {pid}")
        raise ProcessGone(f"there is no process {pid}", permanent=True)
    times = (ctypes.c_ulonglong * 4)()
    try:
        if not kernel32.GetProcessTimes(handle, *(ctypes.addressof(times) + 8 * i for i in range(4))):
            raise ProcessGone(f"process {pid} has no times", permanent=True)
    finally:
        kernel32.CloseHandle(handle)
    return int(times[0])


def process_image(pid: int) -> str:
    """Return an empty text: a process never becomes another program here."""
    del pid
    return ""


def pid_namespace() -> int:
    """Return 0: there are no pid namespaces."""
    return 0


def preallocate(fd: int, size_bytes: int) -> None:
    """Give a new file its size; NTFS allocates its clusters with it. Raises: HostError."""
    try:
        os.ftruncate(fd, size_bytes)
    except OSError as error:
        raise HostError(f"cannot allocate {size_bytes} bytes: {error.strerror}") from error


def allow_files(wanted: int) -> int:
    """Return wanted: handles are limited by memory alone."""
    return wanted


def grab(fd: int) -> bool:
    """Lock a byte of an open file at once or not at all. Raises: OSError."""
    if sys.platform != "win32":
        raise HostError("msvcrt is not known here")
    import msvcrt

    os.lseek(fd, _LOCKED_BYTE, os.SEEK_SET)
    try:
        msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
    except OSError:
        return False
    os.lseek(fd, 0, os.SEEK_SET)
    return True


def _registry(key: str, name: str) -> str:
    if sys.platform != "win32":
        return ""
    import winreg

    with contextlib.suppress(OSError), winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, key) as opened:
        return str(winreg.QueryValueEx(opened, name)[0])
    return ""
