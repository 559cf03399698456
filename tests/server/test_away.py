"""The dead-man switch: why a session was away, by boot id, clock and what its daemon says; clocks that are wrong."""

import pytest
from watched import DAY, US, Watched

from datacat.server.judge import SKEW_US
from datacat.store.apply import CLOCK_STEP_US
from datacat.wire import lines, routes
from datacat.wire.records import Close, Event, Open, Verdict

HOUR = 3600


@pytest.fixture
def shipped(server):
    """A session of a daemon that is heard of every 30 s."""
    server.post("/api/daemons", json={"id": "d1", "machine_id": "m", "boot_id": "b1", "asleep_s": 100.0})
    return Watched(server, daemon_id="d1", machine_id="m", boot_id="b1")


def renew(shipped, asleep_s, seconds=0, daemon="d1"):
    for _ in range(max(1, int(seconds // 30))):
        body = {"sessions": [shipped.id]} | ({} if asleep_s is None else {"asleep_s": asleep_s})
        assert shipped.server.post(f"/api/daemons/{daemon}/heartbeat", json=body).status == 200
        shipped.later(30 if seconds else 0)


def batch(shipped, *records, sent_s=None, asleep_s=None, stream="app"):
    """Ship over HTTP, as a daemon does."""
    body = b"".join(map(lines.encode, records))
    start = shipped.server.get_session(shipped.id)["streams"].get(stream, 0)
    headers = {"Content-Type": routes.NDJSON, "Datacat-Daemon": "d1"}
    headers |= {"Datacat-Sent-At": str(sent_s)} if sent_s is not None else {}
    headers |= {"Datacat-Asleep": str(asleep_s)} if asleep_s is not None else {}
    path = f"/api/sessions/{shipped.id}/batches?stream={stream}&from={start}&to={start + len(body)}"
    answer = shipped.server.request("POST", path, body=body, headers=headers)
    assert answer.status == 200, answer.body


def resumed(shipped):
    events = shipped.server.get_session(shipped.id)["events"]
    return [event["data"] for event in events if event["name"] == "application_resumed"]


def transitions(shipped):
    rows = shipped.server.get(f"/api/sessions/{shipped.id}/transitions").json["rows"]
    return [(row["status"], row["reason"]) for row in rows]


def test_a_machine_that_slept_is_told_when_it_wakes(shipped):
    renew(shipped, 100.0, 300)
    shipped.later(8 * HOUR, step=25)
    assert shipped.status == "suspended"
    renew(shipped, 100.0 + 8 * HOUR - 30)
    shipped.later(5)
    (told,) = resumed(shipped)
    assert told["cause"] == "slept"
    assert told["slept_s"] == pytest.approx(8 * HOUR, abs=60)
    assert transitions(shipped)[-2:] == [("suspended", None), ("active", "slept")]


def test_a_network_that_was_away_is_told_by_a_machine_that_was_awake(shipped):
    renew(shipped, 100.0, 300)
    shipped.later(2 * HOUR, step=25)
    renew(shipped, 100.0)
    shipped.later(5)
    (told,) = resumed(shipped)
    assert (told["cause"], told["slept_s"]) == ("network away", 0.0)
    assert transitions(shipped)[-1] == ("active", "network away")


def test_a_batch_tells_it_as_a_heartbeat_does(shipped):
    batch(shipped, Event(shipped.server.now_us, "a"), asleep_s=100.0)
    shipped.later(HOUR)
    batch(shipped, Event(shipped.server.now_us, "b"), asleep_s=100.0 + HOUR)
    assert shipped.status == "active"
    assert [told["cause"] for told in resumed(shipped)] == ["slept"]


def test_a_daemon_that_does_not_say_is_not_guessed_about(shipped):
    shipped.server.leases.renew("d1", shipped.server.now_us)
    shipped.server.leases._leases["d1"].asleep_s = None
    shipped.later(HOUR)
    renew(shipped, None)
    shipped.later(5)
    (told,) = resumed(shipped)
    assert "cause" not in told


def test_an_older_silence_does_not_explain_a_newer_one(shipped):
    renew(shipped, 100.0, 60)
    shipped.later(HOUR)
    renew(shipped, 100.0 + HOUR, 60)
    assert [told["cause"] for told in resumed(shipped)] == ["slept"]
    # Suspended by something else than a silence of the daemon: the old one has nothing to say.
    shipped.ship(Verdict(shipped.server.now_us, "suspended", by="server"), stream="own")
    shipped.ship(Event(shipped.server.now_us, "x"))
    away = shipped.server.leases.away("d1")
    assert away.until < shipped.server.now_us
    from datacat.server import judge

    head = shipped.head
    head.status, head.status_since, head.by = "suspended", shipped.server.now_us, "server"
    assert "cause" not in judge.resumed(head, shipped.server.now_us, away).data


def test_an_app_that_ended_while_the_network_was_away_has_ended_then(shipped):
    renew(shipped, 100.0, 60)
    end_us = shipped.server.now_us + 10 * US
    shipped.later(HOUR)
    assert shipped.status == "suspended"
    batch(shipped, Close(end_us, 0), asleep_s=100.0)
    head = shipped.head
    assert (head.status, head.end_reason, head.ended_at) == ("ended", "clean", end_us)
    assert resumed(shipped) == []


def test_a_machine_that_rebooted_is_told_and_its_next_daemon_knows_better(shipped):
    renew(shipped, 100.0, 60)
    shipped.later(HOUR)
    server = shipped.server
    server.post("/api/daemons", json={"id": "d2", "machine_id": "m", "boot_id": "b2", "asleep_s": 0.0})
    for _ in range(4):
        shipped.later(30)
        server.post("/api/daemons/d2/heartbeat", json={"asleep_s": 0.0})
    assert (shipped.head.status, shipped.head.end_reason, shipped.head.by) == ("abnormal", "reboot", "server")
    # The next daemon finds the journal: the machine was not shut down in order.
    at_us = server.now_us - HOUR * US
    shipped.ship(Verdict(at_us, "abnormal", "power"), stream="d2")
    assert (shipped.head.end_reason, shipped.head.by, shipped.head.ended_at) == ("power", "daemon", at_us)


def test_a_machine_that_never_comes_back_is_lost(shipped):
    renew(shipped, 100.0, 60)
    shipped.later(DAY + 120, step=25)
    assert (shipped.head.status, shipped.head.end_reason) == ("abnormal", "lost")


# --- clocks


@pytest.mark.parametrize("ahead_s", [3 * HOUR, -3 * HOUR, 90, -90])
def test_the_skew_of_a_machines_clock_is_measured_and_the_apps_own_time_is_kept(shipped, ahead_s):
    server = shipped.server
    at_us = server.now_us + ahead_s * US
    batch(shipped, Event(at_us, "a"), sent_s=at_us / US - 0.2)
    session = server.get_session(shipped.id)
    assert session["clock_skew_s"] == pytest.approx(ahead_s, abs=0.3)
    assert session["events"][0]["timestamp"] == lines_time(at_us)


def lines_time(at_us):
    from datacat.wire.times import rfc3339

    return rfc3339(at_us)


def test_delays_do_not_look_like_another_clock_and_a_clock_that_is_set_does(shipped):
    server = shipped.server
    measured = []
    for delay_s in (0.3, 4.0, 0.1, 2.0):
        batch(shipped, Event(server.now_us, "a"), sent_s=server.now_us / US + 60 - delay_s)
        measured.append(shipped.head.skew_us / US)
    assert measured == pytest.approx([59.7, 59.7, 59.9, 59.9], abs=0.01)
    batch(shipped, Event(server.now_us, "a"), sent_s=server.now_us / US - 0.1)
    assert abs(shipped.head.skew_us) < CLOCK_STEP_US / 10
    batch(shipped, Event(server.now_us, "a"))
    assert abs(shipped.head.skew_us) < CLOCK_STEP_US / 10


@pytest.mark.parametrize("text", ["soon", "-1", "nan", "inf", "1e300", ""])
def test_a_header_that_is_no_time_is_ignored(shipped, text):
    batch(shipped, Event(shipped.server.now_us, "a"), sent_s=text, asleep_s=text)
    assert shipped.head.skew_us == 0


def test_what_the_server_says_about_a_session_is_in_the_time_of_its_machine(shipped):
    server = shipped.server
    ahead_us = HOUR * US
    batch(shipped, Event(server.now_us + ahead_us, "a"), sent_s=(server.now_us + ahead_us) / US, asleep_s=0.0)
    shipped.later(HOUR)
    batch(shipped, Event(server.now_us + ahead_us, "b"), sent_s=(server.now_us + ahead_us) / US, asleep_s=0.0)
    names = [event["name"] for event in server.get_session(shipped.id)["events"]]
    assert names == ["a", "application_suspended", "b", "application_resumed"]
    (told,) = resumed(shipped)
    assert told["duration_s"] == pytest.approx(HOUR, abs=70)


def test_a_small_skew_is_no_skew(shipped):
    server = shipped.server
    batch(shipped, Event(server.now_us, "a"), sent_s=(server.now_us + SKEW_US - US) / US)
    shipped.later(HOUR)
    suspended = next(
        event for event in server.get_session(shipped.id)["events"] if event["name"] == "application_suspended"
    )
    assert suspended["timestamp"] <= lines_time(server.now_us)


def test_a_new_session_has_its_skew_from_its_first_batch(server):
    session_id = "01890a5d-ac96-774b-bcce-00000000abcd"
    body = lines.encode(Open(server.now_us - 600 * US, "editor", "1"))
    path = f"/api/sessions/{session_id}/batches?stream=app&from=0&to={len(body)}"
    headers = {"Content-Type": routes.NDJSON, "Datacat-Sent-At": str(server.now_us / US - 600)}
    assert server.request("POST", path, body=body, headers=headers).status == 200
    assert server.get_session(session_id)["clock_skew_s"] == pytest.approx(-600, abs=0.1)
