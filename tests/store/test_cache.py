"""States in memory are the newest ones that were used, and no more than there is room for."""

from storing import A, B, sid

from datacat.store.cache import States


def test_a_state_is_found_at_its_own_rev_only():
    states = States()
    states.put(A, 3, {"n": 3}, 10)
    assert states.get(A, 3) == {"n": 3}
    assert states.get(A, 2) is None
    assert states.get(B, 3) is None


def test_an_older_state_does_not_replace_a_newer_one():
    states = States()
    states.put(A, 3, {"n": 3}, 10)
    states.put(A, 2, {"n": 2}, 10)
    assert states.get(A, 3) == {"n": 3}


def test_the_states_that_were_not_used_make_room():
    states = States(size_bytes=100)
    for number in range(4):
        states.put(sid(number), 1, {"n": number}, 30)
        states.get(sid(0), 1)
    kept = [number for number in range(4) if states.get(sid(number), 1) is not None]
    assert kept == [0, 2, 3]


def test_room_is_given_back():
    states = States(size_bytes=100)
    for rev in range(1, 50):
        states.put(A, rev, {}, 90)
    assert states.get(A, 49) == {}
    states.forget(A)
    states.forget(A)
    states.put(B, 1, {}, 100)
    assert states.get(B, 1) == {}


def test_a_state_that_is_too_large_is_not_kept():
    states = States(size_bytes=100)
    states.put(A, 1, {}, 101)
    assert states.get(A, 1) is None
    states.put(B, 1, {}, 100)
    assert states.get(B, 1) == {}
