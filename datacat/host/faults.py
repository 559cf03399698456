"""Crash points: the steps of the protocol at which a kill must cost nothing. DATACAT_FAULT=crash:POINT kills there.

For tests alone; it is no setting and no promise. crash:POINT:N kills at the N-th time that the point is passed;
crash:POINT:N:FILE only while FILE exists, and removes it first: so one process dies of those that inherit the variable.
"""

import os
import signal
from functools import cache
from pathlib import Path

VARIABLE = "DATACAT_FAULT"
POINTS = (
    # What a daemon does.
    "batch.cut",  # records are folded, nothing was sent
    "batch.answered",  # the server has them, the cursor has not moved
    "cursor.moved",  # the file `daemon` does not know it yet
    "shipper.told",
    "stand_in.decided",  # a new stream is to stand in, nobody else knows
    "stand_in.saved",
    "quarantine.written",  # a refused record is kept, its stand-in was not sent
    "trim.saved",  # the checkpoint moved, the segments are still there
    "squeeze.written",  # a segment is there twice
    "verdict.judged",  # the process is gone, the verdict was not written
    "verdict.written",
    "session.made",  # a local client's session has a folder and no record
    "record.kept",  # a local client's record is written, and was not answered
    "session.retired",  # the summary is written, the rest not removed
    # What a server does.
    "ingest.read",  # a batch came, nothing was stored
    "store.written",  # it is in the file, not on the disk, and nobody sees it
    "store.synced",  # it is on the disk, nobody sees it
    "ingest.stored",  # it is stored and was not answered
)
"""Every point that the code names, in the order of its steps."""

_passed: dict[str, int] = {}


@cache
def _asked() -> str:
    """Return what the environment asked for when the first point was passed: batches pass four of them."""
    return os.environ.get(VARIABLE, "")


def at(point: str) -> None:
    """Die here, as by kill -9, when the environment asks for it."""
    asked = _asked()
    if not asked.startswith("crash:"):
        return
    _, wanted, times, once = [*asked.split(":", 3), "", ""][:4]
    if wanted != point:
        return
    _passed[point] = _passed.get(point, 0) + 1
    if _passed[point] >= int(times or 1):
        if once:
            try:
                Path(once).unlink()
            except FileNotFoundError:
                return
        os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
