"""Tending changes what lies on disk and nothing that a reader sees, whenever it is interrupted."""

import contextlib
import random
import shutil
import threading

import pytest
from storing import A, B, everything, opened, put, ship, sid, stored

from datacat.errors import Corrupt, Deleted, NotFound, StoreError
from datacat.store import RecordQuery, chunks, merging, tending
from datacat.store.history import state_at, states
from datacat.store.repair import QUARANTINE_DIR
from datacat.store.semi import SemiStore
from datacat.wire.records import Beat, Close, Event, StatePatch, Verdict

DAY_NS = 24 * 3600 * 10**9


@pytest.fixture
def root(tmp_path):
    return tmp_path / "store"


@contextlib.contextmanager
def store_in(root, **more):
    store = SemiStore(root, **{"quiet_s": 0.0, **more})
    try:
        yield store
    finally:
        store.close()


def tend(store):
    while store.tend(10):
        pass


def files(root):
    return sorted(root.glob("segments/*/data"))


def on_disk(root, session_id):
    return sum(path.read_bytes().count(f"{session_id}/".encode()) for path in files(root))


def live(store, number, batches, *, end=True):
    put(store, sid(number), opened(t=1, state={"n": -1}))
    for n in range(batches):
        put(store, sid(number), Event(t=10 * n + 10, name=f"e{n}"), StatePatch(t=10 * n + 11, patch={"n": n}))
    if end:
        put(store, sid(number), Close(t=10 * batches + 10))


# merging --------------------------------------------------------------------------------------------------------------


def test_a_session_that_ended_is_merged_when_it_is_quiet_and_not_before(root):
    now = [0.0]
    with store_in(root, quiet_s=60.0, clock=lambda: now[0]) as store:
        live(store, 1, 20)
        live(store, 2, 20, end=False)
        now[0] = 59.0
        put(store, sid(1), Verdict(t=999, status="ended", by="daemon", exit_code=3))
        now[0] = 118.0
        tend(store)
        assert store.stats()["chunks"] == 23 + 21
        before = everything(store)
        now[0] = 119.5
        tend(store)
        assert store.stats()["chunks"] == 1 + 21
        assert everything(store) == before
    with store_in(root) as store:
        assert everything(store) == before


def test_a_session_that_stays_open_has_few_entries_however_many_batches_it_gets(root, monkeypatch):
    monkeypatch.setattr(chunks, "FAN", 8)
    monkeypatch.setattr(merging, "FAN", 8)
    monkeypatch.setattr(merging, "TARGET_BYTES", 4000)
    most = 0
    with store_in(root) as store:
        put(store, A, opened(t=1))
        for n in range(600):
            put(store, A, Event(t=10 + n, name=f"e{n}"), Beat(t=10 + n))
            if n % 10 == 0:
                tend(store)
            most = max(most, store.stats()["chunks"])
        tend(store)
        assert most < 60
        assert store.stats()["chunks"] < 40
        assert [row["name"] for row in stored(store, A, kinds=("event",))] == [f"e{n}" for n in range(600)]
        head = store.head(A)
    with store_in(root) as store:
        assert store.head(A) == head


def test_batches_that_come_after_a_session_was_merged_count_once(root):
    with store_in(root) as store:
        ship(store, A, 0, 50, opened(t=1))
        ship(store, A, 50, 90, Close(t=9))
        for number in range(5):
            tend(store)
            for _ in range(2):  # the second is a repeat
                ship(store, A, 90 + number, 91 + number, Event(t=20 + number, name=f"late{number}"))
        tend(store)
        assert [row["k"] for row in stored(store, A)] == ["open", "close", *["event"] * 5]
        head = store.head(A)
        assert (head.streams["app"].acked, head.counts["events"], head.status) == (95, 5, "ended")
        assert store.stats()["chunks"] <= 3
    with store_in(root) as store:
        assert store.head(A) == head
        assert len(stored(store, A)) == 7


def test_positions_stay_so_that_pages_go_on_where_they_were(root):
    with store_in(root) as store:
        live(store, 1, 30)
        query = RecordQuery(kinds=("event",), limit=10)
        first = list(store.records(A, query))
        tend(store)
        rest = list(store.records(A, RecordQuery(kinds=("event",), after=first[-1].position)))
        assert [row.record["name"] for row in first + rest] == [f"e{n}" for n in range(30)]


def test_a_reader_that_is_under_way_sees_each_record_once_although_its_entries_are_merged_and_removed(root):
    with store_in(root, segment_bytes=2048) as store:
        live(store, 1, 40)
        live(store, 2, 1)
        rows = store.records(A, RecordQuery(kinds=("event",)))
        names = [next(rows).record["name"] for _ in range(3)]
        before = set(files(root))
        tend(store)
        assert not before & set(files(root)) - {max(before)}
        names += [row.record["name"] for row in rows]
        assert names == [f"e{n}" for n in range(40)]


def test_the_state_at_a_moment_reads_one_merged_entry(root, monkeypatch):
    monkeypatch.setattr(merging, "TARGET_BYTES", 1000)
    with store_in(root) as store:
        live(store, 1, 100)
        tend(store)
        assert store.stats()["chunks"] >= 8
        expected = dict(states(store, A))
        reads = []
        read = store._segments.read
        monkeypatch.setattr(store._segments, "read", lambda *place: reads.append(place) or read(*place))
        for t in (0, 1, 2, 11, 500, 501, 502, 991, 992, 5000, None):
            reads.clear()
            whole = [state for at, state in expected.items() if t is None or at < t]
            assert state_at(store, A, t) == (whole[-1] if whole else {})
            assert len(set(reads)) <= 1 + (t is not None and t < 12)


def test_a_late_change_of_the_state_counts_at_its_own_time(root):
    with store_in(root) as store:
        live(store, 1, 50)
        tend(store)
        put(store, A, StatePatch(t=105, patch={"late": True}))
        tend(store)
        assert state_at(store, A, 105).get("late") is None
        assert state_at(store, A, 106)["late"] is True
        assert state_at(store, A, 106)["n"] == 9


def test_tending_writes_in_steps(root):
    ticks = iter(range(10**6))
    with store_in(root, clock=lambda: float(next(ticks))) as store:
        for number in range(30):
            live(store, number, 3)
        before = everything(store)
        steps = 0
        while store.tend(3.0):
            steps += 1
            assert everything(store) == before
        assert steps > 5
        assert store.stats()["chunks"] == 30


def test_an_entry_that_cannot_be_read_keeps_its_session_as_it_is_and_others_are_merged(root, caplog):
    with store_in(root) as store:
        live(store, 1, 5)
        live(store, 2, 5)
        place = store._index.chunks(A)[2]
        (path,) = files(root)
        data = bytearray(path.read_bytes())
        data[place.offset + place.size_bytes - 20] ^= 1
        path.write_bytes(data)
        tend(store)
        assert "is not merged" in caplog.text
        assert len(store._index.chunks(A)) == 7
        assert len(store._index.chunks(B)) == 1
        with pytest.raises(Corrupt) as found:
            stored(store, A)
        assert (found.value.path, found.value.offset) == (str(path), place.offset)


# crashes and damage ---------------------------------------------------------------------------------------------------


@pytest.fixture
def merged(root):
    """Make a store whose sessions were merged, with the log that they were merged from still there."""
    with store_in(root) as store:
        live(store, 1, 12)
        live(store, 2, 12)
        put(store, sid(3), opened(t=1))
        before = everything(store)
        store._tending.step(1e12)
        assert store.stats()["chunks"] == 3
    (log, after) = files(root)
    assert after.parent.name.endswith("-merged")
    shutil.rmtree(root / "hints")
    return root, log, after, before


@pytest.mark.parametrize("step", [11, pytest.param(1, marks=pytest.mark.long)])
def test_cut_at_every_byte_of_the_merged_entries_everything_is_there(merged, monkeypatch, step):
    root, _, after, before = merged
    whole = after.read_bytes()
    monkeypatch.setattr("datacat.store.durable.os.fsync", lambda fd: None)
    for cut in range(0, len(whole) + 1, step):
        shutil.rmtree(root / "hints", ignore_errors=True)
        for path in files(root)[1:]:
            shutil.rmtree(path.parent)
        after.parent.mkdir(exist_ok=True)
        after.write_bytes(whole[:cut])
        with store_in(root) as store:
            assert everything(store) == before
            assert store.stats()["damaged_regions"] == 0
            store._tending.step(1e12)
            assert everything(store) == before
            assert store.stats()["chunks"] == 3
    assert not (root / QUARANTINE_DIR).exists()


def test_a_flip_in_a_merged_entry_is_never_silent_and_costs_nothing_while_the_log_is_there(merged, monkeypatch):
    root, _, after, before = merged
    whole = after.read_bytes()
    monkeypatch.setattr("datacat.store.durable.os.fsync", lambda fd: None)
    for position in range(0, len(whole), 23):
        shutil.rmtree(root / "hints", ignore_errors=True)
        flipped = bytearray(whole)
        flipped[position] ^= 1 << position % 8
        after.write_bytes(flipped)
        with store_in(root) as store:
            assert everything(store) == before
            assert store.stats()["damaged_regions"] or after.stat().st_size < len(whole)


def test_without_the_log_a_damaged_merged_entry_is_counted_with_all_its_batches(root, caplog):
    with store_in(root, segment_bytes=512) as store:
        live(store, 1, 12)
        live(store, 2, 12)
        tend(store)
        put(store, A, Event(t=9999, name="later"))
        before = everything(store)
        place = store._index.chunks(A)[0]
    assert place.batches == 14
    (path,) = root.glob(f"segments/{place.segment:08d}-*/data")
    data = bytearray(path.read_bytes())
    data[place.offset + place.size_bytes // 2] ^= 4
    path.write_bytes(data)
    with store_in(root) as store:
        assert f"path={path} offset={place.offset}" in caplog.text
        after = everything(store)
        assert after[B] == before[B]
        assert after[A][0].dropped == {"damaged": 14}
        assert [record["name"] for _, record in after[A][2]] == ["later"]
        (kept,) = (root / QUARANTINE_DIR).iterdir()
        assert kept.read_bytes() == bytes(data[place.offset : place.offset + place.size_bytes])
        tend(store)
        assert everything(store) == after
    with store_in(root) as store:
        assert everything(store) == after


def test_killed_at_any_step_of_merging_and_moving_a_start_shows_the_same(root, tmp_path):
    copies = []
    with store_in(root, segment_bytes=4096) as store:
        for number in range(12):
            live(store, number, 8)
        for number in range(0, 12, 3):
            store.drop(sid(number))
        before = everything(store)
        step = 0
        more = True
        while more:
            more = store.tend(0.0)
            if step % 5 == 0:
                copies.append(tmp_path / f"copy{step}")
                shutil.copytree(root, copies[-1])
            step += 1
    assert len(copies) > 3
    for copy in copies:
        for with_hints in (True, False):
            if not with_hints:
                shutil.rmtree(copy / "hints", ignore_errors=True)
            with store_in(copy) as store:
                assert everything(store) == before
                with pytest.raises(Deleted):
                    store.head(sid(0))
                tend(store)
                assert everything(store) == before


# what was deleted -----------------------------------------------------------------------------------------------------


def test_a_deleted_session_leaves_no_trace_but_its_tombstone(root):
    with store_in(root) as store:
        for number in range(8):
            live(store, number, 5, end=number != 6)
            if number == 4:
                tend(store)
        store.drop(sid(2))  # it was merged
        store.drop(sid(6))  # it was not
        before = everything(store)
        assert on_disk(root, sid(2)) > 2
        tend(store)
        assert (on_disk(root, sid(2)), on_disk(root, sid(6))) == (1, 1)
        assert everything(store) == before
    with store_in(root) as store:
        with pytest.raises(Deleted):
            store.head(sid(2))
        assert everything(store) == before


def test_what_was_deleted_just_before_a_stop_is_erased_after_the_start(root):
    with store_in(root) as store:
        for number in range(8):
            live(store, number, 5)
        tend(store)
        store.drop(sid(2))
    with store_in(root) as store:
        tend(store)
        assert on_disk(root, sid(2)) == 1


def test_what_retention_deletes_is_given_back_when_that_writes_little(root):
    with store_in(root) as store:
        for number in range(8):
            live(store, number, 5)
        tend(store)
        store.drop(sid(2), at_once=False)
        written = store.stats()["written_bytes"]
        tend(store)
        assert store.stats()["written_bytes"] == written
        for number in (0, 1, 3, 4, 5):
            store.drop(sid(number), at_once=False)
    with store_in(root, segment_bytes=4096) as store:
        tend(store)
        assert [on_disk(root, sid(number)) for number in range(6)] == [1] * 6


def test_a_tombstone_is_forgotten_after_thirty_days_and_nothing_comes_back(root, monkeypatch):
    monkeypatch.setattr(tending, "_OLD_INTERVAL_S", 0.0)
    now = [10**18]
    with store_in(root, now_ns=lambda: now[0], segment_bytes=2048) as store:
        live(store, 1, 5)
        live(store, 2, 5)
        store.drop(A)
        tend(store)
        now[0] += 29 * DAY_NS
        tend(store)
        with pytest.raises(Deleted):
            store.head(A)
        now[0] += 2 * DAY_NS
        tend(store)
        with pytest.raises(NotFound):
            store.head(A)
        assert store.stats()["deleted_sessions"] == 0
        put(store, A, opened(t=5))
    with store_in(root, now_ns=lambda: now[0]) as store:
        assert store.head(B).status == "ended"


# all at once ----------------------------------------------------------------------------------------------------------


def test_readers_writers_retention_and_tending_at_once_see_whole_batches_and_lose_none(root, monkeypatch):
    monkeypatch.setattr(chunks, "FAN", 6)
    monkeypatch.setattr(merging, "FAN", 6)
    failures = []
    stop = threading.Event()

    def guarded(act):
        def run():
            try:
                act()
            except BaseException as error:  # whatever a thread dies of is the test's to show
                failures.append(error)

        return run

    def write(number):
        live(store, number, 60)

    def churn():
        for number in range(100, 130):
            live(store, number, 2)
            store.drop(sid(number), at_once=bool(number % 2))

    def read():
        while not stop.is_set():
            for number in (1, 2):
                with contextlib.suppress(NotFound):
                    names = [row["name"] for row in stored(store, sid(number), kinds=("event",))]
                    assert names == [f"e{n}" for n in range(len(names))]
                    newest = [row["name"] for row in stored(store, sid(number), kinds=("event",), newest_first=True, limit=3)]  # fmt: skip
                    assert newest == sorted(newest, key=lambda name: -int(name[1:]))
                    assert state_at(store, sid(number), 101)["n"] <= 9
            for number in range(100, 130):
                with contextlib.suppress(NotFound, Deleted):
                    assert len(stored(store, sid(number))) in (1, 3, 5, 6)

    def work():
        while not stop.is_set():
            store.tend(0.02)

    with store_in(root, segment_bytes=8192) as store:
        working = [threading.Thread(target=guarded(lambda n=n: write(n))) for n in (1, 2)]
        working.append(threading.Thread(target=guarded(churn)))
        around = [threading.Thread(target=guarded(act)) for act in (read, work)]
        for thread in working + around:
            thread.start()
        for thread in working:
            thread.join()
        stop.set()
        for thread in around:
            thread.join()
        assert failures == []
        tend(store)
        before = everything(store)
        assert sorted(before) == [A, B]
        assert store.stats()["chunks"] <= 4
        assert all(len(rows) == 122 for _, _, rows in before.values())
    with store_in(root) as store:
        assert everything(store) == before


def test_few_files_are_open_however_many_segments_there_are(root):
    with store_in(root, segment_bytes=1024, quiet_s=1e9) as store:
        noise = random.Random(1)
        for number in range(150):
            put(store, sid(number), opened(t=number), Event(t=number, name="e", message=noise.randbytes(600).hex()))
        assert store.stats()["segments"] > 100
        assert len(everything(store)) == 150
        assert store.stats()["open_files"] <= 66


# later syncs ----------------------------------------------------------------------------------------------------------


def test_with_an_interval_batches_are_shown_at_once_and_durable_later(root, monkeypatch):
    synced = []
    sync = tending.Segments.sync
    monkeypatch.setattr("datacat.store.durable.sync_file", synced.append)
    store = SemiStore(root, sync_interval_s=3600.0)
    try:
        store._segments.sync()
        synced.clear()
        put(store, A, opened(t=1))
        assert store.head(A).id == A
        assert synced == []
        sync(store._segments)
        assert len(synced) == 1
        sync(store._segments)
        assert len(synced) == 1
        store.check_progress(5.0)
        put(store, A, Event(t=2, name="e"))
    finally:
        store.close()
    assert len(synced) >= 2


def test_with_an_interval_a_failed_sync_stops_the_store(root, monkeypatch):
    store = SemiStore(root, sync_interval_s=3600.0)
    try:
        put(store, A, opened(t=1))
        with monkeypatch.context() as patch:

            def fail(_fd):
                raise OSError(5, "Input/output error")

            patch.setattr("datacat.store.durable.sync_file", fail)
            with pytest.raises(StoreError, match="restart"):
                store._segments.sync()
        for act in (lambda: put(store, A, Event(t=2, name="e")), store.check, lambda: store.check_progress(5.0)):
            with pytest.raises(StoreError, match="restart"):
                act()
        assert stored(store, A)
    finally:
        with contextlib.suppress(StoreError):
            store.close()


def test_with_an_interval_a_disk_that_does_not_answer_is_noticed(root):
    now = [0.0]
    store = SemiStore(root, sync_interval_s=10.0, clock=lambda: now[0])
    try:
        now[0] = 14.0
        store.check_progress(5.0)
        now[0] = 100.0
        with pytest.raises(StoreError, match="waited"):
            store.check_progress(5.0)
    finally:
        now[0] = 0.0
        store.close()
