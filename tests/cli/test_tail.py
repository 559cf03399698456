"""A follower shows each record once, however they arrive."""

import json
import signal
import subprocess

from datacat.cli.tail import Follower, Fresh, line_of

SID = "019a0000-0000-7abc-8000-000000000001"


def event(n):
    return {"timestamp": f"2026-01-01T10:00:{n:02d}.000000Z", "name": "tick", "level": "info", "data": {"n": n}}


def session(events, *, counted=None):
    return {"id": SID, "counts": {"events": len(events) if counted is None else counted}, "events": events}


def test_each_record_is_shown_once_also_when_it_comes_late_with_an_older_time():
    follower = Follower(SID)
    assert [f.row["data"]["n"] for f in follower.take(session([event(1), event(3)]))] == [1, 3]
    assert follower.take(session([event(1), event(3)])) == []
    assert [f.row["data"]["n"] for f in follower.take(session([event(1), event(2), event(3)]))] == [2]


def test_two_records_that_are_equal_are_two():
    follower = Follower(SID)
    assert len(follower.take(session([event(1)]))) == 1
    assert len(follower.take(session([event(1), event(1)]))) == 1


def test_it_knows_how_many_are_new_before_it_has_them():
    follower = Follower(SID)
    follower.take(session([event(1)], counted=10))
    assert follower.owed(session([event(2)], counted=500)) == 490


def test_a_line_says_level_name_and_data():
    assert line_of(Fresh("event", 0, event(5))) == "info      tick  n=5"
    assert line_of(Fresh("state", 0, {"patch": {"a": {"b": 1}, "c": None}})) == "state     a.b = 1, c = null"
    metric = {"type": "gauge", "name": "fps", "value": 59.5, "unit": "1/s", "tags": ["hd"]}
    assert line_of(Fresh("metric", 0, metric)) == "gauge     fps = 59.5 1/s  [hd]"


def test_it_follows_a_session_until_it_ends_and_says_how(cli):
    session_id = cli.session("tailed")
    tail = cli.start("tail", session_id, "--interval", "0.2", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert "active" in tail.stdout.readline()
    cli.post(f"/api/sessions/{session_id}/events", {"name": "first", "data": {"n": 1}})
    assert tail.stdout.readline().endswith("info      first  n=1\n")
    cli.post(f"/api/sessions/{session_id}/state", {"mode": "dark"})
    assert tail.stdout.readline().endswith("state     mode = dark\n")
    cli.post(f"/api/sessions/{session_id}/metrics", {"name": "fps", "value": 60})
    assert tail.stdout.readline().endswith("gauge     fps = 60\n")
    cli.post(f"/api/sessions/{session_id}/events", [{"name": "burst", "data": {"n": n}} for n in range(1000)])
    cli.post(f"/api/sessions/{session_id}/end", {"exit_code": 0})
    rest, errors = tail.communicate(timeout=30)
    *burst, last = rest.splitlines()
    assert [line.rpartition("n=")[2] for line in burst] == [str(n) for n in range(1000)]
    assert "It ended well" in last
    assert (tail.returncode, errors) == (0, "")


def test_a_session_that_has_ended_shows_its_last_records_and_its_end(cli):
    session_id = cli.session("tailed-late")
    cli.post(f"/api/sessions/{session_id}/events", [{"name": "e", "data": {"n": n}} for n in range(30)])
    cli.post(f"/api/sessions/{session_id}/end", None)
    done = cli("tail", session_id, "-n", "3", "--json", "--interval", "0.1")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0
    assert [row["kind"] for row in rows] == ["session", "event", "event", "event", "end"]
    assert [row["data"]["n"] for row in rows[1:4]] == [27, 28, 29]


def test_kinds_can_be_chosen(cli):
    session_id = cli.session("tailed-kinds", state={"a": 1})
    cli.post(f"/api/sessions/{session_id}/events", {"name": "quiet"})
    cli.post(f"/api/sessions/{session_id}/metrics", {"name": "loud", "value": 1})
    cli.post(f"/api/sessions/{session_id}/end", None)
    shown = cli("tail", session_id, "--kind", "metrics", "--interval", "0.1").stdout
    assert "loud" in shown
    assert "quiet" not in shown
    assert "a = 1" not in shown


def test_without_an_id_it_follows_every_open_session_also_those_that_come_later(cli):
    tail = cli.start("tail", "--interval", "0.2", "--json", "-n", "0", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    session_id = cli.session("tailed-all")
    cli.post(f"/api/sessions/{session_id}/events", {"name": "hello"})

    def rows_of_it():
        for line in tail.stdout:
            row = json.loads(line)
            if row["session_id"] == session_id:
                yield row

    rows = rows_of_it()
    assert next(rows)["kind"] == "session"
    cli.post(f"/api/sessions/{session_id}/events", {"name": "again"})
    names = []
    while "again" not in names:
        names.append(next(rows).get("name"))
    cli.post(f"/api/sessions/{session_id}/crash", {"reason": "done"})
    while (row := next(rows))["kind"] != "end":
        pass
    assert row["status"] == "crashed"
    tail.send_signal(signal.SIGINT)
    tail.communicate(timeout=20)
    assert tail.returncode == 130
