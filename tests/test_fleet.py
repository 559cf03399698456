"""The made-up fleet holds what pages, queries and dashboards are tried on."""

from fleet import ENDS, PRODUCTS, seed

from datacat.store import Query
from datacat.store.memory import MemoryStore

NOW_US = 1_795_000_000_000_000


def heads_of(store):
    return store.heads(Query(limit=1000)).heads


def test_every_way_to_end_and_every_product_is_there_and_the_store_agrees_with_the_plan():
    store = MemoryStore()
    fleet = seed(store, NOW_US)
    heads = heads_of(store)
    assert len(heads) == 201
    assert set(fleet.ends.values()) == set(ENDS)
    assert {head.product for head in heads} == set(PRODUCTS)
    told = {"open": "active", "hung": "hung", "suspended": "suspended"}
    for head in heads:
        assert fleet.ends[head.id] in (
            head.end_reason,
            next((end for end, word in told.items() if word == head.status), ""),
        )
    assert store.head(fleet.named["long"]).counts["events"] >= 20_000


def test_the_same_seed_makes_the_same_fleet():
    stores = MemoryStore(), MemoryStore()
    for store in stores:
        seed(store, NOW_US, sessions=30, long_events=0)
    assert heads_of(stores[0]) == heads_of(stores[1])
