"""Reading sessions: lists, filters, pages of records, ETag, HEAD, methods, parameters, compression."""

import gzip
import json

import pytest
import zstandard

from datacat.server.own import line_of
from datacat.wire.lines import Line, encode
from datacat.wire.records import Gap, Verdict

NOBODY = "01890a5d-ac96-774b-bcce-000000000000"


def fill(server, count=3):
    """Create sessions one second apart; return their ids, oldest first."""
    made = []
    for number in range(count):
        server.now_us += 1_000_000
        made.append(server.session(product=f"p{number}", hostname=f"host{number}", machine_id=f"m{number}"))
    return made


def listed(server, query=""):
    answer = server.get(f"/api/sessions?{query}")
    assert answer.status == 200, answer.body
    return [session["id"] for session in answer.json["sessions"]]


def test_heads_are_listed_newest_first_without_their_records(server):
    first, second, third = fill(server)
    answer = server.get("/api/sessions").json
    assert [session["id"] for session in answer["sessions"]] == [third, second, first]
    assert answer["next_cursor"] is None
    assert not {"state", "state_history", "events", "metrics"} & answer["sessions"][0].keys()
    counts = answer["sessions"][0]["counts"]
    assert counts.pop("dropped") == {}
    assert set(counts.values()) == {0}


def test_pages_stay_together_while_new_sessions_arrive(server):
    made = fill(server, 5)
    page = server.get("/api/sessions?limit=2").json
    seen = [session["id"] for session in page["sessions"]]
    fill(server, 1)
    while page["next_cursor"]:
        page = server.get(f"/api/sessions?limit=2&cursor={page['next_cursor']}").json
        seen += [session["id"] for session in page["sessions"]]
    assert seen == made[::-1]


def test_filters_select_sessions(server):
    first, second, third = fill(server)
    server.post(f"/api/sessions/{first}/crash", json={"reason": "oom"})
    server.post(f"/api/sessions/{second}/events", json={"name": "found", "exception_type": "E"})
    server.post(f"/api/sessions/{second}/state", json={"level": {"name": "forest"}, "n": 1})
    server.post(f"/api/sessions/{second}/state", json={"n": 2})
    assert listed(server, "product=p0,p2") == [third, first]
    assert listed(server, "product=p0&product=p1") == [second, first]
    assert listed(server, "status=crashed") == [first]
    assert listed(server, "status=active,crashed&sort=created_at") == [first, second, third]
    assert listed(server, "end_reason=oom") == [first]
    assert listed(server, "hostname=host1") == [second]
    assert listed(server, "machine=m2") == [third]
    assert listed(server, "q=HOST2") == [third]
    assert listed(server, f"q={third}") == [third]
    assert listed(server, "event=found") == [second]
    assert listed(server, "has=exception") == [second]
    assert listed(server, "has=crash") == [first]
    assert listed(server, "state=level.name:forest") == [second]
    assert listed(server, "state=n:2") == [second]
    assert listed(server, "state=n:1") == []
    assert listed(server, "state_ever=n:1") == [second]
    assert listed(server, "from=2027-01-15T08:00:02Z") == [third, second]
    assert listed(server, "from=1800000001&to=1800000002") == [first]
    assert listed(server, "at=end&from=1800000000") == [first]
    assert listed(server, "at=overlap&to=1800000002") == [first]


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("colour=red", "colour"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=-1", "limit"),
        ("limit=x", "limit"),
        ("limit=1&limit=2", "limit"),
        ("status=gone", "status"),
        ("end_reason=boredom", "end_reason"),
        ("has=luck", "has"),
        ("at=noon", "at"),
        ("from=yesterday", "from"),
        ("to=nan", "to"),
        ("state=nothing", "state"),
        ("state=:1", "state"),
    ],
)
@pytest.mark.parametrize("path", ["/api/sessions", "/api/grafana/sessions", "/api/data/sessions"])
def test_a_bad_parameter_is_named(server, path, query, named):
    answer = server.get(f"{path}?{query}")
    assert answer.status == 400
    assert answer.header("content-type") == "application/problem+json"
    assert named in answer.json["detail"]


@pytest.mark.parametrize("query", ["cursor=nonsense", "cursor=%00", "sort=colour", "sort=streams"])
def test_a_cursor_or_sort_that_is_not_ours_is_refused(server, query):
    answer = server.get(f"/api/sessions?{query}")
    assert answer.status == 422
    assert answer.json["errors"][0]["pointer"] == f"/{query.partition('=')[0]}"


def test_a_query_that_is_no_utf8_is_refused(server):
    assert server.get("/api/sessions?q=%ff").status == 400


@pytest.mark.parametrize("path", ["/api/grafana/sessions", "/api/data/sessions"])
def test_whole_sessions_come_as_a_bare_array(server, path):
    made = fill(server)
    server.post(f"/api/sessions/{made[0]}/events", json=[{"name": "a"}, {"name": "b"}])
    assert server.get(path).json == [server.get_session(session_id) for session_id in made[::-1]]
    assert [session["id"] for session in server.get(f"{path}?limit=1").json] == [made[-1]]
    (found,) = server.get(f"{path}?product=p0&events=1").json
    assert [event["name"] for event in found["events"]] == ["b"]
    assert server.get(f"{path}?product=nothing").json == []


def test_every_session_is_in_the_array_however_many_there_are(server):
    for number in range(1005):
        server.now_us += 1
        server.session(product=f"p{number}")
    assert [session["product"] for session in server.get("/api/data/sessions").json] == [
        f"p{n}" for n in range(1004, -1, -1)
    ]


def test_a_session_object_holds_the_newest_records_that_were_asked_for(server):
    session_id = server.session()
    for number in range(5):
        server.now_us += 1_000_000
        server.post(f"/api/sessions/{session_id}/events", json={"name": f"e{number}"})
        server.post(f"/api/sessions/{session_id}/metrics", json={"name": f"m{number}", "value": number})
        server.post(f"/api/sessions/{session_id}/state", json={"n": number})
    session = server.get(f"/api/sessions/{session_id}?events=2&metrics=0&history=1").json
    assert [event["name"] for event in session["events"]] == ["e3", "e4"]
    assert session["metrics"] == []
    assert [entry["patch"] for entry in session["state_history"]] == [{"n": 4}]
    session = server.get(f"/api/sessions/{session_id}?events=all&metrics=all&history=all&history_state=1").json
    assert len(session["events"]) == len(session["metrics"]) == 5
    assert [entry["state"]["n"] for entry in session["state_history"]] == [0, 1, 2, 3, 4]
    assert session["state_history"][0]["state"]["product"] == "editor"
    for query in ("events=-1", "events=many", "metrics=", "history_state=2", "limit=1"):
        assert server.get(f"/api/sessions/{session_id}?{query}").status == 400


# --- pages of records


def rows(server, session_id, kind, query=""):
    answer = server.get(f"/api/sessions/{session_id}/{kind}?{query}")
    assert answer.status == 200, answer.body
    return answer.json


def test_records_are_paged_in_both_orders(server):
    session_id = server.session()
    server.post(f"/api/sessions/{session_id}/events", json=[{"name": f"e{number}"} for number in range(7)])
    for order, names in (("asc", [f"e{n}" for n in range(7)]), ("desc", [f"e{n}" for n in range(6, -1, -1)])):
        page = rows(server, session_id, "events", f"limit=3&order={order}")
        seen = [row["name"] for row in page["rows"]]
        while page["next_cursor"]:
            page = rows(server, session_id, "events", f"limit=3&order={order}&cursor={page['next_cursor']}")
            seen += [row["name"] for row in page["rows"]]
        assert seen == names


def test_records_are_filtered(server):
    session_id = server.session()
    url = f"/api/sessions/{session_id}"
    server.post(
        f"{url}/events", json={"name": "a", "level": "error", "message": "Disk full", "timestamp": 1_800_000_001}
    )
    server.post(f"{url}/events", json={"name": "b", "timestamp": 1_800_000_002})
    server.post(f"{url}/metrics", json=[{"name": "x", "value": 1}, {"name": "y", "value": 2}])
    assert [row["name"] for row in rows(server, session_id, "events", "level=error,critical")["rows"]] == ["a"]
    assert [row["name"] for row in rows(server, session_id, "events", "level=info")["rows"]] == ["b"]
    assert [row["name"] for row in rows(server, session_id, "events", "q=disk")["rows"]] == ["a"]
    assert [row["name"] for row in rows(server, session_id, "events", "from=1800000002")["rows"]] == ["b"]
    assert [row["name"] for row in rows(server, session_id, "events", "to=1800000002")["rows"]] == ["a"]
    assert [row["value"] for row in rows(server, session_id, "metrics", "name=y")["rows"]] == [2]


def test_history_is_paged_and_begins_with_the_first_state(server):
    session_id = server.session(state={"n": 0})
    for number in range(1, 4):
        server.now_us += 1
        server.post(f"/api/sessions/{session_id}/state", json={"n": number})
    page = rows(server, session_id, "history", "limit=3")
    assert [row["patch"]["n"] for row in page["rows"]] == [0, 1, 2]
    page = rows(server, session_id, "history", f"limit=3&cursor={page['next_cursor']}")
    assert [row["patch"]["n"] for row in page["rows"]] == [3]
    assert page["next_cursor"] is None


def test_transitions_tell_how_the_status_changed(server):
    session_id = server.session()
    server.now_us += 1_000_000
    server.post(f"/api/sessions/{session_id}/crash", json={"reason": "killed"})
    assert rows(server, session_id, "transitions")["rows"] == [
        {"timestamp": "2027-01-15T08:00:00.000000Z", "status": "active", "reason": None, "detail": None, "by": "app"},
        {
            "timestamp": "2027-01-15T08:00:01.000000Z",
            "status": "crashed",
            "reason": "killed",
            "detail": None,
            "by": "daemon",
        },
    ]
    url = "transitions"
    assert [row["status"] for row in rows(server, session_id, url, "order=desc")["rows"]] == ["crashed", "active"]
    assert [row["status"] for row in rows(server, session_id, url, "name=active")["rows"]] == ["active"]
    assert [row["status"] for row in rows(server, session_id, url, "from=1800000001")["rows"]] == ["crashed"]
    assert [row["status"] for row in rows(server, session_id, url, "limit=1")["rows"]] == ["active"]


def test_after_a_gap_the_history_tells_what_the_whole_state_changed(server):
    session_id = server.session(state={"kept": 1, "lost": 2})
    state = {"product": "editor", "version": "1.2", "kept": 1, "new": 3}
    whole = Gap(server.now_us + 1, "disk full", 10, {"product": "editor", "version": "1.2"}, state)
    for gap in (whole, Gap(server.now_us + 2, "a note", 5)):
        server.own.write(session_id, [Line(gap, encode(gap)[:-1])])
    expected = [{"kept": 1, "lost": 2}, {"lost": None, "new": 3}]
    assert [row["patch"] for row in rows(server, session_id, "history")["rows"]] == expected
    assert [entry["patch"] for entry in server.get_session(session_id)["state_history"]] == expected
    told = server.get(f"/api/sessions/{session_id}?history_state=1").json["state_history"]
    assert [entry["patch"] for entry in told] == expected


@pytest.mark.parametrize("kind", ["events", "metrics", "history", "transitions"])
@pytest.mark.parametrize("query", ["limit=0", "limit=2000", "order=up", "level=loud", "cursor=x", "from=x", "colour=1"])
def test_a_bad_parameter_of_a_page_is_refused(server, kind, query):
    assert server.get(f"/api/sessions/{server.session()}/{kind}?{query}").status == 400


# --- HTTP


def test_a_session_that_did_not_change_is_not_sent_again(server):
    session_id = server.session()
    url = f"/api/sessions/{session_id}"
    first = server.get(url)
    tag = first.header("etag")
    for value in (tag, f'"other", {tag}', "*", tag.removeprefix("W/")):
        again = server.get(url, headers={"If-None-Match": value})
        assert (again.status, again.body, again.header("etag")) == (304, b"", tag)
    assert server.get(f"{url}?events=1", headers={"If-None-Match": tag}).status == 200
    server.post(f"{url}/events", json={"name": "e"})
    changed = server.get(url, headers={"If-None-Match": tag})
    assert changed.status == 200
    assert changed.header("etag") != tag


PATHS = [
    "/api/sessions",
    "/api/sessions/{id}",
    "/api/sessions/{id}/events",
    "/api/sessions/{id}/metrics",
    "/api/sessions/{id}/history",
    "/api/sessions/{id}/transitions",
    "/api/sessions/{id}/state",
    "/api/sessions/{id}/acked",
    "/api/grafana/sessions",
    "/api/data/sessions",
    "/api/daemons",
    "/livez",
    "/readyz",
    "/health",
    "/",
    "/sessions",
    "/sessions/{id}",
]


@pytest.mark.parametrize("path", PATHS)
def test_head_is_get_without_the_body(server, path):
    path = path.format(id=server.session())
    get, head = server.get(path), server.request("HEAD", path)
    assert (head.status, head.body) == (get.status, b"") == (200, b"")
    assert head.headers == get.headers


@pytest.mark.parametrize(
    "path", [*PATHS, "/api/sessions/{id}/heartbeat", "/api/sessions/{id}/batches", "/api/daemons/d/heartbeat"]
)
@pytest.mark.parametrize("method", ["PUT", "PATCH", "TRACE", "OPTIONS", "BREW"])
def test_another_method_is_refused_with_those_that_are_allowed(server, path, method):
    answer = server.request(method, path.format(id=NOBODY))
    assert answer.status == 405
    assert answer.json["status"] == 405
    assert {"GET", "POST"} & set(answer.header("allow").split(", "))
    assert method not in answer.header("allow")


def test_allow_names_every_method_of_the_path(server):
    assert server.request("PUT", "/api/sessions").header("allow") == "GET, HEAD, POST"
    assert server.request("PUT", f"/api/sessions/{NOBODY}").header("allow") == "DELETE, GET, HEAD"
    assert server.get(f"/api/sessions/{NOBODY}/end").header("allow") == "POST"


@pytest.mark.parametrize(
    "path",
    ["/api", "/api/", "/api/sessions/", "/api/nothing", "/nothing", "/api/sessions/x/y/z", "//", "/sessions/x/y/z"],
)
def test_a_path_that_does_not_exist_is_not_found(server, path):
    answer = server.get(path)
    assert (answer.status, answer.json["status"]) == (404, 404)


@pytest.mark.parametrize(
    ("accept", "encoding"),
    [
        ("gzip", "gzip"),
        ("zstd", "zstd"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("gzip;q=1, zstd;q=0.5", "gzip"),
        ("*", "zstd"),
        ("gzip;q=0", None),
        ("identity", None),
        ("br;q=x", None),
        ("", None),
    ],
)
@pytest.mark.parametrize("path", ["/api/sessions", "/api/data/sessions"])
def test_answers_are_compressed_when_asked_for(server, path, accept, encoding):
    fill(server, 20)
    plain = server.get(path).body
    answer = server.get(path, headers={"Accept-Encoding": accept})
    assert answer.header("content-encoding") == encoding
    assert answer.header("vary") == "Accept-Encoding"
    unpack = {
        "gzip": gzip.decompress,
        "zstd": lambda body: zstandard.ZstdDecompressor().decompressobj().decompress(body),
    }
    assert unpack.get(encoding, bytes)(answer.body) == plain
    assert json.loads(plain)


def test_a_small_answer_is_not_compressed(server):
    assert server.get("/health", headers={"Accept-Encoding": "gzip"}).header("content-encoding") is None


def test_health_follows_the_store_and_the_stop(server):
    assert server.get("/health").json["status"] == "ok"
    assert server.get("/readyz").status == 200
    server.draining = True
    for path in ("/readyz", "/health"):
        answer = server.get(path)
        assert answer.status == 503
        assert answer.header("retry-after")
    assert server.get("/livez").status == 200
    server.draining = False
    server.store.close()
    assert server.get("/readyz").status == 503
    answer = server.post("/api/sessions", json={"product": "p", "version": "1"})
    assert (answer.status, answer.header("retry-after")) == (503, "5")


def test_an_error_of_the_server_shows_nothing_of_its_inside(server, monkeypatch, caplog):
    def fail(*_):
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(server.store, "heads", fail)
    monkeypatch.setattr(server.store, "head", fail)
    for path in ("/api/sessions", f"/api/sessions/{NOBODY}/acked"):
        answer = server.get(path)
        assert answer.status == 500
        assert answer.header("content-type") == "application/problem+json"
        assert b"secret" not in answer.body
        assert b"ZeroDivision" not in answer.body
    assert "secret" in caplog.text
    assert "herry" not in str(answer.headers)


def test_a_record_may_be_older_than_its_session(server):
    session_id = server.session(state={"a": 1})
    server.post(f"/api/sessions/{session_id}/state", json={"state": {"b": 2}, "timestamp": 1_700_000_000})
    server.post(f"/api/sessions/{session_id}/events", json={"name": "old", "timestamp": 1_700_000_000})
    url = f"/api/sessions/{session_id}"
    early = {"product": "editor", "version": "1.2", "b": 2}
    assert server.get(f"{url}/state?at=1700000001").json == early
    assert server.get(f"{url}/state?at=9999-12-31T00:00:00Z").json == server.get(f"{url}/state").json
    assert server.get(f"{url}?history_state=1").json["state_history"][0]["patch"] == {"b": 2}


def test_transitions_of_a_session_with_a_record_older_than_itself_are_told(server):
    session_id = server.session()
    server.post(f"/api/sessions/{session_id}/events", json={"name": "old", "timestamp": 1_700_000_000})
    server.own.write(session_id, [line_of(Verdict(server.now_us + 1, "suspended", by="server"))])
    told = server.get(f"/api/sessions/{session_id}/transitions").json["rows"]
    assert [change["status"] for change in told] == ["active", "suspended"]


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_transitions_have_pages_too(server, order):
    session_id = server.session()
    for number in range(4):
        status = "active" if number % 2 else "hung"
        server.own.write(session_id, [line_of(Verdict(server.now_us + 1 + number, status, by="server"))])
    url = f"/api/sessions/{session_id}/transitions?order={order}"
    whole = server.get(url).json
    assert len(whole["rows"]) == 5
    assert whole["next_cursor"] is None
    page = server.get(f"{url}&limit=2").json
    pages = [page["rows"]]
    while page["next_cursor"]:
        page = server.get(f"{url}&limit=2&cursor={page['next_cursor']}").json
        pages.append(page["rows"])
    assert [len(rows) for rows in pages] == [2, 2, 1]
    assert [row for rows in pages for row in rows] == whole["rows"]
