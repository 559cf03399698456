"""Sessions leave a store as lines and come into another one whole, however often and however cut off they are told."""

import csv
import io
import json

import pytest
from storing import A, B, everything, opened, put, ship, sid
from volume import fill, tend

from datacat.errors import Deleted, WireError
from datacat.store import Query
from datacat.store.memory import MemoryStore
from datacat.store.semi import SemiStore
from datacat.store.transfer import CSV_COLUMNS, Imported, Importer, csv_header, csv_lines, session_lines
from datacat.wire.records import Beat, Close, Event, StatePatch


def exported(store):
    heads = store.heads(Query(limit=1000, sort="created_at")).heads
    return b"".join(piece for head in heads for piece in session_lines(store, head)).splitlines()


def take(store, some, *, whole=True):
    told = Imported()
    importer = Importer(store, told, lambda: 5_000)
    for raw in some:
        importer.take(raw)
    if whole:
        importer.close()
    return told


def without_shipped(store):
    """What a reader sees; how many lines came on the wire is not told by an export: some left no trace."""
    seen = everything(store)
    for head, _, _ in seen.values():
        for stream in head.streams.values():
            stream.shipped = 0
    return seen


@pytest.fixture(params=["memory", "semi", "merged"])
def store(request, tmp_path):
    store = MemoryStore() if request.param == "memory" else SemiStore(tmp_path / "from", quiet_s=0)
    fill(store, 8)
    for number in (20, 21):
        ship(store, sid(number), 0, 50, opened(t=5), Event(t=6, name="a"))
        ship(store, sid(number), 50, 70, Beat(t=8))
        ship(store, sid(number), 70, 90, StatePatch(9, {"x": 1}), Event(10, "b"), end_crc=77)
        ship(store, sid(number), 0, 30, Close(11, 3), stream="other")
        ship(store, sid(number), 90, 99, Beat(t=12))
    if request.param == "merged":
        tend(store)
    yield store
    store.close()


@pytest.fixture
def other(tmp_path):
    store = SemiStore(tmp_path / "to")
    yield store
    store.close()


def test_an_import_makes_the_same_sessions(store, other):
    told = take(other, exported(store))
    assert told.refused == []
    assert (told.sessions, told.known) == (10, 0)
    assert without_shipped(other) == without_shipped(store)
    assert everything(other)[sid(20)][0].streams["app"].acked == 99


def test_an_import_that_is_repeated_changes_nothing(store, other):
    lines = exported(store)
    first = take(other, lines)
    before = everything(other)
    again = take(other, lines)
    assert (again.batches, again.records, again.known) == (0, 0, first.batches)
    assert everything(other) == before


def test_an_import_that_was_cut_off_anywhere_is_completed_by_another_one(store, tmp_path):
    lines = exported(store)
    for cut in range(1, len(lines), max(1, len(lines) // 15)):
        target = MemoryStore()
        take(target, lines[:cut], whole=False)
        take(target, lines)
        assert without_shipped(target) == without_shipped(store)


def test_a_batch_that_is_not_whole_is_refused_and_not_stored(store, other):
    lines = exported(store)
    at = next(n for n, raw in enumerate(lines) if json.loads(raw).get("batch", [0, 0, 0, 1])[3] > 1)
    with pytest.raises(WireError, match="1 of"):
        take(other, lines[: at + 1])
    with pytest.raises(WireError, match="1 of"):
        take(other, [*lines[: at + 1], *lines[-2:]])


@pytest.mark.parametrize(
    "line",
    [
        b"nonsense", b"[]", b'{"session":"x"}', b'{"session":"%s"}' % A.encode(),
        b'{"session":"%s","batch":["app",5,5,1],"record":{"t":1,"k":"beat"}}' % A.encode(),
        b'{"session":"%s","batch":["a b",0,5,1],"record":{"t":1,"k":"beat"}}' % A.encode(),
        b'{"session":"%s","batch":["app",0,5,1],"record":{"t":"x","k":"beat"}}' % A.encode(),
        b'{"session":"%s","batch":["app",0,5,99999999],"record":{"t":1,"k":"beat"}}' % A.encode(),
    ],
)  # fmt: skip
def test_what_is_no_export_is_refused(other, line):
    with pytest.raises(WireError):
        take(other, [line])
    assert everything(other) == {}


def test_a_session_that_was_deleted_or_goes_on_differently_is_refused_and_the_others_come(store, other):
    put(other, sid(20), opened(t=1))
    other.drop(sid(20))
    ship(other, sid(21), 0, 80, opened(t=5), Event(t=6, name="c"))
    told = take(other, exported(store))
    assert told.sessions == 8
    assert [text.partition(":")[0] for text in told.refused] == [sid(20), sid(21)]
    with pytest.raises(Deleted):
        other.head(sid(20))


def test_what_was_stored_behind_the_head_is_left_for_the_next_export(store):
    head = store.head(sid(1))
    put(store, sid(1), Event(t=999, name="late"))
    text = b"".join(session_lines(store, head))
    assert b'"late"' not in text
    assert text.count(b"\n") == b"".join(session_lines(store, store.head(sid(1)))).count(b"\n") - 1


def test_csv_has_a_row_for_each_record_and_no_formulas():
    store = MemoryStore()
    put(store, B, opened(t=1_000_000, product="=1+1"), Event(2_000_000, "e", message='say "hi"\nthere', data={"a": 1}))
    text = csv_header() + b"".join(csv_lines(store, store.head(B)))
    rows = list(csv.DictReader(io.StringIO(text.decode(), newline="")))
    assert list(rows[0]) == list(CSV_COLUMNS)
    assert [row["kind"] for row in rows] == ["open", "event"]
    assert rows[1]["product"] == "'=1+1"
    assert rows[1]["message"] == 'say "hi"\nthere'
    assert json.loads(rows[1]["more"]) == {"data": {"a": 1}}
    assert rows[1]["time"] == "1970-01-01T00:00:02.000000Z"
