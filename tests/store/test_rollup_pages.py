"""Roll-ups on disk: every acknowledged batch counts once, whatever happens when; pages grow coarser and stay few."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import threading

import pytest
from storing import A, B, cells_of, opened, put, sid

from datacat.errors import Corrupt
from datacat.store import CatalogueQuery, RollupQuery, durable, page_files, rollup_pages
from datacat.store.memory import MemoryStore
from datacat.store.pages import MAX_NAMES, MAX_TAG_SETS, Ages
from datacat.store.redo import deltas_behind
from datacat.store.rollup import OTHER
from datacat.store.semi import SemiStore
from datacat.wire.records import Close, Event, Metric, Verdict

MINUTE = 60_000_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR
ALL = RollupQuery(interval_s=60, by=("product", "version", "kind", "name", "tags"))
BY_NAME = RollupQuery(by=("kind", "name"))


@pytest.fixture
def eager(monkeypatch):
    """Pages are written at every tend()."""
    monkeypatch.setattr(rollup_pages, "WRITE_INTERVAL_S", 0.0)


def open_store(root, now_us=1, **more):
    return SemiStore(root, now_ns=lambda: now_us * 1000, **more)


def tend(store):
    while store.tend(10.0):
        pass


def told(store, query=ALL):
    return cells_of(store, query), store.catalogue(CatalogueQuery())


def left_by_a_kill(root, to):
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(root, to, copy_function=shutil.copy2)
    return to


def some_batch(rng, now_us):
    records = []
    for _ in range(rng.randrange(1, 6)):
        t = now_us - rng.choice([0, 0, 0, 0, MINUTE, 3 * HOUR, 2 * DAY]) - rng.randrange(MINUTE)
        kind = rng.choice(["gauge", "counter", "histogram", "timer", "event"])
        if kind == "event":
            records.append(Event(t=t, name=rng.choice("ab"), level=rng.choice(["info", "error"]), group="g"))
        else:
            tags = rng.choice([None, ["x:1"], ["x:2", "y"]])
            value = rng.choice([rng.randrange(-50, 50), rng.lognormvariate(0, 3)])
            records.append(Metric(t=t, name=rng.choice("mn"), value=value, type=kind, tags=tags, unit="ms"))
    return records


class Crash(BaseException):
    """The process dies here."""


def story(store, model, rng, now_us):
    """Do the same to both for a while: batches, deletions, ageing. Yields after every step."""
    for number in range(1, 5):
        for one in (store, model):
            put(one, sid(number), opened(t=now_us), received_us=now_us)
        yield now_us
    for step in range(50):
        number = rng.randrange(1, 5)
        match rng.randrange(11):
            case 0:
                tend(store)
            case 1:
                now_us += rng.choice([HOUR, DAY])
            case 2:
                verdict = Verdict(t=now_us, status=rng.choice(["hung", "active", "crashed"]), hang_s=1.5)
                _both(store, model, number, [verdict], now_us)
            case 3 | 4:
                # Dead entries, so that segments are rewritten.
                _both(store, model, 100 + step, [opened(t=now_us), *some_batch(rng, now_us) * 5], now_us)
                store.drop(sid(100 + step))
                model.drop(sid(100 + step))
            case _:
                _both(store, model, number, some_batch(rng, now_us), now_us)
        yield now_us


def _both(store, model, number, records, now_us):
    # What was written and not acknowledged may be there or not: the model takes it when the store has acknowledged.
    put(store, sid(number), *records, received_us=now_us)
    put(model, sid(number), *records, received_us=now_us)


@pytest.mark.parametrize("trouble", [Crash, OSError])
def test_trouble_at_every_step_of_writing_pages_neither_loses_nor_doubles(tmp_path, eager, monkeypatch, trouble):
    """At each file that is made or removed the process may die, or the disk be full for a while before it dies."""
    monkeypatch.setattr("datacat.store.durable.os.fsync", lambda fd: None)
    create, remove = durable.create, page_files.remove
    for seed in range(2):
        steps = 0
        while True:
            root = tmp_path / f"{seed}-{steps}"
            now = [500 * DAY]
            model = MemoryStore()
            store = SemiStore(root, segment_bytes=4096, now_ns=lambda now=now: now[0] * 1000, ages=Ages(0.5, 2, 400))
            left = [steps]

            def fails(do, path, *args, left=left):
                left[0] -= 1
                if left[0] < 0 and (trouble is Crash or (left[0] > -8 and "rollups" in str(path))):
                    raise trouble
                return do(path, *args)

            monkeypatch.setattr(durable, "create", lambda *args, fails=fails: fails(create, *args))
            if trouble is Crash:
                monkeypatch.setattr(
                    page_files, "remove", lambda file, fails=fails: fails(lambda _: remove(file), file.path)
                )
            with contextlib.suppress(Crash):
                for now_us in story(store, model, random.Random(seed), now[0]):
                    now[0] = now_us
            monkeypatch.setattr(durable, "create", create)
            monkeypatch.setattr(page_files, "remove", remove)
            copy = left_by_a_kill(root, tmp_path / "left")
            for _ in range(2):
                again = SemiStore(
                    copy, segment_bytes=4096, now_ns=lambda now=now: now[0] * 1000, ages=Ages(999, 999, 0)
                )
                total = RollupQuery(by=("product", "version", "kind", "name", "tags"))
                assert told(again, total) == told(model, total), (seed, steps)
                tend(again)
                again.close()
            store.close()
            shutil.rmtree(root)
            if left[0] > 0:
                break
            steps += 1 + steps // 6
        assert steps > 20, "the story has to write pages"


def test_cut_at_every_byte_of_the_last_batches_what_is_left_counts_once(tmp_path, eager, monkeypatch):
    monkeypatch.setattr("datacat.store.durable.os.fsync", lambda fd: None)
    root = tmp_path / "store"
    store, model = open_store(root), MemoryStore()
    known = []
    for number in range(8):
        for one in (store, model):
            put(one, A, *([opened(t=1)] if not number else []), *(Metric(t=5, name="m", value=2**n) for n in range(3)))
        if number == 3:
            tend(store)
        known.append((store.stats()["size_bytes"], told(model)))
    assert next((root / "rollups").glob("0-*")), "half of it is in a page"
    left = left_by_a_kill(root, tmp_path / "left")
    (data,) = left.glob("segments/*/data")
    whole = data.read_bytes()
    rollups = left_by_a_kill(left / "rollups", tmp_path / "rollups")
    for cut in range(known[5][0], known[-1][0] + 1):
        left_by_a_kill(rollups, left / "rollups")
        data.write_bytes(whole[:cut])
        expected = [answer for size, answer in known if size <= cut][-1]
        again = open_store(left)
        assert told(again) == expected
        again.close()
        again = open_store(left)
        assert told(again) == expected
        again.close()
    store.close()


def test_a_log_that_is_shorter_than_its_pages_say_goes_on_behind_them(tmp_path, eager):
    root = tmp_path / "store"
    store = open_store(root)
    put(store, A, opened(t=1), Event(t=1, name="a"))
    size = store.stats()["size_bytes"]
    put(store, A, Event(t=1, name="a"))
    store.close()
    (data,) = root.glob("segments/*/data")
    with data.open("rb+") as file:
        file.truncate(size)
    store = open_store(root)
    put(store, A, Event(t=1, name="a"), Event(t=1, name="a"))
    store.close()
    store = open_store(root)
    assert store.rollups(RollupQuery(kinds=("event",))).cells[0, ()].count == 4
    store.close()


@pytest.mark.parametrize("seed", range(6))
def test_disk_and_memory_give_the_same_answers(tmp_path, eager, seed):
    rng = random.Random(seed)
    now = [500 * DAY]
    model = MemoryStore()
    kept = SemiStore(tmp_path, segment_bytes=4096, now_ns=lambda: now[0] * 1000, ages=Ages(9999, 9999, 0))
    stories = story(kept, model, rng, now[0])
    for now_us in stories:
        now[0] = now_us
        by = tuple(rng.sample(["product", "version", "kind", "name", "level", "tag:x", "tags"], rng.randrange(4)))
        low = now_us - rng.randrange(3 * DAY)
        query = RollupQuery(
            from_us=rng.choice([None, low]),
            to_us=rng.choice([None, low + rng.randrange(2 * DAY)]),
            interval_s=rng.choice([None, 60, 300, 3600, 86400]),
            kinds=rng.choice([(), ("gauge", "event"), ("status",)]),
            names=rng.choice([(), ("m", "a"), ("b",)]),
            tags=rng.choice([(), ("x:1", "level:error")]),
            by=by,
            distributions=rng.choice([True, False]),
        )
        assert told(kept, query) == told(model, query)
    kept.close()


def test_a_page_that_could_not_be_folded_yet_is_not_written_alone(tmp_path, eager, monkeypatch):
    """What came late is in the coarser page; one of minutes that claims to have it would lose it at the next start."""
    now = [500 * DAY]
    store = SemiStore(tmp_path / "store", now_ns=lambda: now[0] * 1000)
    put(store, A, opened(t=now[0]), Event(t=now[0], name="a"), received_us=now[0])
    now[0] += 4 * DAY
    create = durable.create

    def full(path, data):
        if path.name.startswith("1-"):
            raise OSError(28, "No space left on device")
        create(path, data)

    monkeypatch.setattr(durable, "create", full)
    with pytest.raises(OSError, match="No space"):
        store._rollups._grow_old(now[0] // MINUTE)
    put(store, A, Event(t=now[0] - 4 * DAY, name="a"), received_us=now[0])
    tend(store)
    monkeypatch.undo()
    again = SemiStore(left_by_a_kill(tmp_path / "store", tmp_path / "left"), now_ns=lambda: now[0] * 1000)
    assert again.rollups(RollupQuery(kinds=("event",))).cells[0, ()].count == 2
    again.close()
    store.close()


def test_minutes_become_hours_and_hours_days_and_totals_stay(tmp_path, eager, monkeypatch):
    monkeypatch.setattr("datacat.store.durable.os.fsync", lambda fd: None)
    now = [1000 * DAY]
    store, model = SemiStore(tmp_path, now_ns=lambda: now[0] * 1000), MemoryStore()
    rng = random.Random(1)
    for one in (store, model):
        put(one, A, opened(t=now[0]), received_us=now[0])
    for day in range(120):
        records = [Metric(t=now[0] - day * DAY - rng.randrange(DAY), name="m", value=rng.random()) for _ in range(20)]
        for one in (store, model):
            put(one, A, *records, received_us=now[0])
    tend(store)
    levels = sorted({file.id.level for file in store._rollups._files.values()})
    assert levels == [0, 1, 2]
    assert len(store._rollups._files) < 48 + 130
    assert all(file.id.level for file in store._rollups._files.values() if file.id.end_min * MINUTE <= now[0] - 3 * DAY)
    for interval_s, at_us in ((None, 0), (32 * 86400, 0), (86400, 0), (3600, now[0] - 40 * DAY), (60, now[0] - DAY)):
        query = RollupQuery(from_us=at_us, interval_s=interval_s, by=("kind", "name"))
        assert told(store, query) == told(model, query)
    assert store.rollups(RollupQuery(from_us=0, interval_s=60)).resolution_s == 86400
    assert store.rollups(RollupQuery(from_us=now[0] - 40 * DAY, interval_s=60)).resolution_s == 3600
    assert store.rollups(RollupQuery(from_us=now[0] - DAY, interval_s=60)).resolution_s == 60
    for one in (store, model):  # late ones count where their time is kept by now
        put(one, A, *(Metric(t=now[0] - days * DAY, name="m", value=1) for days in (1, 20, 110)), received_us=now[0])
    assert told(store, BY_NAME) == told(model, BY_NAME)
    store.close()
    store = SemiStore(tmp_path, now_ns=lambda: now[0] * 1000)
    assert told(store, BY_NAME) == told(model, BY_NAME)
    now[0] += 405 * DAY
    tend(store)
    assert store.rollups(RollupQuery()).cells == {}
    assert store.catalogue(CatalogueQuery()) == []
    store.close()
    assert sorted(path.name for path in (tmp_path / "rollups").iterdir()) == ["catalogue", "mark"]


def test_what_deleted_sessions_did_still_counts_when_their_segments_are_gone(tmp_path, eager):
    store = open_store(tmp_path, segment_bytes=1024)
    for number in range(30):
        put(store, sid(number), opened(t=1), Event(t=1, name="a"), Close(t=2))
    for number in range(29):
        store.drop(sid(number))
    tend(store)
    assert store.stats()["segments"] < 8
    store.close()
    store = open_store(tmp_path, segment_bytes=1024)
    counts = {group[0]: cell.count for (_, group), cell in store.rollups(RollupQuery(by=("name",))).cells.items()}
    assert counts == {"a": 30, "started": 30, "ended": 30}
    store.close()
    assert all(
        sid(number).encode() not in path.read_bytes()
        for number in range(30)
        for path in (tmp_path / "rollups").iterdir()
    )


def test_no_segment_goes_before_its_counts_are_in_pages(tmp_path, monkeypatch):
    store = open_store(tmp_path, segment_bytes=1024)
    for number in range(30):
        put(store, sid(number), opened(t=1), Event(t=1, name="a"))
    for number in range(30):
        store.drop(sid(number))

    def full(*_):
        raise OSError(28, "No space left on device")

    before = store.stats()["segments"]
    monkeypatch.setattr(page_files.durable, "create", full)
    for _ in range(5):
        store.tend(10.0)
    monkeypatch.undo()
    assert store.stats()["segments"] >= before
    for _ in range(5):
        tend(store)
    assert store.stats()["segments"] < before
    left = left_by_a_kill(tmp_path, tmp_path.with_name("left"))
    again = open_store(left, segment_bytes=1024)
    assert again.rollups(RollupQuery(kinds=("event",))).cells[0, ()].count == 30
    again.close()
    store.close()


def test_a_start_after_a_stop_reads_no_delta(tmp_path):
    store = open_store(tmp_path)
    put(store, A, opened(t=1), Event(t=1, name="a"))
    put(store, B, opened(t=1))
    store.close()
    store = open_store(tmp_path)
    segments, end = store._segments.log()
    assert store._rollups.mark == end
    assert list(deltas_behind(segments, store._rollups.mark)) == []
    assert len(list(deltas_behind(segments, page_files.START))) == 2
    store.close()


def test_without_their_folder_roll_ups_are_made_again_from_the_log(tmp_path):
    store = open_store(tmp_path)
    put(store, A, opened(t=1), Event(t=1, name="a"))
    expected = told(store)
    store.close()
    shutil.rmtree(tmp_path / "rollups")
    store = open_store(tmp_path)
    assert told(store) == expected
    store.close()


def test_tag_sets_names_and_versions_beyond_the_limit_count_as_other(tmp_path, eager):
    store = open_store(tmp_path)
    put(store, A, opened(t=1))
    many = MAX_TAG_SETS + 50
    for number in range(many):
        put(store, A, *[Metric(t=1, name="m", value=1, tags=[f"n:{number}"])] * (2 if number < 100 else 1))
    put(store, A, *(Metric(t=1, name=f"name{number}", value=1) for number in range(MAX_NAMES + 50)))
    tend(store)
    cells = store.rollups(RollupQuery(names=("m",), by=("tags",))).cells
    assert len(cells) == MAX_TAG_SETS
    assert sum(cell.count for cell in cells.values()) == many + 100
    assert all(cells[0, (f"n:{number}",)].count == 2 for number in range(100)), "the large ones are kept"
    names = store.rollups(RollupQuery(kinds=("gauge",), by=("name",))).cells
    assert len(names) == MAX_NAMES + 1
    assert sum(cell.count for cell in names.values()) == many + 100 + MAX_NAMES + 50
    assert names[0, (OTHER,)].count == 51
    assert store.stats()["rollups_limited"] > 0 or store.stats()["rollup_cells"] == 0
    store.close()


def test_memory_stays_bounded_without_a_tend(tmp_path, monkeypatch):
    monkeypatch.setattr(rollup_pages, "MAX_CELLS", 200)
    store, model = SemiStore(tmp_path), MemoryStore()
    now = 500 * DAY
    for one in (store, model):
        put(one, A, opened(t=now), received_us=now)
    for number in range(20):
        for one in (store, model):
            records = [Event(t=now - (50 * number + n) * 7 * MINUTE, name="a") for n in range(50)]
            put(one, A, *records, received_us=now)
        assert store.stats()["rollup_cells"] <= 300
    assert told(store) == told(model)
    store.close()


def test_a_flipped_bit_in_a_page_is_told_and_costs_its_family(tmp_path, eager):
    store = open_store(tmp_path)
    put(store, A, opened(t=1), *(Metric(t=1, name=name, value=1) for name in "abc"))
    tend(store)
    (page,) = (tmp_path / "rollups").glob("0-*")
    data = bytearray(page.read_bytes())
    data[-3] ^= 1
    page.write_bytes(data)
    with pytest.raises(Corrupt) as raised:
        store.rollups(RollupQuery())
    assert raised.value.path == str(page)
    tend(store)
    found = {group[0] for _, group in store.rollups(RollupQuery(by=("name",))).cells}
    assert len(found) == 3
    assert found < {"a", "b", "c", "started"}
    assert list((tmp_path / "quarantine").iterdir())
    store.close()


@pytest.mark.parametrize("name", ["catalogue", "mark", "0-*"])
def test_a_file_that_is_not_what_was_written_is_set_aside(tmp_path, eager, name):
    store = open_store(tmp_path)
    put(store, A, opened(t=1), Event(t=1, name="a"))
    expected = told(store)
    store.close()
    (path,) = (tmp_path / "rollups").glob(name)
    path.write_bytes(path.read_bytes()[:-1] + b"?" if name != "0-*" else b"no page")
    store = open_store(tmp_path)
    if name == "0-*":
        with pytest.raises(Corrupt):
            store.rollups(ALL)
        tend(store)
        assert store.rollups(ALL).cells == {}
    else:
        assert told(store) == expected
    put(store, A, Event(t=1, name="a"))
    tend(store)
    assert list((tmp_path / "quarantine").iterdir())
    store.close()


def test_readers_see_whole_batches_while_pages_are_written(tmp_path, eager):
    store = open_store(tmp_path, segment_bytes=8192)
    put(store, A, opened(t=1))
    done = threading.Event()
    wrong = []

    def read():
        query = RollupQuery(kinds=("counter",), by=("name",))
        low = 0
        while not done.is_set():
            counts = {group[0]: cell.count for (_, group), cell in store.rollups(query).cells.items()}
            if len(set(counts.values())) > 1 or min(counts.values(), default=0) < low:
                wrong.append(counts)
            low = min(counts.values(), default=0)

    def maintain():
        while not done.is_set():
            store.tend(0.01)

    threads = [threading.Thread(target=run) for run in (read, read, maintain)]
    for thread in threads:
        thread.start()
    for number in range(150):
        put(store, A, *(Metric(t=1, name=f"c{n}", value=number, type="counter") for n in range(4)))
    done.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    store.close()


WRITER = """
import sys, threading, json
from pathlib import Path
sys.path.insert(0, {tests!r})
from storing import opened, put, sid
from datacat.errors import DatacatError
from datacat.store import rollup_pages
from datacat.store.semi import SemiStore
from datacat.wire.records import Event, Metric
rollup_pages.WRITE_INTERVAL_S = 0.01
store = SemiStore(Path(sys.argv[1]), segment_bytes=16384, now_ns=lambda: 1)
first = int(sys.argv[2])
def tend():
    while True:
        store.tend(0.02)
threading.Thread(target=tend, daemon=True).start()
print("ready", flush=True)
number = 0
while True:
    number += 1
    one = first + number % 7
    if number <= 7:
        put(store, sid(one), opened(t=1))
    put(store, sid(one), *(Event(t=n * 60_000_000, name=sid(one)) for n in range(number % 5 + 1)), Metric(t=1, name="m", value=1))
"""


def kill_at_random(tmp_path, rounds, seed):
    rng = random.Random(seed)
    root = tmp_path / "store"
    tests = os.path.dirname(os.path.dirname(__file__))
    for number in range(rounds):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER.format(tests=tests), str(root), str(number * 10)], stdout=subprocess.PIPE
        )
        try:
            assert process.stdout.readline() == b"ready\n"
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(rng.uniform(0.05, 0.5))
        finally:
            process.send_signal(signal.SIGKILL)
            process.communicate()
        store = open_store(root, segment_bytes=16384)
        query = RollupQuery(kinds=("event",), by=("name",))
        counts = {group[0]: cell.count for (_, group), cell in store.rollups(query).cells.items()}
        heads = {head.id: head.counts.get("events", 0) for head in store.open_heads()}
        assert counts == {one: events for one, events in heads.items() if events}
        listed = {entry.name: entry.count for entry in store.catalogue(CatalogueQuery(kinds=("event",)))}
        assert listed == counts
        if rng.random() < 0.5:
            store.close()
        else:
            store._owner.release()


def test_a_server_that_is_killed_while_it_writes_pages_counts_everything_once(tmp_path):
    kill_at_random(tmp_path, 5, seed=1)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_server_that_is_killed_a_hundred_times_counts_everything_once(tmp_path):
    kill_at_random(tmp_path, 100, seed=2)
