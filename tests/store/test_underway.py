"""Writes that never end are seen, and nothing else is taken for one."""

import threading

import pytest
from helpers import eventually
from storing import A, B, opened, put

from datacat.errors import StoreError
from datacat.store import durable
from datacat.store.semi import SemiStore
from datacat.store.underway import UnderWay


def test_the_oldest_write_counts():
    now = [10.0]
    under_way = UnderWay(lambda: now[0])
    assert under_way.oldest_s() == 0.0
    with under_way.write():
        now[0] = 12.0
        with under_way.write():
            now[0] = 13.0
            assert under_way.oldest_s() == 3.0
        assert under_way.oldest_s() == 3.0
    assert under_way.oldest_s() == 0.0


def test_a_write_that_raises_is_not_under_way_any_more():
    under_way = UnderWay(lambda: 0.0)
    with pytest.raises(KeyError), under_way.write():
        raise KeyError
    assert not under_way._began


def test_a_sync_that_blocks_is_no_progress_and_asking_does_not_block(tmp_path, monkeypatch):
    entered, leave = threading.Event(), threading.Event()
    sync = durable.sync_file

    def slow(fd):
        entered.set()
        leave.wait(20)
        sync(fd)

    now = [0.0]
    store = SemiStore(tmp_path / "store", clock=lambda: now[0])
    put(store, A, opened())
    store.check_progress(0.0)
    monkeypatch.setattr(durable, "sync_file", slow)
    writers = [threading.Thread(target=put, args=(store, session_id, opened())) for session_id in (A, B)]
    writers[0].start()
    assert entered.wait(10)
    writers[1].start()
    eventually(lambda: len(store._under_way._began) == 2)
    now[0] = 4.0
    store.check_progress(4.0)
    now[0] = 4.5
    with pytest.raises(StoreError, match=r"a write has waited for 4\.5 s"):
        store.check_progress(4.0)
    leave.set()
    for writer in writers:
        writer.join()
    store.check_progress(0.0)
    store.close()


def test_a_full_disk_is_progress_and_a_failed_sync_is_not(tmp_path, monkeypatch):
    store = SemiStore(tmp_path / "store")
    put(store, A, opened())

    def full(fd, data):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(durable, "write_all", full)
        with pytest.raises(StoreError, match="No space"):
            put(store, B, opened())
        with pytest.raises(StoreError, match="cannot write"):
            store.check()
        store.check_progress(1.0)
    put(store, B, opened())

    def broken(fd):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(durable, "sync_file", broken)
    with pytest.raises(StoreError, match="durable"):
        put(store, B, opened(), stream="other")
    with pytest.raises(StoreError, match="durable"):
        store.check_progress(1.0)
    monkeypatch.undo()
    store.close()
