"""A store's folder is put right before it is opened, whatever a crash or the disk did to it."""

import shutil

import pytest
from storing import A, B, everything, opened, put, sid

from datacat.errors import Corrupt, StoreError
from datacat.store import RecordQuery, entry
from datacat.store.durable import NEW_SUFFIX
from datacat.store.repair import QUARANTINE_DIR, SEGMENTS_DIR
from datacat.store.semi import SemiStore
from datacat.wire.records import Event, StatePatch


def data_files(root):
    return sorted((root / SEGMENTS_DIR).glob("*/data"))


def quarantined(root):
    return sorted((root / QUARANTINE_DIR).glob("*")) if (root / QUARANTINE_DIR).exists() else []


def events(store, session_id):
    return [row.record["name"] for row in store.records(session_id, RecordQuery(kinds=("event",)))]


def reopen(root):
    """Return what a reader sees after opening, and what opening found."""
    store = SemiStore(root)
    try:
        return everything(store), store.stats()["damaged_regions"]
    finally:
        store.close()


@pytest.fixture
def root(tmp_path):
    """A closed store with two sessions and five batches, and the size of its file after each."""
    root = tmp_path / "store"
    store = SemiStore(root)
    sizes = []
    for number in range(5):
        records = [StatePatch(t=10 + number, patch={"n": number}), Event(t=20 + number, name=f"e{number}")]
        if number < 2:
            records.insert(0, opened(t=1 + number))
        put(store, sid(1 + number % 2), *records)
        sizes.append(store.stats()["size_bytes"])
    store.close()
    (root / "sizes").write_text(" ".join(map(str, sizes)))
    return root


def sizes_of(root):
    return [int(size) for size in (root / "sizes").read_text().split()]


def test_cut_at_every_byte_of_the_last_batches_the_batches_before_are_there_and_writing_goes_on(root, monkeypatch):
    (path,) = data_files(root)
    whole = path.read_bytes()
    sizes = sizes_of(root)
    assert len(whole) == sizes[-1]
    # Durability is not what is tested here; a thousand times three syncs take long on a real disk.
    monkeypatch.setattr("datacat.store.durable.os.fsync", lambda fd: None)
    for cut in range(sizes[2], sizes[4] + 1):
        # Pages of roll-ups are written behind what is durable, so a torn log has none that are newer.
        shutil.rmtree(root / "rollups", ignore_errors=True)
        path.write_bytes(whole[:cut])
        kept = sum(size <= cut for size in sizes)
        store = SemiStore(root)
        names = [name for number in (1, 2) for name in events(store, sid(number))]
        assert sorted(names) == [f"e{number}" for number in range(kept)]
        assert store.stats()["damaged_regions"] == 0
        put(store, B, Event(t=99, name="after"))
        store.close()
        store = SemiStore(root)
        assert events(store, B)[-1] == "after"
        assert store.state(A)["n"] == (4 if kept == 5 else 2)
        store.close()
    assert quarantined(root) == []


@pytest.mark.parametrize("tail", [b"\0" * 4096, b"\0" * 5])
def test_zeros_behind_the_last_batch_are_cut(root, tail):
    before, _ = reopen(root)
    (path,) = data_files(root)
    size = path.stat().st_size
    path.write_bytes(path.read_bytes() + tail)
    assert reopen(root) == (before, 0)
    assert path.stat().st_size == size


def test_bytes_behind_the_last_batch_that_no_crash_explains_are_kept_aside(root):
    before, _ = reopen(root)
    (path,) = data_files(root)
    path.write_bytes(path.read_bytes() + b"\xff" * 100)
    assert reopen(root) == (before, 1)
    (kept,) = quarantined(root)
    assert kept.read_bytes() == b"\xff" * 100
    assert reopen(root) == (before, 0)


def test_damage_in_the_middle_costs_one_batch_and_is_told(root, caplog):
    (path,) = data_files(root)
    data = bytearray(path.read_bytes())
    sizes = sizes_of(root)
    data[(sizes[1] + sizes[2]) // 2] ^= 0x10
    path.write_bytes(data)
    seen, damaged = reopen(root)
    assert damaged == 1
    assert any(record.levelname == "ERROR" and "damaged records" in record.message for record in caplog.records)
    (kept,) = quarantined(root)
    assert kept.read_bytes() == bytes(data[sizes[1] : sizes[2]])
    head, state, rows = seen[A]
    # The session says that a batch of it is missing, and what came later is all there.
    assert head.dropped == {"damaged": 1}
    assert [record["name"] for _, record in rows if record["k"] == "event"] == ["e0", "e4"]
    assert state["n"] == 4
    assert seen[B][0].dropped == {}
    again, damaged = reopen(root)
    assert (again, damaged) == (seen, 0)


def test_a_session_that_misses_a_batch_goes_on_and_keeps_saying_so(root):
    (path,) = data_files(root)
    data = bytearray(path.read_bytes())
    data[sizes_of(root)[2] - 5] ^= 1
    path.write_bytes(data)
    store = SemiStore(root)
    put(store, A, Event(t=50, name="later"))
    store.close()
    store = SemiStore(root)
    assert store.head(A).dropped == {"damaged": 1}
    assert events(store, A) == ["e0", "e4", "later"]
    store.close()


def test_a_flip_in_any_place_invents_nothing_and_is_never_silent(root, monkeypatch):
    (path,) = data_files(root)
    whole = path.read_bytes()
    before, _ = reopen(root)
    known = {session_id: dict(rows) for session_id, (_, _, rows) in before.items()}
    monkeypatch.setattr("datacat.store.durable.os.fsync", lambda fd: None)
    for position in range(0, len(whole), 29):
        flipped = bytearray(whole)
        flipped[position] ^= 1 << position % 8
        path.write_bytes(flipped)
        shutil.rmtree(root / QUARANTINE_DIR, ignore_errors=True)
        store = SemiStore(root)
        seen = everything(store)
        told = store.stats()["damaged_regions"] or store.stats()["size_bytes"] < len(whole)
        store.close()
        assert told
        assert sum(len(rows) for _, _, rows in seen.values()) >= sum(map(len, known.values())) - 3
        for session_id, (_, _, rows) in seen.items():
            assert all(known[session_id][at] == record for at, record in rows)


def test_a_damaged_header_is_written_again(root):
    before, _ = reopen(root)
    (path,) = data_files(root)
    path.write_bytes(b"SEMJ" + path.read_bytes()[4:])
    assert reopen(root) == (before, 1)
    assert path.read_bytes()[:8] == b"SEMI\0\1\0\1"


@pytest.mark.parametrize("cut", range(9))
def test_a_file_without_a_whole_record_is_an_empty_one(tmp_path, cut):
    root = tmp_path / "store"
    SemiStore(root).close()
    (path,) = data_files(root)
    path.write_bytes(path.read_bytes()[:cut])
    store = SemiStore(root)
    put(store, A, opened())
    store.close()
    assert list(reopen(root)[0]) == [A]


def test_what_an_interrupted_start_or_rewrite_left_is_removed(root):
    before, _ = reopen(root)
    (path,) = data_files(root)
    (path.parent / f"data{NEW_SUFFIX}").write_bytes(b"half")
    (path.parent / "compact").mkdir()
    (path.parent / "compact" / "data").write_bytes(path.read_bytes()[:100])
    half_made = root / SEGMENTS_DIR / "00000002-0badf00d"
    half_made.mkdir()
    (half_made / f"data{NEW_SUFFIX}").write_bytes(b"SEM")
    emptied = root / SEGMENTS_DIR / "00000003-0badf00d"
    emptied.mkdir()
    (root / SEGMENTS_DIR / "notes").mkdir()
    assert reopen(root) == (before, 0)
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["data"]
    assert not half_made.exists()
    assert not emptied.exists()
    # A folder that is none of ours is left alone.
    assert (root / SEGMENTS_DIR / "notes").exists()


def test_an_entry_that_lies_in_two_segments_counts_once(root):
    """Moving entries out of a mostly dead segment was interrupted before the old one was removed."""
    before, _ = reopen(root)
    store = SemiStore(root)
    segments = store._segments
    for session_id in (A, B):
        for chunk in store._index.chunks(session_id):
            key = entry.key_of(session_id, chunk.first, chunk.last)
            segments.write(key, segments.read(key, chunk), lambda _: None, merged=True)
    segments.sync()
    store.close()
    shutil.rmtree(root / "hints")  # a crash leaves none that knows of this
    first, second = data_files(root)
    assert reopen(root) == (before, 0)
    store = SemiStore(root, segment_bytes=4096)
    while store.tend(10):
        pass
    assert second.exists()
    assert not first.exists()
    assert everything(store) == before
    store.close()


def test_two_segments_of_one_number_are_refused(root, tmp_path):
    other = SemiStore(tmp_path / "other")
    put(other, sid(9), opened())
    other.close()
    (path,) = data_files(tmp_path / "other")
    shutil.copytree(path.parent, root / SEGMENTS_DIR / path.parent.name)
    with pytest.raises(Corrupt, match="same number"):
        SemiStore(root)
    shutil.rmtree(root / SEGMENTS_DIR / path.parent.name)
    SemiStore(root).close()


def test_a_segment_whose_folder_was_renamed_is_refused_untouched(root):
    before, _ = reopen(root)
    (path,) = data_files(root)
    data = path.read_bytes()
    renamed = path.parent.rename(path.parent.with_name("00000001-00000000"))
    with pytest.raises(Corrupt, match="another name"):
        SemiStore(root)
    assert (renamed / "data").read_bytes() == data
    renamed.rename(path.parent)
    assert reopen(root) == (before, 0)


def test_a_store_of_a_later_version_is_refused_untouched(root):
    (root / "format").write_bytes(b"datacat store 4\n")
    data = [path.read_bytes() for path in data_files(root)]
    with pytest.raises(StoreError, match="later one") as refused:
        SemiStore(root)
    assert refused.value.permanent
    assert [path.read_bytes() for path in data_files(root)] == data


def test_stock_semidbm_can_read_the_files(root):
    import semidbm

    (path,) = data_files(root)
    stock = semidbm.open(str(path.parent), "w", verify_checksums=True)
    try:
        assert sorted(stock.keys()) == sorted(
            [f"{A}/1".encode(), f"{A}/2".encode(), f"{A}/3".encode(), f"{B}/1".encode(), f"{B}/2".encode()]
        )
        assert all(b'"head":{' in stock[key] for key in stock.keys())  # noqa: SIM118
    finally:
        stock.close()
