"""Operations of a store are timed, whatever comes of them, and rows only while the store works on them."""

import pytest
from storing import A, B, opened, put

from datacat.errors import NotFound
from datacat.store import Query, RecordQuery
from datacat.store.memory import MemoryStore
from datacat.store.timed import BOUNDS_S, QUERIES, WRITES, Timed, Timings
from datacat.wire.records import Event


class Clock:
    """Goes on by a millisecond whenever it is looked at."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        self.now += 0.001
        return self.now


@pytest.fixture
def timings():
    return Timings(Clock())


@pytest.fixture
def store(timings):
    store = Timed(MemoryStore(), timings)
    put(store, A, opened(), *(Event(t=200 + n, name="e") for n in range(5)))
    return store


def count(timings, op):
    counts, total = timings.of((*WRITES, *QUERIES))[op]
    return sum(counts), round(total, 6)


def test_writes_are_timed_also_those_that_fail(store, timings):
    with pytest.raises(NotFound):
        put(store, B, Event(t=1, name="e"))
    store.drop(A)
    assert count(timings, "append") == (2, 0.002)
    assert count(timings, "drop") == (1, 0.001)
    assert timings.of(WRITES).keys() == {"append", "drop"}


def test_rows_are_timed_while_the_store_works_and_not_while_they_are_read(store, timings):
    for _ in store.records(A, RecordQuery()):
        timings.clock.now += 60
    assert count(timings, "records") == (1, 0.008)  # the call, six rows and the end


def test_rows_that_are_not_read_to_the_end_count_once(store, timings):
    rows = store.records(A, RecordQuery())
    next(rows)
    rows.close()
    list(store.scan(Query()))
    assert count(timings, "records")[0] == 1
    assert count(timings, "scan")[0] == 1


def test_questions_to_the_fleet_are_timed(store, timings):
    with store.fleet.reading():
        pass
    assert count(timings, "fleet") == (1, 0.001)


def test_a_time_lies_at_most_at_its_bound(timings):
    for seconds in (0.0005, 0.0006, 11.0):
        timings.note("append", seconds)
    counts, _ = timings.of(WRITES)["append"]
    assert (counts[0], counts[1], counts[-1], len(counts)) == (1, 1, 1, len(BOUNDS_S) + 1)


def test_a_session_that_is_not_there_is_told_at_once(store):
    with pytest.raises(NotFound):
        store.records(B, RecordQuery())
