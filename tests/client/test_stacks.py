"""The stacks that an app writes about itself: by its thread, by a signal; and what they leave alone."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from client_helpers import app_environ, run_app, sessions
from helpers import eventually

import datacat
from datacat.client import stacks
from datacat.wire import hangs, layout

START = """
import ctypes, os, signal, sys, threading, time
import datacat
session = datacat.create_session(
    product="p", version="1", state_dir=os.environ["STATE"], settings={"hang_stacks": os.environ.get("WAY", "auto")}
)
"""


def stacks_of(state_dir):
    (folder,) = sessions(state_dir)
    return (folder / layout.STACKS_FILE).read_text()


@pytest.fixture
def app(tmp_path):
    """Start an app that goes on until it is killed; it says when it is there."""
    started = []

    def start(code, **environ):
        code = START + textwrap.dedent(code)
        process = subprocess.Popen(
            [sys.executable, "-c", code], env=app_environ(tmp_path, environ), stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout.readline() == "there\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    "wait",
    ["while True: pass", "time.sleep(60)", "threading.Lock().acquire() and ctypes.PyDLL(None).usleep(20000000)"],
)
def test_the_signal_of_the_first_line_makes_an_app_write_its_stacks(app, tmp_path, wait):
    process = app(f"def stuck():\n    print('there', flush=True)\n    {wait}\nstuck()")
    handle = hangs.handle_of(stacks_of(tmp_path))
    assert handle.signal == signal.SIGURG
    assert handle.fd >= 900
    os.kill(process.pid, handle.signal)
    text = eventually(lambda: (text := stacks_of(tmp_path)) and "in stuck" in text and text)
    assert hangs.handle_of(text) == handle
    assert process.poll() is None


def test_a_handler_of_the_apps_own_still_runs(app, tmp_path):
    process = app(
        """
        session.end()
        signal.signal(signal.SIGURG, lambda *_: print("mine", flush=True))
        session = datacat.create_session(product="p", version="1", state_dir=os.environ["STATE"])
        print("there", flush=True)
        while True: time.sleep(0.01)
        """
    )
    os.kill(process.pid, signal.SIGURG)
    assert process.stdout.readline() == "mine\n"
    assert any("most recent call first" in (folder / "stacks").read_text() for folder in sessions(tmp_path))


def test_switched_off_there_is_no_file_and_no_handler(app, tmp_path):
    process = app("session.start_heartbeat_monitor(timeout=0.2)\nprint('there', flush=True)\ntime.sleep(60)", WAY="off")
    (folder,) = sessions(tmp_path)
    assert not (folder / layout.STACKS_FILE).exists()
    status = Path(f"/proc/{process.pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
    assert not int(caught.split()[1], 16) >> (signal.SIGURG - 1) & 1


def test_the_signal_writes_the_stack_of_the_main_thread_alone_and_the_name_of_it_is_there(app, tmp_path):
    process = app(
        """
        def other(): time.sleep(60)
        threading.Thread(target=other, daemon=True).start()
        def stuck():
            print("there", flush=True)
            time.sleep(60)
        stuck()
        """
    )
    os.kill(process.pid, signal.SIGURG)
    text = eventually(lambda: (text := stacks_of(tmp_path)) and "in <module>" in text and text)
    assert "in other" not in text
    assert [line.split()[3] for line in text.splitlines() if line.startswith("# thread")] == ["MainThread"]


def test_an_app_that_beats_itself_writes_the_stacks_of_all_threads_when_it_has_asked_to_be_watched(app, tmp_path):
    app(
        """
        def other(): time.sleep(60)
        threading.Thread(target=other, daemon=True).start()
        session.start_heartbeat_monitor(timeout=1, loop=None)
        def stuck():
            print("there", flush=True)
            time.sleep(60)
        stuck()
        """,
        WAY="thread",
    )
    text = eventually(lambda: (text := stacks_of(tmp_path)) and text.count("in <module>") == 3 and text)
    assert text.count("in other") == text.count("in stuck") == text.count(hangs.AT_LINE) == 3
    assert hangs.handle_of(text) is None


def test_an_app_that_only_beats_has_no_thread_of_ours_nor_one_that_wants_no_stacks(tmp_path):
    count = "print(len(os.listdir('/proc/self/task')), threading.active_count())"
    app = run_app(START + "session.heartbeat()\n" + count, tmp_path)
    assert app.stdout == "1 1\n", app.stderr
    app = run_app(START + "session.start_heartbeat_monitor(loop=None)\n" + count, tmp_path, environ={"WAY": "off"})
    assert app.stdout == "1 1\n", app.stderr


def test_a_child_that_is_forked_writes_nothing_to_the_file_of_its_parent(tmp_path):
    app = run_app(
        START
        + """
import warnings; warnings.simplefilter("ignore")
session.start_heartbeat_monitor(timeout=30)
for number in range(5):
    if not (pid := os.fork()):
        os.kill(os.getpid(), signal.SIGURG)
        sys.exit(number)
    print(os.waitpid(pid, 0)[1] >> 8, end=" ", flush=True)
""",
        tmp_path,
    )
    assert app.stdout == "0 1 2 3 4 ", app.stderr
    assert "most recent call" not in stacks_of(tmp_path)


def test_faulthandlers_timer_is_left_to_the_app(tmp_path):
    app = run_app(
        START
        + """
import faulthandler
session.start_heartbeat_monitor(timeout=1)
mine = open(os.environ["STATE"] + "/mine", "w")
faulthandler.dump_traceback_later(0.3, file=mine)
until = time.monotonic() + 10
while "Timeout" not in open(mine.name).read() and time.monotonic() < until: time.sleep(0.01)
print("Timeout" in open(mine.name).read())
""",
        tmp_path,
    )
    assert app.stdout == "True\n", app.stderr
    assert "Timeout" not in stacks_of(tmp_path)


def test_a_handler_that_the_app_has_set_since_stays_when_the_session_ends(tmp_path):
    app = run_app(
        START
        + """
signal.signal(signal.SIGURG, lambda *_: print("mine", flush=True))
session.end()
os.kill(os.getpid(), signal.SIGURG)
""",
        tmp_path,
    )
    assert app.stdout == "mine\n", app.stderr


def test_what_the_main_thread_holds_ends_in_the_main_thread_however_often_it_is_looked_at(tmp_path):
    app = run_app(
        START
        + """
from datacat.client import loops, stacks
strays, looks = [], 0
class Widget:
    def __del__(self):
        if threading.current_thread() is not threading.main_thread(): strays.append(1)
def watch():
    global looks
    while True:
        loops.sample_main()
        stacks.main_frame(1)
        looks += 1
sys.setswitchinterval(1e-5)
threading.Thread(target=watch, daemon=True).start()
def step():
    widget = Widget()
    return [each for each in range(20)]
until = time.monotonic() + 1
while time.monotonic() < until or looks < 200: step()
print(len(strays))
os._exit(0)
""".replace("print(len(strays))", "print(len(strays), flush=True)"),
        tmp_path,
    )
    assert app.stdout == "0\n", app.stderr


def test_a_call_of_the_main_thread_is_found_by_its_depth():
    def inner():
        return stacks.main_frame(1), stacks.main_frame(2), stacks.main_frame(500)

    here, caller, nothing = inner()
    assert here[:2] == (__file__, "inner")
    assert caller[1] == "test_a_call_of_the_main_thread_is_found_by_its_depth"
    assert caller[2] > here[2] > 0
    assert nothing is None


def test_without_one_lock_for_all_threads_none_looks_at_the_others(session, monkeypatch):
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    assert not stacks.writes(session.journal_folder)
    stacks.write(session.journal_folder)
    assert "most recent call" not in (session.journal_folder / layout.STACKS_FILE).read_text()


def test_with_a_hundred_threads_and_more_the_main_one_is_there_and_every_name(tmp_path):
    app = run_app(
        START
        + """
end = threading.Event()
for number in range(120): threading.Thread(target=end.wait, name=f"worker {number}", daemon=True).start()
from datacat.client import stacks
def main_stuck(): stacks.write(session.journal_folder)
main_stuck()
end.set()
""",
        tmp_path,
    )
    assert app.returncode == 0, app.stderr
    text = stacks_of(tmp_path)
    assert "in main_stuck" in text
    assert text.count("# thread") == 122  # the main one at once, then all
    assert text.count("worker") == 120


def test_a_second_session_shares_the_file_and_keeps_it_when_the_first_ends(tmp_path):
    one, two = (datacat.create_session(product="p", version="1", state_dir=tmp_path) for _ in "ab")
    one.end()
    stacks.write(two.journal_folder)
    text = (two.journal_folder / layout.STACKS_FILE).read_text()
    assert "test_a_second_session" in text
    assert hangs.handle_of(text) is not None
    two.end()
    assert stacks._file is None
    assert signal.getsignal(signal.SIGURG) == signal.SIG_DFL


def test_a_file_of_the_apps_own_at_our_number_is_left_alone(session, tmp_path):
    (tmp_path / "mine").touch()
    fd = os.open(tmp_path / "mine", os.O_WRONLY)
    ours = os.dup(stacks._file.fd)
    os.dup2(fd, stacks._file.fd)
    try:
        stacks.write(session.journal_folder)
        assert (tmp_path / "mine").read_bytes() == b""
    finally:
        os.dup2(ours, stacks._file.fd)
        os.close(ours)
        os.close(fd)


def test_a_full_file_is_not_written_any_more(session):
    os.truncate(session.journal_folder / layout.STACKS_FILE, hangs.MAX_STACKS_BYTES)
    stacks.write(session.journal_folder)
    assert (session.journal_folder / layout.STACKS_FILE).stat().st_size == hangs.MAX_STACKS_BYTES
