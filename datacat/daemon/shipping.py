"""The uplink's thread: every session's delivery, a registration and lease per server; talks to the loop by queue."""

import logging
import os
import queue
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from datacat import __version__, host
from datacat.daemon.again import Again
from datacat.daemon.delivery import Delivery
from datacat.daemon.uplink import Uplink
from datacat.errors import JournalError, UplinkError
from datacat.wire import routes
from datacat.wire.layout import Meta

_log = logging.getLogger(__name__)

LEASE_S = 60.0
"""Until the server says its own."""


def identity(daemon_id: str) -> dict[str, Any]:
    """Return who this daemon is, as its registration tells."""
    return {
        "id": daemon_id,
        "hostname": host.hostname(),
        "machine_id": host.machine_id(),
        "boot_id": host.boot_id(),
        "pid": os.getpid(),
        "version": __version__,
        "platform": host.platform(),
    }


class Serve(NamedTuple):
    """Ship this session from now on."""

    folder: Path
    meta: Meta
    last: bool


class Forget(NamedTuple):
    """Do not look at this session any more; its folder may go."""

    session_id: str


class Hurry(NamedTuple):
    """Ship what there is. ticket comes back in the report of a pass that began after this order.

    last says that a session will write no more; at_once tries a server that has just failed too.
    """

    session_id: str
    ticket: int
    last: bool
    at_once: bool


class Report(NamedTuple):
    """After a pass over one session: what is acknowledged; done when that is everything; deleted by the server.

    ticket is that of the last order before the pass. reached says whether the server took what there was,
    boot which start of the server that was.
    """

    session_id: str
    ticket: int
    acked: dict[str, int]
    unacked_bytes: int
    done: bool
    deleted: bool
    reached: bool
    boot: str


class Shipping:
    """Own all deliveries. work() runs in one thread; put() and the report callback are the only contacts."""

    def __init__(
        self,
        spool: Path,
        identity: dict[str, Any],
        make_uplink: Callable[[Meta], Uplink],
        report: Callable[[Report], None],
        *,
        max_records: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._identity = identity
        self._make_uplink = make_uplink
        self._report = report
        self._max_records = max_records
        self._clock = clock
        self._inbox: queue.SimpleQueue[Serve | Forget | Hurry] = queue.SimpleQueue()
        self._uplinks: dict[str, Uplink] = {}
        self._again = Again(spool, self._delivery)
        self._leases: dict[str, float] = {}
        self._leased_at: dict[str, float] = {}
        self._deliveries: dict[str, Delivery] = {}
        self._tickets: dict[str, int] = {}

    def put(self, message: Serve | Forget | Hurry) -> None:
        """Give an order; any thread. The caller pokes the worker."""
        self._inbox.put(message)

    def work(self) -> bool:
        """Follow orders, ship what there is, report, renew leases. False: nothing more to do right now."""
        while not self._inbox.empty():
            self._follow(self._inbox.get())
        for delivery in list(self._deliveries.values()):
            self._report(self._ship(delivery))
            if not self._inbox.empty():
                return True  # an ending session does not wait for the others
        for uplink in self._uplinks.values():
            self._renew(uplink)
        try:
            return self._again.step(self._uplinks.values())
        except UplinkError as error:
            _log.info("done sessions are not compared now: %s", error)
            return False

    def close(self) -> None:
        """Close the connections; after the thread has ended."""
        for uplink in self._uplinks.values():
            uplink.close()

    def _follow(self, order: Serve | Forget | Hurry) -> None:
        if isinstance(order, Serve):
            delivery = self._delivery(order.folder, order.meta)
            delivery.last = order.last
            self._deliveries[order.meta.id] = delivery
        elif isinstance(order, Forget):
            self._deliveries.pop(order.session_id, None)
            self._tickets.pop(order.session_id, None)
        elif (known := self._deliveries.get(order.session_id)) is not None:
            known.last = known.last or order.last
            self._tickets[order.session_id] = order.ticket
            if order.at_once:
                known.uplink.backoff.next_s = known.backoff.next_s = 0.0

    def _delivery(self, folder: Path, meta: Meta) -> Delivery:
        probe = self._make_uplink(meta)
        uplink = self._uplinks.setdefault(probe.url, probe)
        return Delivery(folder, meta, uplink, daemon_id=self._identity["id"], max_records=self._max_records)

    def _ship(self, delivery: Delivery) -> Report:
        uplink, now = delivery.uplink, self._clock()
        reached = False
        try:
            if uplink.backoff.ready(now) and delivery.backoff.ready(now):
                self._register(uplink)
                delivery.ship()
                uplink.backoff.worked()
                delivery.backoff.worked()
                reached = True
        except UplinkError as error:
            # What this session alone gets wrong must not hold up the others.
            own = error.permanent and error.status not in (401, 403)
            (delivery if own else uplink).backoff.failed(self._clock(), error.retry_after_s)
            log = _log.warning if error.permanent else _log.info
            log("session %s is not shipped: %s", delivery.meta.id, error)
        except JournalError as error:
            delivery.backoff.failed(self._clock())
            _log.warning("session %s is not shipped: %s", delivery.meta.id, error)
        try:
            delivery.trim()
            acked, unacked = delivery.acked(), delivery.unacked_bytes()
        except JournalError as error:
            _log.warning("session %s cannot be read: %s", delivery.meta.id, error)
            acked, unacked = {}, 1
        name = delivery.meta.id
        done = delivery.deleted or (delivery.asked and unacked == 0)
        return Report(name, self._tickets.get(name, 0), acked, unacked, done, delivery.deleted, reached, uplink.boot)

    def _register(self, uplink: Uplink) -> None:
        """Tell a server who we are, once; one that has no such endpoint is told nothing. Raises: UplinkError."""
        if uplink.url not in self._leases:
            self._lease(uplink, routes.DAEMONS, {**self._identity, "sessions": self._sessions(uplink)})

    def _renew(self, uplink: Uplink) -> None:
        lease_s = self._leases.get(uplink.url)
        now = self._clock()
        if not lease_s or not uplink.backoff.ready(now):
            return
        if now - max(self._leased_at.get(uplink.url, 0.0), uplink.sent_at_s) < lease_s / 3:
            return
        try:
            path = f"{routes.DAEMONS}/{self._identity['id']}/heartbeat"
            self._lease(uplink, path, {"sessions": self._sessions(uplink)})
        except UplinkError as error:
            uplink.backoff.failed(self._clock(), error.retry_after_s)
            _log.info("lease is not renewed: %s", error)

    def _lease(self, uplink: Uplink, path: str, members: dict[str, Any]) -> None:
        try:
            answer = uplink.post(path, members)
        except UplinkError as error:
            if not error.permanent or error.status in (401, 403):
                raise
            # Unknown to the server: it forgot us (register again), or has no such endpoint (then never mind).
            self._leases.pop(uplink.url, None)
            if path == routes.DAEMONS:
                self._leases[uplink.url] = 0.0
            return
        lease_s = answer.get("lease_s")
        self._leases[uplink.url] = float(lease_s) if isinstance(lease_s, (int, float)) and lease_s > 0 else LEASE_S
        self._leased_at[uplink.url] = self._clock()

    def _sessions(self, uplink: Uplink) -> list[str]:
        return [name for name, delivery in self._deliveries.items() if delivery.uplink is uplink]
