"""A kill at each point of the protocol that the code names: the next daemon loses nothing and repeats nothing."""

import json
import signal

import pytest
import requests
from daemon_helpers import Journal, now_us
from helpers import eventually

from datacat.daemon import quarantine
from datacat.host import faults
from datacat.wire import layout
from datacat.wire.records import Closing, Event, Metric, StatePatch

FAST = ("--batch-interval-seconds", "0.05", "--linger-seconds", "0.1")
STEPS = ("batch.cut", "batch.answered", "cursor.moved", "shipper.told")
DAEMON_POINTS = faults.POINTS[: faults.POINTS.index("ingest.read")]


def write(journal, count=300, segments=0, kinds=("event", "counter", "state")):
    n = 0
    while n < count or journal.number < segments:
        t = now_us()
        kind = kinds[n % len(kinds)]
        if kind == "event":
            journal.append(Event(t=t, name="tick", data={"n": n, "text": "x" * 200}))
        elif kind == "counter":
            journal.append(Metric(t=t, name="count", type="counter", value=1, tags=["x" * 100]))
        else:
            journal.append(StatePatch(t=t, patch={"n": n}))
        n += 1
    return n


def check(server, journal, n, kinds=("event", "counter", "state"), lost=0):
    """What the app logged is there once and in order; the ledger counts every line of the journal."""
    told = server.records(journal.id)
    assert [row["data"]["n"] for row in told if row["k"] == "event" and row["name"] == "tick"] == [
        number for number in range(n) if kinds[number % len(kinds)] == "event"
    ]
    counters = sum(row["value"] for row in told if row["k"] == "metric" and row["name"] == "count")
    gone = {}
    for row in told:
        for reason, count in row.get("counts", {}).items() if row["k"] == "dropped" else ():
            gone[reason] = gone.get(reason, 0) + count
    assert counters + gone.get("spool_full_metrics", 0) == sum(
        kinds[number % len(kinds)] == "counter" for number in range(n)
    )
    state = {}
    for row in told:
        state.update(row["patch"] if row["k"] == "state" else (row.get("state") or {}) if row["k"] == "gap" else {})
    if "state" in kinds:
        assert state["n"] == max(number for number in range(n) if kinds[number % len(kinds)] == "state")
    assert sum(gone.values()) == lost
    assert sum(row["k"] == "verdict" for row in told) == 1
    assert sum(stream["records"] for stream in server.ledgers[journal.id].values()) >= n + 2


def die(processes, spool, point, *arguments, nth=1, owner=None):
    """Run a daemon that must die at the point."""
    target = ("--owner", str(owner[0]), "--owner-start", str(owner[1])) if owner else ()
    daemon = processes.daemon(spool, *FAST, *target, *arguments, environ={"DATACAT_FAULT": f"crash:{point}:{nth}"})
    return daemon, lambda: eventually(lambda: daemon.poll() is not None, 30) and _was_killed(daemon)


def _was_killed(daemon):
    assert daemon.returncode == -signal.SIGKILL, daemon.stderr.read()
    return True


def finish(processes, spool, journal):
    """Let daemons of other processes come and go until nothing of the session waits."""

    def done():
        helper, start = processes.app("pass")
        helper.wait(10)
        daemon = processes.daemon(spool, *FAST, "--owner", str(helper.pid), "--owner-start", str(start))
        daemon.wait(30)
        return (journal.folder / layout.SUMMARY_FILE).exists()

    eventually(done, 40)


@pytest.mark.parametrize(
    ("point", "nth"), [*((point, nth) for point in STEPS for nth in (1, 2)), ("batch.answered", 3)]
)
def test_a_kill_at_each_step_of_shipping_costs_nothing(spool, processes, server, point, nth):
    app, start = processes.app()
    journal = Journal(spool, pid=app.pid, start=start, server_url=server.url)
    n = write(journal)
    daemon, died = die(processes, spool, point, "--max-batch-size", "100", nth=nth, owner=(app.pid, start))
    eventually(lambda: daemon.poll() is not None or server.records(journal.id, "event"))
    app.kill()
    app.wait()
    died()
    finish(processes, spool, journal)
    check(server, journal, n)


@pytest.mark.parametrize("point", ["verdict.judged", "verdict.written", "session.retired"])
def test_a_kill_around_the_verdict_gives_one_verdict(spool, processes, server, point):
    app, start = processes.app()
    journal = Journal(spool, pid=app.pid, start=start, server_url=server.url)
    n = write(journal, 30)
    _, died = die(processes, spool, point, owner=(app.pid, start))
    eventually(lambda: server.records(journal.id, "event"))
    app.kill()
    app.wait()
    died()
    finish(processes, spool, journal)
    check(server, journal, n)
    assert server.records(journal.id, "verdict")[0]["status"] == "crashed"


@pytest.mark.parametrize("point", ["stand_in.decided", "stand_in.saved"])
def test_a_kill_while_a_new_stream_takes_over_from_one_that_diverged(spool, processes, server, point, monkeypatch):
    app, start = processes.app()
    journal = Journal(spool, pid=app.pid, start=start, server_url=server.url)
    n = write(journal)
    batch = server._batch

    def diverge_once(session_id, query, body):
        if query["stream"] == ["app"] and int(query["from"][0]) > 0:
            monkeypatch.undo()
            return 409, {"acked": int(query["from"][0]), "reason": "diverged", "boot": server.boot}
        return batch(session_id, query, body)

    monkeypatch.setattr(server, "_batch", diverge_once)
    _, died = die(processes, spool, point, "--max-batch-size", "100", owner=(app.pid, start))
    died()
    app.kill()
    app.wait()
    finish(processes, spool, journal)
    check(server, journal, n)
    assert [row["reason"] for row in server.records(journal.id, "gap")] == ["diverged"][
        : 1 if point == "stand_in.saved" else 0
    ]


def test_a_kill_while_a_refused_record_is_set_aside(spool, processes, server, monkeypatch):
    answer = server._answer
    monkeypatch.setattr(
        server,
        "_answer",
        lambda method, path, query, body: (
            (422, {"detail": "not this one"}) if b"poison" in body else answer(method, path, query, body)
        ),
    )
    app, start = processes.app()
    journal = Journal(spool, pid=app.pid, start=start, server_url=server.url)
    journal.append(Event(t=now_us(), name="poison"))
    n = write(journal)
    _, died = die(processes, spool, "quarantine.written", owner=(app.pid, start))
    died()
    app.kill()
    app.wait()
    finish(processes, spool, journal)
    check(server, journal, n, lost=1)
    assert len(quarantine.entries(journal.folder)) == 1


def test_a_kill_between_the_checkpoint_and_the_segments_that_go(spool, processes, server):
    app, start = processes.app()
    journal = Journal(spool, pid=app.pid, start=start, server_url=server.url)
    n = write(journal, segments=80)  # more than the 4 MiB that stay
    _, died = die(processes, spool, "trim.saved", owner=(app.pid, start))
    died()
    app.kill()
    app.wait()
    finish(processes, spool, journal)
    check(server, journal, n)


def test_a_kill_while_a_segment_is_there_twice(spool, processes, server):
    app, start = processes.app()
    kinds = ("counter", "counter", "counter", "event", "state")
    # Nobody listens there, so that everything waits until the spool is too full.
    journal = Journal(spool, pid=app.pid, start=start, server_url="http://127.0.0.1:1")
    n = write(journal, segments=70, kinds=kinds)
    _, died = die(processes, spool, "squeeze.written", "--max-spool-bytes", str(4 << 20), owner=(app.pid, start))
    died()
    assert len(list((journal.folder / "app").glob("*.squeezed"))) == 1
    meta = json.loads((journal.folder / layout.META_FILE).read_text())
    (journal.folder / layout.META_FILE).write_text(json.dumps({**meta, "server_url": server.url}))
    app.kill()
    app.wait()
    finish(processes, spool, journal)
    told = server.records(journal.id, "dropped")
    check(server, journal, n, kinds, lost=sum(sum(row["counts"].values()) for row in told))


@pytest.mark.parametrize("point", ["session.made", "record.kept"])
def test_a_local_client_that_got_no_answer_asks_again(spool, processes, server, point, tmp_path):
    ports = tmp_path / "port"
    registered = "0190aaaa-0000-7000-8000-000000000001"

    def start(environ=None):
        ports.unlink(missing_ok=True)
        daemon = processes.daemon(spool, *FAST, "--port-file", str(ports), "--server-url", server.url, environ=environ)
        eventually(lambda: ports.exists() and ports.read_text().strip())
        return daemon, f"http://127.0.0.1:{ports.read_text().strip()}"

    def post(url, path, **body):
        with requests.Session() as http:
            http.trust_env = False
            return http.post(url + path, json=body, timeout=10).json()

    # The register itself passes record.kept once, for its open record.
    nth = 2 if point == "record.kept" else 1
    daemon, url = start({"DATACAT_FAULT": f"crash:{point}:{nth}"})
    if point == "record.kept":
        post(url, "/register", product="shop", version="1", id=registered)
    last = {
        "/event": {"session_id": registered, "name": "once"},
        "/register": {"product": "shop", "version": "1", "id": registered},
    }
    path = "/event" if point == "record.kept" else "/register"
    with pytest.raises(requests.RequestException):
        post(url, path, **last[path])
    assert daemon.wait(10) == -signal.SIGKILL
    daemon, url = start()
    assert post(url, "/register", product="shop", version="1", id=registered)["session_id"] == registered
    post(url, "/event", session_id=registered, name="later")
    post(url, "/end", session_id=registered)
    daemon.send_signal(signal.SIGTERM)
    daemon.wait(10)
    names = [row["name"] for row in server.records(registered, "event")]
    # Written before the kill, so it is there although nobody answered; the session was opened once.
    assert names == (["once", "later"] if point == "record.kept" else ["later"])
    assert len(server.records(registered, "open")) == 1


def test_every_point_that_is_named_is_tested_here():
    tested = {
        *STEPS, "verdict.judged", "verdict.written", "session.retired", "stand_in.decided", "stand_in.saved",
        "quarantine.written", "trim.saved", "squeeze.written", "session.made", "record.kept",
    }  # fmt: skip
    assert tested == set(DAEMON_POINTS)


def test_a_closing_app_whose_daemon_dies_is_judged_by_what_it_said(spool, processes, server):
    app, start = processes.app()
    journal = Journal(spool, pid=app.pid, start=start, server_url=server.url)
    n = write(journal, 30)
    journal.append(Closing(t=now_us(), exit_code=0))
    _, died = die(processes, spool, "verdict.judged", owner=(app.pid, start))
    eventually(lambda: server.records(journal.id, "event"))
    app.communicate()
    died()
    finish(processes, spool, journal)
    check(server, journal, n)
    assert server.records(journal.id, "verdict")[0]["status"] == "ended"
