"""A server that is killed, or whose disk is full, while it writes, merges, moves and deletes loses nothing that was told."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from storing import sid, stored

from datacat.errors import Deleted
from datacat.store.semi import SemiStore

TESTS = str(Path(__file__).parent.parent)

WRITER = """
import os, random, sys, threading
from pathlib import Path
from datacat.store import chunks, merging
from datacat.store.semi import SemiStore
from datacat.wire.records import Close, Event
from storing import opened, put, sid

chunks.FAN = merging.FAN = 8
merging.TARGET_BYTES = 20_000
store = SemiStore(Path(sys.argv[1]), segment_bytes=1 << 15, quiet_s=0.0)
first = int(sys.argv[2])

def tell(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def write(writer):
    for life in range(10_000):
        number = 100_000 * first + 1000 * writer + life
        put(store, sid(number), opened(t=1))
        tell(number, -1)
        for n in range(random.randrange(40)):
            put(store, sid(number), Event(t=10 + n, name=f"e{n}", message=random.randbytes(random.randrange(600)).hex()))
            tell(number, n)
        put(store, sid(number), Close(t=99))
        if random.randrange(3) == 0:
            tell(number, "dropping")
            store.drop(sid(number), at_once=random.randrange(2) == 0)
            tell(number, "dropped")

def tend():
    while True:
        store.tend(0.005)

for writer in range(2):
    threading.Thread(target=write, args=(writer,)).start()
threading.Thread(target=tend).start()
"""


def program(code, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": TESTS},
    )


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("rounds", [6, pytest.param(300, marks=pytest.mark.long)])
def test_killed_at_any_moment_it_loses_nothing_and_invents_nothing(tmp_path, rounds):
    root = tmp_path / "store"
    noise = random.Random(rounds)
    told = {}
    merged = 0
    for attempt in range(rounds):
        writer = program(WRITER, root, attempt)
        try:
            lines = [writer.stdout.readline() for _ in range(noise.randrange(1, 400))]
        finally:
            writer.send_signal(signal.SIGKILL)
            writer.wait()
        lines += writer.stdout.read().splitlines()
        writer.stdout.close()
        for line in lines:
            if len(words := line.split()) == 2:
                told[int(words[0])] = words[1].decode()
        with_hints = bool(noise.randrange(2))
        if not with_hints:
            for path in root.glob("hints/*"):
                path.unlink()
        store = SemiStore(root, quiet_s=0.0)
        try:
            assert store.stats()["damaged_regions"] == 0
            for number, last in told.items():
                verify(store, number, last)
            merged += sum(1 for path in root.glob("segments/*-merged/data"))
        finally:
            store.close()
        if attempt % 20 == 19:  # what was verified goes, so that a round stays quick
            told = {number: last for number, last in told.items() if number >= 100_000 * (attempt - 2)}
    assert merged > rounds // 2


def verify(store, number, last):
    try:
        rows = stored(store, sid(number), kinds=("event",))
    except Deleted:
        assert last in ("dropping", "dropped")
        return
    assert last != "dropped"
    names = [row["name"] for row in rows]
    assert names == [f"e{n}" for n in range(len(names))]
    assert store.head(sid(number)).counts.get("events", 0) == len(names)
    if last != "dropping":
        assert len(names) > int(last)


FILLER = """
import random, resource, signal, sys
from pathlib import Path
from datacat.errors import StoreError
from datacat.store.semi import SemiStore
from datacat.wire.records import Close, Event
from storing import everything, opened, put, sid

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = SemiStore(Path(sys.argv[1]), quiet_s=0.0)
for number in range(20):
    put(store, sid(number), opened(t=1))
    for n in range(5):
        put(store, sid(number), Event(t=10 + n, name=f"e{n}", message=random.randbytes(400).hex()))
    put(store, sid(number), Close(t=99))
before = everything(store)
limit(20_000)
refused = 0
for _ in range(5):
    try:
        while store.tend(10.0):
            pass
    except StoreError as error:
        assert "free some disk space" in str(error), error
        refused += 1
    assert everything(store) == before
    limit(25_000)
assert refused, "the limit was never reached"
limit(resource.RLIM_INFINITY)
store.check()
while store.tend(10.0):
    pass
assert store.stats()["chunks"] == 20
assert everything(store) == before
store.close()
store = SemiStore(Path(sys.argv[1]))
assert everything(store) == before
assert store.stats()["damaged_regions"] == 0
store.close()
"""


def test_a_disk_that_is_full_while_it_merges_costs_nothing_and_merging_goes_on_when_there_is_room(tmp_path):
    pytest.importorskip("resource", reason="capability: no resource limits here")
    filler = program(FILLER, tmp_path / "store")
    filler.communicate(timeout=50)
    assert filler.returncode == 0
