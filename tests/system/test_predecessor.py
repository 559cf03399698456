"""What the predecessor of this project got wrong does not happen here."""

import math

from system.box import event_numbers, eventually

OPEN = 'import datacat, sys\nsession = datacat.create_session(sys.argv[1], product=sys.argv[2], version="1.0")\n'
BURST = "for n in range(int(sys.argv[3])):\n    session.log_event('tick', data={'n': n})\n"


def test_an_app_that_ends_without_end_loses_nothing(box):
    box.run(OPEN + BURST, "quiet", 1000)

    assert event_numbers(box.ended("quiet")) == list(range(1000))


def test_a_burst_of_5000_events_and_end_at_once_stores_5000(box):
    box.run(OPEN + BURST + "session.end()", "burst", 5000)

    session = box.ended("burst")

    assert event_numbers(session) == list(range(5000))
    assert session["counts"]["events"] == 5000
    assert session["end_reason"] == "clean"


def test_a_server_that_is_away_loses_nothing_and_order_stays(box):
    code = OPEN + (
        "n = 0\nprint('up', flush=True)\n"
        "for line in sys.stdin:\n"
        "    for _ in range(100):\n        session.log_event('tick', data={'n': n}); n += 1\n"
        "    print('logged', flush=True)\n"
    )
    app = box.app(code, "away", stdin=-1, stdout=-1)
    app.stdout.readline()

    def log_more():
        app.stdin.write(b"\n")
        app.stdin.flush()
        app.stdout.readline()

    log_more()
    eventually(lambda: box.heads(product="away"))
    box.stop_server()
    for _ in range(5):
        log_more()
    box.start_server()
    log_more()
    app.communicate()

    assert event_numbers(box.ended("away", 60)) == list(range(700))


def test_a_session_born_offline_arrives_whole_when_the_server_comes(bare_box):
    box = bare_box.start_server()
    box.stop_server()
    box.run(OPEN + BURST + "session.end()", "offline", 2000)

    box.start_server()
    # The daemon of the app may have left with everything safe on disk; the next app's daemon adopts what it left.
    box.run(OPEN, "another")

    session = box.ended("offline", 60)
    assert event_numbers(session) == list(range(2000))
    assert session["end_reason"] == "clean"


def test_an_app_that_never_beats_is_not_called_hung(box):
    code = OPEN + "print('up', flush=True); sys.stdin.readline()"
    app = box.app(code, "beatless", stdin=-1, stdout=-1, env={"DATACAT_HEARTBEAT_TIMEOUT_SECONDS": "0.2"})
    app.stdout.readline()
    first = eventually(lambda: box.session("beatless"))
    # Two later batches (the daemon measures the process and ships it) prove that its monitors ran meanwhile.
    eventually(lambda: box.session("beatless")["counts"].get("metrics", 0) > first["counts"].get("metrics", 0), 40)
    app.communicate(b"\n")

    session = box.ended("beatless")

    assert not session["ever_hung"]
    assert not [event for event in session["events"] if event["name"] == "application_appears_hung"]


def test_events_of_the_daemon_carry_the_time_at_which_it_happened(box):
    code = OPEN + "import time; print(time.time(), flush=True); import os; os._exit(4)"
    app = box.app(code, "times", stdout=-1)
    died_at = float(app.communicate()[0])

    [crash] = [e for e in box.ended("times")["events"] if e["name"] == "parent_process_crashed"]

    from datacat.wire.times import to_us

    assert math.isclose(to_us(crash["timestamp"]) / 1e6, died_at, abs_tol=2)


def test_a_session_opened_just_as_the_last_one_ends_is_served(box):
    code = OPEN + (
        "for n in range(20):\n"
        "    session.log_event('tick', data={'n': n}); session.end()\n"
        "    session = datacat.create_session(sys.argv[1], product=sys.argv[2], version='1.0')\n"
        "session.end()\n"
    )
    box.run(code, "relay")

    eventually(lambda: len([h for h in box.heads(product="relay") if h["end_reason"] == "clean"]) == 21, 30)
    eventually(lambda: not box.daemons())


def test_names_with_a_colon_units_and_infinite_bounds_survive(box):
    code = OPEN + (
        "session.log_gauge('disk:/dev/sda:free', 12.5, unit='GiB', tags=['host:a:b'])\n"
        "session.log_counter('http:requests', 3); session.log_counter('http:requests', 4)\n"
        "for value in (0.1, 0.2, 99):\n"
        "    session.log_histogram('io:latency', value, unit='ms', buckets=[0.1, 1.0, float('inf')])\n"
        "session.log_event('ui:open:page', group='a:b')\nsession.end()\n"
    )
    box.run(code, "colons")
    box.ended("colons")

    session = box.session("colons", metrics="all")
    metrics = {metric["name"]: metric for metric in session["metrics"]}

    assert metrics["disk:/dev/sda:free"]["unit"] == "GiB"
    assert metrics["disk:/dev/sda:free"]["tags"] == ["host:a:b"]
    assert sum(m["delta"] for m in session["metrics"] if m["name"] == "http:requests") == 7
    assert [event["name"] for event in session["events"]] == ["ui:open:page"]
    infinite = [metric["metadata"]["buckets"][-1] for metric in session["metrics"] if metric["name"] == "io:latency"]
    assert {bucket["le"] for bucket in infinite} == {"+Inf"}
    assert sum(bucket["count"] for bucket in infinite) == 3
