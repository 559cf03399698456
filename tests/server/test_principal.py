"""The scope of a key: what is not for its products is not there."""

import pytest

from datacat.server.principal import NOBODY, Principal, narrow, scope
from datacat.store import Query

SESSIONS = "/api/sessions"
EDITOR = Principal("read", products=("editor", "viewer"))


@pytest.mark.parametrize(
    ("asked", "principal", "given"),
    [
        ((), NOBODY, ()),
        (("x",), NOBODY, ("x",)),
        ((), EDITOR, ("editor", "viewer")),
        (("viewer", "game"), EDITOR, ("viewer",)),
        (("game",), EDITOR, ("",)),
    ],
)
def test_a_query_is_narrowed_to_the_scope(asked, principal, given):
    assert narrow(Query(product=asked, q="x"), principal) == Query(product=given, q="x")
    assert scope(principal) == principal.products


@pytest.fixture
def fleet(admin):
    """A server with a session of each of two products."""
    admin.ids = {product: admin.session(product=product) for product in ("editor", "game")}
    admin.post("/api/daemons", json={"id": "d1", "sessions": list(admin.ids.values())})
    admin.post("/api/daemons", json={"id": "d2", "sessions": [admin.ids["game"]]})
    admin.reader = admin.with_key(admin.key("read", "editor"))
    admin.writer = admin.with_key(admin.key("ingest", "editor"))
    return admin


@pytest.mark.parametrize(
    "path", ["/api/grafana/sessions", "/api/data/sessions", SESSIONS, f"{SESSIONS}?product=editor,game", "/sessions"]
)
def test_lists_have_only_what_is_in_scope(fleet, path):
    body = fleet.reader.get(path).body.decode()
    assert fleet.ids["editor"] in body
    assert fleet.ids["game"] not in body
    assert fleet.ids["game"] in fleet.get(path).body.decode()


def test_a_product_out_of_scope_is_empty(fleet):
    assert fleet.reader.get(f"{SESSIONS}?product=game").json["sessions"] == []


@pytest.mark.parametrize("tail", ["", "/events", "/metrics", "/history", "/transitions", "/state"])
def test_a_session_out_of_scope_is_not_there(fleet, tail):
    assert fleet.reader.get(f"{SESSIONS}/{fleet.ids['editor']}{tail}").status == 200
    answer = fleet.reader.get(f"{SESSIONS}/{fleet.ids['game']}{tail}")
    unknown = fleet.reader.get(f"{SESSIONS}/00000000-0000-7000-8000-000000000000{tail}")
    assert answer.status == unknown.status == 404
    assert fleet.reader.get(f"/sessions/{fleet.ids['game']}").status == 404


def test_daemons_are_those_of_sessions_in_scope(fleet):
    rows = fleet.reader.get("/api/daemons").json["daemons"]
    assert [(row["id"], row["sessions"]) for row in rows] == [("d1", [fleet.ids["editor"]])]


@pytest.mark.parametrize("what", ["state", "events", "metrics", "heartbeat", "end", "crash"])
def test_nothing_is_written_to_a_session_out_of_scope(fleet, what):
    body = {"state": {"x": 1}, "events": {"name": "e"}, "metrics": {"name": "m", "value": 1}}.get(what, {})
    assert fleet.writer.post(f"{SESSIONS}/{fleet.ids['game']}/{what}", json=body).status == 403
    assert fleet.writer.post(f"{SESSIONS}/{fleet.ids['editor']}/{what}", json=body).status == 200
    assert fleet.get_session(fleet.ids["game"])["status"] == "active"


def test_no_session_out_of_scope_is_created_or_told(fleet):
    assert fleet.writer.post(SESSIONS, json={"product": "game", "version": "1"}).status == 403
    answer = fleet.writer.post(SESSIONS, json={"product": "editor", "version": "1", "id": fleet.ids["game"]})
    assert answer.status == 403
    assert fleet.store.stats()["sessions"] == 2


@pytest.mark.parametrize(
    "line",
    [
        b'{"t":1,"k":"open","product":"game","version":"1"}\n',
        b'{"t":1,"k":"gap","reason":"x","open":{"product":"game","version":"1"},"state":{}}\n',
    ],
)
def test_a_batch_out_of_scope_is_refused_before_it_is_stored(fleet, line):
    new = "00000000-0000-7000-8000-000000000000"
    path = f"{SESSIONS}/{new}/batches?stream=s1&from=0&to={len(line)}"
    assert fleet.writer.request("POST", path, body=line).status == 403
    assert fleet.writer.request("POST", path, body=line.replace(b"game", b"editor")).status == 200
    there = f"{SESSIONS}/{fleet.ids['game']}"
    assert fleet.writer.request("POST", f"{there}/batches?stream=s1&from=0&to={len(line)}", body=line).status == 403
    assert fleet.writer.get(f"{there}/acked").status == 403
