"""Make a session's folder in the spool, and read and write the small files in it. wire/layout.py has the format."""

import contextlib
import mmap
import os
import stat
from collections.abc import Iterable
from pathlib import Path

import msgspec

from datacat import host
from datacat.errors import HostError, JournalError
from datacat.wire import layout

_DIR_MODE = 0o700
_FILE_MODE = 0o600
_MEMORY_ROOT = "/dev/shm"  # noqa: S108  the folder below it is the user's own and its owner is checked


def roots(state_dir: object) -> list[Path]:
    """Return the folders that may have the spool, best first: the given one, else those of the user.

    It is absolute, for the app may change its working directory. What is no path at all is taken as not given.
    """
    if isinstance(state_dir, (str, os.PathLike)) and not isinstance(state_dir, bytes):
        with contextlib.suppress(TypeError, ValueError, OSError):
            return [Path(state_dir).absolute()]
    return host.state_dirs()


def choose_spool(folders: Iterable[Path]) -> Path:
    """Return the spool in the first folder that can be written, made with its owners folder.

    Raises: JournalError when none can.
    """
    reasons = []
    for folder in folders:
        spool = folder / layout.SPOOL_DIR
        try:
            _make_dirs(folder)
            if not _is_ours(folder):
                reasons.append(f"{folder} belongs to somebody else")
                continue
            _make_dirs(spool / layout.OWNERS_DIR)
            if os.access(spool, os.W_OK | os.X_OK):
                return spool
            reasons.append(f"{spool} cannot be written")
        except (OSError, ValueError) as error:  # ValueError: a name that no file system takes
            reasons.append(f"{folder}: {error}")
    raise JournalError("no folder for the journal: " + "; ".join(reasons), hint="set XDG_STATE_HOME")


def is_volatile(spool: Path) -> bool:
    """Return whether the spool lies in memory and ends with the machine."""
    return spool.is_relative_to(_MEMORY_ROOT)


def make_session(spool: Path, session_id: str, stream: str) -> Path:
    """Make the folder of a session, without session.json: to readers it is no session yet. Raises: JournalError."""
    folder = spool / session_id
    try:
        for made in (folder, folder / stream):
            made.mkdir(_DIR_MODE)
            made.chmod(_DIR_MODE)
        if hasattr(os, "mkfifo"):
            with contextlib.suppress(OSError):  # some file systems have no pipes: the daemon looks every few seconds
                os.mkfifo(folder / layout.WAKE_FILE, _FILE_MODE)
                (folder / layout.WAKE_FILE).chmod(_FILE_MODE)
    except OSError as error:
        raise JournalError(f"cannot make {folder}: {error.strerror}") from error
    return folder


def map_beat(folder: Path) -> mmap.mmap:
    """Make and map the beat file. Raises: JournalError."""
    try:
        fd = create_file(folder / layout.BEAT_FILE, os.O_RDWR)
        try:
            host.preallocate(fd, layout.BEAT_FILE_BYTES)
            return mmap.mmap(fd, layout.BEAT_FILE_BYTES)
        finally:
            os.close(fd)
    except (HostError, OSError) as error:
        raise JournalError(f"cannot make the beat file: {error}") from error


def publish(folder: Path, meta: layout.Meta) -> None:
    """Write session.json: from now on it is a session. Raises: JournalError."""
    temporary = folder / f"{layout.META_FILE}.new"
    try:
        with open(temporary, "wb", opener=create_file) as file:
            file.write(msgspec.json.encode(meta))
        temporary.rename(folder / layout.META_FILE)
    except OSError as error:
        raise JournalError(f"cannot write {temporary}: {error.strerror}") from error


def discard(folder: Path) -> None:
    """Remove what make_session made, when the session could not be completed."""
    for path in sorted(folder.rglob("*"), reverse=True):
        with contextlib.suppress(OSError):
            path.rmdir() if path.is_dir() else path.unlink()
    with contextlib.suppress(OSError):
        folder.rmdir()


def shipper(folder: Path) -> layout.Shipper | None:
    """Return what the daemon last wrote about the session; None when there is nothing yet."""
    try:
        return msgspec.json.decode((folder / layout.SHIPPER_FILE).read_bytes(), type=layout.Shipper)
    except (OSError, msgspec.DecodeError):
        return None


def wake(folder: Path) -> None:
    """Wake the daemon that listens to this session's pipe, if one does.

    The pipe is opened for reading too: so it can be opened without a daemon, and a daemon that ends in between never
    costs the app a SIGPIPE.
    """
    with contextlib.suppress(OSError):
        fd = os.open(folder / layout.WAKE_FILE, os.O_RDWR | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
        try:
            if stat.S_ISFIFO(os.fstat(fd).st_mode):
                os.write(fd, b"w")
        finally:
            os.close(fd)


def create_file(path: str | Path, flags: int) -> int:
    """Open a file for the user alone, made when it is not there, whatever the app's umask is. Raises: OSError."""
    fd = os.open(path, flags | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), _FILE_MODE)
    if hasattr(os, "fchmod"):
        with contextlib.suppress(OSError):  # somebody else's, or a file system without modes
            os.fchmod(fd, _FILE_MODE)
    return fd


def _make_dirs(folder: Path) -> None:
    """Make a folder and those above it that are missing, for the user alone, whatever the app's umask is."""
    for each in [*reversed(folder.parents), folder]:
        try:
            each.mkdir(_DIR_MODE)
        except FileExistsError:
            continue
        except OSError:
            if not each.is_dir():
                raise
            continue
        each.chmod(_DIR_MODE)


def _is_ours(folder: Path) -> bool:
    """Return whether nobody else could have put the folder there (it may stand in a folder that all can write)."""
    if not hasattr(os, "getuid"):
        return True
    found = folder.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o002
