"""Memory goes back to the system where the C library can be told to."""

import subprocess
import sys

import pytest

_BURST = """
import sys, threading
from datacat.server import memory
told = memory.give_back()
import psutil
def burst():
    kept = [bytes(5000) for _ in range(20_000)]
    del kept
threads = [threading.Thread(target=burst) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(told, psutil.Process().memory_info().rss)
"""


def test_what_threads_took_is_given_back():
    told, size = subprocess.run(
        [sys.executable, "-c", _BURST], capture_output=True, text=True, check=True
    ).stdout.split()
    if told != "True":
        pytest.skip("capability: this C library has no mallopt")
    assert int(size) < 150e6  # they took 400 MB
