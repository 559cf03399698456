"""Operations of a store are timed, whatever comes of them, and rows only while the store works on them."""

import pytest
from storing import A, B, lines, opened, put

from datacat.errors import NotFound
from datacat.store import Batch, Query, RecordQuery
from datacat.store.memory import MemoryStore
from datacat.store.semi import SemiStore
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


def test_a_write_is_an_append_that_takes_until_its_commit(store, timings):
    first = store.write(A, Batch("app", lines(Event(t=300, name="e"))), received_us=1_000)
    store.write(A, Batch("app", lines(Event(t=301, name="e"))), received_us=1_000)
    assert count(timings, "append") == (1, 0.001)
    began = store.begin(first.ticket, lambda: None)
    began.sync()
    store.end(began)
    assert count(timings, "append") == (3, 0.004)
    written = store.write(A, Batch("app", lines(Event(t=302, name="e"))), received_us=1_000)
    store.commit(written.ticket)
    assert count(timings, "append") == (4, 0.005)
    with pytest.raises(NotFound):
        store.write(B, Batch("app", lines(Event(t=1, name="e"))), received_us=1_000)
    assert count(timings, "append") == (5, 0.006)


def test_writes_that_wait_for_a_later_round_are_timed_by_that(tmp_path):
    timings = Timings(Clock())
    store = Timed(SemiStore(tmp_path / "store"), timings)
    first = store.write(A, Batch("app", lines(opened())), received_us=1_000)
    began = store.begin(first.ticket, lambda: None)
    second = store.write(A, Batch("app", lines(Event(t=300, name="e"))), received_us=1_000)
    began.sync()
    store.end(began)
    assert count(timings, "append")[0] == 1
    store.commit(second.ticket)
    assert count(timings, "append")[0] == 2
    store.close()


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
