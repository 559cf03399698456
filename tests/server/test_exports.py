"""Exports and imports over HTTP: who may, which sessions, and that what is wrong is said."""

import json

import pytest
from wsgi import Client


def lines(answer):
    return [json.loads(line) for line in answer.body.splitlines()]


@pytest.fixture
def three(admin):
    ids = [admin.post("/api/sessions", json={"product": name, "version": "1"}).json["session_id"] for name in "aab"]
    for one in ids:
        admin.post(f"/api/sessions/{one}/events", json={"name": "tick"})
    return ids


def test_an_export_has_what_the_filters_choose(admin, three):
    answer = admin.get("/api/export?product=a")
    assert answer.status == 200
    assert answer.header("content-type") == "application/x-ndjson"
    assert {line["session"] for line in lines(answer)} == set(three[:2])
    assert {line["session"] for line in lines(admin.get(f"/api/export?id={three[2]}"))} == {three[2]}
    text = admin.get("/api/export?format=csv&product=b").body.decode()
    assert text.count("\r\n") == 3
    assert len({line["session"] for line in lines(admin.get("/api/export?limit=1"))}) == 1


def test_a_key_for_one_product_exports_that_one(admin, three):
    client = admin.with_key(admin.key("read", "b"))
    assert {line["session"] for line in lines(client.get("/api/export"))} == {three[2]}
    assert client.get(f"/api/export?id={three[0]}").status == 404
    assert admin.with_key(admin.key("ingest")).get("/api/export").status == 403


@pytest.mark.parametrize("query", ["format=xml", "status=odd", "id=x", "nope=1"])
def test_a_wrong_parameter_is_refused_before_the_first_byte(admin, three, query):
    assert admin.get(f"/api/export?{query}").status in (400, 404)
    assert three


def test_only_an_admin_imports_and_it_is_audited(admin, three):
    body = admin.get("/api/export").body
    for role in ("read", "ingest"):
        assert post(admin.with_key(admin.key(role)), body).status == 403
    told = post(admin, body).json
    assert (told["batches"], told["known"]) == (0, 6)
    other = body.replace(three[0].encode(), b"01890a5d-ac96-774b-bcce-0123456789ab")
    assert post(admin, other).json["sessions"] == 1
    assert next(iter(admin.audit.newest_first()))["act"] == "imported"
    assert len(admin.get("/api/sessions").json["sessions"]) == 4


@pytest.mark.parametrize("body", [b"nonsense", b'{"session":"x"}', b"\n\n{}"])
def test_what_is_no_export_is_refused_with_its_line(admin, body):
    answer = post(admin, body)
    assert answer.status == 422
    assert "line" in answer.json["detail"]


def post(client: Client, body):
    return client.request("POST", "/api/import", body=body, headers={"Content-Type": "application/x-ndjson"})
