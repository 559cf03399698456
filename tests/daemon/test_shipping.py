"""The uplink's thread on a clock of our own: what goes out when, and what a day without a server costs."""

import itertools
import random

import pytest
from daemon_helpers import Journal

from datacat.daemon.shipping import LEASE_S, UPKEEP_S, Hurry, Serve, Shipping
from datacat.daemon.uplink import Uplink
from datacat.errors import UplinkError
from datacat.wire.records import Beat, Event, StatePatch

T = 1_800_000_000_000_000


class Clock:
    def __init__(self):
        self.now_s = 1000.0

    def __call__(self):
        return self.now_s


class Desk:
    """A shipping whose server, clock and orders are in our hands."""

    def __init__(self, spool, url):
        self.clock = Clock()
        self.reports = []
        self.links = []
        self.shipping = Shipping(
            spool,
            {"id": "d1"},
            lambda meta: self._link(url),
            self.reports.append,
            max_records=100_000,
            max_spool_bytes=256 << 20,
            clock=self.clock,
        )

    def _link(self, url):
        link = Uplink(url)
        self.links.append(link)
        return link

    def serve(self, journal, **more):
        self.shipping.put(Serve(journal.folder, journal.meta, last=False, **more))

    def tick(self, journal, seconds=5.0, upkeep=False, at_once=False, last=False):
        self.clock.now_s += seconds
        self.shipping.put(Hurry(journal.id, 1, last, at_once, upkeep))
        while self.shipping.work():
            pass
        return self.reports[-1]

    def close(self):
        self.shipping.close()


@pytest.fixture
def desk(spool, server):
    made = Desk(spool, server.url)
    yield made
    made.close()


def posts(server, word=""):
    return [path for command, path, _, _ in server.requests if command == "POST" and word in path]


def test_a_thousand_updates_within_one_interval_are_one_request(spool, server, desk):
    journal = Journal(spool)
    desk.serve(journal)
    desk.tick(journal)
    before = len(server.requests)
    for number in range(1000):
        journal.append(StatePatch(t=T + number * 5_000, patch={"step": number}))
    report = desk.tick(journal)
    assert report.done
    assert len(server.requests) - before == 1
    states = server.records(journal.id, "state")
    assert states[-1]["patch"] == {"step": 999}
    assert len(states) < 300  # those within 25 ms are one
    assert server.ledgers[journal.id]["app"] == {"records": 1001, "pending": 0}


def test_a_session_that_changes_nothing_sends_one_small_request_in_30_s(spool, server, desk):
    journal = Journal(spool)
    desk.serve(journal)
    desk.tick(journal)
    server.requests.clear()
    seconds = 600
    for number in range(seconds // 5):
        if number % 2:  # heartbeats and process metrics, as the loop writes them
            journal.append(Beat(t=T + number))
        desk.tick(journal, upkeep=True)
    assert len(server.requests) <= seconds / UPKEEP_S
    assert len(server.requests) >= seconds / UPKEEP_S - 2
    assert all(len(body) < 200 for _, _, _, body in server.requests)


def test_a_session_with_nothing_at_all_only_renews_its_lease(spool, server, desk):
    journal = Journal(spool)
    desk.serve(journal)
    desk.tick(journal)
    server.requests.clear()
    for _ in range(120):
        desk.tick(journal, upkeep=True)
    assert {path.rpartition("/")[2] for path in posts(server)} == {"heartbeat"}
    assert len(server.requests) <= 600 / (LEASE_S / 2) + 1


def test_what_is_new_does_not_wait_for_the_upkeep(spool, server, desk):
    journal = Journal(spool)
    desk.serve(journal)
    desk.tick(journal)
    journal.append(Beat(t=T))
    desk.tick(journal, upkeep=True)
    assert server.records(journal.id, "beat") == []
    journal.append(Event(t=T, name="now"))
    assert desk.tick(journal).done
    assert [row["k"] for row in server.records(journal.id)] == ["open", "event", "beat"]


def test_at_the_end_nothing_waits(spool, server, desk):
    journal = Journal(spool)
    desk.serve(journal)
    desk.tick(journal)
    journal.append(Beat(t=T))
    assert desk.tick(journal, seconds=0.1, last=True, upkeep=True).done


def test_a_day_without_a_server_costs_a_request_every_few_minutes_and_loses_nothing(spool, server, desk, monkeypatch):
    """24 hours on a clock of our own: an app that logs every minute, a server that is away, then back."""
    monkeypatch.setattr("datacat.daemon.uplink.is_local", lambda url: False)
    random.seed(1)
    journal = Journal(spool)
    tries = []

    def away(*_args):
        tries.append(desk.clock.now_s)
        raise UplinkError("no answer")

    desk.serve(journal)
    desk.tick(journal)
    monkeypatch.setattr(Uplink, "_request", away)
    start_s, day_s = desk.clock.now_s, 24 * 3600
    number = 0
    while desk.clock.now_s < start_s + day_s:
        if number % 2 == 0:
            journal.append(Event(t=T + number, name="minute", data={"n": number // 2}))
        report = desk.tick(journal, seconds=30.0, upkeep=number % 2 != 0)
        number += 1
    assert not report.reached
    assert report.unacked_bytes > 0
    assert report.trouble == "no answer"
    assert day_s / 330 <= len(tries) <= day_s / 150 + 30  # every 150 to 300 s, after the first tries
    assert all(later - sooner <= 330 for sooner, later in itertools.pairwise(tries))

    monkeypatch.undo()
    for _ in range(61):
        report = desk.tick(journal)
    assert report.done
    told = [row["data"]["n"] for row in server.records(journal.id, "event")]
    assert told == list(range(1440))
    assert server.ledgers[journal.id]["app"] == {"records": 1441, "pending": 0}


def test_a_retry_after_is_kept_to_also_when_an_app_asks_for_a_flush(spool, server, desk):
    journal = Journal(spool)
    server.plan("/batches", (429, {}, {"Retry-After": "100"}))
    desk.serve(journal)
    desk.tick(journal)
    assert len(posts(server, "/batches")) == 1
    for _ in range(19):
        desk.tick(journal, at_once=True)
    assert len(posts(server, "/batches")) == 1
    for _ in range(21):
        report = desk.tick(journal)
    assert report.done


def test_without_a_retry_after_a_flush_is_tried_at_once(spool, server, desk):
    journal = Journal(spool)
    server.plan("/batches", *[(500, {}, {})] * 4)
    desk.serve(journal)
    desk.tick(journal)
    for _ in range(4):
        report = desk.tick(journal, seconds=0.0, at_once=True)
    assert report.done


def test_a_key_that_is_refused_is_told_once_and_tried_seldom(spool, server, desk, caplog):
    journal = Journal(spool)
    server.plan("/api/daemons", *[(401, {}, {})] * 1000)
    desk.serve(journal)
    for _ in range(720):
        report = desk.tick(journal)
    assert "the server wants a key" in report.trouble
    assert len(server.requests) <= 3600 / 30 + 1
    assert [record.getMessage().count("wants a key") for record in caplog.records if record.levelname == "WARNING"] == [
        1
    ]
    assert report.unacked_bytes > 0


def test_a_product_that_the_key_may_not_write_does_not_hold_up_the_others(spool, server, desk, monkeypatch):
    mine, other = Journal(spool), Journal(spool)
    answer = server._answer

    def scoped(method, path, query, body):
        if mine.id in path and path.endswith("/batches"):
            return 403, {"detail": "not this product"}
        return answer(method, path, query, body)

    monkeypatch.setattr(server, "_answer", scoped)
    desk.serve(mine)
    desk.serve(other)
    desk.tick(other)
    desk.tick(other)
    reports = {report.session_id: report for report in desk.reports}
    assert reports[other.id].done
    assert not reports[mine.id].done
    assert "may not write" in reports[mine.id].trouble


def test_fifty_thousand_events_while_the_server_is_away_arrive_whole(spool, server, desk, monkeypatch):
    journal = Journal(spool, segment_bytes=1 << 20)
    with monkeypatch.context() as patch:
        patch.setattr(Uplink, "_request", lambda *args: (_ for _ in ()).throw(UplinkError("no answer")))
        desk.serve(journal)
        desk.tick(journal)
        body = b"".join(b'{"k":"event","t":%d,"name":"burst","data":{"n":%d}}\n' % (T + n, n) for n in range(50_000))
        write_at_once(journal, body)
        for _ in range(20):
            report = desk.tick(journal)
        assert report.unacked_bytes > len(body)
    for _ in range(70):
        report = desk.tick(journal)
    assert report.done
    assert [row["data"]["n"] for row in server.records(journal.id, "event")] == list(range(50_000))
    assert server.ledgers[journal.id]["app"] == {"records": 50_001, "pending": 0}


def write_at_once(journal, body):
    """Append lines as a client does, segment by segment."""
    for line in _chunks(body, 60_000):
        journal.append(line)


def _chunks(body, size):
    at = 0
    while at < len(body):
        end = body.rfind(b"\n", at, at + size) + 1
        yield body[at:end]
        at = end


def test_the_ledger_says_what_waits_behind_each_batch(spool, server):
    journal = Journal(spool)
    journal.append(*(Event(t=T + n, name="e") for n in range(99)))
    desk = Desk(spool, server.url)
    desk.shipping._max_records = 30
    seen = []
    batch = server._batch

    def noted(session_id, query, body):
        seen.append((int(query["records"][0]), int(query.get("pending", ["0"])[0])))
        return batch(session_id, query, body)

    server._batch = noted
    desk.serve(journal)
    desk.tick(journal)
    desk.close()
    assert seen == [(30, 70), (30, 40), (30, 10), (10, 0)]
