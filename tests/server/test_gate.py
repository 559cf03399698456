"""Who may come in: loopback, Host, Origin, forwarded requests."""

import base64

import pytest

from datacat.server.config import Config
from datacat.server.gate import client_address

READS = "/api/sessions"


def test_loopback_may_read_and_write(server):
    for address in ("127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"):
        assert server.get(READS, environ={"REMOTE_ADDR": address}).status == 200
        assert server.post(READS, json={"product": "p", "version": "1"}, environ={"REMOTE_ADDR": address}).status == 201


@pytest.mark.parametrize("address", ["192.0.2.1", "::ffff:192.0.2.1", "2001:db8::1", ""])
def test_nobody_else_may_without_a_key(server, address):
    assert server.get(READS, environ={"REMOTE_ADDR": address}).status == 403
    answer = server.post(READS, json={"product": "p", "version": "1"}, environ={"REMOTE_ADDR": address})
    assert answer.status == 403
    assert server.store.stats()["sessions"] == 0


@pytest.mark.parametrize(
    "header",
    ["Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Port", "X-Forwarded-Server"],
)
def test_what_a_proxy_passed_on_is_not_loopback(server, header):
    assert server.get(READS, headers={header: "127.0.0.1"}).status == 403
    assert server.get(READS, headers={header: ""}).status == 403


def test_insecure_lets_everybody_in_but_nobody_delete(make_server):
    server = make_server(Config(host="0.0.0.0", insecure=True))
    environ = {"REMOTE_ADDR": "192.0.2.1"}
    answer = server.post(READS, json={"product": "p", "version": "1"}, environ=environ)
    assert answer.status == 201
    assert server.get(READS, environ=environ, headers={"X-Forwarded-For": "192.0.2.9"}).status == 200
    assert server.request("DELETE", f"{READS}/{answer.json['id']}", environ=environ).status == 401


@pytest.mark.parametrize("host", ["localhost", "localhost:8080", "LOCALHOST", "127.0.0.1:1", "[::1]:8080", "[::1]"])
def test_names_of_this_machine_are_known(server, host):
    assert server.get(READS, headers={"Host": host}).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8080",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "192.0.2.1",
        "a@b@c",
        "[",
        "[::1",
    ],
)
def test_a_foreign_host_is_refused(server, host):
    answer = server.get(READS, headers={"Host": host})
    assert answer.status == 403
    assert answer.header("content-type") == "application/problem+json"


def test_a_missing_host_is_a_bad_request(server):
    answer = server.get(READS, environ={"HTTP_HOST": None})
    assert answer.status == 400
    assert answer.header("content-type") == "application/problem+json"
    assert answer.json["status"] == 400
    assert server.get("/api/sessions/x/acked", environ={"HTTP_HOST": None}).status == 400
    assert server.get(READS, environ={"HTTP_HOST": None, "SERVER_PROTOCOL": "HTTP/1.0"}).status == 200


def test_a_name_that_the_server_was_told_is_known(make_server):
    server = make_server(Config(allowed_hosts=("cat.example",)))
    assert server.get(READS, headers={"Host": "Cat.Example:443"}).status == 200


def test_a_server_on_all_addresses_knows_its_addresses_but_no_foreign_name(make_server):
    server = make_server(Config(host="0.0.0.0", insecure=True))
    assert server.get(READS, headers={"Host": "192.0.2.7:8080"}).status == 200
    assert server.get(READS, headers={"Host": "localhost:8080"}).status == 200
    assert server.get(READS, headers={"Host": "evil.example"}).status == 403


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost:3000", "http://127.0.0.1:8080", "x"]
)
def test_a_page_of_another_origin_is_refused(server, origin):
    answer = server.post(READS, json={"product": "p", "version": "1"}, headers={"Origin": origin})
    assert answer.status == 403
    assert server.post("/api/sessions/x/batches?stream=s&from=0&to=1", headers={"Origin": origin}).status == 403


def test_our_own_pages_may(server):
    assert server.get(READS, headers={"Origin": "http://localhost:8080"}).status == 200


def test_probes_need_nothing(server):
    for path in ("/livez", "/readyz", "/health"):
        assert server.get(path, headers={"Host": "evil.example"}, environ={"REMOTE_ADDR": "192.0.2.1"}).status == 200


def test_every_other_path_is_behind_the_gate(server):
    session_id = server.session()
    for path in (
        "/",
        f"/sessions/{session_id}",
        f"{READS}/{session_id}",
        f"{READS}/{session_id}/acked",
        "/api/daemons",
    ):
        assert server.get(path, environ={"REMOTE_ADDR": "192.0.2.1"}).status == 403
        assert server.get(path, headers={"Host": "evil.example"}).status == 403


@pytest.mark.parametrize("origin", ["http://[", "http://[::1", "//", "["])
def test_a_malformed_origin_is_refused(server, origin):
    assert server.get(READS, headers={"Origin": origin}).status == 403


def test_a_host_with_user_information_is_refused(server):
    assert server.get(READS, headers={"Host": "evil.example:80@127.0.0.1"}).status == 403


@pytest.fixture
def keyed(make_server, tmp_path):
    """A server with one admin key, and that key's text."""
    server = make_server(folder=tmp_path)
    server.admin = server.key("admin")
    return server


def bearer(text):
    return {"Authorization": f"Bearer {text}"}


def test_with_keys_everybody_needs_one(keyed):
    answer = keyed.get(READS)
    assert answer.status == 401
    assert answer.header("www-authenticate") == 'Bearer realm="datacat"'
    assert keyed.post(READS, json={"product": "p", "version": "1"}).status == 401
    assert keyed.get(f"{READS}/x/acked").status == 401


def test_an_expired_key_opens_nothing_to_those_without(make_server, tmp_path):
    server = make_server(folder=tmp_path)
    server.key("read", expires_at=server.now_us + 1)
    server.now_us += 2
    assert server.get(READS).status == 401


@pytest.mark.parametrize(
    ("role", "reads", "writes", "deletes"),
    [("ingest", 403, 201, 403), ("read", 200, 403, 403), ("admin", 200, 201, 204)],
)
def test_a_role_may_what_it_says_and_no_more(keyed, role, reads, writes, deletes):
    session_id = keyed.post(READS, json={"product": "p", "version": "1"}, headers=bearer(keyed.admin)).json["id"]
    client = keyed.with_key(keyed.key(role))
    assert client.get(READS).status == reads
    assert client.get(f"{READS}/{session_id}").status == reads
    assert client.get("/").status == reads
    assert client.get("/api/daemons").status == reads
    assert client.post(READS, json={"product": "p", "version": "1"}).status == writes
    assert client.get(f"{READS}/{session_id}/acked").status == (200 if writes == 201 else 403)
    assert client.request("DELETE", f"{READS}/{session_id}").status == deletes


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer KEY"},
        {"Authorization": "bearer  KEY"},
        {"X-Api-Key": "KEY"},
        {"Authorization": "Basic BASIC"},
    ],
)
def test_a_key_comes_in_any_of_these_headers(keyed, headers):
    basic = base64.b64encode(f"anybody:{keyed.admin}".encode()).decode()
    told = {name: value.replace("KEY", keyed.admin).replace("BASIC", basic) for name, value in headers.items()}
    assert keyed.get(READS, headers=told).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Basic !!!"},
        {"Authorization": "Basic eDp5"},
        {"Authorization": "Digest x"},
        {"X-Api-Key": "wrong"},
        {"X-Api-Key": ""},
    ],
)
def test_what_is_no_key_is_refused(keyed, headers):
    answer = keyed.get(READS, headers=headers)
    assert answer.status == 401
    assert answer.header("content-type") == "application/problem+json"


def test_a_browser_is_led_to_the_page_that_asks_for_a_key_and_a_program_is_not(keyed):
    answer = keyed.get("/", headers={"Accept": "text/html,*/*"})
    assert (answer.status, answer.header("location")) == (302, "/sign-in")
    answer = keyed.get("/", headers={"Accept": "*/*"})
    assert (answer.status, answer.header("www-authenticate")) == (401, 'Bearer realm="datacat"')


def test_without_keys_on_the_server_a_key_is_ignored(server):
    assert server.get(READS, headers=bearer("whatever")).status == 200
    assert server.get(READS, headers=bearer("whatever"), environ={"REMOTE_ADDR": "192.0.2.1"}).status == 403


def test_insecure_beside_keys_lets_those_without_read_and_write_and_nobody_else_delete(make_server, tmp_path):
    server = make_server(Config(insecure=True), folder=tmp_path)
    text = server.key("admin")
    assert server.get(READS, environ={"REMOTE_ADDR": "192.0.2.1"}).status == 200
    assert server.request("DELETE", f"{READS}/x").status == 401
    assert server.get(READS, headers=bearer("wrong")).status == 401
    assert server.with_key(text).request("DELETE", f"{READS}/x").status == 404


def test_a_key_works_from_everywhere_and_behind_a_proxy(keyed):
    client = keyed.with_key(keyed.admin)
    assert client.get(READS, environ={"REMOTE_ADDR": "192.0.2.1"}).status == 200
    assert client.get(READS, headers={"X-Forwarded-For": "192.0.2.1"}).status == 200


def test_wrong_keys_by_the_thousand_end_in_429_and_harm_nobody_else(keyed):
    statuses = [keyed.get(READS, headers=bearer(f"dcat_guess000_{number}")).status for number in range(2000)]
    assert statuses == [401] * 30 + [429] * 1970
    refused = keyed.get(READS, headers=bearer("once-more"))
    assert refused.status == 429
    assert int(refused.header("retry-after")) >= 1
    assert keyed.get(READS, headers=bearer("x"), environ={"REMOTE_ADDR": "192.0.2.1"}).status == 401
    assert keyed.with_key(keyed.admin).get(READS).status == 200
    keyed.now_us += int(refused.header("retry-after")) * 1_000_000
    assert keyed.get(READS, headers=bearer("x")).status == 401


def test_a_key_has_a_rate_of_its_own_for_reading_and_for_writing(make_server, tmp_path):
    server = make_server(Config(key_rate=1), folder=tmp_path)
    client = server.with_key(server.key("admin"))
    answers = [client.get(READS) for _ in range(11)]
    assert [answer.status for answer in answers] == [200] * 10 + [429]
    assert answers[0].header("ratelimit-policy") == '"key-read";q=10;w=10'
    assert answers[0].header("ratelimit") == '"key-read";r=9;t=1'
    assert answers[10].header("retry-after") == "1"
    assert client.post(READS, json={"product": "p", "version": "1"}).status == 201
    batch = client.post(f"{READS}/x/batches?stream=s&from=0&to=1")
    assert batch.header("ratelimit") == '"key-write";r=8;t=2'
    server.now_us += 1_000_000
    assert client.get(READS).status == 200


def test_an_address_has_a_rate_and_a_network_of_ipv6_is_one_address(make_server, tmp_path):
    server = make_server(Config(address_rate=0.3), folder=tmp_path)
    client = server.with_key(server.key("read"))
    addresses = ["2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8::4", "2001:db8:0:1::1"]
    assert [client.get(READS, environ={"REMOTE_ADDR": one}).status for one in addresses] == [200, 200, 200, 429, 200]


def test_programs_on_this_machine_are_not_counted_without_keys(make_server):
    server = make_server(Config(address_rate=0.1))
    answers = [server.get(READS) for _ in range(20)]
    assert {answer.status for answer in answers} == {200}
    assert answers[0].header("ratelimit") is None


def test_a_rate_of_zero_is_none(make_server, tmp_path):
    server = make_server(Config(address_rate=0, key_rate=0, wrong_keys_per_minute=0), folder=tmp_path)
    client = server.with_key(server.key("read"))
    assert client.get(READS).header("ratelimit") is None
    assert {client.get(READS, headers=bearer("x")).status for _ in range(100)} == {401}


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("192.0.2.1", None, "192.0.2.1"),
        ("192.0.2.1", "198.51.100.7", "192.0.2.1"),
        ("127.0.0.1", "198.51.100.7", "198.51.100.7"),
        ("127.0.0.1", "203.0.113.9, 198.51.100.7", "198.51.100.7"),
        ("::ffff:127.0.0.1", "2001:db8::1", "2001:db8::1"),
        ("127.0.0.1", "198.51.100.7, ::1, 127.0.0.1", "198.51.100.7"),
        ("127.0.0.1", "nonsense", "127.0.0.1"),
        ("127.0.0.1", "", "127.0.0.1"),
        ("::1", "[2001:db8::1]", "2001:db8::1"),
    ],
)
def test_the_client_of_a_trusted_proxy_is_whom_it_forwards_for(peer, forwarded, address):
    environ = {"REMOTE_ADDR": peer}
    if forwarded is not None:
        environ["HTTP_X_FORWARDED_FOR"] = forwarded
    assert client_address(environ, frozenset({"127.0.0.1", "::1"})) == address


def test_a_client_behind_a_trusted_proxy_locks_out_no_other(keyed):
    for number in range(100):
        keyed.get(READS, headers={**bearer(str(number)), "X-Forwarded-For": "192.0.2.1"})
    assert keyed.get(READS, headers={**bearer("x"), "X-Forwarded-For": "192.0.2.1"}).status == 429
    assert keyed.get(READS, headers={**bearer("x"), "X-Forwarded-For": "192.0.2.2"}).status == 401
