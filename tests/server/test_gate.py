"""Who may come in: loopback, Host, Origin, forwarded requests."""

import pytest

from datacat.server.config import Config

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
