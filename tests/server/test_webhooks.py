"""Webhooks: the three forms, what came back, and what kind of failure may be tried again."""

import errno
import json
import socket

import pytest
from receiving import receiver

from datacat.server.alerts import Message
from datacat.server.rules import Webhook
from datacat.server.webhooks import outcome, reason, request_of, send

MESSAGE = Message("firing", "rate", "crash_free_rate", "editor <b>: 98 %", "a & b", "t0", "t1", {"started": 7})


def test_the_generic_form_is_the_whole_message():
    with receiver() as (url, seen):
        assert send(Webhook("x", url, headers={"Authorization": "Bearer t"}), MESSAGE) == (
            True,
            "HTTP 200: ok",
            False,
            None,
        )
    path, headers, body = seen[0]
    assert (path, headers["Content-Type"], headers["Authorization"]) == ("/hook", "application/json", "Bearer t")
    told = json.loads(body)
    assert told["status"] == "firing"
    assert told["values"] == {"started": 7}
    assert set(told) == set(Message.__struct_fields__)


def test_slacks_form_is_a_text_whose_markup_is_escaped():
    body, headers = request_of(Webhook("x", "https://x", "slack"), MESSAGE)
    assert json.loads(body) == {"text": "*[firing] editor &lt;b&gt;: 98 %*\na &amp; b"}
    assert headers["Content-Type"] == "application/json"


def test_ntfys_form_is_a_text_with_headers_of_ascii():
    message = Message("resolved", "rate", "hung_now", "Café\r\nX-Evil: 1 hängt", "Grüße", "t0", "t1")
    with receiver() as (url, seen):
        assert send(Webhook("x", url, "ntfy"), message).ok
    _, headers, body = seen[0]
    assert body.decode() == "Grüße"
    assert headers["Priority"] == "default"
    assert headers["Title"].startswith("=?UTF-8?B?")
    assert "X-Evil" not in headers


@pytest.mark.parametrize(
    ("status", "retry"), [(500, True), (503, True), (429, True), (408, True), (400, False), (404, False), (302, False)]
)
def test_what_may_work_later_is_tried_again(status, retry):
    with receiver(status, b"no\nway") as (url, _):
        assert send(Webhook("x", url), MESSAGE) == (False, f"HTTP {status}: no way", retry, None)


def test_a_redirect_is_not_followed():
    with receiver() as (target, seen), receiver(307, headers=[("Location", target)]) as (url, _):
        assert not send(Webhook("x", url), MESSAGE).ok
        assert seen == []


def test_how_long_to_wait_is_read():
    assert outcome(429, "", {"Retry-After": "17"}).retry_after_s == 17.0
    assert outcome(429, "", {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}).retry_after_s is None


def test_a_long_answer_is_read_in_part():
    with receiver(400, b"x" * 1_000_000) as (url, _):
        assert len(send(Webhook("x", url), MESSAGE).said) < 400


def test_nobody_there_is_said_without_the_address():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sent = send(Webhook("x", f"http://127.0.0.1:{sock.getsockname()[1]}/secret"), MESSAGE)
    assert (sent.ok, sent.retry, sent.said) == (False, True, "Connection refused")


def test_an_answer_that_does_not_come_is_given_up():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        sent = send(Webhook("x", f"http://127.0.0.1:{silent.getsockname()[1]}/secret"), MESSAGE, timeout_s=0.1)
    assert (sent.ok, sent.retry) == (False, True)
    assert "secret" not in sent.said


@pytest.mark.parametrize("number", [errno.ENETUNREACH, errno.EAFNOSUPPORT, errno.EPERM])
def test_without_a_way_out_the_sealed_unit_is_named(number):
    inner = OSError(number, "no")
    assert "sealed unit" in reason(ConnectionError("x", inner))
    assert "sealed unit" in reason(ConnectionError(socket.gaierror(-3, "Temporary failure in name resolution")))
