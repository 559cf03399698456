"""Crash groups, hangs and events, as the query layer gives them."""

from collections import defaultdict

import pytest
from fleet import seed
from querying import MINUTE, US, ask, rows

from datacat.store import Query
from datacat.wire.times import rfc3339

STACK = ['  File "/x/load.py", line 1, in load', "KeyError: 'a'"]


def crash(server, version, stack=STACK, kind="KeyError", **more):
    server.now_us += MINUTE
    session = server.session(version=version, **more)
    event = {"name": "unhandled_exception", "level": "critical", "exception_type": kind, "stacktrace": stack}
    server.post(f"/api/sessions/{session}/events", json=event)
    server.post(f"/api/sessions/{session}/crash", json={"reason": "exception"})
    server.now_us += US
    return session


def test_crashes_of_one_kind_are_one_group(server):
    crash(server, "1.0", machine_id="m1")
    newest = crash(server, "1.1", machine_id="m2")
    crash(server, "1.1", ['  File "/x/save.py", line 1, in save'])
    first, second = rows(server, "crashes")
    assert (first["count"], first["sessions"], first["machines"]) == (2, 2, 2)
    assert first["title"] == "KeyError in load (load.py)"
    assert (first["first_version"], first["last_version"]) == ("1.0", "1.1")
    assert first["example_session"] == newest
    assert first["new"] is True
    assert second["count"] == 1
    assert [row["id"] for row in rows(server, "sessions", signature=first["signature"], limit=1)] == [newest]
    assert rows(server, "crashes", signature=second["signature"]) == [second]


def test_a_group_that_was_seen_before_the_span_is_not_new(server):
    crash(server, "1.0")
    server.now_us += 10 * MINUTE
    crash(server, "1.0")
    (row,) = rows(server, "crashes", **{"from": "-5m"})
    assert (row["count"], row["new"]) == (1, False)
    assert rows(server, "crashes", new=1, **{"from": "-5m"}) == []
    assert [row["new"] for row in rows(server, "crashes", new=1)] == [True]


def test_a_crash_that_comes_back_after_a_version_without_it_is_a_regression(server):
    crash(server, "1.9")
    for _ in range(20):
        server.session(version="1.10")
    assert [row["regressed"] for row in rows(server, "crashes")] == [False]
    crash(server, "1.11")
    assert [row["regressed"] for row in rows(server, "crashes")] == [True]
    server.now_us += 10 * MINUTE
    crash(server, "1.11")
    assert [row["regressed"] for row in rows(server, "crashes", **{"from": "-5m"})] == [False]


def hang(server, seconds, after="heartbeat", **more):
    """A session that hung for so long and then beat again, crashed, or hangs on (after None)."""
    from datacat.server.own import line_of
    from datacat.wire.records import Event, Verdict

    session = server.session(**more)
    server.now_us += US
    threads = [{"name": "MainThread", "frames": [{"file": "ui.py", "line": 3, "function": "wait"}]}]
    event = Event(t=server.now_us, name="application_appears_hung", data={"threads": threads})
    server.own.write(session, [line_of(event), line_of(Verdict(t=server.now_us, status="hung"))])
    server.now_us += round(seconds * US)
    if after:
        server.post(f"/api/sessions/{session}/{after}")
    server.now_us += US
    return session


def test_hangs_with_their_outcome(server):
    one, two, three = hang(server, 4), hang(server, 70, "crash"), hang(server, 2, None)
    found = {row["session"]: (row["outcome"], row["seconds"]) for row in rows(server, "hangs")}
    assert found == {one: ("recovered", 4.0), two: ("crashed", 70.0), three: ("ongoing", 3.0)}
    assert [row["session"] for row in rows(server, "hangs", outcome="ongoing,crashed")] == [three, two]
    assert [row["session"] for row in rows(server, "hangs", sort="-seconds")] == [two, one, three]
    page = ask(server, "hangs", limit=2)
    rest = ask(server, "hangs", limit=2, cursor=page["next_cursor"])
    assert [row["session"] for row in page["rows"] + rest["rows"]] == [three, two, one]
    assert rest["next_cursor"] is None


def test_hangs_by_length_and_by_group(server):
    for seconds in (4, 5, 70, 400):
        hang(server, seconds)
    hang(server, 1, None)
    counts = {row["bucket"]: row["count"] for row in rows(server, "hangs/distribution")}
    assert counts == {
        "000-001 s": 0, "001-002 s": 0, "002-005 s": 2, "005-010 s": 0, "010-030 s": 0, "030-060 s": 0, "060-300 s": 1,
        "300+ s": 1,
    }  # fmt: skip
    (group,) = rows(server, "hangs/groups")
    assert (group["title"], group["count"], group["recovered"]) == ("hang in wait (ui.py)", 5, 4)
    series = rows(server, "hangs/timeseries", measures="count,ttr_max,unrecovered", fill="none")
    assert sum(row["count"] for row in series) == 5
    assert max(row["ttr_max"] or 0 for row in series) == 400
    (summary,) = rows(server, "summary")
    assert (summary["hangs"], summary["recovered"], summary["ttr_p50"]) == (5, 4, 37.5)


@pytest.mark.parametrize(("path", "version"), [("crashes", ""), ("hangs/groups", ""), ("hangs/groups", "2.4.0")])
def test_groups_are_what_the_heads_of_all_sessions_tell(server, path, version):
    seed(server.store, server.now_us, sessions=400, long_events=0)
    since = server.now_us - 5 * 24 * 60 * MINUTE
    ever, inside = defaultdict(list), defaultdict(list)
    for head in server.store.heads(Query(limit=1000)).heads:
        found = [(hang.start_us, hang.signature) for hang in head.hangs]
        if path == "crashes":
            found = [(head.ended_at, head.crash.signature)] if head.status == "crashed" else []
        for t, signature in found:
            ever[signature].append((t, head))
            if t >= since and version in ("", head.version):
                inside[signature].append((t, head))
    told = {row["signature"]: row for row in rows(server, path, version=version, **{"from": "-5d"})}
    assert told.keys() == inside.keys()
    for signature, row in told.items():
        heads = [head for _, head in inside[signature]]
        assert row["count"] == len(heads)
        assert row["sessions"] == len({head.id for head in heads})
        assert row["machines"] == len({head.machine_id for head in heads})
        assert row["example_session"] == max(inside[signature], key=lambda one: one[0])[1].id
        assert row["versions"] == len({head.version for _, head in ever[signature]})
        assert row["first_seen_at"] == rfc3339(min(t for t, _ in ever[signature]))
        assert row["last_seen_at"] == rfc3339(max(t for t, _ in ever[signature]))
        assert row["new"] is all(t >= since for t, _ in ever[signature])


@pytest.fixture
def logged(server):
    """Three sessions with ten events each, one second apart."""
    server.ids = [server.session(hostname=f"h{number}") for number in range(3)]
    for number in range(30):
        server.now_us += US
        event = {
            "name": f"e{number % 5}", "message": f"text {number}", "level": ("info", "error")[number % 2],
            "category": "db" if number % 3 else None, "labels": ["slow"] if number % 7 == 0 else None,
        }  # fmt: skip
        server.post(f"/api/sessions/{server.ids[number % 3]}/events", json={k: v for k, v in event.items() if v})
    server.now_us += US
    return server


def test_events_of_many_sessions_in_one_order(logged):
    messages = [f"text {number}" for number in range(30)]
    for order, wanted in (("asc", messages), ("desc", messages[::-1])):
        assert [row["message"] for row in rows(logged, "events", order=order)] == wanted
        seen, cursor = [], ""
        while cursor is not None:
            page = ask(logged, "events", order=order, limit=7, cursor=cursor)
            seen += [row["message"] for row in page["rows"]]
            cursor = page["next_cursor"]
        assert seen == wanted


def test_a_page_of_long_events_ends_early_and_goes_on(server):
    session = server.session()
    texts = [f"{number} " + "ä" * 16_000 for number in range(60)]
    for text in texts:
        server.now_us += US
        server.post(f"/api/sessions/{session}/events", json={"name": "dump", "message": text})
    server.now_us += US
    seen, cursor, pages = [], "", 0
    while cursor is not None:
        answer = server.get(f"/api/query/events?order=asc&limit=1000&cursor={cursor}")
        assert len(answer.body) < 1_000_000
        seen += [row["message"] for row in answer.json["rows"]]
        cursor, pages = answer.json["next_cursor"], pages + 1
    assert seen == texts
    assert pages == -(-60 * 64_500 // 900_000)


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        ({"name": "e1,e2"}, [n for n in range(30) if n % 5 in (1, 2)]),
        ({"severity": "error"}, range(1, 30, 2)),
        ({"category": "db"}, [n for n in range(30) if n % 3]),
        ({"label": "slow"}, range(0, 30, 7)),
        ({"q": "text 2"}, [2, *range(20, 30)]),
        ({"hostname": "h1"}, range(1, 30, 3)),
        ({"hostname": "h1", "q": "text 2"}, [22, 25, 28]),
    ],
)
def test_events_are_filtered(logged, query, numbers):
    found = rows(logged, "events", order="asc", **query)
    assert [row["message"] for row in found] == [f"text {number}" for number in numbers]


def test_an_event_is_one_line_of_a_log(logged):
    (row,) = rows(logged, "events", limit=1)
    assert (row["body"], row["severity"], row["category"]) == ("e4 text 29", "error", "db")


def test_suspect_keys_are_what_crashed_sessions_have_more_often(server):
    for number in range(40):
        crashes = number % 4 == 0
        state = {
            "gpu": {"driver": "535" if crashes or number == 1 else "550"},
            "theme": ("dark", "light")[number % 2],
            "n": number,
        }
        if crashes:
            crash(server, "1.0", state=state)
        else:
            server.session(version="1.0", state=state)
    server.now_us += US
    (group,) = rows(server, "crashes")
    told = ask(server, "suspects", signature=group["signature"])
    first = told["rows"][0]
    assert (first["kind"], first["key"], first["value"]) == ("state", "gpu.driver", "535")
    assert (first["support"], first["group_share"], first["other_share"]) == (10, 1.0, 1 / 30)
    assert first["lift"] == pytest.approx(1 / (11 / 40))
    assert told["meta"]["sampled"] is False
    # What only one session has proves nothing, and what all have tells nothing.
    assert not {row["key"] for row in told["rows"]} & {"n", "version"}
    assert ask(server, "suspects", signature="nothing")["rows"] == []


def test_suspects_of_many_sessions_are_sampled_and_it_is_said(server, monkeypatch):
    monkeypatch.setattr("datacat.server.query.suspects.OTHER_SESSIONS", 5)
    for number in range(12):
        server.session(state={"n": number % 2})
    crash(server, "1.0", state={"n": 3})
    (group,) = rows(server, "crashes")
    told = ask(server, "suspects", signature=group["signature"], min_support=1)
    assert (told["meta"]["sampled"], told["meta"]["other_sessions"], told["meta"]["group_sessions"]) == (True, 5, 1)
    assert told["rows"][0]["value"] == "3"
