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
from datacat.daemon.cap import Cap
from datacat.daemon.delivery import Delivery
from datacat.daemon.uplink import REFUSED, Uplink
from datacat.errors import DatacatError, JournalError, UplinkError
from datacat.wire import routes
from datacat.wire.layout import Meta

_log = logging.getLogger(__name__)

LEASE_S = 60.0
"""Until the server says its own."""
UPKEEP_S = 30.0
"""Heartbeats and process metrics alone wait so long for company: an idle session costs one request in that time."""
CAP_INTERVAL_S = 10.0
UNAUTHORIZED = 401


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

    last says that a session will write no more; at_once tries a server that has just failed too, unless that asked for
    time; upkeep says that there is nothing new but heartbeats and process metrics.
    """

    session_id: str
    ticket: int
    last: bool
    at_once: bool
    upkeep: bool = False


class Report(NamedTuple):
    """After a pass over one session: what is acknowledged; done when that is everything; deleted by the server.

    ticket is that of the last order before the pass. reached says whether the server took what there was,
    boot which start of the server that was, trouble why the server took nothing (empty: it did), and given_up what went
    because the spool was full, by reason.
    """

    session_id: str
    ticket: int
    acked: dict[str, int]
    unacked_bytes: int
    done: bool
    deleted: bool
    reached: bool
    boot: str
    trouble: str
    given_up: dict[str, int]


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
        max_spool_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._identity = identity
        self._make_uplink = make_uplink
        self._report = report
        self._max_records = max_records
        self._clock = clock
        self._inbox: queue.SimpleQueue[Serve | Forget | Hurry] = queue.SimpleQueue()
        self._uplinks: dict[str, Uplink] = {}
        self._again = Again(spool, self._delivery, clock)
        self._leases: dict[str, float] = {}
        self._leased_at: dict[str, float] = {}
        self._deliveries: dict[str, Delivery] = {}
        self._tickets: dict[str, int] = {}
        self._cap = Cap(spool, max_spool_bytes)
        self._cap_due_s = 0.0
        self._reached: dict[str, bool] = {}
        self._fresh: set[str] = set()
        self._shipped_s: dict[str, float] = {}
        self._said: dict[str, str] = {}

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
        self._keep_cap()
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
            self._fresh.add(order.meta.id)
        elif isinstance(order, Forget):
            for known_by_id in (self._deliveries, self._tickets, self._reached, self._shipped_s, self._said):
                known_by_id.pop(order.session_id, None)
            self._fresh.discard(order.session_id)
        elif (known := self._deliveries.get(order.session_id)) is not None:
            known.last = known.last or order.last
            self._tickets[order.session_id] = order.ticket
            if not order.upkeep or known.last:
                self._fresh.add(order.session_id)
            if order.at_once:
                known.uplink.backoff.hurry()
                known.backoff.hurry()

    def _delivery(self, folder: Path, meta: Meta) -> Delivery:
        probe = self._make_uplink(meta)
        uplink = self._uplinks.setdefault(probe.url, probe)
        return Delivery(folder, meta, uplink, daemon_id=self._identity["id"], max_records=self._max_records)

    def _ship(self, delivery: Delivery) -> Report:
        uplink, now, name = delivery.uplink, self._clock(), delivery.meta.id
        waits = name not in self._fresh and now - self._shipped_s.get(name, 0.0) < UPKEEP_S
        if not waits:
            self._reached[name] = False
        batches = uplink.batches
        try:
            if not waits and uplink.backoff.ready(now) and delivery.backoff.ready(now):
                self._register(uplink)
                delivery.ship()
                uplink.backoff.worked()
                delivery.backoff.worked()
                self._worked(delivery)
        except UplinkError as error:
            # What this session alone gets wrong must not hold up the others.
            refused = error.status in REFUSED
            own = error.permanent and error.status != UNAUTHORIZED  # a key may be for other products
            (delivery if own else uplink).backoff.failed(self._clock(), error.retry_after_s, refused=refused)
            self._say(name if own else uplink.url, error, loud=error.permanent or bool(error.hint))
        except JournalError as error:
            delivery.backoff.failed(self._clock())
            self._say(name, error, loud=True)
        if uplink.batches > batches:
            uplink.sent_at_s = now
        try:
            delivery.trim()
            acked, unacked = delivery.acked(), delivery.unacked_bytes()
        except JournalError as error:
            _log.warning("session %s cannot be read: %s", delivery.meta.id, error)
            acked, unacked = {}, 1
        return Report(
            name,
            self._tickets.get(name, 0),
            acked,
            unacked,
            done=delivery.deleted or (delivery.asked and unacked == 0),
            deleted=delivery.deleted,
            reached=self._reached.get(name, False),
            boot=delivery.boot,
            trouble=uplink.trouble or self._said.get(name, ""),
            given_up=dict(delivery.given_up),
        )

    def _worked(self, delivery: Delivery) -> None:
        name = delivery.meta.id
        self._reached[name] = True
        self._fresh.discard(name)
        self._shipped_s[name] = self._clock()
        self._said.pop(name, None)
        if self._said.pop(delivery.uplink.url, None) is not None:
            _log.warning("%s takes records again", delivery.uplink.url)

    def _say(self, about: str, error: DatacatError, *, loud: bool) -> None:
        """Log a trouble once, and again when it becomes another one."""
        text = str(error)
        known, self._said[about] = self._said.get(about), text
        level = (logging.WARNING if loud else logging.INFO) if text != known else logging.DEBUG
        _log.log(level, "%s: nothing is shipped, and nothing is lost: %s", about, text)

    def _keep_cap(self) -> None:
        now = self._clock()
        if now < self._cap_due_s:
            return
        self._cap_due_s = now + CAP_INTERVAL_S
        try:
            if freed := self._cap.enforce(self._deliveries.values()):
                _log.warning("the spool was full: %d bytes of the least useful were given up and counted", freed)
        except (JournalError, OSError) as error:
            _log.warning("the spool cannot be made smaller: %s", error)

    def _register(self, uplink: Uplink) -> None:
        """Tell a server who we are, once; one that has no such endpoint is told nothing. Raises: UplinkError."""
        if uplink.url not in self._leases:
            self._lease(uplink, routes.DAEMONS, {**self._identity, **self._standing(uplink)})

    def _renew(self, uplink: Uplink) -> None:
        lease_s = self._leases.get(uplink.url)
        now = self._clock()
        if not lease_s or not uplink.backoff.ready(now):
            return
        if now - max(self._leased_at.get(uplink.url, 0.0), uplink.sent_at_s) < lease_s / 2:
            return
        try:
            path = f"{routes.DAEMONS}/{self._identity['id']}/heartbeat"
            self._lease(uplink, path, self._standing(uplink))
        except UplinkError as error:
            uplink.backoff.failed(self._clock(), error.retry_after_s, refused=error.status in REFUSED)
            self._say(uplink.url, error, loud=error.permanent or bool(error.hint))

    def _lease(self, uplink: Uplink, path: str, members: dict[str, Any]) -> None:
        try:
            answer = uplink.post(path, {**members, "asleep_s": round(host.asleep_s(), 1)})
        except UplinkError as error:
            if not error.permanent or error.status in REFUSED:
                raise
            # Unknown to the server: it forgot us (register again), or has no such endpoint (then never mind).
            self._leases.pop(uplink.url, None)
            if path == routes.DAEMONS:
                self._leases[uplink.url] = 0.0
            return
        lease_s = answer.get("lease_s")
        self._leases[uplink.url] = float(lease_s) if isinstance(lease_s, (int, float)) and lease_s > 0 else LEASE_S
        self._leased_at[uplink.url] = self._clock()

    def _standing(self, uplink: Uplink) -> dict[str, Any]:
        """Return what a lease is asked with: whose sessions, our clock, how much waits here."""
        mine = {name: delivery for name, delivery in self._deliveries.items() if delivery.uplink is uplink}
        waiting = sum(delivery.unacked_bytes() for delivery in mine.values())
        return {"sessions": list(mine), "sent_at": time.time_ns() // 1000, "spool_bytes": waiting}
