"""A server that was restored from a backup gets sessions again that were done; others are left in peace."""

import json

import pytest
from daemon_helpers import Journal, now_us

from datacat import host
from datacat.daemon.again import LOOK_INTERVAL_S, Again
from datacat.daemon.delivery import Delivery
from datacat.daemon.spool import retire
from datacat.daemon.uplink import Uplink
from datacat.wire.records import Close, Event


@pytest.fixture
def uplink(server):
    made = Uplink(server.url)
    yield made
    made.close()


@pytest.fixture
def again(spool, uplink):
    return Again(spool, lambda folder, meta: Delivery(folder, meta, uplink, daemon_id="d", max_records=1000))


@pytest.fixture
def done(spool, uplink):
    journal = Journal(spool)
    journal.append(Event(t=now_us(), name="a"), Close(t=now_us()))
    delivery = Delivery(journal.folder, journal.meta, uplink, daemon_id="d", max_records=1000)
    delivery.last = True
    delivery.ship()
    (journal.folder / "daemon").write_text(json.dumps({"pid": 1, "boot": uplink.boot}))
    retire(journal.folder, journal.meta)
    return journal


def test_the_same_boot_is_not_asked(again, done, server, uplink):
    before = len(server.requests)
    assert not again.step([uplink])
    assert len(server.requests) == before


def test_another_boot_that_lost_nothing_is_asked_once(again, done, server, uplink):
    uplink.boot = server.boot = "boot-2"
    before = len(server.requests)
    again.step([uplink])
    assert [method for method, *_ in server.requests[before:]] == ["GET"]
    again.step([uplink])
    assert len(server.requests) == before + 1
    assert json.loads((done.folder / "daemon").read_text())["boot"] == "boot-2"


def test_a_restored_server_gets_the_session_again(again, done, server, uplink):
    sent = list(server.sessions[done.id])
    server.sessions.clear()
    server.acked.clear()
    server.crcs.clear()
    uplink.boot = server.boot = "boot-2"
    again.step([uplink])
    assert server.sessions[done.id] == sent


def test_a_session_that_was_not_done_yet_is_looked_at_a_minute_later(spool, server, uplink, done):
    clock = [0.0]
    again = Again(
        spool,
        lambda folder, meta: Delivery(folder, meta, uplink, daemon_id="d", max_records=1000),
        lambda: clock[0],
    )
    sent = list(server.sessions[done.id])
    server.sessions.clear()
    server.acked.clear()
    server.crcs.clear()
    uplink.boot = server.boot = "boot-2"
    with host.lock(done.folder / "lock"):
        again.step([uplink])
    again.step([uplink])
    assert done.id not in server.sessions
    clock[0] += LOOK_INTERVAL_S
    again.step([uplink])
    assert server.sessions[done.id] == sent


def test_a_session_that_another_daemon_looks_at_is_left_to_it(again, done, server, uplink):
    server.sessions.clear()
    uplink.boot = server.boot = "boot-2"
    with host.lock(done.folder / "lock"):
        again.step([uplink])
    assert server.sessions == {}
