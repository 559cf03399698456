"""The server's recurring work: judge silent sessions, delete old ones, free disk space. Step functions and their table.

A step returns whether there is more to do right now.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Mapping
from typing import NamedTuple

import msgspec

from datacat.errors import Deleted, NotFound
from datacat.server import judge, retention
from datacat.server.config import Config, Live
from datacat.server.judge import Heard, Limits
from datacat.server.leases import Contacts, Leases
from datacat.server.own import OwnStream, line_of
from datacat.server.retention import Policy
from datacat.store import Head, RecordQuery, Store
from datacat.store.ledger import Stream
from datacat.store.plain import JUDGED_EVENTS
from datacat.wire.records import APP_KINDS, Closing, Record
from datacat.wire.routes import OPEN_STATUSES

_US = 1_000_000

RETAIN_INTERVAL_S = 600.0
TEND_INTERVAL_S = 60.0
TEND_BUDGET_S = 0.2
"""How long compaction may keep the disk busy at a time."""
MISSED_SWEEPS = 4
"""Sweeps that are so many intervals late mean that this machine slept: nobody could be heard meanwhile."""


class Job(NamedTuple):
    """One row of the table: step is called with the time in Unix us."""

    name: str
    interval_s: float
    step: Callable[[int], bool]


def jobs(own: OwnStream, leases: Leases, live: Live, now_us: int, deleted: Counter[str]) -> list[Job]:
    """Return the table of recurring work; deleted counts what retention deletes."""
    sweep = Sweep(own, leases, live, now_us)
    return [
        Job("sweep", live.now.sweep_interval_s, sweep.step),
        Job("retain", RETAIN_INTERVAL_S, lambda now: retain(own.store, now, live.now, deleted)),
        Job("tend", TEND_INTERVAL_S, lambda now: tend(own.store, now)),
    ]


class Sweep:
    """Judges every open session. One thread; remembers when it saw each session's newest heartbeat.

    Heartbeats carry the time of the app's machine, whose clock may be wrong: what is measured is how long ago, on our
    clock, the newest one changed.
    """

    def __init__(self, own: OwnStream, leases: Leases, live: Live, now_us: int) -> None:
        self._own = own
        self._leases = leases
        self._live = live
        self._limits = _limits(live.now)
        self._late_us = round(live.now.sweep_interval_s * MISSED_SWEEPS * _US) + 10 * _US
        self._last_us = now_us
        self._listening_since = now_us
        self._beats: dict[str, tuple[int, int]] = {}
        self._closings: dict[str, tuple[Mapping[str, Stream], Closing | None]] = {}

    def step(self, now_us: int) -> bool:
        """Judge every open session once."""
        self._limits = _limits(self._live.now)
        if not 0 <= now_us - self._last_us <= self._late_us:
            self._listening_since = now_us
            self._beats = {session_id: (beat, now_us) for session_id, (beat, _) in self._beats.items()}
        self._last_us = now_us
        contacts = self._leases.contacts()
        heads = self._own.store.open_heads()
        for head in heads:
            with contextlib.suppress(NotFound, Deleted):  # deleted while we look
                self._judge(head, contacts, now_us)
        open_ids = {head.id for head in heads}
        self._beats = {session_id: beat for session_id, beat in self._beats.items() if session_id in open_ids}
        self._closings = {session_id: told for session_id, told in self._closings.items() if session_id in open_ids}
        return False

    def _judge(self, head: Head, contacts: Contacts, now_us: int) -> None:
        beat_us = self._beat(head, now_us)
        if not self._decide(head, contacts, beat_us, now_us):
            return
        with self._own.lock(head.id):
            # What was decided without the lock may be outdated: a request may have come in between.
            head = self._own.store.head(head.id)
            records = self._decide(head, contacts, self._beat(head, now_us), now_us)
            if records and head.status in OPEN_STATUSES:
                # The server's own word is no sign of life of the session.
                self._own.write(head.id, map(line_of, records), received_us=head.last_seen)

    def _decide(self, head: Head, contacts: Contacts, beat_us: int | None, now_us: int) -> list[Record]:
        seen = contacts.seen(head)
        rebooted = contacts.rebooted(head, now_us, self._limits.lease_us)
        away = self._leases.away(head.daemon_id)
        heard = Heard(seen, max(seen, self._listening_since), beat_us, rebooted, away)
        return judge.judge(head, heard, now_us, self._limits, lambda: self._closing(head))

    def _closing(self, head: Head) -> Closing | None:
        """Return last_closing(), read once: a silent session is judged every few seconds, and may be a long one."""
        known = self._closings.get(head.id)
        if known is None or known[0] != head.streams:
            known = self._closings[head.id] = (head.streams, last_closing(self._own.store, head.id))
        return known[1]

    def _beat(self, head: Head, now_us: int) -> int | None:
        """Return when, on our clock, the newest heartbeat was first seen; None when there never was one."""
        if not head.last_heartbeat:
            return None
        known = self._beats.get(head.id)
        if known is None or known[0] != head.last_heartbeat:
            known = self._beats[head.id] = (head.last_heartbeat, now_us)
        return known[1]


def _limits(config: Config) -> Limits:
    return Limits(
        round(config.heartbeat_timeout_s * _US),
        round(config.contact_timeout_s * _US),
        round(config.lease_s * _US),
        round(config.lost_after_s * _US),
    )


def last_closing(store: Store, session_id: str) -> Closing | None:
    """Return the app's closing record when it is the last that the app wrote. Raises: NotFound, Deleted."""
    for row in store.records(session_id, RecordQuery(kinds=APP_KINDS, newest_first=True)):
        if row.record["k"] == "event" and row.record.get("name") in JUDGED_EVENTS:
            continue  # a judge wrote it, not the app
        return msgspec.convert(row.record, Closing) if row.record["k"] == "closing" else None
    return None


def retain(store: Store, now_us: int, config: Config, deleted: Counter[str]) -> bool:
    """Delete some of the sessions that ended long ago, or that there is no room for; never an open one."""
    policy = Policy(config.retention_days, config.retention, config.max_store_bytes)
    return retention.step(store, now_us, policy, deleted)


def tend(store: Store, now_us: int) -> bool:  # noqa: ARG001  a job's step takes the time
    """Let the store free some disk space."""
    return store.tend(TEND_BUDGET_S)
