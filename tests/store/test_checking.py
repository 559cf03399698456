"""What check tells of a store: sound when it is, and the file and offset of everything that is not as it was written."""

import random
import shutil

import pytest
from storing import A, everything, opened, put, sid

from datacat.errors import Corrupt, StoreError
from datacat.store import RollupQuery, entry, mending
from datacat.store.checking import NOTES, Report, check
from datacat.store.loading import take
from datacat.store.semi import SemiStore
from datacat.wire.records import Event


def report_of(root, *, deep=True):
    report = Report()
    for step in check(root, report, deep=deep):
        assert 0 <= step.done <= step.total
    return report


def kinds(root, **more):
    return sorted({trouble.kind for trouble in report_of(root, **more).troubles})


def segments(root):
    return sorted((root / "segments").glob("*/data"))


@pytest.fixture
def root(mixed_store, tmp_path):
    return shutil.copytree(mixed_store, tmp_path / "store")


def bytes_of(root):
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in root.rglob("*") if path.is_file()}


def test_a_sound_store_is_sound_and_nothing_of_it_is_changed(root):
    before = bytes_of(root)
    report = report_of(root)
    assert report.sound
    assert report.troubles == []
    assert (report.sessions, report.deleted_sessions) == (13, 2)
    assert report.pages
    assert report.hints == report.segments > 2
    assert bytes_of(root) == before


def test_a_store_of_an_earlier_version_is_sound(tmp_path):
    fixture = __file__.rsplit("/", 1)[0] + "/fixtures/version1.tar.gz"
    shutil.unpack_archive(fixture, tmp_path, filter="data")
    (root,) = {path.parent for path in tmp_path.rglob("format")}
    assert report_of(root).troubles == []


def test_what_is_no_store_or_one_of_a_later_version_is_refused(root, tmp_path):
    with pytest.raises(StoreError, match="no store"):
        report_of(tmp_path / "nothing")
    (root / "format").write_bytes(b"datacat store 9\n")
    with pytest.raises(StoreError, match="later one"):
        report_of(root)


def test_a_torn_end_is_told_and_not_while_a_server_writes(root):
    path = segments(root)[-1]
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])
    found = [trouble for trouble in report_of(root).troubles if trouble.kind == "torn"]
    assert [(one.path, one.offset + one.size_bytes) for one in found] == [(str(path), len(whole) - 7)]
    live = Report(live=True)
    list(check(root, live))
    assert live.sound


@pytest.mark.parametrize("where", ["segments", "rollups", "hints", "format"])
def test_a_flipped_bit_anywhere_is_found_and_costs_at_most_its_record(root, mixed_store, where):
    every = 60 if where != "segments" else 900
    flip_everywhere(root, mixed_store, where, every)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("where", ["segments", "rollups", "hints", "format"])
def test_a_flipped_bit_in_every_byte_is_found_and_costs_at_most_its_record(root, mixed_store, where, monkeypatch):
    monkeypatch.setattr("datacat.store.durable.os.fsync", lambda fd: None)
    flip_everywhere(root, mixed_store, where, 1 if where != "segments" else 3)


def flip_everywhere(root, mixed_store, where, every):
    rng = random.Random(7)
    store = SemiStore(root)
    known = everything(store)
    store.close()
    shutil.rmtree(root)
    shutil.copytree(mixed_store, root)
    for path in sorted([root / where] if where == "format" else (root / where).rglob("*")):
        if not path.is_file():
            continue
        whole = path.read_bytes()
        for at in range(rng.randrange(min(every, len(whole))), len(whole), every):
            flipped = bytearray(whole)
            flipped[at] ^= 1 << rng.randrange(8)
            path.write_bytes(flipped)
            if where == "format":
                with pytest.raises(StoreError):
                    report_of(root, deep=False)
                continue
            report = report_of(root, deep=False)
            assert not report.sound, (path, at)
            told = [one for one in report.troubles if one.kind not in (*NOTES, "lost", "hint")]
            if where == "segments":
                # A hint compares only the file's size and time; it is the byte itself that tells.
                (one,) = told
                assert one.path == str(path)
                assert one.offset <= at < one.offset + one.size_bytes
                if rng.random() < 0.2:
                    costs_one_record(root, known, key_at(whole, one.offset))
            elif where == "rollups":
                assert {one.path for one in told} == {str(path)}
        path.write_bytes(whole)


def costs_one_record(root, known, key):
    """Open a copy of the damaged store: nothing is invented, and only what lay in that record is gone."""
    copy = root.with_name("copy")
    shutil.copytree(root, copy)
    shutil.rmtree(copy / "hints")
    store = SemiStore(copy)
    seen = everything(store)
    store.close()
    # A damaged tombstone brings back nothing: what it deleted is not there any more.
    for session_id, (_, state, rows) in seen.items():
        if session_id in known and entry.session_of(key) != session_id:
            assert (state, rows) == known[session_id][1:]
        else:
            assert set(map(repr, rows)) <= set(map(repr, known.get(session_id, (0, 0, rows))[2]))
    assert known.keys() - seen.keys() <= {entry.session_of(key)}
    shutil.rmtree(copy)


def key_at(data, offset):
    """Return the key of the record at an offset, or of the first one when that is the file's header."""
    start = max(8, offset)
    return data[start + 8 : start + 8 + int.from_bytes(data[start : start + 4])]


def test_rolled_up_cells_that_are_damaged_are_refused_when_they_are_read(root):
    (page, *_) = [path for path in (root / "rollups").iterdir() if path.name[0].isdigit()]
    data = bytearray(page.read_bytes())
    data[-3] ^= 4
    page.write_bytes(data)
    store = SemiStore(root)
    with pytest.raises(Corrupt, match=r"not what was written"):
        store.rollups(RollupQuery(distributions=True))
    store.close()


def test_an_entry_that_tells_other_than_its_records_is_found(tmp_path, monkeypatch):
    root = tmp_path / "store"
    store = SemiStore(root)
    put(store, A, opened(t=100))
    real = entry.encode_state
    monkeypatch.setattr(entry, "encode_state", lambda state: real({**state, "wrong": 1}))
    put(store, A, opened(t=200, state={"right": 1}))
    monkeypatch.undo()
    put(store, A, Event(300, "e"))
    store.close()
    (one,) = report_of(root).troubles
    assert (one.kind, one.session, one.what) == ("session", A, "the state is not what its records make")
    assert report_of(root, deep=False).sound


def test_a_missing_segment_is_told_as_lost_batches(root):
    path = next(path for path in segments(root) if "merged" not in str(path))
    shutil.rmtree(path.parent)
    assert set(kinds(root)) & {"lost", "stray"} or report_of(root).sessions < 13


def test_a_foreign_and_a_doubled_segment_are_told(root):
    path = segments(root)[0]
    path.parent.rename(path.parent.with_name("00000999-00000000"))
    assert "foreign" in kinds(root)
    other = segments(root)[0].parent
    shutil.copytree(other, other.with_name(f"{other.name[:8]}-00000001"))
    assert "twice" in kinds(root)


def test_what_a_crash_left_is_a_note(root):
    (root / "segments" / "notes").mkdir()
    (segments(root)[0].parent / "data.new").write_bytes(b"x")
    report = report_of(root)
    assert report.sound
    assert sorted(one.kind for one in report.troubles) == ["other", "stray"]


# repair ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["segments", "rollups", "hints"])
def test_after_a_repair_a_damaged_store_is_sound_and_the_bytes_are_in_quarantine(root, where):
    paths = [path for path in (root / where).rglob("*") if path.is_file()]
    for path in paths:
        data = bytearray(path.read_bytes())
        for at in range(40, len(data), 3000):
            data[at] ^= 1
        path.write_bytes(data)
    before = report_of(root)
    assert not before.sound
    findings = mending.repair(root)
    assert bool(findings) is (where == "segments")
    assert report_of(root).sound
    if where != "hints":
        assert any((root / "quarantine").iterdir())
    assert mending.repair(root) == []


def test_a_page_that_cannot_be_read_is_made_again_from_the_log(tmp_path):
    root = tmp_path / "store"
    store = SemiStore(root)
    put(store, A, opened(t=100), *[Event(t=200 + n, name="e") for n in range(5)])
    asked = RollupQuery()
    before = store.rollups(asked)
    store.close()
    (page,) = [path for path in (root / "rollups").iterdir() if path.name[0].isdigit()]
    page.write_bytes(b"?" + page.read_bytes()[1:])
    mending.repair(root)
    store = SemiStore(root)
    assert store.rollups(asked) == before
    store.close()


def test_a_repair_needs_the_store_for_itself(root):
    with take(root), pytest.raises(StoreError.__mro__[1], match="held by another process"):
        mending.repair(root)
    assert sid(1)
