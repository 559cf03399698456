"""Old sessions go, each product in its own time; the oldest go when there is no room; open ones stay whatever happens."""

import random
from collections import Counter

import pytest
from storing import opened, put, sid

from datacat.server import retention
from datacat.server.retention import Policy, step
from datacat.store import Query
from datacat.store.memory import MemoryStore
from datacat.store.semi import SemiStore
from datacat.wire.records import Close, Event

DAY = 24 * 3600 * 1_000_000
NOW = 1_000 * DAY


@pytest.fixture(params=["memory", "semidbm"])
def store(request, tmp_path):
    store = MemoryStore() if request.param == "memory" else SemiStore(tmp_path / "store", segment_bytes=8192, quiet_s=0)
    yield store
    store.close()


def session(store, number, days_ago, *, product="editor", ended=True, size=0):
    put(store, sid(number), opened(t=NOW - days_ago * DAY - 10, product=product))
    if size:
        put(store, sid(number), Event(t=NOW - days_ago * DAY - 5, name="e", message=random_text(number, size)))
    if ended:
        put(store, sid(number), Close(t=NOW - days_ago * DAY))


def random_text(seed, size):
    return random.Random(seed).randbytes(size // 2).hex()


def alive_bytes(store):
    stats = store.stats()
    return stats["size_bytes"] - stats.get("dead_bytes", 0)


def left(store):
    return [int(head.id[-4:], 16) for head in store.scan(Query())]


def test_each_product_has_its_own_time(store):
    for number, product in enumerate(("editor", "player", "kept", "editor", "player")):
        session(store, number, 20 if number < 3 else 5, product=product)
    policy = Policy(10, (("kept", 0.0), ("player", 4.0)))
    deleted = Counter()
    assert step(store, NOW, policy, deleted) is False
    assert deleted == {"age": 3}
    assert left(store) == [2, 3]
    assert step(store, NOW + 6 * DAY, Policy(0, (("editor", 10.0),)), Counter()) is False
    assert left(store) == [2]


def test_without_any_time_or_size_everything_stays(store):
    session(store, 1, 900)
    assert step(store, NOW, Policy(0), Counter()) is False
    assert left(store) == [1]


def test_the_oldest_ended_sessions_go_until_there_is_room(store, monkeypatch):
    monkeypatch.setattr(retention, "LARGE_AT_ONCE", 4)
    for number in range(20):
        session(store, number, 100 - number, ended=number != 2, size=4000)
    while store.tend(10):
        pass
    assert step(store, NOW, Policy(0, (), 10**9), Counter()) is False
    limit = alive_bytes(store) * 6 // 10
    steps, deleted = 1, Counter()
    while step(store, NOW, Policy(0, (), limit), deleted):
        steps += 1
    assert alive_bytes(store) <= 0.9 * limit
    kept = left(store)
    assert kept[0] == 2  # it is open
    assert kept[1:] == list(range(kept[1], 20))
    assert len(kept) > 3
    assert deleted == {"size": 20 - len(kept)}
    assert steps > 1


def test_open_sessions_stay_when_nothing_else_is_left_to_delete(store):
    for number in range(3):
        session(store, number, 50, ended=False, size=4000)
    assert step(store, NOW, Policy(1, (), 100), Counter()) is False
    assert left(store) == [0, 1, 2]


def test_what_went_by_retention_is_given_back_and_stays_away(tmp_path):
    store = SemiStore(tmp_path / "store", segment_bytes=8192, quiet_s=0)
    for number in range(20):
        session(store, number, 100 - number, size=4000)
    while store.tend(10):
        pass
    full = sum(path.stat().st_size for path in tmp_path.rglob("data"))
    assert step(store, NOW, Policy(91), Counter()) is False
    while store.tend(10):
        pass
    assert sum(path.stat().st_size for path in tmp_path.rglob("data")) < 0.7 * full
    store.close()
    store = SemiStore(tmp_path / "store")
    assert left(store) == list(range(9, 20))
    store.close()
