"""Memory goes back to the system where the C library can be told to."""

import os
import subprocess
import sys

import pytest

_BURSTS = """
import sys, threading
from datacat.server import memory
told = memory.give_back() if sys.argv[1] == "told" else True
import psutil
all_live, turn, kept = threading.Barrier(8), threading.Lock(), []
def burst():
    all_live.wait()  # a thread that ends leaves its arena to the next one
    with turn:
        taken = [bytes(5000) for _ in range(5000)]
        kept.append(taken.pop())  # above all that is free then, so that it cannot be cut off
        del taken
before = psutil.Process().memory_info().rss
threads = [threading.Thread(target=burst) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(told, psutil.Process().memory_info().rss - before)
"""


def kept_bytes(way):
    """Return how much a process keeps after eight threads took and freed 25 MB each, one after the other."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    done = subprocess.run(
        [sys.executable, "-c", _BURSTS, way], env=environ, capture_output=True, text=True, check=True, timeout=60
    )
    told, size = done.stdout.split()
    if told != "True":
        pytest.skip("capability: this C library has no mallopt")
    return int(size)


def test_what_one_thread_freed_is_taken_by_the_next_instead_of_more_memory():
    assert kept_bytes("told") < kept_bytes("not told") / 2
