"""After an outage every daemon comes at once: the server stays responsive, bounded, and gets everything."""

import collections
import json
import os
import random
import sys
import threading
import time

import pytest
import zstandard
from target import SESSION, T, Target, post, received

from datacat.wire import lines
from datacat.wire.records import Event, Open

BATCHES = 8
EVENTS = 300


class Driver(threading.Thread):
    """Ships the backlog of one session as a daemon does: in order, again after what it is told to wait."""

    def __init__(self, target, number, answers):
        super().__init__()
        self.session_id = SESSION[:-6] + f"{number + 0x100:04x}"
        self.target = target
        self.answers = answers
        self.pause = threading.Event()
        chance = random.Random(number)
        self.bodies = []
        for batch in range(BATCHES):
            records = [
                Event(T + batch * 1000 + n, f"event{n % 7}", message=chance.randbytes(40).hex()) for n in range(EVENTS)
            ]
            if batch == 0:
                records.insert(0, Open(T, "editor", "1.2"))
            plain = b"".join(map(lines.encode, records))
            self.bodies.append((zstandard.compress(plain), len(plain)))

    def run(self):
        offset = 0
        sock = self.target.connect(60)
        for body, size in self.bodies:
            while True:
                try:
                    sock.sendall(
                        post(self.session_id, body, b"Content-Encoding: zstd\r\n", start=offset, end=offset + size)
                    )
                    answer = received(sock)
                except ConnectionError:
                    answer = b""
                status = int(answer.split()[1]) if answer else 0
                self.answers[status] += 1
                if status == 200:
                    break
                if status not in (0, 503):
                    return
                if b"Connection: close" in answer or not answer:
                    sock.close()
                    sock = self.target.connect(60)
                found = answer.partition(b"Retry-After: ")[2].partition(b"\r\n")[0]
                self.pause.wait(int(found or 1) * random.uniform(0.5, 1))
            offset += size
        sock.close()
        self.acked = offset


def come_at_once(tmp_path, count):
    target = Target(tmp_path)
    answers = collections.Counter()
    try:
        drivers = [Driver(target, number, answers) for number in range(count)]
        began = time.monotonic()
        with target.attacked(f"{count} daemons with {BATCHES} batches each after an outage"):
            for driver in drivers:
                driver.start()
            for driver in drivers:
                while driver.is_alive():
                    driver.join(0.2)
                    target.look()
        spent_s = time.monotonic() - began
        sys.stdout.write(f"{count * BATCHES * EVENTS / spent_s:,.0f} events/s, answers {dict(answers)}\n")
        assert answers[200] == count * BATCHES
        for driver in drivers:
            told = target.talk(
                f"GET /api/sessions/{driver.session_id}?events=0 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
            )
            session = json.loads(told.partition(b"\r\n\r\n")[2])
            assert session["streams"] == {"s": driver.acked}
            assert session["counts"]["events"] == BATCHES * EVENTS
    finally:
        target.process.terminate()
        assert target.process.wait(30) == 0


def test_daemons_that_come_at_once_lose_nothing_and_keep_no_reader_waiting(tmp_path):
    come_at_once(tmp_path, 40)


@pytest.mark.long
def test_two_hundred_daemons_that_come_at_once_lose_nothing_and_keep_no_reader_waiting(tmp_path):
    come_at_once(tmp_path, 200)


def stalling(folder):
    """Return the environment of a server whose store stops working while a file is there, and that file."""
    trigger = folder / "stall"
    return {**os.environ, "DATACAT_FAULT": f"store:{trigger}"}, trigger


def test_a_store_that_stands_still_is_told_at_once_and_reads_go_on(tmp_path):
    environ, trigger = stalling(tmp_path)
    target = Target(tmp_path, environ)
    try:
        sessions = [SESSION % (0x20 + number) for number in range(30)]
        for number, session_id in enumerate(sessions):
            body = lines.encode(Open(T + number, "editor", "1"))
            assert target.talk(post(session_id, body)).startswith(b"HTTP/1.1 200")
        trigger.touch()
        held = []
        body = b"".join(lines.encode(Event(T + n, "e")) for n in range(300))
        for session_id in sessions[:12]:
            sock = target.connect()
            sock.sendall(post(session_id, body, start=100, end=200))
            held.append(sock)
        with target.attacked("a store that stands still"):
            # They wait for the store. As soon as that is known to be behind, whoever comes is told so at once.
            late = target.connect(1)
            late.sendall(post(sessions[20], body, start=100, end=200))
            held.append(late)
            assert received(late) == b""
            for session_id in sessions[21:]:
                began = time.monotonic()
                answer = target.talk(post(session_id, body, start=100, end=200))
                assert answer.startswith(b"HTTP/1.1 503"), answer
                assert b"Retry-After: " in answer
                assert time.monotonic() - began < 1
        for sock in held:
            sock.close()
    finally:
        target.process.kill()  # what stands still cannot end
        target.process.wait(30)
