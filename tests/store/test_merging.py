"""What is merged is decided so that little is written twice; what was merged tells what its parts told."""

import pytest
from storing import lines, opened, sid

from datacat.errors import StoreError
from datacat.store import entry, merging
from datacat.store.chunks import FAN, HAS_STATE, IN_ORDER, NO_STATE, Chunk, describe
from datacat.store.columns import columns_of
from datacat.store.fold import Head
from datacat.store.merging import FULL, TARGET_BYTES, Plan, merge, plan
from datacat.store.rollup import Delta
from datacat.wire.lines import records_of
from datacat.wire.records import Event, StatePatch

A = sid(1)


def chunk(rev, raw_bytes=1000, tier=0, batches=1):
    return Chunk(rev, rev, 1, 8, 500, raw_bytes, batches, 1, 5, 6, *NO_STATE, 1, tier, 0, 0)


def bare(rev):
    return chunk(rev, 0, 0, 0)


def row(*sizes, tier=0):
    return [chunk(number + 1, size, tier) for number, size in enumerate(sizes)]


@pytest.mark.parametrize(
    ("chunks", "wanted"),
    [
        ([], None),
        (row(*[100] * (FAN - 1)), None),
        (row(*[100] * FAN), Plan(0, FAN, 1)),
        ([*row(*[100] * (FAN - 1)), bare(FAN)], None),
        ([*row(*[100] * FAN), bare(FAN + 1)], Plan(0, FAN, 1)),
        (row(*[TARGET_BYTES // 4] * FAN), Plan(0, 4, FULL)),
        (row(*[TARGET_BYTES * 2] * FAN), Plan(0, 1, FULL)),
        (row(*[100] * FAN, tier=FULL), None),
        ([*row(*[5000] * FAN, tier=1), chunk(FAN + 1)], Plan(0, FAN, 2)),
        ([*row(*[5000] * (FAN - 1), tier=1), chunk(FAN + 1)], None),
    ],
)
def test_an_open_session_is_merged_when_it_has_many_entries_of_a_tier(chunks, wanted):
    assert plan(chunks, done=False) == wanted


@pytest.mark.parametrize(
    ("chunks", "wanted"),
    [
        ([], None),
        (row(100), Plan(0, 1, FULL)),
        ([*row(100, 200), bare(3)], Plan(0, 3, FULL)),
        (row(100, 200, tier=FULL), None),
        (row(TARGET_BYTES, 10), Plan(0, 1, FULL)),
        (row(TARGET_BYTES - 10, 10, 1), Plan(0, 2, FULL)),
        # What came late is merged with what is there only where that is not far more.
        ([*row(1000, tier=FULL), chunk(2, 400)], Plan(0, 2, FULL)),
        ([*row(100_000, tier=FULL), chunk(2, 400)], Plan(1, 2, FULL)),
        # An entry without records cannot stand alone, and always finds room.
        ([*row(TARGET_BYTES * 3, tier=FULL), bare(2)], Plan(0, 2, FULL)),
        ([*row(TARGET_BYTES), bare(2)], Plan(0, 2, FULL)),
    ],
)
def test_a_session_that_ended_is_merged_whole(chunks, wanted):
    assert plan(chunks, done=True) == wanted


@pytest.mark.parametrize("sizes", [[100] * 10_000, [3000] * 3000, [200_000] * 200, [10, 2_000_000] * 40])
def test_plans_come_to_an_end_and_write_little_more_than_once(sizes):
    written = 0
    chunks = []
    most = 0
    for number, size in enumerate(sizes):
        chunks.append(chunk(number + 1, size))
        while (wanted := plan(chunks, done=False)) is not None:
            written += carry_out(chunks, wanted)
        most = max(most, sum(one.tier != FULL for one in chunks))
    while (wanted := plan(chunks, done=True)) is not None:
        written += carry_out(chunks, wanted)
    assert all(one.tier for one in chunks)
    assert [one.first for one in chunks[1:]] == [one.last + 1 for one in chunks[:-1]]
    assert (chunks[0].first, chunks[-1].last) == (1, len(sizes))
    assert most <= 3 * FAN
    assert len(chunks) <= 3 * sum(sizes) / TARGET_BYTES + 2
    assert written <= 3.1 * sum(sizes)
    if sizes[0] >= 3000:
        assert written <= 2 * sum(sizes)


def carry_out(chunks, wanted):
    old = chunks[wanted.start : wanted.stop]
    size = sum(one.raw_bytes for one in old)
    chunks[wanted.start : wanted.stop] = [
        old[0]._replace(last=old[-1].last, raw_bytes=size, tier=wanted.tier, batches=sum(one.batches for one in old))
    ]
    return size


def payload(rev, *records, stream="app", state=None, chunks=None):
    some = lines(*records)
    part = describe(stream, rev * 100, rev * 100 + 50, columns_of(records_of(some)))
    head = Head(id=A, product="p", version="1", updated_at=rev)
    front = entry.front_of(head, rev, part, chunks or rev, Delta("p", "1", []))
    text = entry.encode_state(state) if state else b""
    return entry.pack(front, entry.squeeze(text), entry.body_of(some))


def test_a_merged_entry_tells_its_parts_states_and_the_newest_head():
    one = payload(1, opened(t=5), StatePatch(t=6, patch={"n": 1}), state={"n": 1})
    two = payload(2, Event(t=3, name="e", level="error"), stream="other")
    three = payload(3, StatePatch(t=9, patch={"n": 2}), state={"n": 2})
    merged, chunk = merge(A, [one, two, three], b"", 7)
    assert (chunk.first, chunk.last, chunk.batches, chunk.tier) == (1, 3, 3, 7)
    assert (chunk.t_min, chunk.t_max, chunk.s_min, chunk.s_max) == (3, 9, 5, 9)
    assert chunk.flags == HAS_STATE | IN_ORDER
    pieces = entry.pieces_of(merged)
    assert [(part.stream, part.start, part.rev, part.lines) for part, _ in pieces] == [
        ("app", 100, 1, 2),
        ("other", 200, 2, 1),
        ("app", 300, 3, 1),
    ]
    assert [raw for _, raws in pieces for raw in raws] == [raw for one in (one, two, three) for _, raws in entry.pieces_of(one) for raw in raws]  # fmt: skip
    assert entry.state_of(merged)[0] == {"n": 2}
    assert entry.state_before(merged) is None
    assert entry.head_of(entry.whole(merged).front.head).updated_at == 3
    again, chunk = merge(A, [merged, payload(4, Event(t=1, name="late"), chunks=4)], b"", 8)
    assert (chunk.first, chunk.last, chunk.batches) == (1, 4, 4)
    assert len(entry.pieces_of(again)) == 4
    assert entry.state_of(again)[0] == {"n": 2}


def test_the_state_before_is_kept_and_times_that_go_back_are_noticed():
    one = payload(5, StatePatch(t=9, patch={"n": 2}), state={"n": 2})
    two = payload(6, StatePatch(t=8, patch={"n": 3}), state={"n": 3})
    merged, chunk = merge(A, [one, two], b'{"n":1}', 1)
    assert entry.state_before(merged) == {"n": 1}
    assert chunk.flags == HAS_STATE
    assert (chunk.s_min, chunk.s_max) == (8, 9)
    only_events, chunk = merge(A, [payload(7, Event(t=1, name="e"))], b'{"n":3}', 1)
    assert (chunk.s_min, chunk.s_max) == NO_STATE
    assert entry.state_of(only_events)[0] == {"n": 3}


def test_a_merged_entry_whose_index_does_not_fit_is_an_error():
    merged, _ = merge(A, [payload(1, opened(t=5)), payload(2, Event(t=6, name="e"))], b"", 1)
    opened_ = entry.whole(merged)
    body = entry.squeeze(b'{"t":1,"k":"event"}\n' * 5)
    with pytest.raises(StoreError, match="other records"):
        entry.pieces_of(merged[: opened_.body_at] + body)
    assert merging.TARGET_BYTES == 1024 * 1024
