"""Judging silent sessions, retention: step functions with a clock that the test sets."""

from collections import Counter

import pytest
from watched import DAY, US, Watched

from datacat.errors import Deleted
from datacat.server.config import Config, Live
from datacat.server.jobs import Sweep, jobs, retain
from datacat.wire.records import Beat, Close, Closing, Event, Verdict


@pytest.fixture
def alone(server):
    """A session that nobody ships."""
    return Watched(server)


@pytest.fixture
def shipped(server):
    """A session that a daemon ships."""
    server.leases.register({"id": "d1", "machine_id": "m", "boot_id": "b1"}, server.now_us)
    return Watched(server, daemon_id="d1", machine_id="m", boot_id="b1")


# --- sessions that nobody ships


def test_a_silent_session_is_suspended_after_120_s(alone):
    alone.later(120)
    assert alone.status == "active"
    alone.later(5)
    assert alone.status == "suspended"
    assert alone.events == ["application_suspended"]
    alone.later(1000)
    assert alone.events == ["application_suspended"]


def test_any_request_keeps_it_active(alone):
    for _ in range(5):
        alone.later(100)
        alone.server.post(f"/api/sessions/{alone.id}/metrics", json={"name": "m", "value": 1})
    assert alone.status == "active"


@pytest.mark.parametrize(
    ("path", "body"),
    [("events", {"name": "e"}), ("metrics", {"name": "m", "value": 1}), ("state", {"a": 1}), ("heartbeat", None)],
)
def test_a_request_ends_the_suspension(alone, path, body):
    alone.later(130)
    since = alone.head.status_since
    assert alone.server.post(f"/api/sessions/{alone.id}/{path}", json=body).status == 200
    assert alone.status == "active"
    assert alone.events[:2] == ["application_suspended", "application_resumed"] or path == "events"
    (resumed,) = [e for e in alone.server.get_session(alone.id)["events"] if e["name"] == "application_resumed"]
    assert resumed["data"] == {"status": "suspended", "duration_s": (alone.server.now_us - since) / US}


def test_it_is_lost_after_a_day_and_comes_back_when_it_is_heard_of(alone):
    alone.later(DAY, step=25)
    assert alone.status == "suspended"
    alone.later(25)
    assert (alone.head.status, alone.head.end_reason) == ("abnormal", "lost")
    alone.server.post(f"/api/sessions/{alone.id}/events", json={"name": "back"})
    assert alone.status == "active"
    assert alone.head.ended_at == 0


def test_a_session_without_heartbeats_is_never_hung(alone):
    for _ in range(20):
        alone.later(60)
        alone.server.post(f"/api/sessions/{alone.id}/events", json={"name": "e"})
    assert alone.head.hang_count == 0


def test_missing_heartbeats_are_a_hang_also_while_other_requests_come(alone):
    alone.server.post(f"/api/sessions/{alone.id}/heartbeat")
    alone.later(60)
    alone.server.post(f"/api/sessions/{alone.id}/events", json={"name": "e"})
    assert alone.status == "active"
    alone.later(10)
    assert alone.status == "hung"
    assert alone.events[-1] == "application_appears_hung"
    alone.server.post(f"/api/sessions/{alone.id}/events", json={"name": "e"})
    assert alone.status == "hung"
    alone.later(20)
    alone.server.post(f"/api/sessions/{alone.id}/heartbeat")
    assert alone.status == "active"
    assert alone.events[-1] == "application_recovered"
    assert alone.head.hang_seconds == pytest.approx(90)
    assert alone.head.hang_count == 1


def test_a_hung_session_stays_hung_until_it_is_lost(alone):
    alone.server.post(f"/api/sessions/{alone.id}/heartbeat")
    alone.later(300)
    assert alone.status == "hung"


def test_a_clock_that_is_wrong_does_not_make_a_hang(alone):
    for number in range(30):
        alone.ship(Beat(alone.server.now_us - 3600 * US + number))
        alone.later(30)
    assert alone.head.hang_count == 0


def test_a_heartbeat_in_a_batch_that_the_sweep_sees_ends_the_hang(alone):
    alone.ship(Beat(alone.server.now_us))
    alone.later(70)
    assert alone.status == "hung"
    alone.ship(Beat(alone.server.now_us))
    alone.later(5)
    assert alone.status == "active"
    assert alone.events == ["application_appears_hung", "application_recovered"]


@pytest.mark.parametrize(
    ("closing", "expected"),
    [
        ({}, ("ended", "closed")),
        ({"exit_code": 0}, ("ended", "closed")),
        ({"exit_code": 0, "observed": True}, ("ended", "exit_zero")),
        ({"exit_code": 3}, ("crashed", "exit_code")),
        ({"exit_signal": 15, "observed": True}, ("ended", "terminated")),
        ({"exit_signal": 9, "observed": True}, ("crashed", "killed")),
        ({"exit_signal": 11, "observed": True}, ("crashed", "signal")),
        ({"exception_type": "ValueError", "exception_msg": "no", "exit_code": 1}, ("crashed", "exception")),
    ],
)
@pytest.mark.parametrize("beats", [False, True])
def test_a_session_that_was_about_to_end_is_judged_by_its_closing(alone, closing, expected, beats):
    if beats:
        alone.ship(Beat(alone.server.now_us))
    alone.ship(Closing(alone.server.now_us, **closing))
    alone.later(120)
    assert alone.status == "active"
    alone.later(5)
    head = alone.head
    assert (head.status, head.end_reason) == expected
    assert (head.exit_code, head.exit_signal) == (closing.get("exit_code"), closing.get("exit_signal"))
    assert alone.events == (["parent_process_crashed"] if head.status == "crashed" else [])
    assert head.hang_count == 0


def test_a_closing_that_was_followed_by_more_means_nothing(alone):
    alone.ship(Closing(alone.server.now_us), Event(alone.server.now_us + 1, "still here"))
    alone.later(130)
    assert alone.status == "suspended"


def test_a_silent_session_is_read_once_and_again_when_something_came(alone, monkeypatch):
    read = []
    records = alone.server.store.records
    monkeypatch.setattr(alone.server.store, "records", lambda *given: read.append(given) or records(*given))
    alone.ship(Event(alone.server.now_us, "one"))
    alone.later(3600)
    assert alone.status == "suspended"
    assert len(read) == 2  # once before, once after the server's own word
    alone.ship(Closing(alone.server.now_us))
    alone.later(3600)
    assert alone.status == "ended"


def test_the_servers_own_word_is_no_contact(alone):
    alone.later(130)
    assert alone.head.last_seen == alone.server.now_us - 130 * US


def test_an_end_is_never_judged(alone):
    alone.ship(Close(alone.server.now_us, 0))
    alone.later(DAY * 2, step=30)
    assert (alone.head.status, alone.head.end_reason) == ("ended", "clean")


# --- sessions that a daemon ships


def test_a_daemon_that_misses_its_lease_suspends_its_sessions(shipped):
    shipped.later(60)
    assert shipped.status == "active"
    shipped.later(5)
    assert shipped.status == "suspended"
    assert shipped.events == ["application_suspended"]


def test_the_lease_keeps_idle_sessions_active(shipped):
    for _ in range(20):
        shipped.later(30)
        shipped.server.post("/api/daemons/d1/heartbeat", json={"sessions": [shipped.id]})
    assert shipped.status == "active"


def test_a_daemon_that_comes_back_resumes_its_idle_sessions(shipped):
    shipped.later(70)
    shipped.server.post("/api/daemons/d1/heartbeat")
    shipped.later(5)
    assert shipped.status == "active"
    assert shipped.events == ["application_suspended", "application_resumed"]


def test_another_daemon_may_take_a_session_over(shipped):
    for _ in range(5):
        shipped.later(30)
        shipped.server.post("/api/daemons/d2/heartbeat", json={"sessions": [shipped.id]})
    assert shipped.status == "active"


def test_the_server_never_judges_the_heartbeats_of_a_shipped_session(shipped):
    shipped.ship(Beat(shipped.server.now_us))
    for _ in range(10):
        shipped.later(30)
        shipped.server.leases.renew("d1", shipped.server.now_us)
    assert shipped.status == "active"


def test_what_the_daemon_said_stays(shipped):
    shipped.ship(Verdict(shipped.server.now_us, "suspended", by="daemon"), stream="daemon")
    for _ in range(5):
        shipped.later(30)
        shipped.server.leases.renew("d1", shipped.server.now_us)
    assert (shipped.head.status, shipped.head.by) == ("suspended", "daemon")


def test_a_machine_that_was_rebooted_without_the_session_makes_it_abnormal(shipped):
    shipped.later(70)
    shipped.server.leases.register({"id": "d2", "machine_id": "m", "boot_id": "b2"}, shipped.server.now_us)
    shipped.later(60)
    assert shipped.status == "suspended"  # its daemon may still find it
    shipped.later(10)
    assert (shipped.head.status, shipped.head.end_reason) == ("abnormal", "reboot")


def test_a_session_that_the_next_daemon_adopts_is_not_abnormal(shipped):
    shipped.later(70)
    shipped.server.leases.register(
        {"id": "d2", "machine_id": "m", "boot_id": "b2", "sessions": [shipped.id]}, shipped.server.now_us
    )
    for _ in range(5):
        shipped.later(30)
        shipped.server.leases.renew("d2", shipped.server.now_us)
    assert shipped.status == "active"


def test_another_daemon_of_the_same_boot_says_nothing_about_a_session(shipped):
    shipped.later(70)
    shipped.server.leases.register({"id": "d2", "machine_id": "m", "boot_id": "b1"}, shipped.server.now_us)
    shipped.later(200)
    assert shipped.status == "suspended"


def test_a_better_judge_corrects_the_servers_guess(shipped):
    shipped.later(70)
    shipped.ship(Verdict(shipped.server.now_us, "crashed", "killed", exit_signal=9, by="daemon"), stream="daemon")
    shipped.later(DAY * 2, step=30)
    assert (shipped.head.status, shipped.head.end_reason) == ("crashed", "killed")


# --- the server's own absence


def test_a_server_that_was_away_does_not_hold_it_against_anybody(alone, shipped):
    for watched in (alone, shipped):
        watched.ship(Beat(watched.server.now_us))
    alone.server.now_us += 3600 * US
    sweep = Sweep(alone.server.own, alone.server.leases, Live(alone.server.config), alone.server.now_us)
    sweep.step(alone.server.now_us)
    sweep.step(alone.server.now_us + 5 * US)
    assert alone.status == shipped.status == "active"
    for number in range(2, 40):
        sweep.step(alone.server.now_us + number * 5 * US)
    assert (alone.status, shipped.status) == ("hung", "suspended")


def test_a_server_that_slept_does_not_hold_it_against_anybody(alone):
    alone.ship(Beat(alone.server.now_us))
    alone.later(10)
    alone.server.now_us += 3600 * US
    alone.sweep.step(alone.server.now_us)
    assert alone.status == "active"
    alone.later(50)
    assert alone.status == "active"
    alone.later(20)
    assert alone.status == "hung"


def test_a_suspension_outlives_the_servers_restart(alone):
    alone.later(130)
    sweep = Sweep(alone.server.own, alone.server.leases, Live(alone.server.config), alone.server.now_us)
    sweep.step(alone.server.now_us + US)
    assert alone.status == "suspended"
    assert alone.events == ["application_suspended"]


# --- retention

DAYS_30 = Config(retention_days=30)


def test_sessions_are_deleted_so_long_after_their_end_and_never_open_ones(server):
    ended, running = server.session(), server.session()
    server.post(f"/api/sessions/{ended}/end")
    assert retain(server.store, server.now_us + 30 * DAY * US, DAYS_30, Counter()) is False
    assert server.store.head(ended)
    retain(server.store, server.now_us + 30 * DAY * US + 1, DAYS_30, Counter())
    with pytest.raises(Deleted):
        server.store.head(ended)
    retain(server.store, server.now_us + 3650 * DAY * US, DAYS_30, Counter())
    assert server.store.head(running)


def test_without_retention_everything_is_kept(server):
    ended = server.session()
    server.post(f"/api/sessions/{ended}/end")
    retain(server.store, server.now_us + 3650 * DAY * US, Config(retention_days=0), Counter())
    assert server.store.head(ended)


def test_many_old_sessions_are_deleted_in_steps(server):
    for _ in range(150):
        server.now_us += 1
        server.post(f"/api/sessions/{server.session()}/end")
    later, deleted = server.now_us + 40 * DAY * US, Counter()
    assert retain(server.store, later, DAYS_30, deleted) is True
    assert retain(server.store, later, DAYS_30, deleted) is False
    assert deleted == {"age": 150}
    assert server.store.stats()["sessions"] == 0


def test_the_table_of_jobs_follows_the_settings(server):
    rows = jobs(server.own, server.leases, Live(Config(sweep_interval_s=0.5)), server.now_us, Counter())
    table = {job.name: job for job in rows}
    assert table.keys() == {"sweep", "retain", "tend"}
    assert table["sweep"].interval_s == 0.5
    for job in table.values():
        assert job.step(server.now_us) is False
