"""Stores that earlier versions wrote are opened, and become stores of this version while they are tended."""

import json
import tarfile
from pathlib import Path

import pytest
from storing import everything, opened, put, sid

from datacat.errors import Deleted, StoreError
from datacat.store import RollupQuery, version
from datacat.store.semi import SemiStore

FIXTURES = Path(__file__).parent / "fixtures"
EARLIER = (1, 2)
SESSIONS = {number: json.loads((FIXTURES / f"version{number}.json").read_text()) for number in EARLIER}
COUNTED = {1: len(SESSIONS[1]), 2: len(SESSIONS[2]) + 1}
"""Events in the roll-ups. With version 1, what was deleted had left the log; since then pages keep its part."""


@pytest.fixture(params=EARLIER)
def number(request):
    return request.param


@pytest.fixture
def root(number, tmp_path):
    with tarfile.open(FIXTURES / f"version{number}.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "store"


def told(store):
    return [
        {
            "id": session_id,
            "status": head.status,
            "acked": {name: stream.acked for name, stream in head.streams.items()},
            "counts": head.counts,
            "last_heartbeat": head.last_heartbeat,
            "state": state,
            "rows": [[list(position), record] for position, record in rows],
        }
        for session_id, (head, state, rows) in sorted(everything(store).items())
    ]


def deleted(store):
    with pytest.raises(Deleted):
        store.head(sid(4))
    return True


def test_a_store_of_an_earlier_version_shows_all_that_was_in_it(root, number):
    assert (root / "format").read_bytes() == b"datacat store %d\n" % number
    store = SemiStore(root)
    assert told(store) == SESSIONS[number]
    assert deleted(store)
    counts = {group[0]: cell.count for (_, group), cell in store.rollups(RollupQuery(by=("name",))).cells.items()}
    assert counts["e"] == counts["m"] == COUNTED[number]
    assert store.stats()["damaged_regions"] == 0
    store.close()


def test_without_its_hints_it_shows_the_same(root, number):
    for path in (root / "hints").iterdir():
        path.unlink()
    store = SemiStore(root)
    assert told(store) == SESSIONS[number]
    store.close()


def test_tending_rewrites_it_and_it_goes_on(root):
    before = {path.parent.name for path in root.glob("segments/*/data")}
    store = SemiStore(root, quiet_s=0.0, segment_bytes=2048, now_ns=lambda: 1_700_000_002_000_000_000)
    put(store, sid(1), opened(t=1_700_000_000_000_900))  # late, to one that ended
    expected = told(store)
    while store.tend(10):
        pass
    assert told(store) == expected
    store.close()
    after = {path.parent.name for path in root.glob("segments/*/data")}
    assert any(name.endswith("-merged") for name in after)
    assert len(after & before) <= 4  # where the sessions lie that are open
    assert (root / "format").read_bytes() == version.FORMAT == b"datacat store 3\n"
    again = SemiStore(root)
    assert told(again) == expected
    assert deleted(again)
    again.close()


@pytest.mark.parametrize("marker", [b"datacat store 4\n", b"datacat store 0\n", b"else", b""])
def test_what_is_of_no_known_version_is_refused_untouched(root, marker):
    (root / "format").write_bytes(marker)
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    with pytest.raises(StoreError) as refused:
        SemiStore(root)
    assert refused.value.permanent
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file() and path.name != "lock"} == before
