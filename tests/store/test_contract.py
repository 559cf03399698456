"""What every store promises: each case runs on the memory store and on the semidbm store."""

import base64
import contextlib
import itertools
import threading

import pytest
from storing import A, B, line, opened, put, ship, sid, stored

from datacat.errors import ConfigError, Deleted, Mismatch, NotFound, StoreError, WireError
from datacat.store import Batch, CatalogueQuery, Query, RecordQuery, RollupQuery, open_store
from datacat.store.history import states
from datacat.store.memory import MemoryStore
from datacat.store.timed import Timed, Timings
from datacat.wire.lines import Line, decode
from datacat.wire.records import Beat, Close, Event, Gap, Metric, StatePatch, Verdict


def names(store, session_id, **query):
    return [record["name"] for record in stored(store, session_id, kinds=("event",), **query)]


def ids(page):
    return [head.id for head in page.heads]


@pytest.fixture(params=["memory", "semidbm", "timed"])
def store(request, tmp_path):
    store = open_store(f"semidbm:{tmp_path / 'store'}" if request.param == "semidbm" else "memory:")
    if request.param == "timed":
        store = Timed(store, Timings())
    yield store
    store.close()


# append ---------------------------------------------------------------------------------------------------------------


def test_the_first_batch_opens_the_session(store):
    head = ship(store, A, 0, 50, opened(state={"mode": "new"}))
    assert (head.id, head.product, head.streams["app"].acked, head.last_seen) == (A, "editor", 50, 1_000)
    assert store.head(A) == head
    assert store.state(A) == {"product": "editor", "version": "1", "mode": "new"}
    assert [record["k"] for record in stored(store, A)] == ["open"]


def test_a_session_that_does_not_exist_is_not_opened_by_anything_else(store):
    with pytest.raises(NotFound):
        put(store, A, Event(t=1, name="e"))
    with pytest.raises(NotFound):
        ship(store, A, 0, 10)
    for read in (store.head, store.state, lambda one: store.records(one, RecordQuery()), store.drop):
        with pytest.raises(NotFound):
            read(A)
    assert store.heads(Query()).heads == []


def test_a_gap_that_carries_open_opens_too(store):
    ship(store, A, 0, 10, Gap(t=5, open={"product": "p", "version": "1"}, state={"x": 1}))
    assert store.state(A) == {"product": "p", "version": "1", "x": 1}


def test_a_batch_that_repeats_changes_nothing(store):
    ship(store, A, 0, 50, opened())
    head = ship(store, A, 50, 90, Event(t=200, name="e"))
    assert ship(store, A, 50, 90, Event(t=200, name="e")) == head
    assert ship(store, A, 0, 50, opened(version="2")) == head
    assert ship(store, A, 60, 70, Event(t=900, name="other")) == head
    assert names(store, A) == ["e"]


@pytest.mark.parametrize(("start", "end"), [(51, 90), (49, 90), (0, 90), (60, 61)])
def test_a_batch_that_does_not_continue_its_stream_is_refused_whole(store, start, end):
    ship(store, A, 0, 50, opened())
    with pytest.raises(Mismatch) as refused:
        ship(store, A, start, end, Event(t=200, name="e"))
    assert (refused.value.acked, refused.value.reason) == (50, "offset")
    assert names(store, A) == []
    assert store.head(A).streams["app"].acked == 50


def test_a_new_stream_begins_at_zero(store):
    with pytest.raises(Mismatch) as refused:
        ship(store, A, 10, 50, opened())
    assert refused.value.acked == 0
    assert store.heads(Query()).heads == []
    ship(store, A, 0, 50, opened())
    with pytest.raises(Mismatch):
        ship(store, A, 10, 20, Event(t=1, name="e"), stream="other")
    ship(store, A, 0, 20, Event(t=1, name="e"), stream="other")
    assert {name: stream.acked for name, stream in store.head(A).streams.items()} == {"app": 50, "other": 20}


def test_a_stream_whose_bytes_differ_is_refused_as_diverged(store):
    ship(store, A, 0, 50, opened(), crc=0, end_crc=7)
    with pytest.raises(Mismatch) as refused:
        ship(store, A, 50, 60, Event(t=1, name="e"), crc=8, end_crc=9)
    assert (refused.value.acked, refused.value.reason) == (50, "diverged")
    ship(store, A, 50, 60, Event(t=1, name="e"), crc=7)
    ship(store, A, 60, 70, Event(t=1, name="e"), crc=1, end_crc=2)


def test_a_batch_without_start_goes_to_the_end_of_its_stream(store):
    first = line(opened())
    store.append(A, Batch("own", [first]), received_us=1)
    assert store.head(A).streams["own"].acked == len(first.raw) + 1
    event = line(Event(t=3, name="e"))
    store.append(A, Batch("own", [event]), received_us=1)
    assert store.head(A).streams["own"].acked == len(first.raw) + len(event.raw) + 2


def test_bytes_without_records_are_acknowledged_too(store):
    ship(store, A, 0, 50, opened())
    assert ship(store, A, 50, 4096).streams["app"].acked == 4096
    assert len(stored(store, A)) == 1


def test_last_seen_never_goes_back(store):
    put(store, A, opened(), received_us=500)
    assert put(store, A, Event(t=1, name="e"), received_us=400).last_seen == 500


def test_a_head_that_was_returned_is_never_changed_again(store):
    before = put(store, A, opened())
    streams, status = dict(before.streams), before.status
    put(store, A, Event(t=1, name="e", level="error"), Close(t=2))
    assert (before.streams, before.status, before.counts) == (streams, status, {})


def test_records_are_kept_as_they_came(store):
    raw = b'{"t": 7, "k":"event","name":"e","level":"info","data":{"n":18446744073709551615,"x":1.0},"later":[null]}'
    unknown = b'{"k":"from_a_later_version","t":8,"z":{"a":null}}'
    put(store, A, opened())
    store.append(A, Batch("app", [Line(decode(raw), raw), Line(decode(unknown), unknown)]), received_us=1)
    assert stored(store, A)[:2] == [
        {
            "t": 7,
            "k": "event",
            "name": "e",
            "level": "info",
            "data": {"n": 2**64 - 1, "x": 1.0},
            "later": [None],
        },
        {"k": "from_a_later_version", "t": 8, "z": {"a": None}},
    ]
    assert stored(store, A, kinds=("from_a_later_version",))[0]["z"] == {"a": None}


def test_a_large_batch_comes_back_whole(store):
    put(store, A, opened())
    put(store, A, *(Event(t=1000 + n, name=f"n{n % 7}", message="x" * (n % 300)) for n in range(3000)))
    assert len(names(store, A)) == 3000
    assert store.head(A).counts["events"] == 3000


# state ----------------------------------------------------------------------------------------------------------------


def test_the_state_is_what_the_patches_make_of_it(store):
    put(store, A, opened(state={"a": {"b": 1, "c": 2}}))
    put(store, A, StatePatch(t=200, patch={"a": {"b": None, "d": [1, None]}}), StatePatch(t=300, patch={"e": 1}))
    assert store.state(A) == {"product": "editor", "version": "1", "a": {"c": 2, "d": [1, None]}, "e": 1}


def test_patches_without_effect_leave_no_trace(store):
    put(store, A, opened(state={"a": 1}))
    put(store, A, StatePatch(t=200, patch={"a": 1}))
    put(store, A, StatePatch(t=300, patch={"a": 1.0}), StatePatch(t=400, patch={"a": 1.0}))
    assert [record["t"] for record in stored(store, A, kinds=("state",))] == [300]
    assert store.head(A).counts["states"] == 1


def test_the_history_of_the_state_is_told_by_its_records(store):
    put(store, A, opened(t=100, state={"a": 1}))
    put(store, A, StatePatch(t=200, patch={"a": 2}))
    put(store, A, StatePatch(t=300, patch={"a": None}))
    assert [(t, state.get("a")) for t, state in states(store, A)] == [(100, 1), (200, 2), (300, None)]
    assert [(t, state.get("a")) for t, state in states(store, A, to_us=300)] == [(100, 1), (200, 2)]


def test_a_batch_that_is_refused_does_not_change_the_state(store):
    ship(store, A, 0, 50, opened(state={"a": 1}))
    with pytest.raises(Mismatch):
        ship(store, A, 70, 90, StatePatch(t=1, patch={"a": 2}))
    assert store.state(A)["a"] == 1


# records --------------------------------------------------------------------------------------------------------------


def test_records_are_ordered_by_time_then_stream_then_offset(store):
    put(store, A, opened(t=1), stream="b")
    put(store, A, Event(t=30, name="b30"), Event(t=10, name="b10"), Event(t=20, name="b20"), stream="b")
    put(store, A, Event(t=20, name="a20"), Event(t=20, name="a20again"), Event(t=5, name="a5"), stream="a")
    put(store, A, Event(t=20, name="b20later"), Event(t=40, name="b40"), stream="b")
    order = ["a5", "b10", "a20", "a20again", "b20", "b20later", "b30", "b40"]
    assert names(store, A) == order
    assert names(store, A, newest_first=True) == order[::-1]
    for limit in range(1, 9):
        assert names(store, A, limit=limit) == order[:limit]
        assert names(store, A, limit=limit, newest_first=True) == order[::-1][:limit]


@pytest.mark.parametrize("newest_first", [False, True])
def test_records_go_on_after_a_position(store, newest_first):
    put(store, A, opened(t=1))
    for start in range(0, 60, 6):
        put(store, A, *(Event(t=(start + n) * 7 % 40, name=f"e{start + n}") for n in range(6)))
    everything = list(store.records(A, RecordQuery(newest_first=newest_first)))
    paged = []
    after = None
    while rows := list(store.records(A, RecordQuery(newest_first=newest_first, limit=7, after=after))):
        paged += rows
        after = rows[-1].position
    assert paged == everything
    assert [row.position for row in everything] == sorted((row.position for row in everything), reverse=newest_first)


def test_records_are_filtered(store):
    put(store, A, opened(t=1))
    put(
        store,
        A,
        Event(t=10, name="load", message="Opened file"),
        Event(t=20, name="save", level="error", exception_type="OSError", exception_msg="Disk FULL"),
        Metric(t=30, name="load", value=2),
        Verdict(t=40, status="hung"),
    )
    put(store, A, Event(t=50, name="save", level="critical"), Beat(t=55))
    times = lambda **query: [record["t"] for record in stored(store, A, **query)]  # noqa: E731
    assert times(kinds=("event",)) == [10, 20, 50]
    assert times(kinds=("event", "metric"), names=("load",)) == [10, 30]
    assert times(levels=("error", "critical")) == [20, 50]
    assert times(levels=("info",)) == [10]
    assert times(from_us=20, to_us=40) == [20, 30]
    assert times(from_us=51) == []
    assert times(to_us=1) == []
    assert times(q="disk full") == [20]
    assert times(q="FILE") == [10]
    assert times(q="LOAD") == [10, 30]
    assert times(names=("nothing",)) == []
    assert times(kinds=("beat",)) == []
    assert times(limit=0) == []


# heads ----------------------------------------------------------------------------------------------------------------


def fleet(store):
    put(store, sid(1), opened(t=100, product="editor", version="1", hostname="Alpha", environment="prod"))
    put(store, sid(2), opened(t=200, product="editor", version="2", machine_id="m2", daemon_id="d2"))
    put(store, sid(3), opened(t=300, product="game", version="1", state={"level": {"name": "cave"}}))
    put(store, sid(4), opened(t=400, product="game", version="2"))
    put(store, sid(1), Close(t=150, exit_code=0))
    put(store, sid(2), Verdict(t=280, status="crashed", reason="oom"))
    put(store, sid(3), Verdict(t=310, status="hung"), Event(t=320, name="boss", exception_type="E"))
    put(store, sid(3), StatePatch(t=330, patch={"level": {"name": "sea"}}))


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, [4, 3, 2, 1]),
        ({"sort": "created_at"}, [1, 2, 3, 4]),
        ({"product": ("editor",)}, [2, 1]),
        ({"product": ("editor", "game"), "version": ("2",)}, [4, 2]),
        ({"environment": ("prod",)}, [1]),
        ({"status": ("hung", "active")}, [4, 3]),
        ({"end_reason": ("oom", "clean")}, [2, 1]),
        ({"hostname": ("Alpha",)}, [1]),
        ({"machine": ("m2",)}, [2]),
        ({"daemon": ("d2",)}, [2]),
        ({"from_us": 200, "to_us": 400}, [3, 2]),
        ({"at": "end", "from_us": 100, "to_us": 280}, [1]),
        ({"at": "end", "to_us": 281, "sort": "created_at"}, [1, 2]),
        ({"at": "overlap", "from_us": 160, "to_us": 301}, [3, 2]),
        ({"q": "alph"}, [1]),
        ({"q": "GAME"}, [4, 3]),
        ({"q": sid(2)[-6:]}, [2]),
        ({"has": ("crash",)}, [2]),
        ({"has": ("hang", "exception")}, [3]),
        ({"has": ("crash", "hang")}, []),
        ({"state": (("level.name", "sea"),)}, [3]),
        ({"state": (("level.name", "cave"),)}, []),
        ({"state": (("product", "game"), ("version", "2"))}, [4]),
        ({"state": (("level.name.deeper", "sea"),)}, []),
        ({"state_ever": (("level.name", "cave"), ("level.name", "sea"))}, [3]),
        ({"state_ever": (("level.name", "moon"),)}, []),
        ({"event": ("boss",)}, [3]),
        ({"event": ("nobody",)}, []),
        ({"sort": "-updated_at"}, [4, 3, 2, 1]),
        ({"sort": "ended_at"}, [3, 4, 1, 2]),
        ({"sort": "-product"}, [4, 3, 2, 1]),
        ({"sort": "exit_code"}, [1, 2, 3, 4]),
        ({"sort": "-hostname"}, [4, 3, 2, 1]),
    ],
)
def test_heads_are_filtered_and_sorted(store, query, expected):
    fleet(store)
    assert ids(store.heads(Query(**query))) == [sid(number) for number in expected]


@pytest.mark.parametrize("sort", ["-created_at", "created_at", "product", "-status", "hostname", "-exit_code"])
@pytest.mark.parametrize("limit", [1, 2, 3, 7])
def test_pages_hold_every_session_once(store, sort, limit):
    for number in range(7):
        put(
            store,
            sid(number),
            opened(t=100 + number // 3, product=f"p{number % 2}", hostname="h" if number % 2 else None),
        )
        if number % 3 == 0:
            put(store, sid(number), Close(t=500, exit_code=number))
    whole = ids(store.heads(Query(sort=sort)))
    paged, cursor = [], ""
    while True:
        page = store.heads(Query(sort=sort, limit=limit, cursor=cursor))
        assert len(page.heads) <= limit
        paged += ids(page)
        cursor = page.next_cursor
        if not cursor:
            break
    assert paged == whole
    assert len(set(paged)) == 7


def test_a_cursor_stays_where_it_is_while_sessions_arrive_and_go(store):
    for number in range(1, 7):
        put(store, sid(number), opened(t=100 * number))
    first = store.heads(Query(limit=2))
    assert ids(first) == [sid(6), sid(5)]
    put(store, sid(9), opened(t=900))
    put(store, sid(8), opened(t=450))
    store.drop(sid(5))
    store.drop(sid(3))
    second = store.heads(Query(limit=2, cursor=first.next_cursor))
    assert ids(second) == [sid(8), sid(4)]
    third = store.heads(Query(limit=2, cursor=second.next_cursor))
    assert ids(third) == [sid(2), sid(1)]
    assert third.next_cursor == ""


def test_many_sessions_are_paged_through(store):
    for number in range(600):
        put(store, sid(number), opened(t=100 + number // 100))
    seen, cursor = [], ""
    for _ in itertools.count():
        page = store.heads(Query(limit=130, cursor=cursor))
        seen += ids(page)
        cursor = page.next_cursor
        if not cursor:
            break
    assert seen == [sid(number) for number in range(599, -1, -1)]


def text(plain):
    return base64.urlsafe_b64encode(plain).decode()


@pytest.mark.parametrize(
    "query",
    [
        {"sort": "colour"},
        {"sort": "streams"},
        {"sort": "--created_at"},
        {"cursor": "!"},
        {"cursor": "x"},
        {"cursor": "ünder"},
        {"cursor": text(b"{}")},
        {"cursor": text(b"\xff\xfe")},
        {"cursor": text(b'["created_at",false,1,"x"]')},
        {"cursor": text(b'["-created_at",false,"one","x"]')},
        {"cursor": text(b'["-created_at",false,null,"x"]')},
        {"cursor": text(b'["-created_at",true,0,"x"]')},
        {"sort": "product", "cursor": text(b'["product",false,1,"x"]')},
    ],
)
def test_a_cursor_or_sort_that_is_not_ours_is_refused(store, query):
    put(store, A, opened())
    with pytest.raises(WireError):
        store.heads(Query(**query))


def test_conditions_on_records_stop_when_their_time_is_over():
    now = itertools.count()
    store = MemoryStore(clock=lambda: float(next(now)))
    for number in range(1, 6):
        put(store, sid(number), opened(t=number, state={"odd": number % 2}))
    found, cursor, pages = [], "", 0
    while True:
        page = store.heads(Query(state=(("odd", 1),), budget_s=1.0, cursor=cursor))
        found += ids(page)
        pages += 1
        assert page.truncated == bool(page.next_cursor)
        cursor = page.next_cursor
        if not cursor:
            break
    assert found == [sid(5), sid(3), sid(1)]
    assert pages > 1


def test_the_sweep_sees_every_session_that_has_not_ended(store):
    fleet(store)
    assert sorted(head.id for head in store.open_heads()) == [sid(3), sid(4)]
    put(store, sid(4), Verdict(t=900, status="abnormal", reason="lost", by="server"))
    assert [head.id for head in store.open_heads()] == [sid(3)]
    put(store, sid(4), Event(t=950, name="back"))
    assert sorted(head.id for head in store.open_heads()) == [sid(3), sid(4)]


# roll-ups -------------------------------------------------------------------------------------------------------------


def test_rollups_merge_batches_and_sessions(store):
    minute = 60_000_000
    for number in (1, 2):
        put(store, sid(number), opened(t=minute, version=str(number)))
        put(store, sid(number), Metric(t=minute + 5, name="fps", value=10 * number), Event(t=minute, name="e"))
        put(store, sid(number), Metric(t=minute + 9, name="fps", value=30), Metric(t=2 * minute, name="fps", value=1))
    put(store, sid(3), opened(t=minute, version="2"), Metric(t=minute + 2, name="fps", value=4), Close(t=minute + 60))
    query = RollupQuery(kinds=("gauge",), names=("fps",), to_us=2 * minute, interval_s=60, by=("product", "version"))
    cells = store.rollups(query).cells
    assert sorted(cells) == [(minute, ("editor", "1")), (minute, ("editor", "2"))]
    cell = cells[minute, ("editor", "2")]
    assert (cell.count, cell.sum, cell.min, cell.max, cell.last) == (3, 54, 4, 30, 30)
    assert cell.quantile(0.5) == pytest.approx(20, rel=0.01)
    status = store.rollups(RollupQuery(kinds=("status",), version=("2",), by=("name",))).cells
    assert {group[0]: cell.count for (_, group), cell in status.items()} == {"started": 2, "ended": 1}
    assert store.rollups(RollupQuery(from_us=3 * minute)).cells == {}
    assert store.rollups(RollupQuery(product=("game",))).cells == {}
    with pytest.raises(WireError):
        store.rollups(RollupQuery(by=("session",)))


def test_the_catalogue_tells_what_there_is(store):
    for number in (1, 2):
        put(store, sid(number), opened())
        put(store, sid(number), Metric(t=number, name="fps", value=number, unit="Hz", tags=["room:x"]))
        put(store, sid(number), Event(t=5, name="saved", category="disk", group="io"))
    (fps,) = store.catalogue(CatalogueQuery(kinds=("gauge",)))
    assert (fps.product, fps.name, fps.unit, fps.count, fps.sessions) == ("editor", "fps", "Hz", 2, 2)
    assert (fps.min, fps.max, fps.last, fps.last_seen) == (1, 2, 2, 2)
    assert [(one.kind, one.name, one.count) for one in store.catalogue(CatalogueQuery(since_us=1))] == [
        ("category", "disk", 2),
        ("event", "saved", 2),
        ("gauge", "fps", 2),
        ("group", "io", 2),
        ("tag", "room:x", 2),
    ]
    assert store.catalogue(CatalogueQuery(product=("game",))) == store.catalogue(CatalogueQuery(names=("no",))) == []
    assert store.catalogue(CatalogueQuery(since_us=6)) == []


# drop -----------------------------------------------------------------------------------------------------------------


def test_a_dropped_session_is_gone_for_good(store):
    put(store, A, opened())
    put(store, B, opened())
    store.drop(A)
    for read in (store.head, store.state, lambda one: list(store.records(one, RecordQuery())), store.drop):
        with pytest.raises(Deleted):
            read(A)
    with pytest.raises(Deleted):
        ship(store, A, 0, 50, opened())
    assert ids(store.heads(Query())) == [B]
    assert [head.id for head in store.open_heads()] == [B]
    assert store.stats()["sessions"] == 1


def test_a_reader_of_a_session_that_is_dropped_meanwhile_gets_rows_or_deleted(store):
    put(store, A, opened(t=1))
    for n in range(20):
        put(store, A, Event(t=10 + n, name="e"))
    rows = store.records(A, RecordQuery())
    assert next(rows).record["k"] == "open"
    store.drop(A)
    with contextlib.suppress(Deleted):
        assert all(row.record["name"] == "e" for row in rows)


# housekeeping ---------------------------------------------------------------------------------------------------------


def test_a_store_counts_its_sessions(store):
    fleet(store)
    stats = store.stats()
    assert (stats["sessions"], stats["open_sessions"]) == (4, 2)
    assert stats["size_bytes"] > 0


def test_a_store_that_was_closed_takes_nothing_more(store):
    put(store, A, opened())
    store.check()
    store.close()
    store.close()
    with pytest.raises(StoreError):
        store.check()
    with pytest.raises(StoreError):
        put(store, A, Event(t=1, name="e"))
    with pytest.raises(StoreError):
        store.drop(A)


def test_tending_an_orderly_store_has_nothing_to_do(store):
    put(store, A, opened())
    assert store.tend(1.0) is False


def test_readers_see_whole_batches_only(store):
    """Four writers, each with a session and one that all share; readers check what they see against itself."""
    rounds = 60
    wrong = []
    stop = threading.Event()

    def write(writer):
        own = sid(100 + writer)
        put(store, own, opened(t=1))
        for n in range(1, rounds):
            batch = [Event(t=n * 10 + k, name="e", data={"n": n, "pad": "x" * (n * 37 % 500)}) for k in range(3)]
            put(store, own, StatePatch(t=n * 10, patch={"n": n, "twice": 2 * n}), *batch)
            put(store, sid(99), Event(t=n, name=f"w{writer}"), stream=f"s{writer}")

    def read():
        while not stop.is_set():
            for writer in range(4):
                try:
                    own = sid(100 + writer)
                    state = store.state(own)
                    if state.get("twice", 0) != 2 * state.get("n", 0):
                        wrong.append(state)
                    rows = stored(store, own, kinds=("event",))
                    if len(rows) % 3 or any(row["data"]["n"] != index // 3 + 1 for index, row in enumerate(rows)):
                        wrong.append(rows)
                    newest = stored(store, own, kinds=("event",), newest_first=True, limit=2)
                    if len({row["data"]["n"] for row in newest}) > 1:
                        wrong.append(newest)
                    store.heads(Query(limit=2, state=(("n", 1),)))
                except NotFound:
                    pass

    put(store, sid(99), opened(t=1))
    writers = [threading.Thread(target=write, args=(writer,)) for writer in range(4)]
    readers = [threading.Thread(target=read) for _ in range(2)]
    for thread in writers + readers:
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    for thread in readers:
        thread.join()
    assert wrong == []
    for writer in range(4):
        assert store.state(sid(100 + writer))["n"] == rounds - 1
        assert store.head(sid(100 + writer)).counts == {"events": 3 * (rounds - 1), "states": rounds - 1}
    assert store.head(sid(99)).counts["events"] == 4 * (rounds - 1)


@pytest.mark.parametrize("url", ["", "postgres:x", "memory:x", "semidbm:"])
def test_an_unknown_store_is_refused_with_the_allowed_form(url):
    with pytest.raises(ConfigError, match="memory: or semidbm:PATH"):
        open_store(url)


def test_scan_gives_every_session_that_passes_the_conditions_on_heads_oldest_first(store):
    for number, (product, t) in enumerate([("a", 300), ("b", 100), ("a", 200), ("a", 900)]):
        put(store, sid(number), opened(t=t, product=product))
    assert [head.id for head in store.scan(Query())] == [sid(1), sid(2), sid(0), sid(3)]
    query = Query(product=("a",), from_us=200, to_us=900, sort="-product", limit=1, cursor="x", event=("none",))
    found = list(store.scan(query))
    assert [(head.id, head.product, head.created_at, head.status) for head in found] == [
        (sid(2), "a", 200, "active"), (sid(0), "a", 300, "active"),
    ]  # fmt: skip
    store.drop(sid(2))
    assert [head.id for head in store.scan(query)] == [sid(0)]
