"""A follower shows each record once, however they arrive."""

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
