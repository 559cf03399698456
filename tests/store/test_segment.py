"""One file among threads: readers finish what they began, and descriptors are never used after they were given back."""

import os
import threading

import pytest
from storing import A, opened, put, stored

from datacat.errors import Corrupt, StoreError
from datacat.store import durable
from datacat.store.repair import SEGMENTS_DIR, make_segment, remove_segment
from datacat.store.sealed import MAX_KEY_BYTES
from datacat.store.semi import SemiStore
from datacat.wire.records import Event


@pytest.fixture
def segment(tmp_path):
    segment = make_segment(tmp_path, 1, 0x12345678)
    yield segment
    segment.close()


def test_what_was_put_is_there_and_what_was_forgotten_is_not(segment):
    segment[b"a"] = b"one"
    segment[b"b"] = b""
    segment[b"a"] = b"two"
    assert (segment[b"a"], segment[b"b"], segment.keys()) == (b"two", b"", [b"b", b"a"])
    assert segment.start_of(b"a", 2) == b"tw"
    assert segment.start_of(b"a", 50) == b"two"
    assert segment.dead_bytes == 8 + (8 + 1 + 12 + 3 + 4)
    for key in (b"a", b"b", b"unknown"):
        segment.forget(key)
    assert (segment.live_bytes, segment.keys()) == (0, [])
    with pytest.raises(KeyError):
        segment[b"a"]


@pytest.mark.parametrize("key", [b"", b"k" * (MAX_KEY_BYTES + 1)])
def test_a_key_that_the_format_cannot_hold_is_refused(segment, key):
    size = segment.size_bytes
    with pytest.raises(StoreError):
        segment[key] = b"x"
    assert os.path.getsize(segment.folder / "data") == size == segment.size_bytes


def test_what_stock_semidbm_does_unsafely_is_refused(segment):
    segment[b"a"] = b"one"
    with pytest.raises(StoreError):
        del segment[b"a"]
    with pytest.raises(StoreError):
        segment.compact()
    assert segment[b"a"] == b"one"


def test_a_changed_byte_is_corrupt_and_names_the_place(segment):
    segment[b"a"] = b"x" * 100
    with open(segment.folder / "data", "r+b") as file:
        file.seek(60)
        file.write(b"y")
    with pytest.raises(Corrupt) as found:
        segment[b"a"]
    assert (found.value.path, found.value.offset) == (str(segment.folder / "data"), 8 + 8 + 1)


def test_a_reader_finishes_although_the_segment_is_removed_meanwhile(segment, monkeypatch):
    segment[b"a"] = b"one"
    entered, go = threading.Event(), threading.Event()
    read = durable.read_at

    def slowly(*place):
        entered.set()
        assert go.wait(20)
        return read(*place)

    monkeypatch.setattr(durable, "read_at", slowly)
    results = []
    reader = threading.Thread(target=lambda: results.append(segment[b"a"]))
    reader.start()
    assert entered.wait(20)
    fd = segment._data_fd
    remove_segment(segment)
    assert not segment.folder.exists()
    # The descriptor is the reader's until it is done; a new file must not get its number meanwhile.
    os.fstat(fd)
    with pytest.raises(KeyError):
        segment[b"a"]
    go.set()
    reader.join()
    assert results == [b"one"]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
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
