"""Stacks by py-spy: its JSON, a program that stands for it, and the real one."""

import json
import stat
import subprocess
import sys

import pytest
from helpers import eventually

from datacat.daemon.dumps import Frame
from datacat.daemon.pyspy import PROGRAM, PySpy, installed, parse

TOLD = [
    {
        "pid": 7,
        "thread_id": 140,
        "thread_name": None,
        "os_thread_id": 8,
        "active": False,
        "owns_gil": False,
        "frames": [{"name": "load", "filename": "app.py", "short_filename": "app.py", "line": 5, "locals": None}],
    },
    {
        "pid": 7,
        "thread_id": 139,
        "thread_name": "MainThread",
        "os_thread_id": 7,
        "active": True,
        "owns_gil": True,
        "frames": [
            {"name": "Cart.pay.<locals>.wait", "filename": "app.py", "line": 3},
            {"name": "<module>", "filename": "app.py", "line": 9},
        ],
    },
]


@pytest.fixture
def program(tmp_path):
    """A program that stands for py-spy: it does what code says."""

    def make(code):
        path = tmp_path / "py-spy"
        path.write_text(f"#!{sys.executable}\nimport sys\n{code}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return str(path)

    return make


def test_its_json_is_stacks_with_plain_names_the_main_thread_first_and_the_newest_call_last():
    source, (main, other) = parse(json.dumps(TOLD).encode())
    assert source == "py-spy"
    assert (main.name, main.id, main.current) == ("MainThread", "8b", True)
    assert main.frames == (Frame("app.py", 9, "<module>"), Frame("app.py", 3, "wait"))
    assert other.frames == (Frame("app.py", 5, "load"),)


@pytest.mark.parametrize(
    "told", [b"", b"[]", b"{}", b'[{"thread_id": "x"}]', b'[{"thread_id": 1, "frames": [{}]}]', b"\xff"]
)
def test_anything_else_is_no_stacks(told):
    assert parse(told) is None


def test_it_is_asked_without_stopping_the_app_and_nobody_waits_for_it(program):
    spy = PySpy(
        program(
            f"print('''{json.dumps(TOLD)}''') if sys.argv[1:] == ['dump', '--json', '--nonblocking', '--pid', '7'] else sys.exit(2)"
        )
    )
    assert spy.take() is None
    spy.start(7)
    spy.start(7)
    assert eventually(spy.take).threads[0].name == "MainThread"
    assert spy.take() is None


def test_a_refusal_and_a_missing_program_tell_nothing(program):
    spy = PySpy(program(f"print('''{json.dumps(TOLD)}'''); sys.exit(1)"))
    spy.start(7)
    process = spy._process
    eventually(lambda: process.poll() is not None)
    assert spy.take() is None
    assert spy._process is None
    spy = PySpy("/nowhere/py-spy")
    spy.start(7)
    assert spy.take() is None


def test_one_that_does_not_end_is_ended(program):
    spy = PySpy(program("sys.stdin.read(); import threading; threading.Event().wait()"))
    spy.start(7)
    process = spy._process
    spy.close()
    assert process.poll() is not None


def test_it_is_found_on_the_path_and_else_beside_the_interpreter(tmp_path, monkeypatch):
    for folder in ("path", "beside"):
        (tmp_path / folder).mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "beside" / "python"))
    assert installed() is None
    for folder in ("beside", "path"):
        program = tmp_path / folder / PROGRAM
        program.touch(mode=0o755)
        assert installed() == str(program)


def test_the_real_one_sees_a_program_that_knows_nothing_of_us(may_spy):
    code = "import time\ndef stuck():\n    print('up', flush=True)\n    time.sleep(60)\nstuck()"
    app = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    spy = PySpy()
    try:
        app.stdout.readline()
        spy.start(app.pid)
        process = spy._process
        eventually(lambda: process.poll() is not None)
        stacks = spy.take()
        assert stacks.threads[0].frames[-1].function == "stuck"
    finally:
        spy.close()
        app.kill()
        app.communicate()
