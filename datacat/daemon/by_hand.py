"""Ship one session of the spool from the command line, as a daemon that starts would: lock, verdict, delivery, end."""

import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from datacat import host
from datacat.daemon import spool
from datacat.daemon.config import Config
from datacat.daemon.delivery import Delivery
from datacat.daemon.inventory import Item
from datacat.daemon.scout import take_on
from datacat.daemon.uplink import Uplink
from datacat.errors import JournalError, UplinkError
from datacat.wire import layout
from datacat.wire.layout import Meta


class Outcome(NamedTuple):
    """What became of it: shipped, partly (nothing is lost), served (by a daemon that lives), deleted, or failed."""

    word: str
    detail: str = ""


def ship(item: Item, config: Config, uplink: Callable[[Meta], Uplink]) -> Outcome:
    """Ship what there is of a session. One whose process is gone gets its verdict, one that lives stays open."""
    found = spool.Found(item.folder, item.meta)
    orphan = item.meta.pid > 0 and spool.is_orphan(found, host.boot_id(), host.pid_namespace(), time.time())
    served = take_on(found, config, orphan=orphan, daemon_id=(daemon_id := str(uuid.uuid4())))
    if served is None:
        return Outcome("served", f"by process {item.served}" if item.served > 0 else "")
    link = uplink(item.meta)
    try:
        if orphan:
            served.conclude(time.time_ns() // 1000, None, boot_id=host.boot_id())
            served.refresh()
        delivery = Delivery(item.folder, item.meta, link, daemon_id=daemon_id, max_records=config.max_batch_size)
        delivery.last = served.ended
        before = delivery.unacked_bytes()
        delivery.ship()
        served.acked, served.boot = delivery.acked(), link.boot
        served.tell(0, "")
        if delivery.deleted:
            spool.remove(item.folder)
            return Outcome("deleted", "the server does not want it any more")
        if delivery.unacked_bytes():
            return Outcome("partly")
        if served.ended:
            spool.retire(item.folder, item.meta)
        return Outcome("shipped", "" if before else "the server had everything")
    except (UplinkError, JournalError) as error:
        return Outcome("failed", str(error))
    finally:
        link.close()
        served.release()


def drop(folder: Path) -> None:
    """Remove a session for good. Raises: Busy when a daemon serves it."""
    lock = host.lock(folder / layout.LOCK_FILE)
    spool.remove(folder)
    lock.release()
