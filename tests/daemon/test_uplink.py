"""Requests to a server: what fails is told apart, waits grow, and a proxy never gets a request for this machine."""

import pytest

from datacat.daemon.transport import Trust
from datacat.daemon.uplink import Uplink, is_local, retry_after
from datacat.errors import UplinkError


@pytest.fixture
def uplink(server):
    made = Uplink(server.url, daemon_id="d1", trust=Trust("secret"))
    yield made
    made.close()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120.0),
        ("", None),
        ("soon", None),
        ("Tue, 14 Nov 2023 22:13:30 GMT", 10.0),
        ("Tue, 14 Nov 2000 22:13:30 GMT", 0.0),
    ],
)
def test_retry_after_is_a_number_or_a_date(text, seconds):
    assert retry_after(text, 1_700_000_000.0) == seconds


def test_only_loopback_is_local():
    assert all(map(is_local, ["http://localhost:8080", "http://127.0.0.1", "http://[::1]:1"]))
    assert not any(map(is_local, ["https://datacat.example", "http://127.0.0.1.example", "http://[bad"]))


def test_no_answer_is_an_error_that_may_pass(uplink, server):
    gone = Uplink("http://127.0.0.1:9")
    with pytest.raises(UplinkError) as caught:
        gone.get("/x")
    gone.close()
    assert (caught.value.status, caught.value.permanent) == (0, False)
    server.plan("/x", "lose")
    with pytest.raises(UplinkError):
        uplink.get("/x")


def test_an_error_carries_the_problem_and_what_was_asked_for(uplink, server):
    server.plan("/x", (429, {"detail": "slow down"}, {"Retry-After": "3"}))
    with pytest.raises(UplinkError) as caught:
        uplink.post("/x", {})
    error = caught.value
    assert (error.status, error.retry_after_s, error.body, error.permanent) == (
        429,
        3.0,
        {"detail": "slow down"},
        False,
    )


def test_the_key_is_sent_and_never_told(uplink, server):
    server.plan("/x", (401, {}, {}))
    with pytest.raises(UplinkError) as caught:
        uplink.get("/x")
    assert "secret" not in str(caught.value)
    assert server.requests[-1][2]["Authorization"] == "Bearer secret"


def test_a_redirect_is_not_followed(uplink, server):
    server.plan("/x", (302, {}, {"Location": "http://evil.example/"}))
    with pytest.raises(UplinkError):
        uplink.get("/x")


def test_a_proxy_in_the_environment_gets_no_local_request(uplink, server, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    server.plan("/x", (200, {"ok": 1}, {}))
    assert uplink.get("/x") == {"ok": 1}


def test_bodies_are_compressed_unless_told_otherwise(server):
    for compress in (True, False):
        uplink = Uplink(server.url, compress=compress)
        server.plan("/x", (200, {}, {}))
        uplink.post_batch("/x", b"line\n" * 100)
        uplink.close()
        assert server.requests[-1][3] == b"line\n" * 100
        assert ("Content-Encoding" in server.requests[-1][2]) == compress


def test_the_beginning_and_the_end_of_a_session_ask_to_pass_first(uplink, server):
    server.plan("/api/x", (200, {}, {}), (200, {}, {}))
    uplink.post_batch("/api/x", b"", urgent=True)
    uplink.post_batch("/api/x", b"")
    words = [headers["Datacat-Priority"] for _, _, headers, _ in server.requests]
    assert words == ["first", "normal"]
    first_header = next(name for name in server.requests[0][2] if name not in ("Host", "Accept-Encoding"))
    assert first_header == "Datacat-Priority"
