"""A start with hints shows just what a start without them shows, and reads no more than it must."""

import random
import shutil

import pytest
from storing import everything, opened, put, sid

from datacat.store import hints, repair
from datacat.store.semi import SemiStore
from datacat.wire.records import Beat, Close, Event, StatePatch

SEGMENT = 4096


@pytest.fixture
def root(tmp_path):
    """Make a store with several segments, deleted sessions, moved entries and sessions of every kind; it is closed."""
    root = tmp_path / "store"
    noise = random.Random(7)
    store = SemiStore(root, segment_bytes=SEGMENT)
    for number in range(20):
        put(store, sid(number), opened(t=number), Event(t=100, name="e", message=noise.randbytes(200).hex()))
        put(store, sid(number), StatePatch(t=200, patch={"n": number}), Event(t=201, name=f"f{number}"))
        put(store, sid(number), Beat(t=300 + number))
        if number % 4 == 1:
            put(store, sid(number), Close(t=400, exit_code=0))
        if number % 4 == 2:
            put(store, sid(number), Beat(t=500))
    for number in range(0, 15, 3):
        store.drop(sid(number))
    while store.tend(10):
        pass
    store.close()
    return root


def told(store):
    # What was stored since the start, and what of the roll-ups is in memory, differ by nature.
    other = ("records", "written_bytes", "open_files")
    stats = {name: count for name, count in store.stats().items() if name not in other and "rollup" not in name}
    return everything(store), stats, {head.id for head in store.open_heads()}


def seen(root):
    """Open a store, return all that it shows, close it."""
    store = SemiStore(root, segment_bytes=SEGMENT)
    try:
        return told(store)
    finally:
        store.close()


def without_hints(root):
    shutil.rmtree(root / "hints", ignore_errors=True)
    return seen(root)


def hint_files(root):
    return sorted(path for path in (root / "hints").iterdir())


def crash(store, root):
    """Return a copy of the folder as it is now: what is left when the process is killed."""
    left = root.with_name("left")
    shutil.rmtree(left, ignore_errors=True)
    shutil.copytree(root, left, copy_function=shutil.copy2)
    return left


def forbid_reading(monkeypatch):
    def read(*_):
        raise AssertionError("a whole segment is read")

    monkeypatch.setattr(repair, "_sound", read)


def test_a_start_with_hints_shows_what_one_without_shows_and_reads_no_segment(root, monkeypatch):
    assert len(hint_files(root)) > 2
    with monkeypatch.context() as patched:
        forbid_reading(patched)
        with_hints = seen(root)
        assert seen(root) == with_hints
    assert without_hints(root) == with_hints
    assert len(with_hints[0]) == 15


def test_what_is_written_after_a_hint_is_read(root, monkeypatch):
    store = SemiStore(root, segment_bytes=SEGMENT)
    put(store, sid(1), Event(t=900, name="late"))
    put(store, sid(100), opened(t=901))
    store.drop(sid(2))
    expected = told(store)
    left = crash(store, root)
    store.close()
    with monkeypatch.context() as patched:
        # New segments have no hint yet; those that have one are not read whole.
        hinted = {path.name for path in hint_files(left)}
        sound = repair._sound
        patched.setattr(repair, "_sound", lambda root, folder, *rest: sound(root, folder, *rest) if folder.name not in hinted else pytest.fail("read"))  # fmt: skip
        assert seen(left) == expected
    assert without_hints(left) == expected


def test_writing_goes_on_behind_a_hint(root):
    expected = None
    for round_ in range(5):
        store = SemiStore(root, segment_bytes=SEGMENT)
        assert expected is None or told(store) == expected
        put(store, sid(4), Event(t=1000 + round_, name="again"))
        expected = told(store)
        store.close()
    assert without_hints(root) == expected


def test_a_torn_tail_behind_a_hint_is_cut(root):
    store = SemiStore(root)  # the size of a segment is such that all goes into the newest
    put(store, sid(1), Event(t=900, name="late"))
    expected = told(store)
    left = crash(store, root)
    store.close()
    newest = max((left / "segments").iterdir()) / "data"
    whole = newest.read_bytes()
    newest.write_bytes(whole + whole[8:48])
    store = SemiStore(left)
    shown = told(store)
    store.close()
    assert shown[0] == expected[0]
    assert newest.read_bytes() == whole
    assert not (left / "quarantine").exists()


@pytest.mark.parametrize("where", ["before", "behind"])
def test_damage_is_found_as_without_hints(root, where):
    store = SemiStore(root)
    put(store, sid(1), Event(t=900, name="late"))
    put(store, sid(4), Event(t=901, name="later"))
    left = crash(store, root)
    store.close()
    segments = sorted((left / "segments").iterdir())
    path = segments[0 if where == "before" else -1] / "data"
    data = bytearray(path.read_bytes())
    position = 100 if where == "before" else data.rindex(b'"later"') if b'"later"' in data else len(data) - 400
    data[position] ^= 1
    path.write_bytes(data)
    plain = left.with_name("plain")
    shutil.copytree(left, plain, copy_function=shutil.copy2)
    assert seen(left) == without_hints(plain)
    assert sorted(path.name for path in (left / "quarantine").iterdir()) == sorted(
        path.name for path in (plain / "quarantine").iterdir()
    )


@pytest.mark.parametrize("cut", [0, 1, 15, 18, 19, 40, -1])
def test_a_hint_that_is_not_whole_is_ignored(root, cut):
    expected = seen(root)
    for path in hint_files(root):
        path.write_bytes(path.read_bytes()[:cut])
    assert seen(root) == expected


def test_a_hint_with_any_changed_byte_is_ignored(root):
    path = hint_files(root)[0]
    whole = path.read_bytes()
    data = root / "segments" / path.name / "data"
    assert hints.load(root, path.name, data) is not None
    for position in range(0, len(whole), 7):
        changed = bytearray(whole)
        changed[position] ^= 0x20
        path.write_bytes(changed)
        assert hints.load(root, path.name, data) is None
    path.write_bytes(whole)
    assert hints.load(root, path.name, data) is not None


def test_a_hint_of_another_file_of_that_name_is_ignored(root):
    expected = seen(root)
    for folder in (root / "segments").iterdir():
        data = folder / "data"
        content = data.read_bytes()
        data.unlink()
        data.write_bytes(content)  # what a copy without times leaves
        assert hints.load(root, folder.name, data) is None
        data.write_bytes(content[:-30])
        assert hints.load(root, folder.name, data) is None
        data.write_bytes(content[:-30] + bytes(50))
        assert hints.load(root, folder.name, data) is None
        data.write_bytes(content)
    assert seen(root) == expected


def test_hints_of_segments_that_are_gone_are_removed(root):
    stray = root / "hints" / "00000099-00000000"
    stray.write_bytes(b"x")
    (root / "hints" / "00000098-00000000.new").write_bytes(b"x")
    seen(root)
    assert {path.name for path in hint_files(root)} == {path.name for path in (root / "segments").iterdir()}


def test_a_segment_that_is_gone_takes_no_session_that_others_hold(root):
    newest = max((root / "segments").iterdir())
    shutil.rmtree(newest)
    plain = root.with_name("plain")
    shutil.copytree(root, plain, copy_function=shutil.copy2)
    assert seen(root) == without_hints(plain)


def test_tending_writes_hints_so_that_a_crash_leaves_them(tmp_path, monkeypatch):
    root = tmp_path / "store"
    store = SemiStore(root, segment_bytes=SEGMENT)
    for number in range(30):
        put(store, sid(number), opened(t=number), Event(t=100, name="e", message="x" * 200))
    assert not (root / "hints").exists()
    while store.tend(10):
        pass
    sealed = {path.name for path in sorted((root / "segments").iterdir())[:-1]}
    assert len(sealed) > 2
    assert {path.name for path in hint_files(root)} == sealed
    expected = told(store)
    left = crash(store, root)
    store.close()
    assert seen(left) == expected


def test_a_hint_that_cannot_be_written_costs_nothing_but_time(tmp_path, caplog):
    root = tmp_path / "store"
    store = SemiStore(root)
    put(store, sid(1), opened())
    expected = told(store)
    (root / "hints").write_bytes(b"in the way")
    store.close()
    assert "no hint for the next start" in caplog.text
    assert seen(root) == expected
