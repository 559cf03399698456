"""Which sessions of the spool a daemon has to take on, and taking them: lock and journal. The main thread's."""

import logging
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from pathlib import Path

from datacat import host
from datacat.daemon import spool
from datacat.daemon.config import Config, adjusted
from datacat.daemon.notes import opening
from datacat.daemon.served import Served
from datacat.errors import HostError, JournalError
from datacat.host.process import Target
from datacat.wire import layout

_log = logging.getLogger(__name__)


class Scout:
    """Looks through a spool for the sessions of one owner, and for orphans when it is asked to."""

    def __init__(self, folder: Path, owner: Target | None, boot_id: str) -> None:
        self._folder = folder
        self._owner = owner
        self._boot_id = boot_id
        self._pid_namespace = host.pid_namespace()
        self._others: set[str] = set()  # sessions that are not ours, as of the last look at all

    def look(self, served: AbstractSet[str], now_unix_s: float, *, orphans: bool) -> Iterator[tuple[spool.Found, str]]:
        """Yield what may be taken on and whose it is: own, orphan, http. served are the sessions that are known."""
        if orphans:
            self._others.clear()
        for found in spool.sessions(self._folder, served | self._others):
            whose = spool.whose(found, self._owner, self._boot_id, self._pid_namespace, now_unix_s)
            if whose == "own" or (whose and orphans):
                yield found, whose
            if found.meta.id not in served:
                self._others.add(found.meta.id)


def take_on(found: spool.Found, config: Config, *, orphan: bool, daemon_id: str = "") -> Served | None:
    """Lock a session and read its journal; None when somebody else has it, or it cannot be read."""
    try:
        lock = host.lock(found.folder / layout.LOCK_FILE)
    except HostError:
        return None
    try:
        served = Served(found.folder, found.meta, adjusted(config, found.meta.settings), lock, orphan=orphan)
        if found.meta.source == "http" and not served.facts.opened:  # its daemon died just when it was made
            served.write(opening(found.meta, daemon_id))
        return served
    except JournalError as error:
        _log.warning("session %s cannot be read: %s", found.meta.id, error)
        lock.release()
        return None
