"""Exactly once, whatever the server answers, loses or forgets; over real sockets to a server that is told its answers."""

from itertools import pairwise

import pytest
from daemon_helpers import Journal, now_us

from datacat.daemon import checkpoint, delivery
from datacat.daemon.delivery import Delivery
from datacat.daemon.uplink import Uplink
from datacat.errors import UplinkError
from datacat.wire.layout import segment_name
from datacat.wire.records import Event, StatePatch

T = 1_700_000_000_000_000


@pytest.fixture
def ship(server):
    """Return make(journal): a delivery of it. Every uplink is closed at the end."""
    uplinks = []

    def make(journal, **kwargs):
        uplinks.append(Uplink(server.url, daemon_id="d1"))
        return Delivery(
            journal.folder, journal.meta, uplinks[-1], daemon_id="d1", max_records=kwargs.get("max_records", 1000)
        )

    yield make
    for uplink in uplinks:
        uplink.close()


@pytest.fixture
def journal(spool):
    return Journal(spool, segment_bytes=4096)


def log(journal, *names):
    journal.append(*(Event(t=now_us(), name=name) for name in names))


def names(server, journal):
    return [event["name"] for event in server.records(journal.id, "event")]


def test_everything_is_shipped_in_one_batch_and_then_nothing_more(server, journal, ship):
    log(journal, *"abc")
    one = ship(journal)
    one.ship()
    assert names(server, journal) == list("abc")
    assert server.records(journal.id, "open")[0]["daemon_id"] == "d1"
    assert one.acked() == {"app": journal.end}
    assert one.unacked_bytes() == 0
    one.ship()
    assert len(server.batches) == 1
    log(journal, "d")
    assert one.unacked_bytes() > 0
    one.ship()
    assert names(server, journal) == list("abcd")


def test_who_ships_is_told_in_a_header(server, journal, ship):
    ship(journal).ship()
    assert all(headers["Datacat-Daemon"] == "d1" for _, _, headers, _ in server.requests)


def test_rotated_segments_arrive_in_order_and_once(server, journal, ship):
    expected = [f"event {number} {'x' * 50}" for number in range(500)]
    log(journal, *expected)
    one = ship(journal, max_records=60)
    one.ship()
    assert names(server, journal) == expected
    assert len(server.batches) == 9
    ends = [(start, end) for _, _, start, end, _ in server.batches]
    assert all(end == start for (_, end), (start, _) in pairwise(ends))


@pytest.mark.parametrize("word", ["drop", "lose"])
def test_a_lost_answer_or_request_repeats_nothing_and_loses_nothing(server, journal, ship, word):
    log(journal, *"abc")
    one = ship(journal)
    server.plan("/batches", word)
    with pytest.raises(UplinkError) as caught:
        one.ship()
    assert not caught.value.permanent
    log(journal, *"de")
    one.ship()
    assert names(server, journal) == list("abcde")


def test_a_new_daemon_asks_the_server_what_it_has(server, journal, ship):
    log(journal, *"abc")
    ship(journal).ship()
    log(journal, *"de")
    ship(journal).ship()
    assert names(server, journal) == list("abcde")
    assert [start for _, _, start, _, _ in server.batches] == [0, server.batches[0][3]]


def test_a_409_moves_the_cut_to_where_the_server_is(server, journal, ship):
    log(journal, *"abc")
    first, second = ship(journal), ship(journal)
    first.ship()
    log(journal, *"de")
    second.ship()
    log(journal, *"fg")
    first.ship()
    assert names(server, journal) == list("abcdefg")


def test_a_server_that_was_restored_gets_again_what_it_lacks(server, journal, ship):
    log(journal, *"abc")
    one = ship(journal)
    one.ship()
    del server.sessions[journal.id], server.acked[journal.id]
    server.crcs.clear()
    server.boot = "boot-2"
    other = Journal(journal.folder.parent)
    server.sessions[other.id] = []
    log(journal, "d")
    one.ship()
    assert names(server, journal) == list("abcd")


def test_a_server_that_forgot_the_session_gets_it_from_its_open_record(server, journal, ship):
    log(journal, *"abc")
    one = ship(journal)
    one.ship()
    server.sessions.clear()
    server.acked.clear()
    server.crcs.clear()
    log(journal, "d")
    one.ship()
    assert names(server, journal) == list("abcd")


@pytest.mark.parametrize("where", ["acked", "batches"])
def test_a_deleted_session_is_given_up(server, journal, ship, where):
    log(journal, "a")
    one = ship(journal)
    server.plan(f"/{where}", (410, {"reason": "deleted"}, {}))
    one.ship()
    assert one.deleted
    one.ship()
    assert names(server, journal) == []


def test_one_refused_record_becomes_a_count_and_the_rest_arrives(server, journal, ship):
    log(journal, *"abcdefgh")
    one = ship(journal)
    real = server._batch

    def picky(session_id, query, body):
        return (422, {}) if b'"name":"e"' in body else real(session_id, query, body)

    server._batch = picky
    one.ship()
    assert names(server, journal) == list("abcdfgh")
    assert [row["counts"] for row in server.records(journal.id, "dropped")] == [{"refused": 1}]
    assert one.unacked_bytes() == 0


def test_a_busy_server_is_asked_again_later(server, journal, ship):
    log(journal, "a")
    one = ship(journal)
    server.plan("/batches", (503, {}, {"Retry-After": "7"}))
    with pytest.raises(UplinkError) as caught:
        one.ship()
    assert (caught.value.status, caught.value.retry_after_s, caught.value.permanent) == (503, 7.0, False)
    one.ship()
    assert names(server, journal) == ["a"]


def test_a_diverged_stream_goes_on_under_a_new_id_with_a_gap(server, journal, ship):
    log(journal, *"abc")
    journal.append(StatePatch(t=T, patch={"step": 3}))
    one = ship(journal)
    one.ship()
    server.crcs[journal.id, "app"] = 12345
    log(journal, *"de")
    one.ship()
    assert names(server, journal) == list("abcde")
    (gap,) = server.records(journal.id, "gap")
    assert (gap["reason"], gap["open"]["product"]) == ("diverged", "shop")
    assert gap["state"] == {"product": "shop", "version": "1.0", "step": 3}
    log(journal, "f")
    one.ship()
    again = ship(journal)
    again.ship()
    assert names(server, journal) == list("abcdef")
    assert one.acked() == again.acked() == {"app": journal.end}


def test_a_server_that_is_ahead_of_this_disk_gets_a_new_stream_while_the_app_lives(server, journal, ship):
    log(journal, "a")
    one = ship(journal)
    one.ship()
    server.acked[journal.id]["app"] = 3000
    log(journal, "b")
    one.ship()
    assert names(server, journal) == ["a", "b"]
    assert server.records(journal.id, "gap")[0]["reason"] == "set_back"


def test_old_acknowledged_segments_go_and_the_state_before_them_stays_known(server, journal, ship, monkeypatch):
    monkeypatch.setattr(delivery, "KEPT_BYTES", 8192)
    for number in range(300):
        journal.append(StatePatch(t=T + number * 1_000_000, patch={"step": number, "text": "x" * 50}))
    one = ship(journal)
    one.ship()
    one.trim()
    numbers = [path.name for path in (journal.folder / "app").iterdir()]
    assert segment_name(0) not in numbers
    base = checkpoint.load(journal.folder)["app"]
    assert base.open["product"] == "shop"
    assert 0 < base.state["step"] < 299
    assert sum((journal.folder / "app" / name).stat().st_size for name in numbers) <= 8192 + 2 * 4096

    server.sessions.clear()
    server.acked.clear()
    server.crcs.clear()
    server.boot = "boot-2"
    again = ship(journal)
    again.ship()
    (gap,) = server.records(journal.id, "gap")
    assert (gap["reason"], gap["lost_bytes"], gap["open"]["product"]) == ("trimmed", base.offset, "shop")
    assert gap["state"]["step"] == base.state["step"]
    assert server.records(journal.id, "state")[-1]["patch"]["step"] == 299


def test_a_journal_that_grows_too_large_loses_its_oldest_part_and_says_so(server, journal, ship, monkeypatch):
    monkeypatch.setattr(delivery, "MAX_SPOOL_BYTES", 20 * 1024)
    log(journal, *(f"event {number} {'x' * 50}" for number in range(1000)))
    one = ship(journal)
    one.trim()
    one.ship()
    (gap,) = server.records(journal.id, "gap")
    assert gap["lost_bytes"] > 0
    assert names(server, journal)[-1].startswith("event 999")


def test_a_bad_line_does_not_block_the_stream(server, journal, ship):
    log(journal, "a")
    journal.append(b"{broken\n", b'{"k":"event","t":1,"name":[]}\n')
    log(journal, "b")
    ship(journal).ship()
    assert [name for name in names(server, journal) if name in "ab"] == ["a", "b"]
    assert server.records(journal.id, "dropped")[0]["counts"] == {"malformed": 1}


def test_a_batch_of_nothing_new_moves_on(server, journal, ship):
    journal.append(StatePatch(t=T, patch={"a": 1}))
    one = ship(journal)
    one.ship()
    journal.append(StatePatch(t=T + 1, patch={"a": 1}))
    one.ship()
    assert len(server.records(journal.id, "state")) == 1
    assert one.unacked_bytes() == 0


def test_an_answer_that_does_not_move_is_an_error_and_no_endless_loop(server, journal, ship):
    log(journal, "a")
    one = ship(journal)
    server.plan("/batches", (200, {"acked": 0, "boot": "x"}, {}))
    with pytest.raises(UplinkError):
        one.ship()
    server.plan("/batches", *[(409, {"acked": 0, "reason": "offset"}, {})] * 20)
    with pytest.raises(UplinkError):
        one.ship()
    server.plans.clear()
    one.ship()
    assert names(server, journal) == ["a"]
