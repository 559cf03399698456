"""datacat demo: six real programs, each end understood, nothing missing, nothing left behind."""

import re
import signal
import subprocess
import sys

import psutil
import pytest
import requests
from system.box import BIN, Box, eventually

from datacat.cli.demo import report
from datacat.cli.demo.ledger import Ledger
from datacat.cli.demo.programs import GROUP, PROGRAMS
from datacat.cli.demo.report import Outcome


@pytest.fixture
def env(tmp_path):
    box = Box(tmp_path)
    box.http.close()
    return box.env | {"TMPDIR": str(tmp_path)}


def of_demo():
    """Return the processes of a demo that still run."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        words = " ".join(process.info["cmdline"] or ())
        if "datacat-demo-" in words and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append((process.pid, words))
    return found


@pytest.mark.timeout(90)
def test_every_end_is_understood_and_every_event_is_there(env, tmp_path):
    done = subprocess.run(
        [BIN / "datacat", "demo", "--picture", tmp_path / "table.svg"],
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=80,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\x1b" not in done.stdout
    for program in PROGRAMS.values():
        (row,) = [line for line in done.stdout.splitlines() if line.startswith(f"{program.product} {program.version}")]
        assert program.status in row
        assert program.reason in row
    received, written = re.search(r"All ([\d,]+) of ([\d,]+) events arrived", done.stdout).groups()
    assert received == written
    assert int(written.replace(",", "")) > 16_666
    assert "hung" in done.stdout  # it was seen while it lasted
    assert of_demo() == []
    assert list(tmp_path.glob("datacat-demo-*")) == []
    picture = (tmp_path / "table.svg").read_text()
    assert "chess-engine" in picture
    assert "@font-face" not in picture  # a picture in a document loads nothing


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_demo_that_is_stopped_in_the_middle_ends_what_it_started(env, tmp_path, how):
    demo = subprocess.Popen([BIN / "datacat", "demo"], env=env, stdout=subprocess.PIPE, text=True)
    while "active" not in demo.stdout.readline():
        assert demo.poll() is None
    demo.send_signal(how)
    demo.communicate(timeout=20)

    assert demo.returncode != 0
    assert of_demo() == []
    assert list(tmp_path.glob("datacat-demo-*")) == []


@pytest.mark.timeout(90)
def test_with_serve_the_server_stays_until_ctrl_c_and_keeps_what_it_has_in_the_given_folder(env, tmp_path):
    demo = subprocess.Popen(
        [BIN / "datacat", "demo", "--serve", "--data-dir", tmp_path / "kept"],
        env=env,
        stdout=subprocess.PIPE,
        text=True,
    )
    shown = ""
    while "Ctrl-C" not in shown:
        line = demo.stdout.readline()
        assert line, shown
        shown += line
    url = re.search(r"http://[\d.:]+", shown)[0]
    listing = subprocess.run([BIN / "datacat", "--server", url, "sessions"], capture_output=True, text=True, check=True)
    assert listing.stdout.count("\n") == 7
    (command,) = re.findall(r"datacat (--server \S+ show \S+)", shown)
    page = subprocess.run([BIN / "datacat", *command.split()], capture_output=True, text=True, check=True).stdout
    assert "nobody handled ValueError" in page
    demo.send_signal(signal.SIGINT)
    demo.communicate(timeout=20)
    assert demo.returncode == 0
    with pytest.raises(requests.ConnectionError):
        requests.get(url, timeout=5)
    assert of_demo() == []
    assert any((tmp_path / "kept").iterdir())


def test_a_server_that_cannot_start_is_a_failure_that_says_why(env, tmp_path):
    (tmp_path / "file").write_text("")
    done = subprocess.run(
        [BIN / "datacat", "demo", "--data-dir", tmp_path / "file" / "below"],
        env=env, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert "server did not start" in done.stderr
    assert "Traceback" not in done.stderr
    assert of_demo() == []


def session(name, numbers, **more):
    program = PROGRAMS[name]
    return {
        "product": program.product,
        "version": program.version,
        "status": program.status,
        "end_reason": program.reason,
        "exit_code": 0,
        "hang_count": int(program.hangs),
        "hang_seconds": 2.0,
        "events": [{"name": "e", "group": GROUP, "data": {"n": n}} for n in numbers],
        **more,
    }


def test_the_check_finds_what_is_missing_twice_or_out_of_order():
    assert report.problems(Outcome(PROGRAMS["export"], session("export", [0, 1, 2]), 3)) == []
    assert (
        "1 of 4 events are missing" in report.problems(Outcome(PROGRAMS["export"], session("export", [0, 1, 2]), 4))[0]
    )
    assert "1 are there twice" in report.problems(Outcome(PROGRAMS["export"], session("export", [0, 1, 1]), 2))[0]
    assert report.problems(Outcome(PROGRAMS["export"], session("export", [1, 0]), 2))
    assert report.problems(Outcome(PROGRAMS["export"], None, 2))


def test_the_call_that_the_kill_interrupted_before_it_was_counted_is_written():
    assert report.written_of(Outcome(PROGRAMS["engine"], session("engine", [0, 1, 2]), 2)) == 3
    assert report.written_of(Outcome(PROGRAMS["engine"], session("engine", [0, 1]), 4)) == 4


def test_the_check_finds_a_wrong_verdict():
    wrong = session("viewer", [], status="ended", end_reason="closed")
    assert "should be crashed (signal)" in report.problems(Outcome(PROGRAMS["viewer"], wrong, 0))[0]
    assert "hung 0 times" in report.problems(Outcome(PROGRAMS["editor"], session("editor", [], hang_count=0), 0))[0]


def test_a_count_survives_the_kill_of_the_program_that_counts(tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from datacat.cli.demo.ledger import Ledger\n"
        "ledger = Ledger(Path(sys.argv[1])); ledger.session_id = 36 * 'a'\n"
        "ledger.note(41); ledger.note(42, marked=True); os.kill(os.getpid(), 9)"
    )
    with Ledger(tmp_path / "ledger") as ledger:
        assert (ledger.session_id, ledger.written, ledger.marked) == ("", 0, False)
        assert subprocess.run([sys.executable, "-c", code, tmp_path / "ledger"], check=False).returncode == -9
        assert eventually(lambda: (ledger.session_id, ledger.written, ledger.marked) == (36 * "a", 42, True))
