"""Which daemons are connected: what they said about themselves and when they were last heard of. In memory only.

What has to outlive the server stands in the sessions' heads (daemon_id, machine_id, boot_id, last_seen); after a
restart daemons are known again as soon as they send anything.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

from datacat.store import Head
from datacat.wire.times import rfc3339

FORGET_US = 24 * 3600 * 1_000_000
"""A daemon that was not heard of for so long is not listed any more."""
_STANDING = ("sent_at", "spool_bytes")
MAX_DAEMONS = 20_000
"""More cannot be real; the oldest are forgotten."""


GAP_US = 45 * 1_000_000
"""A daemon is heard of every 30 s; a longer silence is told when it is over."""


class Away(NamedTuple):
    """A silence of a daemon that is over, in us of our clock; of it the machine slept for slept_s (None: unknown)."""

    since: int
    until: int
    slept_s: float | None

    @property
    def cause(self) -> str | None:
        """Whether the machine slept or the network was away; None: that cannot be told."""
        if self.slept_s is None:
            return None
        return "slept" if self.slept_s * 2_000_000 >= self.until - self.since else "network away"


@dataclass
class Lease:
    """One daemon; times in us of the server's clock. told is what it said about itself.

    asleep_s is how long its machine had slept since its boot when that was last heard, away its newest silence.
    skew_us: how far its clock is ahead of ours, less the way here; None when it did not say what time it has.
    """

    id: str
    since: int
    last: int
    told: dict[str, Any] = field(default_factory=dict)
    asleep_s: float | None = None
    away: Away | None = None
    sessions: frozenset[str] = frozenset()
    skew_us: int | None = None
    spool_bytes: int | None = None

    def stand(self, told: Mapping[str, int], now_us: int) -> None:
        """Take note of its clock and of what waits in its spool."""
        if "sent_at" in told:
            self.skew_us = told["sent_at"] - now_us
        self.spool_bytes = told.get("spool_bytes", self.spool_bytes)


class Contacts(NamedTuple):
    """The leases at one moment, indexed: when each daemon and each session in a daemon's list was last heard of."""

    by_daemon: dict[str, int]
    by_session: dict[str, int]
    machines: dict[str, list[Lease]]

    def seen(self, head: Head) -> int:
        """Return when the session or its daemon was last heard of."""
        return max(head.last_seen, self.by_session.get(head.id, 0), self.by_daemon.get(head.daemon_id or "", 0))

    def rebooted(self, head: Head, now_us: int, grace_us: int) -> bool:
        """Whether the session's machine is back after a reboot and no daemon has taken the session over in time."""
        if not head.machine_id or not head.boot_id or head.daemon_id is None:
            return False
        return any(
            lease.told.get("boot_id") not in (None, head.boot_id)
            and lease.since > self.seen(head)
            and now_us - lease.since > grace_us
            for lease in self.machines.get(head.machine_id, ())
        )


class Leases:
    """Who is connected. Any thread, behind its own lock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._leases: dict[str, Lease] = {}

    def register(self, told: dict[str, Any], now_us: int) -> None:
        """Take note of a daemon that introduces itself; told has id and what else it said."""
        about = {name: value for name, value in told.items() if name not in ("id", "sessions", *_STANDING)}
        with self._lock:
            known = self._leases.pop(told["id"], None)
            asleep_s = about.pop("asleep_s", None)
            lease = known or Lease(told["id"], now_us, now_us)
            _heard(lease, now_us, asleep_s)
            lease.told = about
            lease.sessions = frozenset(told.get("sessions") or lease.sessions)
            lease.stand(told, now_us)
            self._leases[lease.id] = lease
            self._forget(now_us)

    def renew(
        self,
        daemon_id: str,
        now_us: int,
        sessions: Sequence[str] | None = None,
        standing: Mapping[str, int] = MappingProxyType({}),
        *,
        asleep_s: float | None = None,
    ) -> Away | None:
        """Take note that a daemon was heard of, also one that is not known (the server was restarted).

        Return its newest silence that is over; None when there was none.
        """
        with self._lock:
            lease = self._leases.pop(daemon_id, None) or Lease(daemon_id, now_us, now_us)
            _heard(lease, now_us, asleep_s)
            if sessions is not None:
                lease.sessions = frozenset(sessions)
            lease.stand(standing, now_us)
            self._leases[daemon_id] = lease  # at the end: the dict is in the order of the last contact
            self._forget(now_us)
            return lease.away

    def away(self, daemon_id: str | None) -> Away | None:
        """Return the newest silence of a daemon; None when there was none."""
        with self._lock:
            lease = self._leases.get(daemon_id or "")
            return lease.away if lease else None

    def contacts(self) -> Contacts:
        """Return the leases of this moment for the sweep."""
        found = Contacts({}, {}, {})
        with self._lock:
            for lease in self._leases.values():
                found.by_daemon[lease.id] = lease.last
                if machine := lease.told.get("machine_id"):
                    found.machines.setdefault(machine, []).append(lease)
                for session_id in lease.sessions:
                    found.by_session[session_id] = max(found.by_session.get(session_id, 0), lease.last)
        return found

    def connected(self, now_us: int, lease_s: float) -> int:
        """Return how many daemons have a lease."""
        with self._lock:
            return sum(now_us - lease.last <= lease_s * 1_000_000 for lease in self._leases.values())

    def rows(self, now_us: int, lease_s: float) -> list[dict[str, Any]]:
        """Return the daemons for the API, the last heard of first."""
        with self._lock:
            return [
                {
                    "id": lease.id,
                    **{
                        name: lease.told.get(name)
                        for name in ("hostname", "machine_id", "boot_id", "pid", "version", "platform")
                    },
                    "sessions": sorted(lease.sessions),
                    "since": rfc3339(lease.since),
                    "last_seen": rfc3339(lease.last),
                    "connected": now_us - lease.last <= lease_s * 1_000_000,
                    "lease_s": lease_s,
                    "clock_skew_s": None if lease.skew_us is None else lease.skew_us / 1_000_000,
                    "spool_bytes": lease.spool_bytes,
                }
                for lease in reversed(self._leases.values())
            ]

    def _forget(self, now_us: int) -> None:
        while self._leases:
            oldest = next(iter(self._leases.values()))
            if now_us - oldest.last <= FORGET_US and len(self._leases) <= MAX_DAEMONS:
                return
            del self._leases[oldest.id]


def _heard(lease: Lease, now_us: int, asleep_s: float | None) -> None:
    """Note that a daemon was heard of, and what its silence was when that was a long one."""
    if now_us - lease.last > GAP_US:
        slept_s = None
        if asleep_s is not None and lease.asleep_s is not None:
            slept_s = max(0.0, asleep_s - lease.asleep_s)
        lease.away = Away(lease.last, now_us, slept_s)
    lease.last = now_us
    if asleep_s is not None:
        lease.asleep_s = asleep_s
