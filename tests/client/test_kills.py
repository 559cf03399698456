"""Apps that are killed in the middle of a burst: every record whose call returned is in the journal, in order."""

import os
import random
import signal
import struct
import subprocess
import sys
import textwrap
import threading

import pytest
from client_helpers import app_environ, sessions, written
from helpers import eventually

BURST = """
import ctypes, mmap, os, signal, sys, threading
import datacat

# One store a number: pack_into would write zeros first, and a kill just then would leave them.
acks = memoryview(mmap.mmap(os.open(os.environ["ACKS"], os.O_RDWR), 4096)).cast("q")
session = datacat.create_session(product="burst", version="1", state_dir=os.environ["STATE"])

def work(number):
    i = 0
    while True:
        session.log_event("burst", message="m" * (i % 300), data={"thread": number, "i": i})
        i += 1
        acks[number] = i   # the call has returned

for number in range(1, int(os.environ["THREADS"])):
    threading.Thread(target=work, args=(number,), daemon=True).start()
work(0)
"""
SELF = """
import faulthandler

def end(kind):
    if kind == "segv":
        ctypes.string_at(0)
    elif kind == "abort":
        os.abort()
    else:
        os._exit(3)
def wait_and_end():
    pause = threading.Event()
    while not all(acks[:int(os.environ["THREADS"])]):     # on a busy machine threads start late
        pause.wait(0.001)
    pause.wait(float(os.environ["AFTER"]))
    end(os.environ["END"])
threading.Thread(target=wait_and_end, daemon=True).start()
"""


def burst(tmp_path, threads, end):
    """Run a burst of so many threads until it ends so; return (acknowledged calls of each thread, journal folder)."""
    acks = tmp_path / "acks"
    acks.write_bytes(bytes(4096))
    after_s = random.uniform(0.05, 0.3)
    environ = {"ACKS": str(acks), "THREADS": str(threads), "END": end, "AFTER": str(after_s)}
    head, tail = BURST.split("def work", 1)
    code = BURST if end == "kill" else f"{head}{SELF}\ndef work{tail}"
    app = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=app_environ(tmp_path / "state", environ),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        eventually(lambda: all(acknowledged(acks, threads)) or app.poll() is not None, 20)
        if end == "kill":
            threading.Event().wait(after_s)
            os.kill(app.pid, signal.SIGKILL)
        code = app.wait(20)
    finally:
        app.kill()
        app.wait()
    assert code == {"kill": -9, "segv": -11, "abort": -6, "exit": 3}[end]
    (folder,) = sessions(tmp_path / "state")
    return acknowledged(acks, threads), folder


def acknowledged(acks, threads):
    """How many calls of each thread have returned."""
    return struct.unpack_from(f"<{threads}q", acks.read_bytes())


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("end", ["kill", "segv", "abort", "exit"])
def test_every_record_whose_call_returned_is_in_the_journal_in_order(tmp_path, threads, end):
    counts, folder = burst(tmp_path, threads, end)
    assert all(counts)
    found = [record for record in written(folder) if getattr(record, "name", "") == "burst"]
    for number, count in enumerate(counts):
        mine = [record.data["i"] for record in found if record.data["thread"] == number]
        assert mine == list(range(len(mine)))
        assert count <= len(mine) <= count + 1  # one call may have been on its way


@pytest.mark.long
@pytest.mark.timeout(900)
def test_hundreds_of_kills_lose_nothing(tmp_path):
    rng = random.Random(200)
    for number in range(200):
        folder = tmp_path / str(number)
        folder.mkdir()
        test_every_record_whose_call_returned_is_in_the_journal_in_order(
            folder, rng.choice([1, 4]), rng.choice(["kill", "segv", "abort", "exit"])
        )


def test_a_crash_leaves_its_traceback_in_the_fault_file(tmp_path):
    _, folder = burst(tmp_path, 1, "segv")
    text = (folder / "fault").read_text()
    assert "Segmentation fault" in text
    assert "in end" in text
