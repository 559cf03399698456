"""Random operations: the semidbm store always shows what the memory store shows, also after it was opened again."""

import random
import shutil
import tempfile
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from storing import cells_of, everything, lines, opened, put, sid

from datacat.errors import StoreError
from datacat.store import Batch, CatalogueQuery, Query, RollupQuery, chunks, merging
from datacat.store.fold import Stream
from datacat.store.history import state_at
from datacat.store.memory import MemoryStore
from datacat.store.semi import SemiStore
from datacat.wire.records import Beat, Close, Dropped, Event, Gap, Metric, Open, StatePatch, Verdict

times = st.integers(1, 200)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2), lambda inner: st.lists(inner, max_size=2), max_leaves=3
)
patches = st.dictionaries(st.sampled_from("abc"), values | st.dictionaries(st.sampled_from("xy"), values), max_size=3)
records = st.one_of(
    st.builds(Open, t=times, product=st.sampled_from(["p", "q"]), version=st.just("1")),
    st.builds(StatePatch, t=times, patch=patches),
    st.builds(Event, t=times, name=st.sampled_from("abc"), level=st.sampled_from(["info", "error"])),
    st.builds(Metric, t=times, name=st.sampled_from("mn"), value=st.integers(0, 9)),
    st.builds(
        Verdict,
        t=times,
        status=st.sampled_from(["hung", "active", "crashed"]),
        by=st.sampled_from(["daemon", "server"]),
    ),
    st.builds(Close, t=times),
    st.builds(Beat, t=times),
    st.builds(Dropped, t=times, counts=st.just({"full": 1})),
    st.builds(Gap, t=times, open=st.just({"product": "g", "version": "2"}), state=st.just({"whole": True})),
)
ROLLUPS = RollupQuery(interval_s=60, by=("product", "version", "kind", "name", "tags"))
sessions = st.integers(1, 4)
operations = st.lists(
    st.one_of(
        st.tuples(
            st.just("append"), sessions, st.sampled_from(["s", "t"]), st.lists(records, max_size=4), st.integers(0, 8)
        ),
        st.tuples(st.just("append"), sessions, st.sampled_from(["s", "t"]), st.lists(records, max_size=4), st.just(0)),
        st.tuples(st.just("drop"), sessions),
        st.tuples(st.just("tend")),
        st.tuples(st.just("reopen")),
    ),
    max_size=25,
)


def outcome(act):
    try:
        return act()
    except StoreError as error:
        return type(error), getattr(error, "acked", None)


def batch_for(store, operation):
    """Return a batch that mostly continues its stream, and sometimes repeats, overlaps or leaves a gap."""
    _, number, stream, some, slip = operation
    known = outcome(lambda: store.head(sid(number)).streams.get(stream))
    start = known.acked if isinstance(known, Stream) else 0
    if slip >= 7:
        return Batch(stream, lines(*some))
    start = max(0, start + (0, 0, 0, -20, 5, -1, 1)[slip])
    return Batch(stream, lines(*some), start, start + 20)


@pytest.fixture(autouse=True)
def small_steps(monkeypatch):
    """Merge what is a few records, so that short plans go through every kind of merge."""
    monkeypatch.setattr(chunks, "FAN", 3)
    monkeypatch.setattr(merging, "FAN", 3)
    monkeypatch.setattr(merging, "TARGET_BYTES", 400)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations)
def test_both_stores_tell_the_same(plan):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "store"
        model, store = MemoryStore(), SemiStore(root, segment_bytes=2048, now_ns=lambda: 1, quiet_s=0.0)
        try:
            for number in range(1, 4):
                for one in (model, store):
                    put(one, sid(number), opened(t=number))
            for step, operation in enumerate(plan):
                match operation[0]:
                    case "append":
                        batch = batch_for(model, operation)
                        expected, got = (
                            outcome(
                                lambda one=one, b=batch, n=operation[1], s=step: one.append(sid(n), b, received_us=s)
                            )
                            for one in (model, store)
                        )
                        assert got == expected
                    case "drop":
                        expected, got = (
                            outcome(lambda one=one, n=operation[1]: one.drop(sid(n))) for one in (model, store)
                        )
                        assert got == expected
                    case "tend":
                        while store.tend(10.0):
                            pass
                    case "reopen":
                        store.close()
                        store = SemiStore(root, segment_bytes=2048, now_ns=lambda: 1, quiet_s=0.0)
                        assert store.stats()["damaged_regions"] == 0
                assert everything(store) == everything(model)
            assert cells_of(store, ROLLUPS) == cells_of(model, ROLLUPS)
            assert store.catalogue(CatalogueQuery()) == model.catalogue(CatalogueQuery())
            for number in range(1, 5):
                assert outcome(lambda n=number: store.head(sid(n))) == outcome(lambda n=number: model.head(sid(n)))
                for t in (0, 40, 100, 160, 201):
                    expected, got = (
                        outcome(lambda o=one, n=number, t=t: state_at(o, sid(n), t)) for one in (model, store)
                    )
                    assert got == expected
            assert {head.id for head in store.open_heads()} == {head.id for head in model.open_heads()}
            query = Query(event=("a",), sort="-updated_at", limit=2)
            assert store.heads(query) == model.heads(query)
        finally:
            store.close()


def record_at(noise, t):
    """Return a record as the strategies make them, from a generator that is quick enough for very many."""
    kind = noise.randrange(10)
    if kind < 4:
        return Event(t=t, name=noise.choice("abc"), level=noise.choice(["info", "error"]))
    if kind < 6:
        return StatePatch(t=t, patch={noise.choice("abc"): noise.choice([None, 1, True, {"x": noise.randrange(3)}])})
    if kind == 6:
        return Metric(t=t, name=noise.choice("mn"), value=noise.randrange(9))
    if kind == 7:
        return Beat(t=t)
    if kind == 8:
        return Verdict(t=t, status=noise.choice(["hung", "active", "crashed"]), by=noise.choice(["daemon", "server"]))
    return noise.choice([Close(t=t), Dropped(t=t, counts={"full": 1})])


def same_outcome(model, store, what, *arguments, **more):
    """Do something to both stores; return whether they answered the same."""
    expected, got = (outcome(partial(getattr(one, what), *arguments, **more)) for one in (model, store))
    return got == expected


def campaign(root, seed, count):
    """Do random things to both stores and compare now and then; a crash is a copy of the folder that is opened."""
    noise = random.Random(seed)
    model, store = MemoryStore(), SemiStore(root, segment_bytes=4096, now_ns=lambda: 1, quiet_s=0.0)
    crashes = 0
    deleted = set()
    for step in range(count):
        number = noise.randrange(12)
        what = noise.randrange(1000)
        if what < 900:
            some = [record_at(noise, noise.randrange(step // 10 + 200)) for _ in range(noise.randrange(1, 4))]
            if number not in deleted and outcome(lambda n=number: model.head(sid(n)).id) != sid(number):
                some.insert(0, opened(t=noise.randrange(200)))
            batch = batch_for(model, ("append", number, noise.choice("st"), some, noise.choice((0, 0, 0, 0, 3, 4, 8))))
            assert same_outcome(model, store, "append", sid(number), batch, received_us=step)
        elif what < 902:
            assert same_outcome(model, store, "drop", sid(number), at_once=what == 900)
            deleted.add(number)
            if len(deleted) > 6:
                break
        elif what < 990:
            store.tend(noise.choice((0.0, 0.0, 0.01)))
        elif what < 995:
            store.close()
            store = SemiStore(root, segment_bytes=4096, now_ns=lambda: 1, quiet_s=0.0)
        else:
            # What a killed process leaves: nothing was closed, and whatever tend() was at is half done.
            left = root.with_name(f"{root.name}-{step}")
            shutil.copytree(root, left, copy_function=shutil.copy2)
            store.close()
            shutil.rmtree(root)
            root = left
            store = SemiStore(root, segment_bytes=4096, now_ns=lambda: 1, quiet_s=0.0)
            crashes += 1
        if step % 97 == 0:
            assert everything(store) == everything(model)
            assert store.stats()["damaged_regions"] == 0
            assert [head.id for head in store.scan(Query(has=("hang",)))] == [head.id for head in model.scan(Query(has=("hang",)))]  # fmt: skip
    assert everything(store) == everything(model)
    assert store.stats()["chunks"] < 12 * 40
    store.close()
    return crashes


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("rounds", "count"), [(3, 1000), pytest.param(40, 2500, marks=pytest.mark.long)], ids=["sample", "campaign"]
)
def test_both_stores_tell_the_same_after_very_many_operations_and_kills(tmp_path, monkeypatch, rounds, count):
    monkeypatch.setattr("datacat.store.durable.os.fsync", lambda fd: None)
    crashes = sum(campaign(tmp_path / f"store{seed}", seed, count) for seed in range(rounds))
    assert crashes > rounds
