"""The simple endpoints: what is taken, what is refused, and how."""

import uuid

import pytest

from datacat.wire.records import CUT_MARK, MAX_RECORD_BYTES

NOBODY = "01890a5d-ac96-774b-bcce-000000000000"
JSON = {"Content-Type": "application/json"}


def problem(answer, status):
    """Check that an answer is a problem document with this status, and return it."""
    assert answer.status == status, answer.body
    assert answer.header("content-type") == "application/problem+json"
    assert answer.json["status"] == status
    assert answer.json["title"]
    assert answer.json["detail"]
    assert b"Traceback" not in answer.body
    return answer.json


class Unreadable:
    def read(self, *_):
        raise AssertionError("the body was read")


def pointers(answer):
    return [error["pointer"] for error in problem(answer, 422)["errors"]]


# --- POST /api/sessions


def test_a_session_is_created_with_what_was_told(server):
    told = {
        "product": "editor",
        "version": "1.2",
        "hostname": "cat",
        "machine_id": "m1",
        "pid": 42,
        "environment": "beta",
        "started_at": "2026-01-31T12:00:00+01:00",
        "state": {"file": {"name": "a.txt", "dirty": None}},
    }
    answer = server.post("/api/sessions", json=told)
    session = answer.json
    assert answer.status == 201
    assert answer.header("location") == f"/api/sessions/{session['id']}"
    assert session["session_id"] == session["id"]
    assert uuid.UUID(session["id"]).version == 7
    for name in ("product", "version", "hostname", "machine_id", "pid", "environment"):
        assert session[name] == told[name]
    assert session["created_at"] == "2026-01-31T11:00:00.000000Z"
    assert session["status"] == "active"
    assert session["active"] is True
    assert session["state"] == {"product": "editor", "version": "1.2", "file": {"name": "a.txt"}}
    assert session["state_history"] == [
        {"timestamp": "2026-01-31T11:00:00.000000Z", "patch": {"file": {"name": "a.txt"}}}
    ]
    assert session["events"] == []
    assert session["metrics"] == []
    assert server.get_session(session["id"]) == {name: value for name, value in session.items() if name != "session_id"}


def test_an_id_makes_creation_idempotent(server):
    told = {"product": "editor", "version": "1", "id": "01890A5D-AC96-774B-BCCE-000000000001", "state": {"a": 1}}
    first = server.post("/api/sessions", json=told)
    server.post(f"/api/sessions/{first.json['id']}/state", json={"a": 2})
    server.now_us += 1_000_000
    second = server.post("/api/sessions", json=told)
    assert (first.status, second.status) == (201, 200)
    assert second.header("location") == first.header("location")
    assert first.json["id"] == told["id"].lower()
    assert second.json["state"]["a"] == 2
    assert second.json["created_at"] == first.json["created_at"]


@pytest.mark.parametrize(
    ("told", "pointer"),
    [
        ({"version": "1"}, "/product"),
        ({"product": "p"}, "/version"),
        ({"product": "", "version": "1"}, "/product"),
        ({"product": 1, "version": "1"}, "/product"),
        ({"product": "p", "version": 1}, "/version"),
        ({"product": "p", "version": "1", "id": "7"}, "/id"),
        ({"product": "p", "version": "1", "id": 7}, "/id"),
        ({"product": "p", "version": "1", "pid": "7"}, "/pid"),
        ({"product": "p", "version": "1", "pid": True}, "/pid"),
        ({"product": "p", "version": "1", "hostname": ["h"]}, "/hostname"),
        ({"product": "p", "version": "1", "state": []}, "/state"),
        ({"product": "p", "version": "1", "started_at": "yesterday"}, "/started_at"),
        ({"product": "p", "version": "1", "started_at": True}, "/started_at"),
    ],
)
def test_a_bad_field_of_a_session_is_named(server, told, pointer):
    assert pointers(server.post("/api/sessions", json=told)) == [pointer]
    assert server.get("/api/sessions").json["sessions"] == []


def test_unknown_fields_of_a_session_are_ignored(server):
    assert server.session(colour="red", nothing=None)


# --- bodies that are no JSON, at every endpoint that takes one

WRITES = ["", "/{id}/state", "/{id}/events", "/{id}/metrics", "/{id}/end", "/{id}/crash"]


@pytest.mark.parametrize("path", WRITES)
@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": 1e999}',
        b"\xff",
        b'"\\ud800"',
        b"\xef\xbb\xbf{}",
        b"{}{}",
        b"[" * 5000,
    ],
)
def test_a_body_that_is_no_json_is_a_syntax_error(server, path, body):
    session_id = server.session()
    answer = server.request("POST", "/api/sessions" + path.format(id=session_id), body=body, headers=JSON)
    problem(answer, 400)


@pytest.mark.parametrize("path", WRITES)
def test_another_media_type_is_refused(server, path):
    session_id = server.session()
    path = "/api/sessions" + path.format(id=session_id)
    problem(
        server.request("POST", path, body=b"a=1", headers={"Content-Type": "application/x-www-form-urlencoded"}), 415
    )
    problem(server.request("POST", path, body=b"{}", headers={**JSON, "Content-Encoding": "br"}), 415)


@pytest.mark.parametrize("path", WRITES)
@pytest.mark.parametrize("body", [b"5", b'"text"', b"true", b"[[]]"])
def test_a_body_of_the_wrong_shape_is_refused(server, path, body):
    session_id = server.session()
    problem(server.request("POST", "/api/sessions" + path.format(id=session_id), body=body, headers=JSON), 422)


@pytest.mark.parametrize("path", WRITES)
def test_a_body_that_is_too_large_is_refused_before_it_is_read(server, path):
    session_id = server.session()
    path = "/api/sessions" + path.format(id=session_id)
    unread = {"CONTENT_LENGTH": str(10**9), "wsgi.input": Unreadable()}
    problem(server.request("POST", path, headers=JSON, environ=unread), 413)


@pytest.mark.parametrize("path", ["state", "events", "metrics", "heartbeat", "end", "crash"])
def test_an_unknown_session_is_not_found(server, path):
    for session_id in (NOBODY, "nonsense", "..%2f..%2fetc", NOBODY.replace("-", "")):
        problem(server.post(f"/api/sessions/{session_id}/{path}", json={"name": "x", "value": 1}), 404)


@pytest.mark.parametrize("path", ["", "/state", "/events", "/metrics", "/history", "/transitions", "/acked"])
def test_reading_an_unknown_session_is_not_found(server, path):
    problem(server.get(f"/api/sessions/{NOBODY}{path}"), 404)


# --- state


def test_a_patch_merges_into_the_state(server):
    session_id = server.session(state={"level": {"name": "forest", "number": 1}, "gone": 1})
    url = f"/api/sessions/{session_id}/state"
    server.now_us += 1_000_000
    patch = {"level": {"number": 2}, "gone": None, "list": [None, 1]}
    assert server.post(url, json=patch).json == {"status": "ok"}
    state = {"product": "editor", "version": "1.2", "level": {"name": "forest", "number": 2}, "list": [None, 1]}
    assert server.get(url).json == state
    assert server.get_session(session_id)["state_history"][-1] == {
        "timestamp": "2027-01-15T08:00:01.000000Z",
        "patch": patch,
    }


def test_a_patch_may_come_wrapped_with_its_time(server):
    session_id = server.session()
    url = f"/api/sessions/{session_id}/state"
    assert server.post(url, json={"state": {"a": 1}, "timestamp": 1_800_000_005}).status == 200
    assert server.get(url).json["a"] == 1
    assert server.get_session(session_id)["state_history"][-1]["timestamp"] == "2027-01-15T08:00:05.000000Z"


def test_a_merge_patch_is_never_unwrapped(server):
    session_id = server.session()
    url = f"/api/sessions/{session_id}/state"
    server.request(
        "POST",
        url,
        body=b'{"state": {"a": 1}}',
        headers={"Content-Type": "application/merge-patch+json; charset=utf-8"},
    )
    assert server.get(url).json["state"] == {"a": 1}


@pytest.mark.parametrize(
    ("body", "pointer"),
    [({"state": 5}, "/state"), ({"state": None}, "/state"), ({"state": {}, "timestamp": "x"}, "/timestamp")],
)
def test_a_bad_wrapped_state_is_named(server, body, pointer):
    assert pointers(server.post(f"/api/sessions/{server.session()}/state", json=body)) == [pointer]


def test_an_update_that_changes_nothing_leaves_no_trace(server):
    session_id = server.session(state={"a": 1})
    before = server.get_session(session_id)
    server.now_us += 1
    assert server.post(f"/api/sessions/{session_id}/state", json={"a": 1}).status == 200
    after = server.get_session(session_id)
    assert after["state_history"] == before["state_history"]
    assert after["counts"] == before["counts"]


def test_the_state_at_a_moment_is_the_one_of_then(server):
    session_id = server.session()
    url = f"/api/sessions/{session_id}/state"
    for number in (1, 2, 3):
        server.post(url, json={"state": {"n": number}, "timestamp": 1_800_000_000 + number})
    assert server.get(f"{url}?at=1800000002").json["n"] == 2
    assert server.get(f"{url}?at=2027-01-15T08:00:02.999999Z").json["n"] == 2
    assert server.get(f"{url}?at=2027-01-15T08:00:02.999999%2B00:00").json["n"] == 2
    assert "n" not in server.get(f"{url}?at=1800000000").json
    assert server.get(f"{url}?at=1").json == {}
    problem(server.get(f"{url}?at=noon"), 400)
    problem(server.get(f"{url}?at=inf"), 400)


# --- events and metrics


def test_an_event_is_kept_with_every_field(server):
    session_id = server.session()
    event = {
        "timestamp": "2027-01-15T08:00:00.5Z",
        "name": "save:file",
        "level": "warning",
        "category": "disk",
        "group": "io",
        "labels": ["a", "b"],
        "message": "slow",
        "data": {"ms": 12, "big": 2**63},
        "stacktrace": ["line 1", "line 2"],
        "exception_type": "OSError",
        "exception_msg": "no",
        "source_file": "a.py",
        "source_line": 7,
        "source_function": "save",
        "colour": "red",
    }
    assert server.post(f"/api/sessions/{session_id}/events", json=event).json == {"status": "ok"}
    (stored,) = server.get_session(session_id)["events"]
    assert stored == {**event, "timestamp": "2027-01-15T08:00:00.500000Z"}


@pytest.mark.parametrize(
    ("event", "level", "category"),
    [
        ({}, "info", "info"),
        ({"category": "error"}, "error", "error"),
        ({"category": "net"}, "info", "net"),
        ({"category": "error", "level": "debug"}, "debug", "error"),
        ({"exception_type": "E"}, "error", "error"),
        ({"level": None}, "info", "info"),
    ],
)
def test_level_and_category_complete_each_other(server, event, level, category):
    session_id = server.session()
    server.post(f"/api/sessions/{session_id}/events", json={"name": "e", **event})
    (stored,) = server.get_session(session_id)["events"]
    assert (stored["level"], stored["category"]) == (level, category)


def test_an_array_of_events_keeps_its_order(server):
    session_id = server.session()
    server.post(f"/api/sessions/{session_id}/events", json=[{"name": f"e{number}"} for number in range(50)])
    assert [event["name"] for event in server.get_session(session_id)["events"]] == [f"e{n}" for n in range(50)]


@pytest.mark.parametrize(
    ("event", "pointer"),
    [
        ({}, "/name"),
        ({"name": ""}, "/name"),
        ({"name": 5}, "/name"),
        ({"name": "e", "level": "loud"}, "/level"),
        ({"name": "e", "level": 3}, "/level"),
        ({"name": "e", "category": 3}, "/category"),
        ({"name": "e", "labels": "a"}, "/labels"),
        ({"name": "e", "labels": [1]}, "/labels/0"),
        ({"name": "e", "data": []}, "/data"),
        ({"name": "e", "stacktrace": "x"}, "/stacktrace"),
        ({"name": "e", "source_line": "7"}, "/source_line"),
        ({"name": "e", "timestamp": "x"}, "/timestamp"),
        ({"name": "e", "timestamp": -1}, "/timestamp"),
    ],
)
def test_a_bad_field_of_an_event_is_named_and_nothing_is_stored(server, event, pointer):
    session_id = server.session()
    url = f"/api/sessions/{session_id}/events"
    assert pointers(server.post(url, json=event)) == [pointer]
    assert pointers(server.post(url, json=[{"name": "good"}, event])) == [f"/1{pointer}"]
    assert server.get_session(session_id)["events"] == []


def test_an_empty_array_stores_nothing(server):
    session_id = server.session()
    for path in ("events", "metrics"):
        assert server.post(f"/api/sessions/{session_id}/{path}", json=[]).status == 200


def test_metrics_are_kept_with_their_type(server):
    session_id = server.session()
    metrics = [
        {"name": "fps", "value": 60},
        {"name": "saved", "type": "counter", "value": 2},
        {"name": "loaded", "delta": 3, "unit": "files"},
        {
            "name": "t",
            "type": "timer",
            "value": 0.25,
            "unit": "seconds",
            "count": 4,
            "tags": ["a:b"],
            "metadata": {"x": 1},
        },
    ]
    assert server.post(f"/api/sessions/{session_id}/metrics", json=metrics).json == {"status": "ok"}
    fps, saved, loaded, timer = server.get_session(session_id)["metrics"]
    assert (fps["type"], fps["value"], fps["delta"]) == ("gauge", 60, None)
    assert (saved["type"], saved["value"], saved["delta"]) == ("counter", 2, 2)
    assert (loaded["type"], loaded["value"], loaded["delta"], loaded["unit"]) == ("counter", 3, 3, "files")
    assert (timer["unit"], timer["count"], timer["tags"]) == ("seconds", 4, ["a:b"])
    assert timer["metadata"] == {"x": 1, "sum": 0.25, "count": 1, "min": 0.25, "max": 0.25}


def test_one_sample_of_a_histogram_is_told_as_a_distribution(server):
    session_id = server.session()
    metric = {"name": "h", "type": "histogram", "value": 7, "metadata": {"buckets": [10, 5]}}
    server.post(f"/api/sessions/{session_id}/metrics", json=metric)
    (stored,) = server.get_session(session_id)["metrics"]
    assert stored["metadata"]["buckets"] == [{"le": 5, "count": 0}, {"le": 10, "count": 1}, {"le": "+Inf", "count": 1}]


def test_a_merged_histogram_is_kept_as_it_came(server):
    session_id = server.session()
    metadata = {
        "sum": 9,
        "count": 2,
        "min": 2,
        "max": 7,
        "buckets": [{"le": 5, "count": 1}, {"le": "+Inf", "count": 2}],
    }
    server.post(
        f"/api/sessions/{session_id}/metrics", json={"name": "h", "type": "histogram", "value": 9, "metadata": metadata}
    )
    assert server.get_session(session_id)["metrics"][0]["metadata"] == metadata


@pytest.mark.parametrize(
    ("metric", "pointer"),
    [
        ({"value": 1}, "/name"),
        ({"name": "m"}, "/value"),
        ({"name": "m", "value": None}, "/value"),
        ({"name": "m", "value": "1"}, "/value"),
        ({"name": "m", "value": True}, "/value"),
        ({"name": "m", "delta": "1"}, "/delta"),
        ({"name": "m", "value": 1, "type": "dial"}, "/type"),
        ({"name": "m", "value": 1, "tags": {"a": 1}}, "/tags"),
        ({"name": "m", "value": 1, "metadata": []}, "/metadata"),
        ({"name": "m", "value": 1, "unit": 1}, "/unit"),
        ({"name": "m", "value": 1, "count": 1.5}, "/count"),
    ],
)
def test_a_bad_field_of_a_metric_is_named(server, metric, pointer):
    assert pointers(server.post(f"/api/sessions/{server.session()}/metrics", json=metric)) == [pointer]


def test_what_is_too_long_is_cut_with_a_mark(server):
    session_id = server.session()
    deep = {"a": 1}
    for _ in range(60):
        deep = {"d": deep}
    server.post(f"/api/sessions/{session_id}/events", json={"name": "n" * 500, "data": deep})
    server.post(
        f"/api/sessions/{session_id}/events",
        json={"name": "large", "message": "x" * 200_000, "data": {"y": "z" * 90_000}},
    )
    server.post(
        f"/api/sessions/{session_id}/events",
        json={"name": "many", "data": {f"k{number}": number for number in range(20_000)}, "labels": ["l"] * 30_000},
    )
    server.post(f"/api/sessions/{session_id}/state", json={f"k{number}": number for number in range(20_000)})
    server.post(f"/api/sessions/{session_id}/metrics", json={"name": "m" * 500, "value": 1})
    session = server.get_session(session_id)
    named, large, many = session["events"]
    assert len(named["name"]) == 200
    assert named["name"].endswith(CUT_MARK)
    assert CUT_MARK in str(named["data"])
    assert large["message"].endswith(CUT_MARK)
    assert large["message"].startswith("xxx")
    assert many["data"]["k0"] == 0
    assert many["data"][CUT_MARK] == CUT_MARK
    assert many["labels"][-1] == CUT_MARK
    assert session["state"]["k0"] == 0
    assert session["state"][CUT_MARK] == CUT_MARK
    assert session["metrics"][0]["name"].endswith(CUT_MARK)
    assert all(len(str(event)) < MAX_RECORD_BYTES * 2 for event in session["events"])


def test_numbers_keep_their_value(server):
    session_id = server.session()
    data = {"small": -(2**63), "large": 2**64 - 1, "huge": 2**70, "float": 1.0, "tiny": 5e-324}
    server.post(f"/api/sessions/{session_id}/events", json={"name": "e", "data": data})
    (event,) = server.get_session(session_id)["events"]
    assert event["data"] == data
    assert type(event["data"]["float"]) is float


# --- heartbeat, end, crash


def test_a_heartbeat_takes_any_body(server):
    session_id = server.session()
    for body in (b"", b"nonsense", b"{}"):
        assert server.request("POST", f"/api/sessions/{session_id}/heartbeat", body=body).json == {"status": "ok"}
    assert server.get_session(session_id)["last_heartbeat"] == "2027-01-15T08:00:00.000000Z"


def test_the_first_end_counts(server):
    session_id = server.session()
    url = f"/api/sessions/{session_id}/end"
    assert server.post(url, json={"exit_code": 3}).json == {"status": "ok"}
    server.now_us += 1_000_000
    assert server.post(url, json={"exit_code": 4}).json == {"status": "ok"}
    assert server.post(f"/api/sessions/{session_id}/crash", json={"reason": "late"}).json == {"status": "ok"}
    session = server.get_session(session_id)
    assert (session["status"], session["end_reason"], session["exit_code"]) == ("ended", "clean", 3)
    assert session["ended_at"] == "2027-01-15T08:00:00.000000Z"
    assert session["active"] is False
    assert session["events"] == []


def test_end_needs_no_body(server):
    session_id = server.session()
    assert server.request("POST", f"/api/sessions/{session_id}/end").status == 200
    assert server.get_session(session_id)["exit_code"] is None


@pytest.mark.parametrize("code", ["3", 1.5, True, 2**63])
def test_an_exit_code_is_a_whole_number(server, code):
    session_id = server.session()
    assert pointers(server.post(f"/api/sessions/{session_id}/end", json={"exit_code": code})) == ["/exit_code"]
    assert server.get_session(session_id)["status"] == "active"


def test_the_first_crash_counts(server):
    session_id = server.session()
    url = f"/api/sessions/{session_id}/crash"
    assert server.post(url, json={"reason": "the GPU is gone"}).json == {"status": "ok"}
    server.now_us += 1
    server.post(url, json={"reason": "again"})
    server.post(f"/api/sessions/{session_id}/end")
    session = server.get_session(session_id)
    assert (session["status"], session["end_reason"], session["end_detail"]) == (
        "crashed",
        "unknown",
        "the GPU is gone",
    )
    assert session["crashed"] is True
    (event,) = session["events"]
    assert (event["name"], event["level"], event["message"]) == (
        "parent_process_crashed",
        "critical",
        "the GPU is gone",
    )


def test_a_known_reason_of_a_crash_is_the_end_reason(server):
    session_id = server.session()
    server.post(f"/api/sessions/{session_id}/crash", json={"reason": "oom"})
    session = server.get_session(session_id)
    assert (session["end_reason"], session["end_detail"]) == ("oom", None)
    assert pointers(server.post(f"/api/sessions/{session_id}/crash", json={"reason": 5})) == ["/reason"]


def test_what_comes_after_the_end_is_kept(server):
    session_id = server.session()
    server.post(f"/api/sessions/{session_id}/end")
    server.post(f"/api/sessions/{session_id}/events", json={"name": "late"})
    server.post(f"/api/sessions/{session_id}/heartbeat")
    session = server.get_session(session_id)
    assert session["status"] == "ended"
    assert [event["name"] for event in session["events"]] == ["late"]


# --- daemons


def test_daemons_register_and_keep_their_lease(server):
    told = {
        "id": "d1",
        "hostname": "cat",
        "machine_id": "m",
        "boot_id": "b",
        "pid": 7,
        "version": "1",
        "platform": "linux",
    }
    answer = server.post("/api/daemons", json={**told, "sessions": [NOBODY]})
    assert answer.json == {"id": "d1", "lease_s": 60.0, "boot": "b00t"}
    server.now_us += 30_000_000
    assert server.post("/api/daemons", json=told).status == 200
    server.now_us += 90_000_000
    (row,) = server.get("/api/daemons").json["daemons"]
    assert {name: row[name] for name in told} == told
    assert (row["since"], row["connected"]) == ("2027-01-15T08:00:00.000000Z", False)
    assert row["sessions"] == [NOBODY]
    assert server.post("/api/daemons/d1/heartbeat", json={"sessions": []}).json == {"lease_s": 60.0, "boot": "b00t"}
    (row,) = server.get("/api/daemons").json["daemons"]
    assert (row["connected"], row["sessions"]) == (True, [])


def test_a_daemon_that_the_server_forgot_is_known_again(server):
    assert server.request("POST", "/api/daemons/d9/heartbeat").status == 200
    assert [row["id"] for row in server.get("/api/daemons").json["daemons"]] == ["d9"]


@pytest.mark.parametrize(
    ("told", "pointer"),
    [
        ({}, "/id"),
        ({"id": 5}, "/id"),
        ({"id": ""}, "/id"),
        ({"id": "d", "hostname": 5}, "/hostname"),
        ({"id": "d", "pid": "5"}, "/pid"),
        ({"id": "d", "sessions": "x"}, "/sessions"),
        ({"id": "d", "sessions": ["x"]}, "/sessions"),
    ],
)
def test_a_bad_field_of_a_daemon_is_named(server, told, pointer):
    assert pointers(server.post("/api/daemons", json=told)) == [pointer]


def test_a_body_of_the_wrong_shape_from_a_daemon_is_refused(server):
    problem(server.post("/api/daemons", json=[]), 422)
    problem(server.request("POST", "/api/daemons", body=b"{", headers=JSON), 400)
    assert pointers(server.post("/api/daemons/d/heartbeat", json={"sessions": 5})) == ["/sessions"]


# --- delete


def test_without_a_key_nothing_is_deleted(server):
    session_id = server.session()
    answer = server.request("DELETE", f"/api/sessions/{session_id}")
    problem(answer, 401)
    assert answer.header("www-authenticate")
    assert server.get_session(session_id)["id"] == session_id


def test_what_was_deleted_is_gone_for_good(admin):
    session_id = admin.session()
    assert admin.request("DELETE", f"/api/sessions/{session_id}").status == 204
    for path in ("", "/state", "/events"):
        assert problem(admin.get(f"/api/sessions/{session_id}{path}"), 410)["reason"] == "deleted"
    problem(admin.request("DELETE", f"/api/sessions/{session_id}"), 410)
    problem(admin.post(f"/api/sessions/{session_id}/events", json={"name": "e"}), 410)
    problem(admin.post("/api/sessions", json={"product": "p", "version": "1", "id": session_id}), 410)
    problem(admin.request("DELETE", f"/api/sessions/{NOBODY}"), 404)
