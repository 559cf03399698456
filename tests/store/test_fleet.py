"""Shelves follow the heads: after any changes they are what would be built from the heads anew."""

import random

from storing import opened, put, sid

from datacat.store import Query
from datacat.store.fleet import Fleet
from datacat.store.memory import MemoryStore
from datacat.store.shelf import Facts, HangRow, Shelf, facts_of, glanced_facts_of
from datacat.wire.records import HUNG_EVENT, Close, Event, Verdict

COLUMNS = tuple(name for name in Shelf.__slots__ if not name.startswith("_"))


def content(shelves):
    return {
        key: {
            **{name: getattr(shelf, name) if name == "open" else list(getattr(shelf, name)) for name in COLUMNS},
            "durations": sorted(zip(shelf.ended, shelf.durations, strict=True)),
        }
        for key, shelf in shelves.items()
        if len(shelf)
    }


def rebuilt(store):
    fleet = Fleet(lambda _id: None)
    fleet.load(store.scan(Query()))
    with fleet.reading() as shelves:
        return content(shelves), dict(fleet.heard)


def random_changes(store, rng, steps):
    alive = [head.id for head in store.heads(Query(limit=1000)).heads]
    for step in steps:
        t = 1000 + 10 * step + rng.randrange(-50, 50)
        if not alive or rng.random() < 0.2:
            session = sid(step)
            who = {"version": rng.choice("123"), "machine_id": rng.choice([None, "m1", "m2"])}
            put(store, session, opened(t=rng.choice([t, 1000]), **who), received_us=t)
            alive.append(session)
            continue
        session = rng.choice(alive)
        match rng.randrange(9):
            case 0:
                put(store, session, Close(t=t))
            case 1:
                store.drop(session)
                alive.remove(session)
            case 2:
                put(store, session, Event(t=t, name="exception", exception_type="KeyError"))
            case 3 | 4:
                put(store, session, Verdict(t=t, status=rng.choice(["hung", "active", "suspended"]), by="server"))
            case 5:
                reason = rng.choice(["unknown", "signal"])
                put(store, session, Verdict(t=t, status=rng.choice(["crashed", "abnormal"]), reason=reason))
            case 6:
                stack = [f'  File "/x/m{rng.randrange(3)}.py", line 1, in f']
                put(store, session, Event(t=t, name=HUNG_EVENT, stacktrace=stack))
            case _:
                put(store, session, Event(t=t, name="x"), received_us=t)


def test_shelves_after_random_changes_are_those_of_the_heads():
    for seed in range(12):
        store = MemoryStore()
        rng = random.Random(seed)
        for turn in range(4):
            random_changes(store, rng, range(100 * turn, 100 * turn + rng.randrange(10, 100)))
            with store.fleet.reading() as shelves:
                found = content(shelves)
            assert found == rebuilt(store)[0]


def test_many_changes_without_a_reader_do_not_pile_up(monkeypatch):
    monkeypatch.setattr("datacat.store.fleet.MAX_WAITING", 5)
    store = MemoryStore()
    random_changes(store, random.Random(1), range(200))
    assert len(store.fleet._waiting) <= 6
    with store.fleet.reading() as shelves:
        assert content(shelves) == rebuilt(store)[0]


def test_the_newest_word_of_a_version_is_known():
    store = MemoryStore()
    put(store, sid(1), opened(), received_us=500)
    put(store, sid(1), Event(t=200, name="x"), received_us=900)
    assert store.fleet.heard == {("editor", "1"): 900}


def test_sessions_that_were_open_across_a_moment_are_found():
    store = MemoryStore()
    put(store, sid(1), opened(t=100), Close(t=200))
    put(store, sid(2), opened(t=100))
    put(store, sid(3), opened(t=150), Close(t=150))
    put(store, sid(4), opened(t=160), Close(t=300))
    with store.fleet.reading() as shelves:
        shelf = shelves["editor", "1"]
        assert [shelf.ids[at] for at in shelf.straddling(200)] == [sid(4), sid(2)]
        assert [shelf.ids[at] for at in shelf.straddling(150)] == [sid(2), sid(1)]
        assert {shelf.ids[at] for at in shelf.overlapping(150, 160)} == {sid(1), sid(2), sid(3)}


def test_spans_that_a_wrong_clock_put_outside_of_a_session_are_cut():
    store = MemoryStore()
    put(store, sid(1), opened(t=100), Verdict(t=50, status="suspended"), Close(t=150))
    facts = facts_of(store.head(sid(1)))
    assert facts.suspensions == ((100, 150),)


def test_a_glance_at_a_session_without_exception_hang_and_suspension_fills_a_shelf_as_its_head_does():
    seen = set()
    for seed in range(12):
        store = MemoryStore()
        random_changes(store, random.Random(seed), range(100))
        for head in store.heads(Query(limit=1000)).heads:
            if not (head.has_exception or head.hang_count or head.suspensions):
                told = glanced_facts_of(store.fleet.glance(head.id))
                assert content({"": Shelf([told])}) == content({"": Shelf([facts_of(head)])})
                seen.add((type(told), head.status))
    assert {(tuple, "ended"), (Facts, "active"), (Facts, "crashed"), (Facts, "abnormal")} <= seen


def test_a_hang_has_its_group_as_soon_as_its_stack_is_known():
    store = MemoryStore()
    put(store, sid(1), opened(t=100, machine_id="m1"), Verdict(t=200, status="hung"))
    with store.fleet.reading() as shelves:
        assert shelves["editor", "1"].hangs == [HangRow(200, sid(1), 0, "ongoing", "m1")]
    put(store, sid(1), Event(t=205, name=HUNG_EVENT, stacktrace=['  File "/x/a.py", line 1, in wait']))
    (told,) = store.head(sid(1)).hangs
    with store.fleet.reading() as shelves:
        (row,) = shelves["editor", "1"].hangs
        assert row == HangRow(200, sid(1), 0, "ongoing", "m1", told.signature, "hang in wait (a.py)")


def test_sessions_of_a_machine_share_one_text_of_its_id():
    store = MemoryStore()
    for number in (1, 2):
        put(store, sid(number), opened(t=100, machine_id=f"machine-{number - number}"))
    with store.fleet.reading() as shelves:
        one, two = shelves["editor", "1"].machines
        assert one is two
