"""kill -9 of the server during ingest: after its restart every acknowledged batch is there, and apps lose nothing."""

import os
import random
import signal
import threading

import pytest
import requests
from system.box import event_numbers, eventually

from datacat.host import faults
from datacat.wire import lines
from datacat.wire.ids import uuid7
from datacat.wire.records import Event, Open
from datacat.wire.routes import batches_path

ROUNDS = 30 if os.environ.get("DATACAT_LONG") else 4


def ship(url, session_id, stop, acked):
    """Ship batches of ten events until told to stop or the server is gone; note each that was acknowledged."""
    http = requests.Session()
    http.trust_env = False
    offset = n = 0
    while not stop.is_set():
        records = [Open(1, "batches", "1.0")] if n == 0 else []
        records += [Event(n + i, "tick", data={"n": n + i}) for i in range(10)]
        body = b"".join(map(lines.encode, records))
        try:
            answer = http.post(
                url + batches_path(session_id, "s", offset, offset + len(body), 0, 0), data=body, timeout=10
            )
        except requests.RequestException:
            break
        assert answer.status_code == 200, answer.text
        offset += len(body)
        n += 10
        acked[session_id] = (offset, n)
    http.close()


@pytest.mark.timeout(600)
def test_every_acknowledged_batch_survives_kill_9_of_the_server(box):
    rng = random.Random(9)
    acked = {}
    for round_number in range(ROUNDS):
        stop = threading.Event()
        shippers = [
            threading.Thread(target=ship, args=(box.url, uuid7(round_number * 10 + k, rng.randbytes(10)), stop, acked))
            for k in range(4)
        ]
        for shipper in shippers:
            shipper.start()
        eventually(lambda wanted=4 * (round_number + 1): len(acked) >= wanted)
        stop.wait(rng.uniform(0.0, 0.5))
        box.stop_server(signal.SIGKILL)
        stop.set()
        for shipper in shippers:
            shipper.join()
        box.start_server()
        for session_id, (offset, n) in acked.items():
            stored = box.get(f"/api/sessions/{session_id}/acked")["streams"]["s"]
            assert stored >= offset
            numbers = event_numbers(box.get(f"/api/sessions/{session_id}", events="all"))
            assert numbers[:n] == list(range(n))
            assert numbers == list(range(len(numbers)))


@pytest.mark.timeout(300)
def test_an_app_loses_nothing_when_its_server_is_killed_again_and_again(box):
    code = (
        "import datacat, sys\n"
        "session = datacat.create_session(sys.argv[1], product=sys.argv[2], version='1.0')\n"
        "n = 0\nprint('up', flush=True)\n"
        "for line in sys.stdin:\n"
        "    for _ in range(500):\n        session.log_event('tick', data={'n': n}); n += 1\n"
        "    session.flush(0); print(n, flush=True)\n"
        "session.end()\n"
    )
    app = box.app(code, "stubborn", stdin=-1, stdout=-1)
    app.stdout.readline()
    rng = random.Random(5)
    for _ in range(ROUNDS):
        for _ in range(4):
            app.stdin.write(b"\n")
            app.stdin.flush()
            app.stdout.readline()
            threading.Event().wait(rng.uniform(0, 0.3))
        box.stop_server(signal.SIGKILL)
        box.start_server()
    app.communicate()

    session = box.ended("stubborn", 90)

    assert event_numbers(session) == list(range(ROUNDS * 2000))


@pytest.mark.parametrize("point", faults.POINTS[faults.POINTS.index("ingest.read") :])
@pytest.mark.timeout(120)
def test_a_kill_at_each_step_of_storing_a_batch_loses_and_repeats_nothing(bare_box, point):
    # Not at the start of the server, which syncs too: only once the file is there.
    armed = bare_box.folder / "armed"
    bare_box.env["DATACAT_FAULT"] = f"crash:{point}:1:{armed}"
    bare_box.start_server()
    del bare_box.env["DATACAT_FAULT"]
    code = (
        "import datacat, sys\n"
        "session = datacat.create_session(sys.argv[1], product='armed', version='1.0')\n"
        "n = 0\n"
        "for line in sys.stdin:\n"
        "    for _ in range(50):\n        session.log_event('tick', data={'n': n}); n += 1\n"
        "    session.flush(5); print(n, flush=True)\n"
        "session.end()\n"
    )
    app = bare_box.app(code, stdin=-1, stdout=-1)
    for turn in range(4):
        if turn == 1:
            armed.touch()
        app.stdin.write(b"\n")
        app.stdin.flush()
        if turn == 1:
            bare_box.server.wait(20)
            assert bare_box.server.returncode == -signal.SIGKILL
            assert not armed.exists()
            bare_box.start_server()
        app.stdout.readline()
    app.communicate()
    session = bare_box.ended("armed", 60)
    assert event_numbers(session) == list(range(200))
    assert session["counts"]["acknowledged"] == session["counts"]["written"]
