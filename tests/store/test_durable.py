"""What was acknowledged is synced: bytes of files and names in folders."""

import os
import random

import pytest
from storing import opened, put, sid

from datacat.store import durable
from datacat.store.semi import SemiStore
from datacat.wire.records import Event, StatePatch


class Ledger:
    """What a power cut would leave for sure: the size of each file and the names in each folder at their last sync."""

    def __init__(self, root, monkeypatch):
        self.root = root
        self.sizes = {}
        self.names = {}
        fsync = os.fsync

        def note(fd):
            about = os.fstat(fd)
            if os.path.isdir(f"/dev/fd/{fd}"):
                self.names[about.st_ino] = set(os.listdir(fd))
            else:
                self.sizes[about.st_ino] = about.st_size
            fsync(fd)

        monkeypatch.setattr(durable.os, "fsync", note)

    def unsynced(self):
        """Return the files and folders that hold more than a power cut would leave."""
        missing = []
        # A start can do without hints, so they need not be synced.
        folders = [path for path in self.root.rglob("*") if path.is_dir() and path.name != "hints"]
        for folder in [self.root.parent, *folders, self.root]:
            names = {path.name for path in folder.iterdir() if path.name != "lock"}
            if not names <= self.names.get(folder.stat().st_ino, set()):
                missing.append(folder)
        files = self.root.rglob("data")
        missing += [path for path in files if self.sizes.get(path.stat().st_ino, 0) < path.stat().st_size]
        return missing


@pytest.fixture
def ledger(tmp_path, monkeypatch):
    return Ledger(tmp_path / "above" / "store", monkeypatch)


@pytest.mark.skipif(os.name == "nt", reason="capability: folders cannot be synced here")
def test_at_every_acknowledgement_everything_is_synced(ledger):
    store = SemiStore(ledger.root, segment_bytes=4096)
    noise = random.Random(1)
    for number in range(40):
        put(store, sid(number), opened(t=number), Event(t=100, name="e", message=noise.randbytes(300).hex()))
        assert ledger.unsynced() == []
        put(store, sid(number), StatePatch(t=200, patch={"n": number}))
        assert ledger.unsynced() == []
        if number % 3:
            store.drop(sid(number))
            assert ledger.unsynced() == []
        if number % 10 == 9:
            while store.tend(10):
                assert ledger.unsynced() == []
    store.close()
    assert ledger.unsynced() == []


@pytest.mark.skipif(os.name == "nt", reason="capability: folders cannot be synced here")
def test_a_repaired_segment_is_synced_before_it_is_used(ledger):
    store = SemiStore(ledger.root)
    for number in range(4):
        put(store, sid(number), opened(t=number))
    store.close()
    (path,) = ledger.root.rglob("data")
    whole = path.read_bytes()
    for damaged in (whole[:-3], whole[:500] + b"?" + whole[501:]):
        path.write_bytes(damaged)
        ledger.sizes.clear()
        store = SemiStore(ledger.root)
        assert ledger.unsynced() == []
        store.close()


def test_a_created_file_is_whole_or_as_before(tmp_path, monkeypatch):
    path = tmp_path / "file"
    durable.create(path, b"one")

    def fail(*_):
        raise OSError(5, "Input/output error")

    for name in ("write", "fsync"):
        with monkeypatch.context() as patch:
            patch.setattr(durable.os, name, fail)
            with pytest.raises(OSError, match="Input/output"):
                durable.create(path, b"two")
        assert path.read_bytes() == b"one"
    durable.create(path, b"two")
    assert path.read_bytes() == b"two"


def test_reading_goes_on_after_a_short_read(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(bytes(range(100)))
    fd = os.open(path, os.O_RDONLY)
    try:
        if hasattr(os, "pread"):
            pread = os.pread
            monkeypatch.setattr(durable.os, "pread", lambda fd, size, offset: pread(fd, min(size, 7), offset))
        assert durable.read_at(fd, 50, 20) == bytes(range(20, 70))
        assert durable.read_at(fd, 50, 90) == bytes(range(90, 100))
        assert durable.read_at(fd, 50, 200) == b""
    finally:
        os.close(fd)
