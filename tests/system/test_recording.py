"""The main job on real processes: an app is recorded, and its session says how it ended and why."""

import signal

import pytest
from system.box import event_numbers, eventually

APP = """
import datacat, sys
session = datacat.create_session(sys.argv[1], product=sys.argv[2], version="1.0")
session.update_state({"document": {"pages": 3}})
for n in range(50):
    session.log_event("tick", data={"n": n})
"""


@pytest.mark.parametrize(
    ("ending", "status", "reason", "exit_code", "exit_signal"),
    [
        ("session.end()", "ended", "clean", None, None),
        ("pass", "ended", "exit_zero", 0, None),
        ("sys.exit(0)", "ended", "exit_zero", 0, None),
        ("sys.exit(3)", "crashed", "exit_code", 3, None),
        ("raise ValueError('no such page')", "crashed", "exception", 1, None),
        ("import os; os._exit(7)", "crashed", "exit_code", 7, None),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", "ended", "terminated", None, 15),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "crashed", "killed", None, 9),
        ("import ctypes; ctypes.string_at(0)", "crashed", "signal", None, 11),
        ("import os; os.abort()", "crashed", "signal", None, 6),
        ("raise KeyboardInterrupt", "ended", "terminated", None, 2),
    ],
)
def test_every_way_to_end_has_its_own_verdict(box, ending, status, reason, exit_code, exit_signal):
    box.run(APP + ending, "endings", stderr=-3)

    session = box.ended("endings")

    assert (session["status"], session["end_reason"]) == (status, reason)
    assert session["exit_signal"] == exit_signal
    if exit_code is not None:
        assert session["exit_code"] == exit_code
    assert session["crashed"] == (status == "crashed")
    assert event_numbers(session) == list(range(50))
    assert session["state"]["document"] == {"pages": 3}
    crashes = [event for event in session["events"] if event["name"] == "parent_process_crashed"]
    assert len(crashes) == (status == "crashed")


def test_a_crash_carries_the_exception_that_ended_the_app(box):
    box.run(APP + "def open_page():\n    raise ValueError('no such page')\nopen_page()", "exceptions", stderr=-3)

    session = box.ended("exceptions")

    [event] = [event for event in session["events"] if event["name"] == "unhandled_exception"]
    assert (event["exception_type"], event["exception_msg"]) == ("ValueError", "no such page")
    assert event["source_function"] == "open_page"
    assert any("open_page" in line for line in event["stacktrace"])
    [crash] = [event for event in session["events"] if event["name"] == "parent_process_crashed"]
    assert crash["stacktrace"] == event["stacktrace"]
    assert "no such page" in session["end_detail"]


def test_a_segfault_carries_the_stack_of_the_app(box):
    box.run(APP + "import ctypes\ndef render():\n    ctypes.string_at(0)\nrender()", "segfaults", stderr=-3)

    [crash] = [e for e in box.ended("segfaults")["events"] if e["name"] == "parent_process_crashed"]

    assert any("render" in line for line in crash["stacktrace"])
    (current,) = [thread for thread in crash["data"]["threads"] if thread["current"]]
    assert [frame["function"] for frame in current["frames"]][-2:] == ["render", "string_at"]
    assert crash["data"]["last_state"]["document"] == {"pages": 3}
    assert [event["data"]["n"] for event in crash["data"]["last_events"]] == list(range(50))


def test_an_exception_in_a_thread_is_recorded_and_does_not_end_the_session(box):
    box.run(
        APP + "import threading\nt = threading.Thread(target=lambda: 1 / 0)\nt.start(); t.join()\n",
        "threads", stderr=-3,
    )  # fmt: skip

    session = box.ended("threads")

    [event] = [event for event in session["events"] if event["name"] == "unhandled_exception"]
    assert (event["exception_type"], event["level"]) == ("ZeroDivisionError", "error")
    assert (session["status"], session["end_reason"]) == ("ended", "exit_zero")


HANGING = """
import datacat, sys, threading
session = datacat.create_session(sys.argv[1], product=sys.argv[2], version="1.0")
session.start_heartbeat_monitor(timeout=1, loop=None)
session.heartbeat()
print("hanging", flush=True)
sys.stdin.readline()
session.heartbeat()
print("beating", flush=True)
sys.stdin.readline()
"""


def test_an_app_that_stops_beating_hangs_and_recovers_when_it_beats_again(box):
    app = box.app(HANGING, "hangs", stdout=-1, stdin=-1)
    eventually(lambda: box.heads(product="hangs", status="hung"))
    app.stdin.write(b"\n")
    app.stdin.flush()
    eventually(lambda: box.heads(product="hangs", status="active"))
    app.communicate(b"\n")

    session = box.ended("hangs")

    names = [event["name"] for event in session["events"]]
    assert names.count("application_appears_hung") >= 1
    assert names.index("application_appears_hung") < names.index("application_recovered")
    assert session["ever_hung"]
    assert session["hang_count"] >= 1
    assert session["hang_seconds"] >= 1
    assert session["status"] == "ended"


def test_an_app_killed_while_it_hangs_died_of_the_hang(box):
    app = box.app(HANGING, "hangkill", stdout=-1, stdin=-1)
    eventually(lambda: box.heads(product="hangkill", status="hung"))
    app.kill()
    app.communicate()

    session = box.ended("hangkill")

    assert (session["status"], session["end_reason"], session["exit_signal"]) == ("crashed", "hang", signal.SIGKILL)


def test_a_stopped_app_is_suspended_and_never_hung(box):
    app = box.app(HANGING, "stopped", stdout=-1, stdin=-1)
    app.stdout.readline()
    app.send_signal(signal.SIGSTOP)
    eventually(lambda: box.heads(product="stopped", status="suspended"))
    app.send_signal(signal.SIGCONT)
    app.stdin.write(b"\n")
    app.stdin.flush()
    eventually(lambda: box.heads(product="stopped", status="active"))
    app.communicate(b"\n")

    session = box.ended("stopped")

    names = [event["name"] for event in session["events"]]
    assert "application_suspended" in names
    assert "application_resumed" in names
    assert not session["ever_hung"]


def test_several_apps_at_once_have_a_daemon_each_and_leave_nothing_behind(box):
    code = APP + "print('ready', flush=True); sys.stdin.readline(); session.end()"
    apps = [box.app(code, f"many{n}", stdin=-1, stdout=-1) for n in range(3)]
    for app in apps:
        app.stdout.readline()
    eventually(lambda: len(box.daemons()) == 3)
    for app in apps:
        app.communicate(b"\n")

    for n in range(3):
        assert event_numbers(box.ended(f"many{n}")) == list(range(50))
    eventually(lambda: not box.daemons())
    assert box.spooled_sessions() == []


def test_the_daemon_is_no_child_of_the_app_and_never_a_zombie(box):
    code = APP + (
        "import os\nprint('ready', flush=True); sys.stdin.readline()\n"
        "try:\n    os.wait(); print('a stranger')\nexcept ChildProcessError:\n    print('no children')\n"
    )
    app = box.app(code, "childless", stdin=-1, stdout=-1)
    app.stdout.readline()
    eventually(box.daemons)
    output, _ = app.communicate(b"\n")

    assert output == b"no children\n"
