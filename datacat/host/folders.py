"""Folders for journals and for the server's data, as platformdirs knows them, and where to go when they fail."""

import os
from collections.abc import Mapping
from pathlib import Path

import platformdirs

from datacat.errors import HostError

APP = "datacat"
_SHARED_ROOTS = ("/var/tmp", "/dev/shm", "/tmp")  # noqa: S108  the name below them is the user's own and its owner is checked


def state_dir() -> Path:
    """Return the user's folder for journals; it need not exist. XDG_STATE_HOME moves it where XDG is used.

    Raises: HostError when the user has no home.
    """
    try:
        return Path(platformdirs.user_state_dir(APP, appauthor=False))
    except RuntimeError as error:
        raise HostError(f"no folder for journals: {error}", hint="set XDG_STATE_HOME") from error


def state_dirs(roots: tuple[str, ...] = _SHARED_ROOTS) -> list[Path]:
    """Return state_dir() and the folders to try after it, best first; a user without a home has only the latter.

    Those in roots are shared with other users: whoever uses one must check that he owns it.
    """
    try:
        own = state_dir()
        folders = [own] if own.is_absolute() else []
    except HostError:
        folders = []
    if hasattr(os, "getuid"):
        return [*folders, *(Path(root) / f"{APP}-{os.getuid()}" for root in roots if Path(root).is_dir())]
    import tempfile  # 4 ms, for Windows only

    return [*folders, Path(tempfile.gettempdir()) / APP]  # the user's own folder there


def data_dir(environ: Mapping[str, str] | None = None) -> Path:
    """Return the server's data folder: systemd's STATE_DIRECTORY (its first entry), else one in the user's data.

    Raises: HostError when the user has no home.
    """
    given = (os.environ if environ is None else environ).get("STATE_DIRECTORY", "")
    if given:
        return Path(given.split(":")[0] if os.sep == "/" else given)
    # On macOS and Windows user data and user state are one folder: the server has its own inside.
    try:
        return Path(platformdirs.user_data_dir(APP, appauthor=False)) / "server"
    except RuntimeError as error:
        raise HostError(f"no folder for data: {error}", hint="name one with --data-dir") from error
