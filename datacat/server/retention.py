"""Which ended sessions are deleted: those that are too old, and the oldest when the store is too large."""

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import NamedTuple

from datacat.errors import Deleted, NotFound
from datacat.store import Query, Store

_DAY_US = 24 * 3600 * 1_000_000
OLD_AT_ONCE = 100
"""Sessions deleted in one step, so that a stop does not wait for thousands."""
LARGE_AT_ONCE = 20
"""The same, when the size is looked at after each."""
_FILL = 0.9
"""So full the limit may be with what is alive; the rest is for what is deleted and not yet given back."""


class Policy(NamedTuple):
    """days a session is kept after its end (0: for ever), others by product; the most bytes of the store (0: any)."""

    days: float
    by_product: tuple[tuple[str, float], ...] = ()
    max_bytes: int = 0


def step(store: Store, now_us: int, policy: Policy, deleted: Counter[str]) -> bool:
    """Delete some sessions; return whether there is more to do right now. Never one that is open.

    deleted counts them, by why: age, size.
    """
    old = list(islice(_too_old(store, now_us, policy), OLD_AT_ONCE))
    for session_id in old:
        deleted["age"] += _drop(store, session_id)
    if len(old) == OLD_AT_ONCE:
        return True
    return bool(policy.max_bytes) and _shrink(store, round(policy.max_bytes * _FILL), deleted)


def _too_old(store: Store, now_us: int, policy: Policy) -> Iterator[str]:
    days = dict(policy.by_product)
    if not any((policy.days, *days.values())):
        return
    shortest = min(days for days in (policy.days, *days.values()) if days)
    to_us = now_us - round(shortest * _DAY_US)
    if to_us <= 0:
        return
    for head in store.scan(Query(at="end", to_us=to_us)):
        kept_days = days.get(head.product, policy.days)
        if head.ended_at and kept_days and head.ended_at < now_us - round(kept_days * _DAY_US):
            yield head.id


def _shrink(store: Store, most_bytes: int, deleted: Counter[str]) -> bool:
    """Delete the oldest sessions that ended while what is alive takes more than that."""
    if _alive_bytes(store) <= most_bytes:
        return False
    oldest = (head.id for head in store.scan(Query()) if head.ended_at)
    for session_id in islice(oldest, LARGE_AT_ONCE):
        deleted["size"] += _drop(store, session_id)
        if _alive_bytes(store) <= most_bytes:
            return False
    return next(oldest, None) is not None


def _alive_bytes(store: Store) -> int:
    stats = store.stats()
    return stats["size_bytes"] - stats.get("dead_bytes", 0)


def _drop(store: Store, session_id: str) -> bool:
    with suppress(NotFound, Deleted):
        store.drop(session_id, at_once=False)
        return True
    return False
