"""A backup of a store that is at work is whole, verified, and never half there under its name."""

import json
import shutil
import threading

import pytest
from storing import everything, opened, put, sid
from volume import fill, tend

from datacat.errors import StoreError
from datacat.store import RollupQuery, backup, durable
from datacat.store.backup import MANIFEST, PARTIAL_SUFFIX, back_up, restore
from datacat.store.checking import Report, check
from datacat.store.semi import SemiStore
from datacat.wire.records import Event


def run(steps):
    return [step for step in steps if step.total >= 0]


def copy_of(root, target, beside=()):
    run(back_up(root, beside, target, 1_700_000_000_000_000, "1.0"))
    return target


def read(root):
    store = SemiStore(root)
    try:
        return everything(store), store.rollups(RollupQuery())
    finally:
        store.close()


def sums(rollups):
    return {key: (cell.count, cell.sum, cell.min, cell.max) for key, cell in rollups.cells.items()}


@pytest.fixture
def root(mixed_store, tmp_path):
    return shutil.copytree(mixed_store, tmp_path / "data" / "store")


def test_what_was_backed_up_and_restored_is_the_same_store(root, tmp_path):
    keys = root.parent / "keys.json"
    keys.write_text("{}")
    target = copy_of(root, tmp_path / "copy", backup.files_beside(root.parent))
    told = json.loads((target / MANIFEST).read_text())
    assert told["sessions"] == 13
    before = read(root)
    run(restore(target, tmp_path / "new"))
    assert read(tmp_path / "new" / "store") == before
    assert (tmp_path / "new" / "keys.json").read_text() == "{}"
    report = Report()
    list(check(tmp_path / "new" / "store", report))
    assert report.sound


def test_a_backup_takes_only_an_empty_folder_and_a_restore_too(root, tmp_path):
    (tmp_path / "copy").mkdir()
    target = copy_of(root, tmp_path / "copy")
    with pytest.raises(StoreError, match="not empty"):
        copy_of(root, target)
    with pytest.raises(StoreError, match="not empty"):
        run(restore(target, root.parent))
    with pytest.raises(StoreError, match="no backup"):
        run(restore(root, tmp_path / "new"))


def test_a_backup_that_is_given_up_leaves_nothing(root, tmp_path):
    steps = back_up(root, [], tmp_path / "copy", 0, "1.0")
    for _ in range(3):
        next(steps)
    assert list(tmp_path.glob(f"*{PARTIAL_SUFFIX}"))
    steps.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


def test_a_restore_that_is_given_up_leaves_nothing(root, tmp_path):
    (root.parent / "keys.json").write_text("{}")
    target = copy_of(root, tmp_path / "copy", backup.files_beside(root.parent))
    steps = restore(target, tmp_path / "new")
    while next(steps).doing != "copying":
        pass
    steps.close()
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize("name", ["segments", "rollups", "format"])
def test_a_backup_that_was_damaged_is_not_restored(root, tmp_path, name):
    target = copy_of(root, tmp_path / "copy")
    path = next(path for path in sorted((target / "store").rglob("*")) if path.is_file() and name in str(path))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(StoreError, match="not what was written"):
        run(restore(target, tmp_path / "new"))
    path.unlink()
    with pytest.raises(StoreError, match="lacks"):
        run(restore(target, tmp_path / "new"))
    assert not (tmp_path / "new").exists()


def test_a_manifest_that_names_files_elsewhere_is_refused(root, tmp_path):
    target = copy_of(root, tmp_path / "copy")
    (tmp_path / "evil").write_bytes(b"")
    told = json.loads((target / MANIFEST).read_text())
    told["files"].append({"path": "../evil", "size_bytes": 0, "crc32": 0})
    (target / MANIFEST).write_text(json.dumps(told))
    with pytest.raises(StoreError, match="path"):
        run(restore(target, tmp_path / "new"))
    assert list((tmp_path / "new").iterdir()) == []


def test_a_damaged_store_is_not_backed_up_in_silence(root, tmp_path):
    path = min((root / "segments").glob("*/data"))
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    with pytest.raises(StoreError, match="damaged"):
        copy_of(root, tmp_path / "copy")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


def test_a_disk_that_is_full_leaves_no_backup(root, tmp_path, monkeypatch):
    real = durable.write_all
    monkeypatch.setattr(durable, "write_all", lambda fd, data: real(fd, data) if len(data) < 5000 else no_space())

    def no_space():
        raise OSError(28, "No space left on device")

    with pytest.raises(StoreError, match="No space"):
        copy_of(root, tmp_path / "copy")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


def test_a_backup_of_a_store_at_work_has_all_that_was_acknowledged_before_and_nothing_torn(tmp_path):
    """Writers, merging, deleting and emptying go on while one backup after the other is made."""
    root = tmp_path / "store"
    store = SemiStore(root, segment_bytes=30_000, quiet_s=0)
    stop = threading.Event()
    acked = {}
    dropped = set()
    failures = []

    def work(thread):
        number = thread * 10_000
        try:
            # Paced: on a fast disk the store would grow faster than it can be copied.
            while not stop.wait(0.05):
                number += 1
                put(store, sid(number), opened(t=number))
                for n in range(20):
                    put(store, sid(number), Event(t=number + n, name=f"e{n}", message="m" * 100))
                    acked[sid(number)] = n + 1
                if number % 3 == 0:
                    store.drop(sid(number))
                    dropped.add(sid(number))
        except Exception as error:
            failures.append(error)

    def tidy():
        try:
            while not stop.is_set():
                store.tend(0.05)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in (1, 2)] + [threading.Thread(target=tidy)]
    for thread in threads:
        thread.start()
    try:
        for turn in range(6):
            stop.wait(0.3)
            before, gone = dict(acked), set(dropped)
            copy_of(root, tmp_path / f"copy{turn}")
            report = Report()
            list(check(tmp_path / f"copy{turn}" / "store", report))
            assert report.troubles == []
            run(restore(tmp_path / f"copy{turn}", tmp_path / f"new{turn}"))
            seen, rollups = read(tmp_path / f"new{turn}" / "store")
            assert not gone & seen.keys()
            for session_id, count in before.items():
                if session_id in seen:
                    names = [record["name"] for _, record in seen[session_id][2] if record["k"] == "event"]
                    assert len(names) >= count
                    assert names == [f"e{n}" for n in range(len(names))]
                else:
                    assert session_id in dropped or int(session_id[-4:], 16) % 3 == 0
            assert rollups
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        store.close()
    assert not failures


def test_roll_ups_of_a_backup_count_every_batch_once(tmp_path):
    root = tmp_path / "store"
    now = [0.0]
    store = SemiStore(root, segment_bytes=20_000, quiet_s=0, clock=lambda: now[0])
    fill(store, 6)
    now[0] += 100
    tend(store)  # writes pages and the mark
    fill(store, 3, first=50)
    expected = sums(store.rollups(RollupQuery()))
    copy_of(root, tmp_path / "copy")
    fill(store, 3, first=80)
    store.close()
    run(restore(tmp_path / "copy", tmp_path / "new"))
    assert sums(read(tmp_path / "new" / "store")[1]) == expected
    shutil.rmtree(tmp_path / "new" / "store" / "hints", ignore_errors=True)
    assert sums(read(tmp_path / "new" / "store")[1]) == expected
