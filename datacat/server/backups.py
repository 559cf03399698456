"""The scheduled backup: a job that copies the data folder to backup_dir now and then, and keeps the newest copies."""

import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from datacat import __version__
from datacat.errors import StoreError
from datacat.server.config import Live
from datacat.store import backup
from datacat.store.survey import Step
from datacat.wire.times import rfc3339, to_us

_log = logging.getLogger(__name__)

INTERVAL_S = 60.0
"""How often it is looked whether a backup is due."""
RETRY_US = 3600 * 1_000_000
"""So long after a backup that failed the next one is tried."""
STEP_S = 1.0
"""How long a step of the job may copy; the watchdog wants each to end."""
_NAME = re.compile(r"datacat-(\d{4}-\d\d-\d\d)T(\d\d)-(\d\d)-(\d\d)Z", re.ASCII)
_PARTIAL = re.compile(rf"{_NAME.pattern}-[0-9a-f]{{8}}{re.escape(backup.PARTIAL_SUFFIX)}", re.ASCII)
_HOUR_US = 3600 * 1_000_000


class Backups:
    """The job; one thread. root is the store's folder, None when there is none to copy."""

    def __init__(self, root: Path | None, data_dir: Path | None, live: Live, clock: Callable[[], float]) -> None:
        self._root = root
        self._data_dir = data_dir
        self._live = live
        self._clock = clock
        self._running: Iterator[Step] | None = None
        self._target = Path()
        self._failed_us: int | None = None

    def step(self, now_us: int) -> bool:
        """Go on with a backup, or begin one when it is due; return whether there is more to do right now."""
        if self._root is None or not self._live.now.backup_dir:
            return False
        folder = Path(self._live.now.backup_dir).expanduser()
        try:
            if self._running is None and not self._begin(folder, now_us):
                return False
            return self._go_on(folder)
        except (StoreError, OSError) as error:
            self._running, self._failed_us = None, now_us
            _log.error("the backup failed and is tried again in an hour: %s", error)
            return False

    def close(self) -> None:
        """Give up a backup that is under way, and remove what was copied."""
        running, self._running = self._running, None
        if running is not None:
            running.close()  # type: ignore[attr-defined]  # a generator

    def _begin(self, folder: Path, now_us: int) -> bool:
        due_us = round(self._live.now.backup_interval_h * _HOUR_US)
        if self._failed_us is not None and 0 <= now_us - self._failed_us < RETRY_US:
            return False
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        made = made_in(folder)
        if made and now_us - made[-1][0] < due_us:
            return False
        for path in folder.iterdir():
            if _PARTIAL.fullmatch(path.name):
                shutil.rmtree(path, ignore_errors=True)  # of a server that was killed
        assert self._root is not None
        others = backup.files_beside(self._data_dir) if self._data_dir else []
        self._target = folder / f"datacat-{rfc3339(now_us)[:19].replace(':', '-')}Z"
        self._running = backup.back_up(self._root, others, self._target, now_us, __version__)
        return True

    def _go_on(self, folder: Path) -> bool:
        assert self._running is not None
        deadline = self._clock() + STEP_S
        for _ in self._running:
            if self._clock() >= deadline:
                return True
        self._running, self._failed_us = None, None
        _log.info("a backup was made and verified: %s", self._target)
        for _, path in made_in(folder)[: -self._live.now.backup_keep]:
            # A kill in the middle must not leave half of it under its name.
            going = path.with_name(f"{path.name}-{os.urandom(4).hex()}{backup.PARTIAL_SUFFIX}")
            path.rename(going)
            shutil.rmtree(going, ignore_errors=True)
        return False


def made_in(folder: Path) -> list[tuple[int, Path]]:
    """Return (Unix us, path) of the scheduled backups in a folder, oldest first. Raises: OSError."""
    found = []
    for path in folder.iterdir():
        name = _NAME.fullmatch(path.name)
        if name is not None and (path / backup.MANIFEST).is_file():
            found.append((to_us(f"{name[1]}T{name[2]}:{name[3]}:{name[4]}Z"), path))
    return sorted(found)
