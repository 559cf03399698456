"""One file among threads: readers finish what they began, and descriptors are never used after they were given back."""

import os
import threading

import pytest
from storing import A, opened, put, stored

from datacat.errors import Corrupt, StoreError
from datacat.store import durable
from datacat.store.descriptors import Descriptors
from datacat.store.repair import SEGMENTS_DIR, make_segment, remove_segment
from datacat.store.sealed import MAX_KEY_BYTES
from datacat.store.semi import SemiStore
from datacat.wire.records import Event


@pytest.fixture
def segment(tmp_path):
    segment = make_segment(tmp_path, 1, 0x12345678, Descriptors())
    yield segment
    segment.close()


def test_what_was_appended_is_there_at_its_place(segment):
    one = segment.append(b"a", b"one")
    empty = segment.append(b"b", b"")
    two = segment.append(b"a", b"two")
    assert [segment.read(key, *place) for key, place in ((b"a", one), (b"b", empty), (b"a", two))] == [
        b"one",
        b"",
        b"two",
    ]
    assert (segment[b"a"], segment[b"b"], segment.keys()) == (b"two", b"", [b"a", b"b", b"a"])
    assert list(segment.places()) == [(b"a", one[0]), (b"b", empty[0]), (b"a", two[0])]
    assert segment.start_of(b"a", one[0], 2) == b"on"
    assert one == (8, 8 + 1 + 12 + 3 + 4)
    assert segment.size_bytes == 8 + segment.live_bytes == two[0] + two[1]
    with pytest.raises(KeyError):
        segment[b"unknown"]
    with pytest.raises(Corrupt):
        segment.read(b"b", *one)


@pytest.mark.parametrize("key", [b"", b"k" * (MAX_KEY_BYTES + 1)])
def test_a_key_that_the_format_cannot_hold_is_refused(segment, key):
    size = segment.size_bytes
    with pytest.raises(StoreError):
        segment.append(key, b"x")
    assert os.path.getsize(segment.folder / "data") == size == segment.size_bytes


def test_what_stock_semidbm_does_unsafely_is_refused(segment):
    segment[b"a"] = b"one"
    with pytest.raises(StoreError):
        del segment[b"a"]
    with pytest.raises(StoreError):
        segment.compact()
    assert segment[b"a"] == b"one"


def test_a_changed_byte_is_corrupt_and_names_the_place(segment):
    place = segment.append(b"a", b"x" * 100)
    with open(segment.folder / "data", "r+b") as file:
        file.seek(60)
        file.write(b"y")
    with pytest.raises(Corrupt) as found:
        segment.read(b"a", *place)
    assert (found.value.path, found.value.offset) == (str(segment.folder / "data"), 8)


def test_a_reader_finishes_although_the_segment_is_removed_meanwhile(segment, monkeypatch):
    place = segment.append(b"a", b"one")
    entered, go = threading.Event(), threading.Event()
    read = durable.read_at
    used = []

    def slowly(fd, *rest):
        used.append(fd)
        entered.set()
        assert go.wait(20)
        return read(fd, *rest)

    monkeypatch.setattr(durable, "read_at", slowly)
    results = []
    reader = threading.Thread(target=lambda: results.append(segment.read(b"a", *place)))
    reader.start()
    assert entered.wait(20)
    remove_segment(segment)
    assert not segment.folder.exists()
    # The descriptor is the reader's until it is done; a new file must not get its number meanwhile.
    os.fstat(used[0])
    with pytest.raises(KeyError):
        segment.read(b"a", *place)
    go.set()
    reader.join()
    assert results == [b"one"]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(used[0])
    segment.close()


def test_segments_have_a_bounded_size(tmp_path):
    store = SemiStore(tmp_path, segment_bytes=4096)
    put(store, A, opened(t=1))
    for n in range(40):
        put(store, A, Event(t=10 + n, name=f"e{n}"))
    sizes = [path.stat().st_size for path in (tmp_path / SEGMENTS_DIR).rglob("data")]
    assert len(sizes) > 4
    assert max(sizes) < 4096 + 1024
    assert len(stored(store, A, kinds=("event",))) == 40
    store.close()


def test_a_write_that_succeeds_ends_the_alarm_of_one_that_failed(tmp_path, monkeypatch):
    store = SemiStore(tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    put(store, A, opened(t=1))
    with monkeypatch.context() as patch:
        patch.setattr(durable.os, "write", full)
        with pytest.raises(StoreError):
            put(store, A, Event(t=2, name="e"))
        with pytest.raises(StoreError, match="free some disk space"):
            store.check()
    put(store, A, Event(t=2, name="e"))
    monkeypatch.setattr(durable, "create", full)
    store.check()
    store.close()
