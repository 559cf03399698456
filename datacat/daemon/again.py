"""Sessions that are done, for a server that was restored from a backup: it gets again what it lacks.

What the server had acknowledged is kept for a day. The file `daemon` of a session says under which boot of the server
that was; only when the server has another boot now it is asked. Owned by the uplink's thread.
"""

import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from datacat import host
from datacat.daemon.delivery import Delivery
from datacat.daemon.streams import read_whole, write_whole
from datacat.daemon.uplink import Uplink
from datacat.errors import HostError, JournalError
from datacat.wire import layout
from datacat.wire.layout import Meta, Shipper

_log = logging.getLogger(__name__)

MakeDelivery = Callable[[Path, Meta], Delivery]


LOOK_INTERVAL_S = 60.0
"""A session may have become done after its server was restored, and its own daemon have noticed nothing."""


class Again:
    """Look at the sessions of a spool that are done: when a server has another boot, and every minute."""

    def __init__(self, spool: Path, make_delivery: MakeDelivery, clock: Callable[[], float] = time.monotonic) -> None:
        self._spool = spool
        self._make_delivery = make_delivery
        self._clock = clock
        self._due_s = 0.0
        self._boots: dict[str, str] = {}
        self._waiting: list[tuple[Path, Meta]] = []

    def step(self, uplinks: Iterable[Uplink]) -> bool:
        """Look at one session; True when there is more to do. Raises: UplinkError when the server does not answer."""
        boots = {uplink.url: uplink.boot for uplink in uplinks if uplink.boot}
        if boots != self._boots or (boots and self._clock() >= self._due_s):
            self._boots = boots
            self._due_s = self._clock() + LOOK_INTERVAL_S
            self._waiting = list(done(self._spool))
        if not self._waiting:
            return False
        folder, meta = self._waiting.pop()
        try:
            self._look(folder, meta)
        except (JournalError, HostError) as error:
            _log.info("session %s is not sent again: %s", meta.id, error)
        return bool(self._waiting)

    def _look(self, folder: Path, meta: Meta) -> None:
        shipper = shipper_of(folder)
        delivery = self._make_delivery(folder, meta)
        boot = self._boots.get(delivery.uplink.url)
        if not boot or shipper is None or shipper.boot == boot:
            return
        with host.lock(folder / layout.LOCK_FILE):
            delivery.last = True
            delivery.ship()
            shipper.boot = boot
            write_whole(folder / layout.SHIPPER_FILE, msgspec.json.encode(shipper))


def done(spool: Path) -> Iterable[tuple[Path, Meta]]:
    """Yield the sessions that are done and whose streams are still there."""
    for summary in spool.glob(f"*/{layout.SUMMARY_FILE}"):
        folder = summary.parent
        try:
            meta = msgspec.json.decode(read_whole(folder / layout.META_FILE), type=Meta)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
        if meta.id == folder.name:
            yield folder, meta


def shipper_of(folder: Path) -> Shipper | None:
    """Return what the last daemon wrote about a session; None when there is nothing to read."""
    try:
        return msgspec.json.decode(read_whole(folder / layout.SHIPPER_FILE), type=Shipper)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
