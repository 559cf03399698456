"""Programs that nobody here wrote, recorded: a part of CPython's own test-suite, and IDLE on a virtual screen."""

import importlib.util
import os
import shutil
import subprocess
import sys

import pytest
from system.box import BIN, eventually


def capability(present, what):
    if not present:
        pytest.skip(f"capability: {what} is not on this machine")


@pytest.mark.timeout(240)
def test_a_part_of_cpythons_own_tests_runs_under_datacat_run(box):
    capability(importlib.util.find_spec("test.test_json"), "CPython's own test-suite (the package test)")
    command = [sys.executable, "-m", "test", "-v", "test_json", "test_dict"]

    done = subprocess.run(
        [BIN / "datacat", "run", "--server", box.url, "--product", "cpython", "--version", "3", "--", *command],
        env=box.env, stdin=subprocess.DEVNULL, capture_output=True, timeout=200, check=False,
    )  # fmt: skip

    output = done.stdout + done.stderr
    assert done.returncode == 0, output[-3000:]
    assert b"test_dict" in output
    session = box.ended("cpython")
    assert (session["status"], session["end_reason"], session["exit_code"]) == ("ended", "exit_zero", 0)
    names = {metric["name"] for metric in box.session("cpython", metrics="all")["metrics"]}
    assert any("cpu" in name for name in names), names
    assert any("memory" in name for name in names), names


# IDLE with a session of its own, as a developer would add it to a desktop program: two lines before its main loop.
IDLE = """
import sys
import datacat
session = datacat.create_session(sys.argv[1], product="idle", version="3")
session.start_heartbeat_monitor(timeout=5)
import idlelib.pyshell
sys.argv = ["idle", "-n"]
idlelib.pyshell.main()
session.log_event("window_closed")
"""


@pytest.mark.timeout(120)
def test_idle_on_a_virtual_screen_is_recorded_with_heartbeats_from_its_own_loop(box):
    capability(shutil.which("Xvfb"), "Xvfb")
    capability(shutil.which("xdotool"), "xdotool")
    capability(importlib.util.find_spec("idlelib") and importlib.util.find_spec("_tkinter"), "IDLE (tkinter)")
    read, write = os.pipe()
    screen = subprocess.Popen(
        ["Xvfb", "-displayfd", str(write), "-screen", "0", "1024x768x24"], pass_fds=[write], stderr=subprocess.DEVNULL
    )
    os.close(write)
    try:
        with os.fdopen(read) as number:
            desktop = {"DISPLAY": f":{number.readline().strip()}"}

        def xdotool(*args):
            command = ["xdotool", "search", "--onlyvisible", "--name", "IDLE", *args]
            env = {**os.environ, **desktop}
            return subprocess.run(command, env=env, capture_output=True, text=True, check=False).stdout.split()

        app = box.app(IDLE, env=desktop, stderr=subprocess.DEVNULL)
        eventually(xdotool, 30)
        first = eventually(lambda: (session := box.session("idle")) and session["last_heartbeat"], 30)
        xdotool("windowfocus", "--sync", "type", "6 * 7\n")
        # Of a session that only beats the server is told every 30 s.
        eventually(lambda: box.session("idle")["last_heartbeat"] > first, 60)
        active = box.session("idle")
        xdotool("windowfocus", "--sync", "key", "--clearmodifiers", "ctrl+q")
        assert app.wait(30) == 0
        session = box.ended("idle")
    finally:
        screen.terminate()
        screen.wait(10)

    assert (active["status"], active["hung"]) == ("active", False)
    assert (session["status"], session["end_reason"], session["exit_code"]) == ("ended", "exit_zero", 0)
    assert [event["name"] for event in session["events"]] == ["window_closed"]
    assert not session["ever_hung"]
