"""The job of alerts over a real store: numbers in, messages out, nothing lost over a restart."""

import json

import pytest

from datacat.errors import StoreError
from datacat.server import alerting
from datacat.server.alerting import FILE, Alerts
from datacat.server.audit import Audit
from datacat.server.config import Config, Live
from datacat.server.query.ground import Ground
from datacat.server.rules import Alerting, Rule, Webhook
from datacat.server.webhooks import Sent

MIN_US = 60_000_000
TEAM = Webhook("team", "https://hooks.example/secret")


class Watch:
    """Alerts on a server of the fixture, whose messages are gathered."""

    def __init__(self, server, folder, *rules, **more):
        self.server, self.sent, self.answer = server, [], Sent(True, "HTTP 200")
        self.live = Live(Config(alerting=Alerting(rules, (TEAM,))))
        self.audit = Audit(folder, lambda: server.now_us)
        self.make = lambda: Alerts(Ground(server.store), self.live, self.audit, folder, send=self.send, **more)
        self.alerts = self.make()

    def send(self, hook, message):
        self.sent.append(f"{message.status} {message.title}")
        return self.answer

    def step(self, after_us=30_000_000):
        """Let time pass; what was sent meanwhile."""
        self.server.now_us += after_us
        self.sent.clear()
        self.alerts.step(self.server.now_us)
        return list(self.sent)


@pytest.fixture
def watch(server, tmp_path):
    return lambda *rules, **more: Watch(server, tmp_path, *rules, **more)


def rule(kind, **more):
    return Rule(kind, kind, ("team",), **more)


def crash(server, session_id, *, line="in save"):
    server.post(
        f"/api/sessions/{session_id}/events",
        json={
            "name": "exception",
            "exception_type": "KeyError",
            "exception_msg": "x",
            "stacktrace": [f'  File "/app/editor/main.py", line 3, {line}'],
        },
    )
    assert server.post(f"/api/sessions/{session_id}/crash", json={"reason": "exception"}).status == 200


def test_a_new_crash_group_is_said_once(server, watch):
    watching = watch(rule("new_crash_group"))
    assert watching.step() == []
    crash(server, server.session())
    said = watching.step()
    assert len(said) == 1
    assert said[0].startswith("firing editor: a new crash: ")
    crash(server, server.session())
    assert watching.step() == []


def test_a_version_that_crashes_too_often_is_said_and_its_recovery_too(server, watch):
    watching = watch(rule("crash_free_rate", below=0.9, min_sessions=5, window_h=1))
    ids = [server.session() for _ in range(10)]
    for session_id in ids[:2]:
        crash(server, session_id)
    for session_id in ids[2:]:
        server.post(f"/api/sessions/{session_id}/end")
    assert watching.step() == ["firing editor 1.2: 80.00% without a crash"]
    assert watching.step() == []
    assert watching.step(61 * MIN_US) == ["resolved editor 1.2: 80.00% without a crash"]


def test_sessions_that_hang_are_said(server, watch):
    watching = watch(rule("hung_now"))
    session_id = server.session()
    body = (
        b'{"t":%d,"k":"open","product":"game","version":"1"}\n' % server.now_us
        + b'{"t":%d,"k":"verdict","status":"hung","by":"daemon"}\n' % server.now_us
    )
    path = "/api/sessions/00000000-0000-7000-8000-000000000000/batches"
    assert server.request("POST", f"{path}?stream=s&from=0&to={len(body)}", body=body).status == 200
    assert watching.step() == ["firing game: 1 sessions hang"]
    assert server.get_session(session_id)["status"] == "active"


def test_a_product_that_falls_silent_is_said_and_its_return_too(server, watch):
    watching = watch(rule("no_data", for_s=600))
    session_id = server.session()
    assert watching.step(10 * MIN_US) == []
    assert watching.step() == ["firing editor: no data"]
    server.post(f"/api/sessions/{session_id}/events", json={"name": "e"})
    assert watching.step() == []
    assert watching.step(3 * MIN_US) == ["resolved editor: no data"]


def test_trouble_of_store_and_disk_is_said(server, watch, monkeypatch):
    watching = watch(rule("store", free_mb=1))
    assert watching.step() == []

    def broken():
        raise StoreError("no space")

    monkeypatch.setattr(server.store, "check", broken)
    assert watching.step() == ["firing the store is in trouble"]
    monkeypatch.undo()
    monkeypatch.setattr(alerting.shutil, "disk_usage", lambda _path: type("Usage", (), {"free": 999_999}))
    assert watching.step(3 * MIN_US) == []
    monkeypatch.undo()
    assert watching.step(3 * MIN_US) == ["resolved the store is in trouble"]


def test_what_was_said_is_not_said_again_after_a_restart(server, watch):
    watching = watch(rule("no_data", for_s=60))
    server.session()
    assert watching.step(2 * MIN_US) == ["firing editor: no data"]
    watching.alerts = watching.make()
    assert watching.step(60 * MIN_US) == []
    server.session()
    watching.alerts = watching.make()
    assert watching.step(0) == ["resolved editor: no data"]


def test_a_message_that_nobody_takes_waits_over_a_restart_and_comes(server, watch, caplog):
    watching = watch(rule("no_data", for_s=60))
    watching.answer = Sent(False, "HTTP 503", retry=True)
    server.session()
    assert watching.step(2 * MIN_US) == ["firing editor: no data"]
    assert watching.step(5_000_000) == []
    assert watching.step(5_000_000) == ["firing editor: no data"]
    watching.alerts = watching.make()
    watching.answer = Sent(True, "HTTP 200")
    assert watching.step() == ["firing editor: no data"]
    assert watching.step(60 * MIN_US) == []
    assert caplog.text.count("the webhook team does not take messages: HTTP 503") == 1
    assert "secret" not in caplog.text


def test_a_message_that_is_refused_for_good_is_dropped_with_a_line(server, watch, caplog):
    watching = watch(rule("no_data", for_s=60))
    watching.answer = Sent(False, "HTTP 404")
    server.session()
    assert len(watching.step(2 * MIN_US)) == 1
    assert watching.step(60 * MIN_US) == []
    assert "did not take a message, which is dropped: HTTP 404" in caplog.text


def test_a_slow_webhook_does_not_keep_the_job_from_coming_back(server, watch):
    clock = iter(range(0, 10_000, 15))
    watching = watch(rule("no_data", for_s=60), clock=lambda: next(clock))
    for product in ("a", "b", "c", "d"):
        server.session(product=product)
    rounds = [watching.step(2 * MIN_US), watching.step(0), watching.step(0), watching.step(0)]
    assert len(rounds[0]) < 4
    assert sorted(one for said in rounds for one in said) == [f"firing {product}: no data" for product in "abcd"]


def test_under_the_sealed_unit_it_is_said_once_that_nothing_is_sent(server, watch, caplog):
    watching = watch(rule("no_data", for_s=60), is_sealed=True)
    server.session()
    assert watching.step(2 * MIN_US) == []
    server.session(product="other")
    assert watching.step(2 * MIN_US) == []
    assert caplog.text.count("no outgoing traffic (the sealed unit)") == 1
    assert "alert no_data is firing: editor: no data" in caplog.text


def test_the_file_is_written_when_something_changes_and_not_with_every_look(server, watch, tmp_path):
    watching = watch(rule("no_data", for_s=60))
    server.session()
    watching.step(2 * MIN_US)
    before = (tmp_path / FILE).stat()
    watching.step()
    assert (tmp_path / FILE).stat().st_ino == before.st_ino


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff"])
def test_a_broken_file_is_said_and_begun_anew(server, watch, tmp_path, content, caplog):
    (tmp_path / FILE).write_bytes(content)
    watching = watch(rule("no_data", for_s=60))
    assert "begin anew" in caplog.text
    server.session()
    assert watching.step(2 * MIN_US) == ["firing editor: no data"]
    assert json.loads((tmp_path / FILE).read_bytes())["version"] == 1


def test_without_rules_nothing_is_asked_and_nothing_written(server, watch, tmp_path):
    assert watch().step() == []
    assert not (tmp_path / FILE).exists()
