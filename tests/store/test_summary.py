"""A summary tells all that its head does, in a fraction of the space."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datacat.store.episodes import Crash, Hang, Suspension
from datacat.store.fold import Head
from datacat.store.ledger import Stream
from datacat.store.summary import Summary, head_of, summary_of

FULL = Head(
    id="01890a5d-ac96-774b-bcce-000000000001",
    product="editor",
    version="1.2",
    created_at=1,
    updated_at=2,
    ended_at=3,
    status="crashed",
    status_since=3,
    end_reason="signal",
    end_detail="SIGSEGV",
    exit_signal=11,
    by="daemon",
    hang_count=2,
    hang_seconds=1.5,
    pid=4242,
    streams={"app": Stream(10, 7, 3, 2, 1), "daemon": Stream(5)},
    counts={"events": 3, "of another version": 1},
    dropped={"full": 2},
    hangs=[Hang(1, 2, "recovered", "s", "t")],
    suspensions=[Suspension(1, 2)],
    crash=Crash("s", "t", "X", 2),
)


def test_nothing_is_lost_and_every_attribute_of_a_head_can_be_read():
    summary = summary_of(FULL)
    assert head_of(summary) == FULL
    assert all(getattr(summary, name) == getattr(FULL, name) for name in Head.__struct_fields__)
    with pytest.raises(AttributeError):
        summary.nothing  # noqa: B018
    bare = Head(id="i", product="p", version="1")
    assert head_of(summary_of(bare)) == bare


@given(st.builds(Head, id=st.text(), product=st.text(), version=st.text(), counts=st.dictionaries(st.text(), st.integers(1, 9)), dropped=st.dictionaries(st.text(), st.integers(0, 2**60)), exit_code=st.none() | st.integers(-(2**31), 2**31)))  # fmt: skip
def test_any_head_comes_back(head):
    assert head_of(summary_of(head)) == head


def test_texts_that_sessions_share_are_one_object():
    one = summary_of(FULL)
    other = summary_of(Head(**{name: getattr(FULL, name) for name in Head.__struct_fields__}))
    assert one.product is other.product
    after = summary_of(head_of(other), one)
    assert (after.id is one.id, after.created_at is one.created_at) == (True, True)


def test_a_summary_is_small():
    summary = summary_of(FULL)
    assert sys.getsizeof(summary) + sys.getsizeof(summary.rare) < 400
    assert len(Summary.__struct_fields__) == 20
