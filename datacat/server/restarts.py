"""Back off when one start after the other fails and the service manager cannot: systemd before version 254.

A start writes down when it began and how many before it ended within a minute; a stop that was asked for takes the note
away. Later systemd backs off itself (RestartSteps=) and tells so by $FDSTORE (systemd.exec(5), since 254); launchd and
the Windows service manager have delays of their own.
"""

import logging
from collections.abc import Mapping
from pathlib import Path

_log = logging.getLogger(__name__)

FILE = "restarts"
STEADY_S = 60.0
"""A server that ran for so long has not failed to start, whatever ended it."""
_FIRST_S, _LONGEST_S, _STEPS = 0.5, 30.0, 6
"""The pauses of packaging/systemd/datacat-server.service: RestartSec, RestartMaxDelaySec, RestartSteps."""


def needed(environ: Mapping[str, str]) -> bool:
    """Return whether a service manager starts the server again and again without any pause that grows."""
    return bool(environ.get("NOTIFY_SOCKET")) and not environ.get("FDSTORE")


def pause_s(failed: int) -> float:
    """Return how long to wait before the next start, after so many in a row that failed."""
    if failed <= 1:  # a single crash costs nothing but the manager's own half second
        return 0.0
    return float(_FIRST_S * (_LONGEST_S / _FIRST_S) ** (min(failed, _STEPS) / _STEPS))


def failed_before(folder: Path, now_s: float) -> int:
    """Return how many starts in a row have failed up to now; 0 when nothing is known. now_s is Unix time."""
    try:
        count, began = (folder / FILE).read_text(encoding="ascii").split()
        # A clock that went back says nothing about how long the last one ran.
        return int(count) if 0 <= now_s - float(began) < STEADY_S else 0
    except (OSError, ValueError):
        return 0


def begin(folder: Path, failed: int, now_s: float) -> None:
    """Write down that a start begins now, so that it counts as failed unless it lasts or end() is called."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / FILE).write_text(f"{failed + 1} {now_s:.3f}\n", encoding="ascii")
    except OSError as error:  # whoever cannot write there says so himself, a moment later
        _log.debug("cannot write %s: %s", folder / FILE, error)


def end(folder: Path) -> None:
    """Forget all failures: the server was asked to stop."""
    try:
        (folder / FILE).unlink(missing_ok=True)
    except OSError as error:
        _log.debug("cannot remove %s: %s", folder / FILE, error)
