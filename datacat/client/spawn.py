"""Start the daemon of this process: a fresh interpreter, detached, never an unreaped child, never a fork of the app.

POSIX: posix_spawn of `/bin/sh -c '"$@" &' sh python -m datacat.cli.daemon ...` in a session of its own; sh ends at once
and is reaped, the daemon belongs to init. (Measured: an app that is run with captured output, closed terminals,
Ctrl-C and os.wait() do not notice it.) Windows: a detached process without a console.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datacat.errors import HostError
from datacat.wire import layout

GUARD_FLAG = "--datacat-daemon"
"""A frozen app that is started with it is a daemon: datacat.freeze_support()."""
OWNER_FD = 3
"""The descriptor at which the daemon finds a pidfd of the app."""
_SHELL = '"$@" &'
_PYTHONS = ("python", "pythonw", "pypy")
# Signals that the app may ignore or block: ignored ones are inherited by a new program.
_RESET = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGPIPE", "SIGCHLD", "SIGUSR1", "SIGUSR2")


def owner_lock(spool: Path, pid: int, process_start: int) -> Path:
    """Return the lock file that the daemon of a process holds."""
    return spool / layout.OWNERS_DIR / f"{pid}-{process_start}.lock"


def daemon_command(
    spool: Path, pid: int, process_start: int, *, environ: Mapping[str, str], frozen: bool, executable: str
) -> list[str]:
    """Return the command line of the daemon of a process; DATACAT_PYTHON names another interpreter.

    Raises: HostError when there is no interpreter to run it.
    """
    if frozen and not environ.get("DATACAT_PYTHON"):
        start = [executable, GUARD_FLAG]
    else:
        start = [interpreter(environ, executable), "-m", "datacat.cli.daemon"]
    return [*start, "--owner", str(pid), "--owner-start", str(process_start), "--spool", str(spool)]


def interpreter(environ: Mapping[str, str], executable: str) -> str:
    """Return the Python to run the daemon with. In an app that embeds Python the executable is the app itself.

    Raises: HostError when none is found.
    """
    if given := environ.get("DATACAT_PYTHON"):
        return given
    if Path(executable).name.lower().startswith(_PYTHONS):
        return executable
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    names = ("python.exe",) if os.name == "nt" else (f"bin/{version}", "bin/python3", "bin/python")
    for root in (sys.prefix, sys.base_prefix):
        for name in names:
            candidate = Path(root) / name
            if candidate.exists():
                return str(candidate)
    raise HostError(f"{executable} is no Python", hint="name one in DATACAT_PYTHON")


def daemon_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of the daemon: the app's, with this datacat first on the path of modules."""
    package_root = str(Path(__file__).parents[2])
    path = environ.get("PYTHONPATH", "")
    merged = {**environ, "PYTHONPATH": f"{package_root}{os.pathsep}{path}" if path else package_root}
    # A one-file bundle unpacks itself anew instead of using the folder that goes away with the app (PyInstaller 6).
    merged["PYINSTALLER_RESET_ENVIRONMENT"] = "1"
    merged.pop("PYTHONSTARTUP", None)
    return merged


def start(spool: Path, pid: int, process_start: int) -> None:
    """Start a daemon for this process and return at once. Raises: HostError when none could be started."""
    command = daemon_command(
        spool,
        pid,
        process_start,
        environ=os.environ,
        frozen=bool(getattr(sys, "frozen", False)),
        executable=sys.executable or "",
    )
    try:
        if sys.platform == "win32":
            _start_detached(command, daemon_environ(os.environ))
        else:
            _start_through_shell(command, daemon_environ(os.environ), pid)
    except (OSError, NotImplementedError) as error:
        raise HostError(f"cannot start the daemon: {error}", hint=f"tried {' '.join(command)}") from error


def freeze_support() -> None:
    """Be the daemon when this frozen app was started as one; call it first in the app's main program."""
    if GUARD_FLAG in sys.argv[1:2]:
        import importlib

        del sys.argv[1]
        # By name: the client must not know the rooms above it, and a frozen app bundles them all.
        importlib.import_module("datacat.cli.daemon").main()
        sys.exit(0)


def _start_through_shell(command: list[str], environ: dict[str, str], owner: int) -> None:
    if sys.platform == "win32":
        raise NotImplementedError
    # Before the shell, which would tell the app's terminal that its working directory is gone.
    actions: list[tuple[Any, ...]] = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in range(3)]
    owner_fd = _pidfd(owner)
    try:
        if owner_fd >= 0:
            command = [*command, "--owner-fd", str(OWNER_FD)]
            actions.append((os.POSIX_SPAWN_DUP2, owner_fd, OWNER_FD))
        pid = os.posix_spawn(
            "/bin/sh",
            ["sh", "-c", _SHELL, "sh", *command],
            environ,
            file_actions=actions,
            setsid=True,
            setsigmask=[],
            setsigdef=[getattr(signal, name) for name in _RESET if hasattr(signal, name)],
        )
    finally:
        if owner_fd >= 0:
            os.close(owner_fd)
    with contextlib.suppress(ChildProcessError):  # the app reaps all children itself, or ignores SIGCHLD
        os.waitpid(pid, 0)


def _pidfd(pid: int) -> int:
    """Return a pidfd of a process above the descriptors that matter, close-on-exec; -1 where there are none."""
    if sys.platform != "linux" or not hasattr(os, "pidfd_open"):
        return -1
    import fcntl

    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return -1
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, OWNER_FD + 7)
    except OSError:
        return -1
    finally:
        os.close(fd)


def _start_detached(command: list[str], environ: dict[str, str]) -> None:
    if sys.platform != "win32":
        raise NotImplementedError
    import subprocess

    flags = subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP
    # A job that forbids breaking away answers with access denied; the daemon then ends with the job.
    for extra in (subprocess.CREATE_BREAKAWAY_FROM_JOB, 0):
        try:
            process = subprocess.Popen(
                command,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                close_fds=True,
                creationflags=flags | extra,
            )
        except PermissionError:
            if not extra:
                raise
        else:
            process.returncode = 0  # nobody waits for it, and that is meant: no ResourceWarning
            return
