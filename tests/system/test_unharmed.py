"""An app is never harmed by being watched: held and let go again and again, asked for stacks while its threads work."""

import os
import signal
import subprocess
import sys

import pytest
from helpers import eventually

from datacat import host
from datacat.host import condition
from datacat.wire import hangs, layout

LONG = os.environ.get("DATACAT_LONG") == "1"
HOLDS = 200 if LONG else 8
SIGNALS = 20_000 if LONG else 600

APP = """
import os, re, sys, threading, time
import datacat
folder, loop, stuck = sys.argv[1], None if sys.argv[2] == "own" else "thread", sys.argv[3]
session = datacat.create_session("http://127.0.0.1:9", product="busy", version="1", state_dir=folder,
                                 settings={"linger_seconds": 0, "daemon_port": 0})
wrong, done = [], [0]

def deep(n):
    # Frames come and go at a border of the interpreter's stack of frames: they are freed, not only left.
    return deep(n - 1) + 1 if n else 0

def gone(n):
    # Code that is gone after its call.
    made = {"deep": deep}
    exec(f"def call{n}(n):\\n    return deep(n)\\ndef fail{n}(n):\\n    return call{n}(n) // (n - n)", made)
    try:
        return made[f"fail{n}"](n)
    except ZeroDivisionError:
        return made[f"call{n}"](n)

def work(n):
    while True:
        for m in range(n, n + 60):
            if deep(m) != m or gone(m) != m:
                wrong.append(m)
        done[0] += 1

for n in (5, 40, 75, 110):
    threading.Thread(target=work, args=(n,), daemon=True).start()
session.start_heartbeat_monitor(timeout=float(sys.argv[4]), loop=loop)
print(os.getpid(), session.id, flush=True)
if stuck == "waits":
    sys.stdin.readline()
if stuck == "matches":
    re.match("(a+)+$", "a" * 60 + "b")
while stuck == "beats":
    session.heartbeat()
    time.sleep(0.02)
    if os.path.exists(folder + "/end"):
        break
print(len(wrong), "wrong", flush=True)
os._exit(7)
"""

pytestmark = pytest.mark.timeout(900 if LONG else 60)


class App:
    def __init__(self, folder, loop, stuck, timeout_s):
        environ = {name: value for name, value in os.environ.items() if not name.startswith("DATACAT_")}
        self.process = subprocess.Popen(
            [sys.executable, "-c", APP, str(folder), loop, stuck, str(timeout_s)],
            env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        pid, session = self.process.stdout.readline().split()
        self.pid, self.folder = int(pid), folder / layout.SPOOL_DIR / session

    def beat(self):
        return layout.unpack_beat((self.folder / layout.BEAT_FILE).read_bytes()).awake_ns


@pytest.fixture
def app(tmp_path):
    started = []

    def start(*args):
        started.append(App(tmp_path, *args))
        return started[-1]

    yield start
    for each in started:
        each.process.kill()
        each.process.communicate()


@pytest.mark.parametrize("loop", ["thread", "own"])
def test_an_app_that_is_held_and_goes_on_lives_and_counts_right(app, loop, tmp_path):
    it = app(loop, "beats", 0.3)
    for at in range(HOLDS):
        eventually(it.beat)
        os.kill(it.pid, signal.SIGSTOP)
        eventually(lambda: host.awake_ns() - it.beat() > 0.35e9)
        last = it.beat()
        os.kill(it.pid, signal.SIGCONT)
        eventually(lambda last=last: it.beat() > last or it.process.poll() is not None)
        assert it.process.poll() is None, f"died in round {at + 1}"
    (tmp_path / "end").touch()
    assert it.process.stdout.readline() == "0 wrong\n"
    assert it.process.wait(10) == 7


@pytest.mark.parametrize("stuck", ["waits", "matches"])
def test_an_app_that_is_asked_for_its_stacks_while_its_threads_work_lives_and_counts_right(app, stuck):
    it = app("own", stuck, 3600)
    file = it.folder / layout.STACKS_FILE
    handle = hangs.handle_of(file.read_text())
    start = host.process_start(it.pid)
    for at in range(SIGNALS):
        os.truncate(file, 0)
        eventually(lambda: condition.ask_for_stacks(it.pid, start, handle.signal, handle.fd, file), 10, 0)
        eventually(lambda: file.stat().st_size or it.process.poll() is not None, 10, 0)
        assert it.process.poll() is None, f"died at signal {at + 1}"
    if stuck == "waits":
        it.process.stdin.write("end\n")
        it.process.stdin.flush()
        assert it.process.stdout.readline() == "0 wrong\n"
        assert it.process.wait(10) == 7
