"""The whole daemon as a real process, before real apps that end in real ways; only the server is a small one."""

import json
import signal
import socket
import time

import pytest
import requests
from daemon_helpers import Journal, now_us
from helpers import eventually

from datacat import host
from datacat.daemon.spool import Found, is_orphan, owner_lock
from datacat.host.process import Target
from datacat.wire.records import Close, Closing, Event, Metric, StatePatch

FAST = ("--batch-interval-seconds", "0.1", "--linger-seconds", "0.3")


@pytest.fixture
def watched(spool, server, processes):
    """Return start(code): an app, its journal, and the daemon that serves it."""

    def start(*code, flags=FAST, **meta):
        app, began = processes.app(*code)
        journal = Journal(spool, pid=app.pid, start=began, server_url=server.url, **meta)
        daemon = processes.daemon(spool, "--owner", str(app.pid), "--owner-start", str(began), *flags)
        eventually((journal.folder / "daemon").exists)
        return app, journal, daemon

    return start


def end_app(app, number=None):
    if number is None:
        app.stdin.close()
    else:
        app.send_signal(number)
    app.wait(10)


def verdict(server, journal):
    return eventually(
        lambda: [v for v in server.records(journal.id, "verdict") if v["status"] in ("ended", "crashed", "abnormal")]
    )[-1]


def test_everything_arrives_and_the_daemon_leaves_when_the_app_is_killed(watched, server):
    app, journal, daemon = watched()
    journal.append(*(Event(t=now_us(), name=f"step {number}") for number in range(5000)))
    journal.append(StatePatch(t=now_us(), patch={"window": {"title": "cart"}}))
    end_app(app, signal.SIGKILL)
    found = verdict(server, journal)
    assert (found["status"], found["reason"], found["exit_signal"], found.get("by", "daemon")) == (
        "crashed",
        "killed",
        9,
        "daemon",
    )
    steps = [e["name"] for e in server.records(journal.id, "event") if e["name"].startswith("step")]
    assert steps == [f"step {number}" for number in range(5000)]
    (crash,) = [e for e in server.records(journal.id, "event") if e["name"] == "parent_process_crashed"]
    assert crash["level"] == "critical"
    assert crash["data"]["signal_name"] == "SIGKILL"
    assert daemon.wait(10) == 0
    assert (journal.folder / "summary.json").exists()


@pytest.mark.parametrize(
    ("code", "records", "expected"),
    [
        ("raise SystemExit(0)", [], ("ended", "exit_zero", 0, None)),
        ("raise SystemExit(3)", [], ("crashed", "exit_code", 3, None)),
        ("import os; os._exit(7)", [], ("crashed", "exit_code", 7, None)),
        ("raise SystemExit(0)", [Closing(t=1)], ("ended", "exit_zero", 0, None)),
        (
            "raise SystemExit(1)",
            [Closing(t=1, exception_type="ValueError", exception_msg="no cart")],
            ("crashed", "exception", 1, None),
        ),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", [], ("ended", "terminated", None, 15)),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", [], ("crashed", "signal", None, 11)),
        ("raise SystemExit(0)", [Closing(t=1, exit_code=4, observed=True)], ("ended", "exit_zero", 0, None)),
    ],
)
def test_each_way_to_end_gets_its_verdict(watched, server, code, records, expected):
    app, journal, daemon = watched(f"import sys; sys.stdin.read(); {code}")
    journal.append(*records)
    end_app(app)
    found = verdict(server, journal)
    assert (found["status"], found.get("reason"), found.get("exit_code"), found.get("exit_signal")) == expected
    crashes = [e for e in server.records(journal.id, "event") if e["name"] == "parent_process_crashed"]
    assert len(crashes) == (expected[0] == "crashed")
    assert daemon.wait(10) == 0


def test_after_end_the_verdict_only_adds_the_exit_code(watched, server):
    app, journal, daemon = watched("import sys; sys.stdin.read(); raise SystemExit(5)", flags=("--linger-seconds", "5"))
    journal.append(Close(t=now_us()))
    journal.wake()
    eventually(lambda: server.records(journal.id, "close"))
    end_app(app)
    found = verdict(server, journal)
    assert (found["status"], found["reason"], found["exit_code"]) == ("ended", "clean", 5)
    assert daemon.wait(10) == 0


def test_a_session_that_the_app_ended_lets_the_daemon_leave_while_the_app_goes_on(watched, server):
    _, journal, daemon = watched()
    journal.append(Close(t=now_us()))
    journal.wake()
    assert daemon.wait(10) == 0
    assert server.records(journal.id, "close")


def test_a_session_made_while_the_daemon_is_leaving_is_served(watched, server, spool):
    app, first, daemon = watched(flags=("--batch-interval-seconds", "0.1", "--linger-seconds", "1"))
    first.append(Close(t=now_us()))
    first.wake()
    eventually(lambda: server.records(first.id, "close"))
    second = Journal(spool, pid=app.pid, start=first.meta.process_start, server_url=server.url)
    first.wake()
    eventually(lambda: server.records(second.id, "open"))
    end_app(app, signal.SIGKILL)
    assert verdict(server, second)["reason"] == "killed"
    assert daemon.wait(10) == 0


def test_a_second_daemon_of_the_same_process_leaves_at_once(watched, processes, spool):
    app, journal, _ = watched()
    second = processes.daemon(spool, "--owner", str(app.pid), "--owner-start", str(journal.meta.process_start))
    assert second.wait(10) == 0


def test_a_silent_app_is_called_hung_and_recovers_with_its_next_heartbeat(watched, server):
    app, journal, _ = watched()
    journal.beat(timeout_s=0.5)
    hung = eventually(lambda: [v for v in server.records(journal.id, "verdict") if v["status"] == "hung"])
    journal.beat(timeout_s=60)
    active = eventually(lambda: [v for v in server.records(journal.id, "verdict") if v["status"] == "active"])
    names = [e["name"] for e in server.records(journal.id, "event")]
    assert names == ["application_appears_hung", "application_recovered"]
    assert len(hung) == len(active) == 1
    assert 0.5 <= active[0]["hang_s"] < 10
    end_app(app)


def test_an_app_that_never_beats_is_not_judged_by_heartbeats(watched, server):
    app, journal, daemon = watched(flags=(*FAST, "--heartbeat-timeout-seconds", "0.1"))
    journal.append(Event(t=now_us(), name="alive"))
    eventually(lambda: server.records(journal.id, "event"))
    end_app(app)
    assert daemon.wait(10) == 0
    assert [e["name"] for e in server.records(journal.id, "event")] == ["alive"]


def test_a_stopped_app_is_suspended_and_not_hung(watched, server):
    app, journal, _ = watched()
    journal.beat(timeout_s=60)
    app.send_signal(signal.SIGSTOP)
    journal.beat(timeout_s=0.3)
    eventually(lambda: [v for v in server.records(journal.id, "verdict") if v["status"] == "suspended"])
    app.send_signal(signal.SIGCONT)
    journal.beat(timeout_s=60)
    eventually(lambda: [v for v in server.records(journal.id, "verdict") if v["status"] == "active"])
    names = [e["name"] for e in server.records(journal.id, "event")]
    assert names == ["application_suspended", "application_resumed"]
    end_app(app)


def test_an_app_that_is_killed_while_it_hangs_died_of_the_hang(watched, server):
    app, journal, _ = watched()
    journal.beat(timeout_s=0.3)
    eventually(lambda: [v for v in server.records(journal.id, "verdict") if v["status"] == "hung"])
    end_app(app, signal.SIGKILL)
    found = verdict(server, journal)
    assert (found["status"], found["reason"], found["exit_signal"]) == ("crashed", "hang", 9)
    assert found["hang_s"] >= 0.3


def test_a_session_born_offline_stays_on_disk_and_the_next_daemon_ships_it(spool, processes, server):
    app, began = processes.app()
    journal = Journal(spool, pid=app.pid, start=began, server_url="http://127.0.0.1:9")
    daemon = processes.daemon(spool, "--owner", str(app.pid), "--owner-start", str(began), *FAST)
    eventually((journal.folder / "daemon").exists)
    journal.append(Event(t=now_us(), name="offline"))
    end_app(app, signal.SIGKILL)
    assert daemon.wait(10) == 0
    assert not (journal.folder / "summary.json").exists()

    text = (journal.folder / "session.json").read_text().replace("http://127.0.0.1:9", server.url)
    (journal.folder / "session.json").write_text(text)
    by_hand = processes.daemon(spool)
    assert verdict(server, journal)["reason"] == "killed"
    assert [e["name"] for e in server.records(journal.id, "event")] == ["offline", "parent_process_crashed"]
    by_hand.send_signal(signal.SIGTERM)
    started = time.monotonic()
    assert by_hand.wait(10) == 0
    assert time.monotonic() - started < 5
    assert (journal.folder / "summary.json").exists()


def test_an_orphan_that_nobody_saw_end_is_judged_by_what_it_left(spool, processes, server):
    long_ago = now_us() - 60_000_000
    closing = Journal(spool, pid=2**22 + 1, start=1, server_url=server.url, created_us=long_ago)
    closing.append(Closing(t=now_us()))
    rebooted = Journal(spool, pid=1, start=1, server_url=server.url, created_us=long_ago, boot_id="another boot")
    silent = Journal(spool, pid=2**22 + 2, start=1, server_url=server.url, created_us=long_ago)
    silent.append(Event(t=1_700_000_000_000_000, name="last words"))
    fatal = Journal(spool, pid=2**22 + 3, start=1, server_url=server.url, created_us=long_ago)
    (fatal.folder / "fault").write_text(
        "Fatal Python error: Segmentation fault\n\nCurrent thread 0x01 (most recent call first):\n"
        '  File "cart.py", line 7 in pay\n  File "cart.py", line 9 in <module>\n'
    )
    processes.daemon(spool)
    assert verdict(server, closing)["reason"] == "closed"
    found = verdict(server, rebooted)
    assert (found["status"], found["reason"]) == ("abnormal", "power")
    assert verdict(server, silent)["reason"] == "unknown"
    found = verdict(server, fatal)
    assert (found["reason"], found["exit_signal"]) == ("signal", signal.SIGSEGV)
    (crash,) = [e for e in server.records(fatal.id, "event") if e["name"] == "parent_process_crashed"]
    assert crash["stacktrace"] == ['  File "cart.py", line 9, in <module>', '  File "cart.py", line 7, in pay']


def test_a_session_whose_own_daemon_is_still_starting_is_left_to_it(spool):
    young = Journal(spool, pid=2**22 + 1, start=1)
    found = Found(young.folder, young.meta)
    now_s = now_us() / 1e6

    def orphan(at_s):
        return is_orphan(found, host.boot_id(), host.pid_namespace(), at_s)

    assert not orphan(now_s)
    assert orphan(now_s + 60)
    with host.lock(owner_lock(spool, Target(2**22 + 1, 1))):
        assert not orphan(now_s + 60)
    assert orphan(now_s)  # its daemon was there and is gone


def test_told_to_stop_together_with_its_app_it_waits_for_the_apps_end(watched, server):
    app, journal, daemon = watched()
    daemon.send_signal(signal.SIGTERM)
    eventually(lambda: [e for e in server.records(journal.id, "event") if e["name"] == "daemon_told_to_stop"])
    assert daemon.poll() is None
    end_app(app)
    assert verdict(server, journal)["reason"] == "exit_zero"
    assert daemon.wait(10) == 0


def test_signals_of_the_terminal_do_not_end_the_daemon_of_an_app(watched, server):
    app, journal, daemon = watched()
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        daemon.send_signal(number)
    journal.append(Event(t=now_us(), name="still here"))
    eventually(lambda: server.records(journal.id, "event"))
    assert daemon.poll() is None
    end_app(app)
    assert daemon.wait(10) == 0


def test_what_the_client_dropped_is_told_once(watched, server):
    app, journal, _ = watched()
    journal.drop({"disk_full": 3})
    eventually(lambda: server.records(journal.id, "dropped"))
    journal.drop({"disk_full": 5, "too_large": 1})
    eventually(lambda: len(server.records(journal.id, "dropped")) == 2)
    end_app(app)
    verdict(server, journal)
    counts = [d["counts"] for d in server.records(journal.id, "dropped")]
    assert counts == [{"disk_full": 3}, {"disk_full": 2, "too_large": 1}]


def test_a_daemon_that_is_killed_is_followed_by_one_that_loses_and_repeats_nothing(watched, server, spool, processes):
    app, journal, daemon = watched()
    journal.append(*(Event(t=now_us(), name=f"a{number}") for number in range(100)))
    eventually(lambda: server.records(journal.id, "event"))
    daemon.kill()
    daemon.wait()
    journal.append(*(Event(t=now_us(), name=f"b{number}") for number in range(100)))
    processes.daemon(spool, "--owner", str(app.pid), "--owner-start", str(journal.meta.process_start), *FAST)
    eventually(lambda: len(server.records(journal.id, "event")) >= 200)
    end_app(app)
    assert verdict(server, journal)["reason"] == "exit_zero"
    names = [e["name"] for e in server.records(journal.id, "event")]
    assert names == [f"a{number}" for number in range(100)] + [f"b{number}" for number in range(100)]


def test_what_the_process_uses_is_recorded_unless_it_is_switched_off(watched, server):
    app, journal, _ = watched(settings={"process_metrics_interval_seconds": 0.1})
    eventually(lambda: "process.cpu.time" in {m["name"] for m in server.records(journal.id, "metric")})
    metrics = server.records(journal.id, "metric")
    assert {m["name"]: m.get("unit") for m in metrics} == {
        "process.cpu.time": "s",
        "process.cpu.utilization": "1",
        "process.disk.io": "By",
        "process.memory.usage": "By",
        "process.open_file_descriptor.count": "{file_descriptor}",
        "process.thread.count": "{thread}",
    }
    tags = {(m["name"], *m["tags"]) for m in metrics if m.get("tags")}
    assert tags == {
        ("process.cpu.time", "user"),
        ("process.cpu.time", "system"),
        ("process.disk.io", "read"),
        ("process.disk.io", "write"),
    }
    end_app(app)
    app, quiet, _ = watched(settings={"process_metrics": False})
    quiet.append(Metric(t=now_us(), name="own", value=1))
    eventually(lambda: server.records(quiet.id, "metric"))
    end_app(app)
    verdict(server, quiet)
    assert {m["name"] for m in server.records(quiet.id, "metric")} == {"own"}


class Local:
    """A daemon started by hand, as a client of its local endpoints sees it."""

    def __init__(self, spool, processes, server_url, *flags):
        port_file = spool / "port"
        port_file.unlink(missing_ok=True)
        flags = ("--server-url", server_url, "--batch-interval-seconds", "0.1", "--port-file", str(port_file), *flags)
        self.process = processes.daemon(spool, *flags)
        self.port = int(eventually(lambda: port_file.exists() and port_file.read_text()))

    def post(self, path, **members):
        answer = requests.post(f"http://127.0.0.1:{self.port}{path}", json=members, timeout=20)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def get(self, path):
        return requests.get(f"http://127.0.0.1:{self.port}{path}", timeout=20).json()


def test_a_local_client_works_while_the_server_is_away_and_nothing_is_lost(spool, processes, server):
    local = Local(spool, processes, "http://127.0.0.1:9")
    name = local.post("/register", product="shop", version="1")["session_id"]
    local.post("/event", session_id=name, name="offline")
    own = local.get(f"/session?session_id={name}")
    assert [event["name"] for event in own["events"]] == ["offline"]
    assert [head["id"] for head in local.get("/sessions")["sessions"]] == [name]
    health = local.get("/health")
    assert health["unacked"] > 0
    assert health["server_reached"] is False
    assert local.post("/end", session_id=name, timeout_s=0.2) == {"status": "ok", "flushed": False}
    local.process.send_signal(signal.SIGTERM)
    assert local.process.wait(10) == 0

    later = Local(spool, processes, server.url)
    eventually(lambda: server.records(name, "close"))
    assert [event["name"] for event in server.records(name, "event")] == ["offline"]
    later.process.send_signal(signal.SIGTERM)
    assert later.process.wait(10) == 0


def test_a_local_client_goes_on_with_its_session_after_the_daemon_was_killed(spool, processes, server):
    first = Local(spool, processes, server.url)
    name = first.post("/register", product="shop", version="1")["session_id"]
    first.post("/event", session_id=name, name="before")
    eventually(lambda: server.records(name, "event"))
    first.process.kill()
    first.process.wait()
    second = Local(spool, processes, server.url)
    second.post("/event", session_id=name, name="after")
    second.post("/end", session_id=name)
    assert [event["name"] for event in server.records(name, "event")] == ["before", "after"]
    assert server.records(name, "verdict") == []


def test_a_local_client_that_stops_beating_is_hung_unless_it_paused(spool, processes, server):
    local = Local(spool, processes, server.url, "--heartbeat-timeout-seconds", "0.4")
    paused = local.post("/register", product="shop", version="1")["session_id"]
    name = local.post("/register", product="shop", version="1")["session_id"]
    for one in (paused, name):
        local.post("/heartbeat", session_id=one)
    local.post("/pause_heartbeat", session_id=paused)
    eventually(lambda: [v for v in server.records(name, "verdict") if v["status"] == "hung"])
    local.post("/heartbeat", session_id=name)
    eventually(lambda: [v for v in server.records(name, "verdict") if v["status"] == "active"])
    assert server.records(paused, "verdict") == []
    local.post("/resume_heartbeat", session_id=paused)
    eventually(lambda: [v for v in server.records(paused, "verdict") if v["status"] == "hung"])


def test_two_apps_at_once_have_two_daemons_with_two_ports(watched, server):
    (app, one, _), (other, two, _) = watched(), watched()
    ports = {json.loads((journal.folder / "daemon").read_text())["port"] for journal in (one, two)}
    assert len(ports) == 2
    for each in (app, other):
        end_app(each, signal.SIGKILL)
    assert verdict(server, one)["reason"] == verdict(server, two)["reason"] == "killed"


def test_a_server_that_does_not_answer_never_keeps_the_daemon_from_leaving(spool, processes):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        app, began = processes.app()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        journal = Journal(spool, pid=app.pid, start=began, server_url=url)
        daemon = processes.daemon(spool, "--owner", str(app.pid), "--owner-start", str(began), *FAST)
        eventually((journal.folder / "daemon").exists)
        started = time.monotonic()
        end_app(app, signal.SIGKILL)
        assert daemon.wait(15) == 0
        assert time.monotonic() - started < 10
        assert not (journal.folder / "summary.json").exists()


def test_the_stacks_of_a_hang_come_with_its_event(watched, server):
    app, journal, _ = watched(flags=(*FAST, "--py-spy", "false"))
    journal.beat(timeout_s=0.3)
    (journal.folder / "stacks").write_text(
        'Thread 0x01 (most recent call first):\n  File "cart.py", line 3 in wait\n  File "cart.py", line 9 in <module>\n'
    )
    (event,) = eventually(lambda: server.records(journal.id, "event"))
    assert event["stacktrace"] == ['  File "cart.py", line 9, in <module>', '  File "cart.py", line 3, in wait']
    assert event["data"]["threads"][0]["id"] == "01"
    end_app(app)
