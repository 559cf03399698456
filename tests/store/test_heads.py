"""What readers see of a session does not depend on how many others have changed since."""

import msgspec
import pytest

from datacat.errors import Deleted, NotFound
from datacat.store import heads as module
from datacat.store.fold import Head
from datacat.store.heads import Heads


def head(number, events=1):
    return Head(f"s{number}", "editor", "1", created_at=number + 1, updated_at=9, counts={"events": events})


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(module, "_RECENT", 2)


def test_a_head_is_the_same_whether_it_is_kept_whole_or_packed():
    heads = Heads()
    for number in range(5):
        heads.put(head(number))
    assert [heads.get(f"s{number}") for number in range(5)] == [head(number) for number in range(5)]
    assert heads.get("s4") is heads.get("s4")
    assert heads.get("s0") is not heads.get("s0")


def test_a_head_that_changes_again_is_kept_longer_than_those_that_do_not():
    heads = Heads()
    for number in (0, 1, 0, 2):
        heads.put(head(number))
    assert heads.get("s0") is heads.get("s0")
    assert heads.get("s1") is not heads.get("s1")


def test_counts_of_the_fleet_are_right_for_heads_that_are_packed_again():
    heads = Heads()
    for events in (1, 2, 3):
        for number in range(4):
            heads.put(head(number, events))
    assert heads.fleet.totals["event"] == 12
    assert msgspec.structs.asdict(heads.get("s3"))["counts"] == {"events": 3}


def test_a_session_that_was_deleted_is_not_remembered():
    heads = Heads()
    heads.put(head(1))
    heads.delete("s1")
    with pytest.raises(Deleted):
        heads.get("s1")
    with pytest.raises(NotFound):
        heads.get("s2")
