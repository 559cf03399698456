"""A round makes durable what was written before it began; its waiters are woken one by one."""

import threading

import pytest
from storing import A, B, line, opened, put, ship

from datacat.errors import Mismatch, NotFound, StoreError
from datacat.store import Batch, RecordQuery, durable
from datacat.store.memory import MemoryStore
from datacat.store.rounds import Round, Sleepers
from datacat.store.semi import SemiStore
from datacat.wire.records import Event


class Part:
    """A segment that can be made durable, or not."""

    def __init__(self, error=None):
        self.error = error
        self.synced = 0

    def sync(self):
        if self.error:
            raise self.error
        self.synced += 1


@pytest.fixture(params=["memory", "semidbm"])
def store(request, tmp_path):
    made = MemoryStore() if request.param == "memory" else SemiStore(tmp_path / "store")
    yield made
    made.close()


@pytest.fixture
def semi(tmp_path):
    made = SemiStore(tmp_path / "store")
    yield made
    made.close()


def write(store, session_id, *records, stream="app"):
    return store.write(session_id, Batch(stream, [line(record) for record in records]), received_us=1_000)


def names(store, session_id):
    return [row.record.get("name", row.record["k"]) for row in store.records(session_id, RecordQuery())]


def never():
    pytest.fail("nobody else has a round")


def commit(store, ticket):
    began = store.begin(ticket, never)
    began.sync()
    store.end(began)


# --- one round


def test_a_round_has_failed_until_everything_is_durable():
    parts = [Part(), Part()]
    began = Round(7, parts)
    assert began.failure
    assert began.waits
    began.sync()
    assert began.failure is None
    assert [part.synced for part in parts] == [1, 1]


def test_a_round_keeps_why_it_failed_and_goes_no_further():
    behind = Part()
    began = Round(7, [Part(StoreError("no disk")), behind])
    began.sync()
    assert str(began.failure) == "no disk"
    assert behind.synced == 0


def test_a_round_without_segments_waits_for_nothing_and_has_no_chores():
    began = Round(7)
    assert not began.waits
    began.sync()
    began.chores()
    assert began.failure is None


def test_those_that_are_durable_are_woken_and_one_more_that_leads():
    woken, sleepers = [], Sleepers()
    for ticket in (5, 1, 6, 2, 7):
        sleepers.add(ticket, lambda ticket=ticket: woken.append(ticket))
    sleepers.wake(2, everybody=False)
    assert woken == [5, 1, 2]
    sleepers.wake(5, everybody=True)
    assert woken == [5, 1, 2, 6, 7]
    sleepers.wake(9, everybody=True)
    assert woken == [5, 1, 2, 6, 7]


# --- a store's rounds


def test_what_is_written_is_told_by_the_round_that_makes_it_durable(store):
    written = write(store, A, opened(), Event(200, "saved"))
    commit(store, written.ticket)
    assert written.outcome().id == A
    assert store.head(A).counts["events"] == 1
    assert names(store, A) == ["open", "saved"]


def test_nobody_sees_a_batch_before_its_round_has_ended(semi):
    written = write(semi, A, opened())
    began = semi.begin(written.ticket, never)
    began.sync()
    with pytest.raises(NotFound):
        semi.head(A)
    semi.end(began)
    assert semi.head(A) == written.told


def test_batches_of_a_session_follow_each_other_before_the_first_is_durable(semi):
    write(semi, A, opened(), Event(200, "one"))
    newest = write(semi, A, Event(300, "two"))
    assert newest.told.counts["events"] == 2
    other = write(semi, B, opened())
    commit(semi, newest.ticket)
    assert names(semi, A) == ["open", "one", "two"]
    # A round takes along whatever is written.
    assert semi.head(B) == other.told


def test_a_refusal_is_told_like_any_other_outcome(store):
    put(store, A, opened(), stream="app")
    written = store.write(A, Batch("app", [line(Event(200, "saved"))], 5_000, 6_000), received_us=1_000)
    commit(store, written.ticket)
    with pytest.raises(Mismatch, match="the batch begins at 5000"):
        written.outcome()


def test_a_repeat_is_told_with_the_head_that_is_there(store):
    ship(store, A, 0, 100, opened())
    written = store.write(A, Batch("app", [line(opened())], 0, 100), received_us=1_000)
    commit(store, written.ticket)
    assert written.outcome().streams["app"].acked == 100


def test_a_batch_of_an_unknown_session_is_refused_at_once(store):
    with pytest.raises(NotFound):
        write(store, A, Event(200, "saved"))
    store.check_progress(0.0)


def test_who_asks_for_a_round_during_one_is_called_when_it_is_over(semi):
    first = write(semi, A, opened())
    began = semi.begin(first.ticket, never)
    second = write(semi, B, opened())
    called = []
    assert semi.begin(second.ticket, lambda: called.append("now")) is None
    began.sync()
    assert called == []
    semi.end(began)
    assert called == ["now"]
    with pytest.raises(NotFound):
        semi.head(B)
    commit(semi, second.ticket)
    assert semi.head(B)


def test_a_thread_that_appends_during_a_round_waits_for_its_end_and_then_leads(semi):
    began = semi.begin(write(semi, A, opened()).ticket, never)
    done = threading.Event()

    def append():
        put(semi, B, opened())
        done.set()

    thread = threading.Thread(target=append)
    thread.start()
    began.sync()
    assert not done.is_set()
    semi.end(began)
    assert done.wait(10)
    thread.join()
    assert semi.head(B)


def test_a_round_is_refused_while_a_thread_leads_and_called_for_when_it_has_ended(semi, monkeypatch):
    inside, go, called = threading.Event(), threading.Event(), threading.Event()
    sync = durable.sync_file

    def slow(fd):
        inside.set()
        assert go.wait(10)
        sync(fd)

    monkeypatch.setattr(durable, "sync_file", slow)
    thread = threading.Thread(target=put, args=(semi, A, opened()))
    thread.start()
    assert inside.wait(10)
    written = write(semi, B, opened())
    assert semi.begin(written.ticket, called.set) is None
    go.set()
    assert called.wait(10)
    thread.join()
    commit(semi, written.ticket)
    assert semi.head(B)


def test_a_failed_fsync_is_told_at_the_end_of_its_round_and_to_everybody_after_it(semi, monkeypatch):
    written = write(semi, A, opened())
    monkeypatch.setattr(durable, "sync_file", lambda _: (_ for _ in ()).throw(OSError(5, "Input/output error")))
    began = semi.begin(written.ticket, never)
    waiting = []
    assert semi.begin(written.ticket, lambda: waiting.append("woken")) is None
    began.sync()
    with pytest.raises(StoreError, match="cannot make"):
        semi.end(began)
    assert waiting == ["woken"]
    for refused in (
        lambda: semi.begin(written.ticket, never),
        lambda: semi.commit(written.ticket),
        lambda: write(semi, A, Event(200, "saved")),
        lambda: semi.check_progress(60),
    ):
        with pytest.raises(StoreError, match="cannot make"):
            refused()
    with pytest.raises(NotFound):
        semi.head(A)


def test_a_thread_that_is_interrupted_in_its_fsync_ends_the_round_for_everybody(semi, monkeypatch):
    def interrupted(_fd):
        raise KeyboardInterrupt

    written = write(semi, A, opened())
    monkeypatch.setattr(durable, "sync_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        semi.commit(written.ticket)
    with pytest.raises(StoreError, match="a commit was interrupted"):
        semi.commit(written.ticket)
    with pytest.raises(NotFound):
        semi.head(A)


def test_a_write_is_under_way_until_its_round_has_ended(tmp_path):
    now = [100.0]
    store = SemiStore(tmp_path / "store", clock=lambda: now[0])
    written = write(store, A, opened())
    now[0] += 5
    with pytest.raises(StoreError, match=r"has waited for 5\.0 s"):
        store.check_progress(4)
    commit(store, written.ticket)
    store.check_progress(4)
    store.close()
