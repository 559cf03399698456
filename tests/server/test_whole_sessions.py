"""Arrays of whole sessions: their members, and some of them only."""

import pytest

PATHS = ("/api/grafana/sessions", "/api/data/sessions")
MEMBERS = {
    "id", "created_at", "updated_at", "ended_at", "last_heartbeat", "active", "suspended", "crashed", "hung", "machine_id",
    "hostname", "state", "state_history", "events", "metrics",
}  # fmt: skip
"""What those who read the array of an earlier program expect."""


@pytest.mark.parametrize("path", PATHS)
def test_whole_sessions_have_all_members_newest_first(server, path):
    ids = []
    for _ in range(3):
        server.now_us += 1
        ids.append(server.session())
    server.post(f"/api/sessions/{ids[0]}/events", json={"name": "a"})
    found = server.get(path).json
    assert [one["id"] for one in found] == ids[::-1]
    assert all(set(one) >= MEMBERS for one in found)
    assert found[-1]["active"] is True
    assert found[-1]["ended_at"] is None
    assert [event["name"] for event in found[-1]["events"]] == ["a"]


@pytest.mark.parametrize("path", PATHS)
def test_fields_make_sessions_slim(server, path):
    session_id = server.session()
    server.post(f"/api/sessions/{session_id}/events", json=[{"name": "a"}, {"name": "b"}])
    assert server.get(f"{path}?fields=id,hung").json == [{"id": session_id, "hung": False}]
    (found,) = server.get(f"{path}?fields=events&fields=state&events=1").json
    assert found == {
        "events": [server.get_session(session_id)["events"][1]],
        "state": server.get_session(session_id)["state"],
    }
    assert server.get(f"{path}?fields=").json == [server.get_session(session_id)]
    assert server.get(f"{path}?fields=id,id").body == server.get(f"{path}?fields=id").body


@pytest.mark.parametrize("path", PATHS)
def test_a_field_that_does_not_exist_is_named(server, path):
    answer = server.get(f"{path}?fields=id,colour")
    assert answer.status == 400
    assert "colour" in answer.json["detail"]


@pytest.mark.parametrize("path", PATHS)
def test_records_that_are_not_asked_for_are_not_read(server, path):
    server.session()

    def nothing(*_more):
        raise AssertionError("records were read")

    server.store.records = server.store.state = nothing
    assert list(server.get(f"{path}?fields=id,status,counts").json[0]) == ["id", "status", "counts"]
