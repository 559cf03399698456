"""Keys and the audit log over HTTP, for admin keys and nobody else."""

import pytest

KEYS = "/api/keys"


def test_an_admin_makes_a_key_and_sees_its_text_once(admin):
    answer = admin.post(KEYS, json={"name": "fleet", "role": "ingest", "products": ["editor"]})
    assert answer.status == 201
    made = answer.json
    assert answer.header("location") == f"{KEYS}/{made['id']}"
    assert (made["name"], made["role"], made["products"], made["expires_at"]) == ("fleet", "ingest", ["editor"], None)
    assert admin.with_key(made["key"]).post("/api/sessions", json={"product": "editor", "version": "1"}).status == 201
    listed = admin.get(KEYS)
    assert [key["name"] for key in listed.json["keys"]] == ["admin0", "fleet"]
    assert made["key"].split("_", 2)[2].encode() not in listed.body
    assert b"hash" not in listed.body


def test_a_revoked_key_is_worth_nothing_at_once(admin):
    made = admin.post(KEYS, json={"name": "fleet", "role": "read"}).json
    client = admin.with_key(made["key"])
    assert client.get("/api/sessions").status == 200
    assert admin.request("DELETE", f"{KEYS}/{made['id']}").status == 204
    assert client.get("/api/sessions").status == 401
    assert admin.request("DELETE", f"{KEYS}/{made['id']}").status == 404


def test_a_key_ends_when_its_time_is_over(admin):
    made = admin.post(KEYS, json={"name": "guest", "role": "read", "expires_at": "2027-01-15T09:00:00Z"}).json
    client = admin.with_key(made["key"])
    assert client.get("/api/sessions").status == 200
    admin.now_us += 3600 * 1_000_000
    answer = client.get("/api/sessions")
    assert (answer.status, answer.json["detail"]) == (401, "this key has expired")
    assert [key["expired"] for key in admin.get(KEYS).json["keys"]] == [False, True]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"role": "read"}, "/name"),
        ({"name": "x"}, "/role"),
        ({"name": "x", "role": "root"}, "/role"),
        ({"name": "admin0", "role": "read"}, "/name"),
        ({"name": "x", "role": "read", "products": "editor"}, "/products"),
        ({"name": "x", "role": "read", "products": [1]}, "/products"),
        ({"name": "x", "role": "admin", "products": ["editor"]}, "/products"),
        ({"name": "x", "role": "read", "expires_at": "tomorrow"}, "/expires_at"),
        ({"name": "x", "role": "read", "expires_at": "2001-01-01T00:00:00Z"}, "/expires_at"),
    ],
)
def test_a_wrong_field_is_named(admin, body, pointer):
    answer = admin.post(KEYS, json=body)
    assert answer.status == 422
    assert [error["pointer"] for error in answer.json["errors"]] == [pointer]
    assert len(admin.ring.keys) == 1


def test_a_body_that_is_no_object_is_refused(admin):
    assert admin.post(KEYS, json=[]).status == 422
    assert admin.post(KEYS).status == 422


@pytest.mark.parametrize("role", ["ingest", "read"])
@pytest.mark.parametrize(
    ("method", "path"), [("GET", KEYS), ("POST", KEYS), ("DELETE", f"{KEYS}/x"), ("GET", "/api/audit")]
)
def test_nobody_else_manages(admin, role, method, path):
    text = admin.key(role)
    assert admin.with_key(text).request(method, path, json={}).status == 403
    assert admin.request(method, path, json={}, headers={"Authorization": ""}).status == 401


def test_without_keys_nobody_manages_over_http(server):
    assert server.get(KEYS).status == 401
    assert server.post(KEYS, json={"name": "x", "role": "admin"}).status == 401


def test_every_act_is_in_the_audit_log(admin):
    session_id = admin.session()
    made = admin.post(KEYS, json={"name": "fleet", "role": "ingest"}).json
    admin.request("DELETE", f"{KEYS}/fleet")
    admin.request("DELETE", f"/api/sessions/{session_id}", environ={"REMOTE_ADDR": "192.0.2.7"})
    rows = admin.get("/api/audit").json["rows"]
    assert [(row["act"], row["on"], row["who"], row["address"]) for row in rows] == [
        ("session_deleted", session_id, "admin0", "192.0.2.7"),
        ("key_revoked", made["id"], "admin0", "127.0.0.1"),
        ("key_created", made["id"], "admin0", "127.0.0.1"),
    ]
    assert [row["act"] for row in admin.get("/api/audit?act=key_created,key_revoked&limit=1").json["rows"]] == [
        "key_revoked"
    ]
