"""Lists of sessions, values, transitions and state, as the query layer gives them."""

import pytest
from querying import HOUR, MINUTE, US, ask, rows
from storing import put

from datacat.server.config import Config
from datacat.wire.records import Verdict


@pytest.fixture
def many(server):
    """Thirty sessions, a minute apart; every third ended, every fifth crashed, with and without a host."""
    server.ids = []
    for number in range(30):
        server.now_us += MINUTE
        host = {"hostname": f"host{number % 4}"} if number % 4 else {}
        server.ids.append(server.session(version=f"1.{number % 3}", state={"level": number % 2}, **host))
        if number % 5 == 0:
            server.post(f"/api/sessions/{server.ids[-1]}/crash", json={"reason": "signal"})
        elif number % 3 == 0:
            server.post(f"/api/sessions/{server.ids[-1]}/end")
    server.now_us += US
    return server


def paged(server, **query):
    seen = []
    cursor = ""
    while True:
        page = ask(server, "sessions", limit=4, cursor=cursor, **query)
        seen += [row["id"] for row in page["rows"]]
        assert len(page["rows"]) <= 4
        cursor = page["next_cursor"]
        if cursor is None:
            return seen
        server.now_us += 1  # time goes on while one pages


SORTS = ("started_at", "ended_at", "duration_seconds", "hostname", "version", "status", "crashed", "crash_reason", "id")


@pytest.mark.parametrize("sort", [sign + field for field in SORTS for sign in ("", "-")])
def test_pages_in_any_order_show_every_session_once(many, sort):
    whole = [row["id"] for row in rows(many, "sessions", sort=sort, limit=1000)]
    assert sorted(whole) == sorted(many.ids)
    if sort.lstrip("-") != "duration_seconds":  # that of open sessions grows
        assert paged(many, sort=sort) == whole


def test_the_newest_come_first_and_missing_values_last(many):
    assert [row["id"] for row in rows(many, "sessions")] == many.ids[::-1]
    for sort in ("hostname", "-hostname"):
        hosts = [row["hostname"] for row in rows(many, "sessions", sort=sort)]
        assert hosts.index(None) == sum(host is not None for host in hosts)


def test_a_hang_that_goes_on_counts_until_now(server):
    session, other = server.session(), server.session()
    put(server.store, session, Verdict(server.now_us, "hung"), stream="daemon")
    server.now_us += 90 * US
    assert [row["hang_seconds"] for row in rows(server, "sessions", sort="-hang_seconds")] == [90, 0]
    put(server.store, session, Verdict(server.now_us, "active", hang_s=90), stream="daemon")
    server.now_us += 90 * US
    put(server.store, session, Verdict(server.now_us - 5 * US, "hung"), stream="daemon")
    assert {row["id"]: row["hang_seconds"] for row in rows(server, "sessions")} == {session: 95, other: 0}


def test_versions_are_sorted_as_people_count(server):
    for version in ("1.10", "1.9", "1.10-rc1"):
        server.session(version=version)
    server.now_us += US
    assert [row["version"] for row in rows(server, "sessions", sort="version")] == ["1.9", "1.10-rc1", "1.10"]
    assert [row["value"] for row in rows(server, "values/version")] == ["1.10", "1.10-rc1", "1.9"]


def test_the_span_is_that_of_begin_end_or_overlap(many):
    since = (many.now_us - 10 * MINUTE) // 1000
    started = rows(many, "sessions", **{"from": since, "at": "start"})
    ended = rows(many, "sessions", **{"from": since, "at": "end"})
    there = rows(many, "sessions", **{"from": since, "at": "overlap"})
    assert len(started) == 10
    assert {row["status"] for row in ended} == {"ended", "crashed"}
    assert all(row["ended_at"] is None for row in there if row["id"] not in {row["id"] for row in started})
    assert len(there) == 10 + sum(row["status"] == "active" for row in rows(many, "sessions")) - sum(
        row["status"] == "active" for row in started
    )


def test_conditions_on_the_state_and_on_events_look_into_sessions(many):
    many.post(f"/api/sessions/{many.ids[3]}/events", json={"name": "boom"})
    assert [row["id"] for row in rows(many, "sessions", event="boom")] == [many.ids[3]]
    assert [row["id"] for row in rows(many, "sessions", state="level:1")] == many.ids[1::2][::-1]
    assert paged(many, state="level:1") == many.ids[1::2][::-1]


def test_a_cursor_of_another_sort_is_refused(many):
    cursor = ask(many, "sessions", limit=2)["next_cursor"]
    for query in (f"sort=id&cursor={cursor}", "cursor=nonsense"):
        assert many.get(f"/api/query/sessions?{query}").status == 400


def test_values_count_sessions_and_have_a_placeholder(many):
    assert {row["value"]: row["count"] for row in rows(many, "values/status")} == {
        "active": 16,
        "ended": 8,
        "crashed": 6,
    }
    assert [row["value"] for row in rows(many, "values/hostname", q="1")] == ["host1"]
    assert rows(many, "values/hostname", q="nothing") == []
    assert [row["value"] for row in rows(many, "values/hostname", q="nothing", placeholder="(none)")] == ["(none)"]


def test_values_that_apps_name(server):
    session = server.session()
    server.now_us += US
    server.post(f"/api/sessions/{session}/events", json={"name": "saved", "category": "document", "group": "g"})
    server.post(f"/api/sessions/{session}/metrics", json={"name": "fps", "value": 60, "tags": ["room:kitchen"]})
    server.now_us += US
    for dim, value in (
        ("event", "saved"),
        ("category", "document"),
        ("group", "g"),
        ("metric", "fps"),
        ("tag", "room:kitchen"),
    ):
        assert [row["value"] for row in rows(server, f"values/{dim}")] == [value]
        if dim != "tag":
            assert [row["value"] for row in rows(server, f"values/{dim}", session=session)] == [value]


def test_transitions_begin_with_the_status_before_and_end_with_the_last(server):
    session = server.session()
    server.post(f"/api/sessions/{session}/heartbeat")
    server.now_us += HOUR
    server.post(f"/api/sessions/{session}/crash")
    server.now_us += HOUR
    since, until = server.now_us // 1000 - 5_400_000, server.now_us // 1000
    found = rows(server, "transitions", **{"from": since, "session": session})
    assert [(row["time"], row["status"]) for row in found] == [
        (since, "active"), (until - 3_600_000, "crashed"), (until, "crashed"),
    ]  # fmt: skip
    sampled = rows(
        server, "transitions", **{"from": since, "session": session, "sample": "interval", "interval": "30m"}
    )
    assert [row["status_code"] for row in sampled] == [1, 4, 4]


def test_the_state_at_a_time_and_what_changed(server):
    session = server.session(state={"a": {"b.c": 1}, "list": [1, "x"], "gone": True})
    begin = server.now_us
    server.now_us += 120 * US
    server.post(f"/api/sessions/{session}/state", json={"a": {"b.c": 2}, "gone": None, "new": "text"})
    server.now_us += 30 * US
    server.post(f"/api/sessions/{session}/end")
    now = {row["path"]: (row["value"], row["type"]) for row in rows(server, "state", session=session)}
    assert now["a.b\\.c"] == ("2", "number")
    assert now["list"] == ('[1,"x"]', "array")
    assert "gone" not in now
    then = {row["path"]: row["value"] for row in rows(server, "state", session=session, at=begin // 1000)}
    assert (then["a.b\\.c"], then["gone"]) == ("1", "true")
    differing = {
        row["path"]: (row["change"], row["before"], row["value"])
        for row in rows(server, "state", session=session, diff=begin)
    }
    assert differing == {
        "a.b\\.c": ("changed", "1", "2"), "gone": ("removed", "true", None), "new": ("added", None, "text"),
    }  # fmt: skip
    assert len(rows(server, "state", session=session, before_end=60)) == 3
    assert rows(server, "state", session=session, before_end=20) == []


def test_a_session_that_does_not_exist_has_no_rows(server):
    assert rows(server, "state", session="01890a5d-ac96-774b-bcce-000000000001") == []
    assert rows(server, "sessions", session="nothing") == []


def test_links_lead_to_the_public_address(make_server):
    server = make_server(Config(public_url="https://datacat.example/base"))
    session = server.session()
    server.now_us += US
    assert rows(server, "sessions")[0]["web_url"] == f"https://datacat.example/base/sessions/{session}"
