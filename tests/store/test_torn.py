"""A store of mixed content, cut at each byte of its last 64 KiB: opens, has all batches before the cut, and goes on."""

import random
import shutil
import sys

import pytest
from storing import put, sid
from volume import fill, tend

from datacat.store import RecordQuery
from datacat.store.semi import SemiStore
from datacat.wire.records import Close, Event, StatePatch

LAST_BYTES = 64 * 1024


@pytest.fixture
def torn(tmp_path, monkeypatch):
    """A closed store; its log, the sizes after each of the last batches, and what was in each of them."""
    # Durability is not what is tested here.
    monkeypatch.setattr("datacat.store.durable.os.fsync", lambda fd: None)
    root = tmp_path / "store"
    store = SemiStore(root, quiet_s=0)
    fill(store, 8)
    tend(store)
    store.drop(sid(1))
    rng = random.Random(3)
    batches = []
    text = "".join(chr(rng.randrange(32, 127)) for _ in range(5000))
    start = store._segments.log()[1].offset
    number = 0
    while store._segments.log()[1].offset - start < LAST_BYTES + 2000:
        number += 1
        session = sid(3 + 2 * (number % 2))  # these two have ended and were merged; batches come late
        at = rng.randrange(4000)
        records = [Event(9_000_000_000 + number, f"late{number}", message=text[at : at + rng.randrange(900)])]
        if number % 3 == 0:
            records.append(StatePatch(9_000_000_000 + number, {"late": number}))
        if number % 7 == 0:
            records.append(Close(9_000_000_000 + number, 1))
        put(store, session, *records)
        batches.append((store._segments.log()[1].offset, session, f"late{number}", number))
    segment = store._segments.log()[0][-1]
    path = segment.folder / "data"
    store.close()
    shutil.rmtree(root / "hints")
    return root, path, batches


def cut_and_look(torn, offsets):
    """Cut at each offset. Roll-ups are those of before: what was written behind a torn log cannot have been."""
    root, path, batches = torn
    whole = path.read_bytes()
    looked = 0
    for cut in offsets:
        shutil.rmtree(root / "rollups", ignore_errors=True)
        shutil.rmtree(root / "hints", ignore_errors=True)
        path.write_bytes(whole[:cut])
        kept = [batch for batch in batches if batch[0] <= cut]
        store = SemiStore(root)
        for session in (sid(3), sid(5)):
            wanted = [name for _, of, name, _ in kept if of == session]
            query = RecordQuery(kinds=("event",), from_us=9_000_000_000)
            assert [row.record["name"] for row in store.records(session, query)] == wanted
            states = [n for _, of, _, n in kept if of == session and n % 3 == 0]
            assert store.state(session).get("late") == (states[-1] if states else None)
        put(store, sid(5), Event(9_999_999_999, "after"))
        store.close()
        store = SemiStore(root)
        last = RecordQuery(kinds=("event",), newest_first=True, limit=1)
        assert [row.record["name"] for row in store.records(sid(5), last)] == ["after"]
        assert store.stats()["sessions"] == 7
        store.close()
        looked += 1
        if looked % 4096 == 0:
            sys.stdout.write(f"{looked} cuts\n")
            sys.stdout.flush()
    assert not (root / "quarantine").exists()
    return looked


def test_a_cut_at_some_bytes_of_the_last_64_kib_costs_nothing_before_it(torn):
    size = torn[1].stat().st_size
    assert cut_and_look(torn, range(size - LAST_BYTES, size, 499)) > 100


@pytest.mark.long
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("part", [0, 1])
def test_a_cut_at_every_byte_of_the_last_64_kib_costs_nothing_before_it(torn, part):
    size = torn[1].stat().st_size
    assert cut_and_look(torn, range(size - LAST_BYTES + part, size + 1, 2)) >= LAST_BYTES // 2
