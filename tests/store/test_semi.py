"""The semidbm store among processes, on full and failing disks, and over time."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from storing import A, B, everything, lines, opened, put, ship, sid, stored

from datacat.errors import Busy, Corrupt, Deleted, Mismatch, StoreError
from datacat.store import Batch, Query, RecordQuery
from datacat.store import durable as border
from datacat.store.memory import MemoryStore
from datacat.store.repair import SEGMENTS_DIR
from datacat.store.semi import SemiStore
from datacat.wire.records import Beat, Close, Event, StatePatch

TESTS = str(Path(__file__).parent.parent)


@pytest.fixture
def root(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def store(root):
    with opened_store(root) as store:
        yield store


@contextlib.contextmanager
def opened_store(root, **more):
    store = SemiStore(root, **more)
    try:
        yield store
    finally:
        store.close()


def program(code, *arguments):
    """Start Python code that can import the tests' helpers."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": TESTS},
    )


def disk_bytes(root):
    return sum(path.stat().st_size for path in (root / SEGMENTS_DIR).rglob("data"))


# one owner ------------------------------------------------------------------------------------------------------------


def test_a_second_process_is_refused_and_told_who_has_it(root):
    code = (
        "import sys\nfrom pathlib import Path\nfrom datacat.store.semi import SemiStore\n"
        "store = SemiStore(Path(sys.argv[1]))\nprint('open', flush=True)\nsys.stdin.read()\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert holder.stdout.readline() == b"open\n"
        with pytest.raises(Busy) as refused:
            SemiStore(root)
        assert refused.value.holder == str(holder.pid)
    finally:
        holder.stdin.close()
        holder.wait()
        holder.stdout.close()
    SemiStore(root).close()


def test_a_store_that_could_not_be_opened_leaves_no_lock(root):
    SemiStore(root).close()
    (root / "format").write_bytes(b"other")
    for _ in range(2):
        with pytest.raises(StoreError, match="version"):
            SemiStore(root)


def test_a_folder_that_cannot_be_made_is_a_store_error(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="cannot create"):
        SemiStore(tmp_path / "file" / "store")


# reopening ------------------------------------------------------------------------------------------------------------


def test_opening_again_gives_the_same(root):
    with opened_store(root) as store:
        for number in range(20):
            put(store, sid(number), opened(t=number, state={"n": number, "deep": {"list": [1, None]}}))
            ship(store, sid(number), 0, 10, Event(t=50, name="e"), stream="d", crc=0, end_crc=number)
            put(store, sid(number), StatePatch(t=60, patch={"n": number + 1}), Beat(t=70))
        put(store, sid(3), Close(t=99, exit_code=1))
        store.drop(sid(4))
        before = everything(store)
    with opened_store(root) as store:
        assert everything(store) == before
        assert store.head(sid(7)).streams["d"].end_crc == 7
        with pytest.raises(Deleted):
            put(store, sid(4), opened())
        with pytest.raises(Mismatch):
            ship(store, sid(5), 10, 20, Event(t=1, name="e"), stream="d", crc=99)
        assert ship(store, sid(5), 0, 10, Event(t=50, name="e"), stream="d") == before[sid(5)][0]


def test_a_session_that_only_beats_keeps_one_entry(root):
    with opened_store(root, segment_bytes=8192) as store:
        put(store, A, opened())
        for beat in range(300):
            put(store, A, Beat(t=1000 + beat))
            if beat % 50 == 0:
                while store.tend(10):
                    pass
        while store.tend(10):
            pass
        assert disk_bytes(root) < 3 * 8192
        assert store.stats()["chunks"] == 2  # what opened it, and the newest beat
        head = store.head(A)
        assert head.last_heartbeat == 1299
    with opened_store(root) as store:
        assert store.head(A) == head


# freeing disk ---------------------------------------------------------------------------------------------------------


def test_dropping_sessions_and_tending_frees_the_disk(root):
    noise = random.Random(1)
    with opened_store(root, segment_bytes=64 * 1024) as store:
        for number in range(30):
            put(store, sid(number), opened(t=number))
            for n in range(4):
                put(store, sid(number), Event(t=100 + n, name="e", message=noise.randbytes(3000).hex()))
        full = disk_bytes(root)
        for number in range(30):
            if number % 10:
                store.drop(sid(number))
        before = everything(store)
        while store.tend(10):
            pass
        assert disk_bytes(root) < full / 2
        assert store.stats()["size_bytes"] == disk_bytes(root)
        assert everything(store) == before
    with opened_store(root) as store:
        assert everything(store) == before
        with pytest.raises(Deleted):
            store.head(sid(1))


def test_tending_keeps_to_its_budget_and_goes_on_where_it_was(root):
    now = iter(range(10**6))
    noise = random.Random(1)
    with opened_store(root, segment_bytes=16 * 1024, clock=lambda: float(next(now))) as store:
        for number in range(12):
            put(store, sid(number), opened(t=number), Event(t=100, name="e", message=noise.randbytes(1500).hex()))
        for number in range(0, 12, 4):
            store.drop(sid(number + 1))
            store.drop(sid(number + 2))
            store.drop(sid(number + 3))
        before = everything(store)
        steps = 0
        while store.tend(1.0):
            steps += 1
            assert steps < 200
        assert steps > 3
        assert store.stats()["dead_bytes"] <= store.stats()["size_bytes"] / 2
        assert everything(store) == before


def test_a_reader_that_is_under_way_is_not_disturbed_by_tending(root):
    noise = random.Random(1)
    with opened_store(root, segment_bytes=16 * 1024) as store:
        for number in (1, 2):
            put(store, sid(number), opened(t=1))
        for n in range(20):
            for number in (1, 2):
                put(store, sid(number), Event(t=10 + n, name=f"e{n}", message=noise.randbytes(1000).hex()))
        rows = store.records(A, RecordQuery(kinds=("event",)))
        names = [next(rows).record["name"]]
        files = set((root / SEGMENTS_DIR).iterdir())
        store.drop(B)
        for n in range(20, 30):
            put(store, A, Event(t=10 + n, name=f"e{n}"))
        for number in range(3, 9):
            put(store, sid(number), opened(t=1), Event(t=2, name="x", message=noise.randbytes(8000).hex()))
            store.drop(sid(number))
        while store.tend(10):
            pass
        assert files - set((root / SEGMENTS_DIR).iterdir())
        names += [row.record["name"] for row in rows]
        assert names == [f"e{n}" for n in range(20)]


def test_writing_reading_dropping_and_tending_at_once_lose_nothing(root):
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
        put(store, sid(number), opened(t=1))
        for n in range(80):
            put(
                store,
                sid(number),
                Event(t=10 + n, name=f"e{n}", message="x" * 300),
                StatePatch(t=10 + n, patch={"n": n}),
            )

    def churn():
        for n in range(60):
            put(store, sid(1000 + n), opened(t=1), Event(t=2, name="y", message=random.randbytes(2000).hex()))
            store.drop(sid(1000 + n))

    def tend():
        while not stop.is_set():
            store.tend(0.05)

    def read():
        while not stop.is_set():
            for number in (1, 2):
                with contextlib.suppress(StoreError):
                    store.head(sid(number))
                    names = [row["name"] for row in stored(store, sid(number), kinds=("event",))]
                    assert names == [f"e{n}" for n in range(len(names))]

    with opened_store(root, segment_bytes=8 * 1024) as store:
        working = [threading.Thread(target=guarded(lambda n=n: write(n))) for n in (1, 2)]
        working.append(threading.Thread(target=guarded(churn)))
        around = [threading.Thread(target=guarded(tend)), threading.Thread(target=guarded(read))]
        for thread in working + around:
            thread.start()
        for thread in working:
            thread.join()
        stop.set()
        for thread in around:
            thread.join()
        assert failures == []
        while store.tend(10):
            pass
        before = everything(store)
        assert sorted(before) == [sid(1), sid(2)]
        assert all(head.counts["events"] == 80 and state["n"] == 79 for head, state, _ in before.values())
    with opened_store(root) as store:
        assert everything(store) == before


# death, full disks, failing disks -------------------------------------------------------------------------------------

WRITER = """
import os, random, sys, threading
from pathlib import Path
from datacat.store.semi import SemiStore
from datacat.wire.records import Event
from storing import opened, put, sid

store = SemiStore(Path(sys.argv[1]), segment_bytes=1 << 20)
first = int(sys.argv[2])

def write(writer):
    number = 10 * first + writer
    put(store, sid(number), opened(t=1))
    n = 0
    while True:
        put(store, sid(number), Event(t=10 + n, name=f"e{n}", data={"n": random.randbytes(random.randrange(20000)).hex()}))
        os.write(1, f"{number} {n}\\n".encode())
        n += 1

for writer in range(3):
    threading.Thread(target=write, args=(writer,)).start()
"""


def test_a_writer_that_is_killed_loses_nothing_that_was_acknowledged(root):
    acknowledged = {}
    for attempt in range(6):
        writer = program(WRITER, root, attempt)
        try:
            for _ in range(random.randrange(1, 120)):
                line = writer.stdout.readline().split()
                acknowledged[int(line[0])] = int(line[1])
        finally:
            writer.send_signal(signal.SIGKILL)
            writer.wait()
        for line in writer.stdout.read().splitlines():
            if len(parts := line.split()) == 2:
                acknowledged[int(parts[0])] = max(int(parts[1]), acknowledged.get(int(parts[0]), 0))
        writer.stdout.close()
        with opened_store(root) as store:
            assert store.stats()["damaged_regions"] == 0
            for number, newest in acknowledged.items():
                rows = stored(store, sid(number), kinds=("event",))
                assert len(rows) > newest
                assert [row["name"] for row in rows] == [f"e{n}" for n in range(len(rows))]
                assert store.head(sid(number)).counts["events"] == len(rows)
    assert len(acknowledged) > 3


FILLER = """
import resource, signal, sys
from pathlib import Path
from datacat.errors import StoreError
from datacat.store.semi import SemiStore
from datacat.wire.records import Event
from storing import A, opened, put, stored
import random

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

def refused(act):
    try:
        act()
    except StoreError as error:
        assert "free some disk space" in str(error), error
        return True
    return False

def event(n):
    return Event(t=10 + n, name=f"e{n}", message=random.randbytes(400).hex())

store = SemiStore(Path(sys.argv[1]))
put(store, A, opened(t=1))
limit(20_000)
n = 0
while not refused(lambda: put(store, A, event(n))):
    n += 1
assert n > 5
assert refused(lambda: put(store, A, event(n)))
assert [row["name"] for row in stored(store, A, kinds=("event",))] == [f"e{k}" for k in range(n)]
limit(1_000)
assert refused(store.check)
limit(resource.RLIM_INFINITY)
store.check()
put(store, A, event(n))
store.close()
print(n + 1)
"""


def test_a_full_disk_refuses_batches_and_loses_none(root):
    pytest.importorskip("resource", reason="capability: no resource limits here")
    filler = program(FILLER, root)
    out, _ = filler.communicate(timeout=50)
    assert filler.returncode == 0
    with opened_store(root) as store:
        assert store.stats()["damaged_regions"] == 0
        rows = stored(store, A, kinds=("event",))
        assert [row["name"] for row in rows] == [f"e{n}" for n in range(int(out))]


def test_a_write_that_failed_half_way_is_taken_back(store, monkeypatch):
    put(store, A, opened())
    write = os.write

    def half(fd, data):
        write(fd, bytes(data)[: len(data) // 2])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(border.os, "write", half)
        with pytest.raises(StoreError, match="free some disk space"):
            put(store, A, Event(t=2, name="lost"))
    put(store, A, Event(t=3, name="kept"))
    assert [row["name"] for row in stored(store, A, kinds=("event",))] == ["kept"]


def test_short_writes_are_completed(store, root, monkeypatch):
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(border.os, "write", lambda fd, data: write(fd, bytes(data)[:7]))
        put(store, A, opened())
        put(store, A, Event(t=2, name="e"))
    store.close()
    with opened_store(root) as again:
        assert [row["name"] for row in stored(again, A, kinds=("event",))] == ["e"]


def test_a_write_that_cannot_be_taken_back_stops_the_store(root, monkeypatch):
    with opened_store(root) as store:
        put(store, A, opened())
        with monkeypatch.context() as patch:

            def fail(*_):
                raise OSError(5, "Input/output error")

            patch.setattr(border.os, "write", fail)
            patch.setattr("datacat.store.segment.os.ftruncate", fail)
            with pytest.raises(StoreError):
                put(store, A, Event(t=2, name="e"))
        with pytest.raises(StoreError, match="restart"):
            put(store, A, Event(t=3, name="e"))
        assert store.head(A).product == "editor"


def test_after_a_failed_fsync_nothing_is_acknowledged_or_shown_or_taken(root, monkeypatch):
    with opened_store(root) as store:
        put(store, A, opened(state={"n": 0}))
        before = everything(store)
        with monkeypatch.context() as patch:

            def fail(_fd):
                raise OSError(5, "Input/output error")

            patch.setattr(border.os, "fsync", fail)
            with pytest.raises(StoreError, match="restart"):
                put(store, A, StatePatch(t=5, patch={"n": 1}))
        # The disk works again, but what it holds is not known any more.
        for act in (
            lambda: put(store, A, Event(t=6, name="e")),
            lambda: put(store, B, opened()),
            lambda: store.drop(A),
            store.check,
        ):
            with pytest.raises(StoreError, match="restart"):
                act()
        assert everything(store) == before
    with opened_store(root) as store:
        put(store, A, StatePatch(t=7, patch={"n": 2}))
        assert store.state(A)["n"] == 2


class SlowDisk:
    """fsync that waits until it is told to go on, and counts."""

    def __init__(self):
        self.calls = 0
        self.entered = threading.Event()
        self.go = threading.Event()
        self.error = None

    def fsync(self, _fd):
        self.calls += 1
        self.entered.set()
        assert self.go.wait(20)
        if self.error:
            raise self.error


@pytest.fixture
def slow(monkeypatch):
    disk = SlowDisk()
    yield disk, lambda: monkeypatch.setattr(border.os, "fsync", disk.fsync)
    disk.go.set()


def started(count, act):
    threads = [threading.Thread(target=act, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    return threads


def wait_until(check):
    pause = threading.Event()
    for _ in range(2000):
        if check():
            return
        pause.wait(0.01)
    raise AssertionError("it did not happen in 20 s")


def test_one_fsync_serves_all_who_wait(store, slow):
    disk, begin = slow
    for n in range(8):
        put(store, sid(n), opened())
    begin()
    threads = started(1, lambda n: put(store, sid(n), Event(t=5, name="first")))
    assert disk.entered.wait(20)
    threads += started(7, lambda n: put(store, sid(n + 1), Event(t=5, name="later")))
    wait_until(lambda: store._segments._written == 8 + 8)
    disk.go.set()
    for thread in threads:
        thread.join()
    assert disk.calls == 2
    assert all(store.head(sid(n)).counts["events"] == 1 for n in range(8))


def test_a_batch_is_shown_and_a_repeat_acknowledged_only_when_it_is_durable(store, slow):
    disk, begin = slow
    ship(store, A, 0, 50, opened(state={"n": 0}))
    begin()
    answers = []
    threads = started(1, lambda _: answers.append(ship(store, A, 50, 90, StatePatch(t=5, patch={"n": 1}))))
    assert disk.entered.wait(20)
    threads += started(1, lambda _: answers.append(ship(store, A, 50, 90, StatePatch(t=5, patch={"n": 1}))))

    def refused(_):
        try:
            ship(store, A, 60, 99)
        except Mismatch as error:
            answers.append(error)

    threads += started(1, refused)
    assert not threads[1].join(0.1)
    # Neither the batch nor anything that knows of it is told before it is on disk.
    assert answers == []
    assert store.head(A).streams["app"].acked == 50
    assert store.state(A)["n"] == 0
    assert [row["k"] for row in stored(store, A)] == ["open"]
    disk.go.set()
    for thread in threads:
        thread.join()
    assert len(answers) == 3
    assert sorted(getattr(answer, "acked", 0) or answer.streams["app"].acked for answer in answers) == [90, 90, 90]
    assert store.state(A)["n"] == 1


def test_all_who_wait_for_a_failed_fsync_are_told(root, slow):
    disk, begin = slow
    store = SemiStore(root)
    for n in range(4):
        put(store, sid(n), opened())
    errors = []

    def write(n):
        try:
            put(store, sid(n), Event(t=5, name="e"))
        except StoreError as error:
            errors.append(error)

    begin()
    threads = started(4, write)
    assert disk.entered.wait(20)
    wait_until(lambda: store._segments._written == 4 + 4)
    disk.error = OSError(28, "No space left on device")
    disk.go.set()
    for thread in threads:
        thread.join()
    assert len(errors) == 4
    assert all("events" not in head.counts for head in store.heads(Query()).heads)
    store.close()


# reading --------------------------------------------------------------------------------------------------------------


def test_bytes_that_change_while_the_store_is_open_are_reported(root, store):
    put(store, A, opened())
    put(store, A, Event(t=5, name="e", message="hello"))
    (path,) = (root / SEGMENTS_DIR).glob("*/data")
    data = bytearray(path.read_bytes())
    data[-10] ^= 1
    path.write_bytes(data)
    with pytest.raises(Corrupt) as found:
        stored(store, A, kinds=("event",))
    assert found.value.path == str(path)
    assert found.value.offset > 0


def test_the_newest_records_cost_their_own_batches_only(store, monkeypatch):
    put(store, A, opened(t=1))
    for n in range(200):
        put(store, A, Event(t=10 + n, name=f"e{n}"))
    reads = []
    read = border.read_at
    monkeypatch.setattr(border, "read_at", lambda *place: reads.append(place) or read(*place))
    assert [row["name"] for row in stored(store, A, newest_first=True, limit=3)] == ["e199", "e198", "e197"]
    assert len(reads) <= 5
    reads.clear()
    assert [row["name"] for row in stored(store, A, from_us=50, to_us=52)] == ["e40", "e41"]
    assert len(reads) == 2


def test_what_a_batch_costs_does_not_grow_with_the_session(store, root):
    put(store, A, opened(t=1, state={"n": 0}))

    def cost():
        before = store.stats()["size_bytes"]
        put(store, A, Event(t=10**9, name="e"), StatePatch(t=10**9, patch={"n": cost.n}))
        cost.n += 1
        return store.stats()["size_bytes"] - before

    cost.n = 1
    first = cost()
    for _ in range(300):
        cost()
    assert cost() < first + 60


def test_an_append_to_a_closed_store_is_refused_and_not_written(root):
    store = SemiStore(root)
    put(store, A, opened())
    store.close()
    size = disk_bytes(root)
    with pytest.raises(StoreError, match="closed"):
        store.append(A, Batch("app", lines(Event(t=1, name="e"))), received_us=1)
    assert disk_bytes(root) == size


def test_both_stores_have_the_same_face():
    def face(kind):
        return {name for name in dir(kind) if not name.startswith("_")}

    of_files = {"findings", "empty_dead"}
    assert face(SemiStore) - of_files == face(MemoryStore)
