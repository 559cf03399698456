"""datacat run: a program's own behaviour is unchanged, and its end is on record."""

import hashlib
import os
import pty
import signal
import subprocess
import sys

import pytest
from system.box import BIN, eventually

from datacat.cli.run import bounded, last_words
from datacat.wire.lines import encode
from datacat.wire.records import MAX_RECORD_BYTES, Event

PYTHON = sys.executable


def recorded(cli, product, kind, name):
    """Wait for the event or metric of that name: what the parent writes at the end may come a batch after the verdict."""
    return eventually(lambda: [row for row in cli.box.session(product)[kind] if row["name"] == name])[0]


def run(cli, product, *command, **more):
    return cli("run", "--product", product, "--version", "7", "--", *command, **more)


def test_a_program_that_ends_well_is_recorded_with_what_it_used(cli):
    done = run(cli, "well", PYTHON, "-c", "x = b'x' * 200_000_000; print('hi')")
    assert (done.returncode, done.stdout, done.stderr) == (0, "hi\n", "")
    session = cli.box.ended("well")
    assert (session["status"], session["end_reason"], session["exit_code"]) == ("ended", "exit_zero", 0)
    assert session["version"] == "7"
    assert session["state"]["command"][0] == PYTHON
    assert session["events"] == []
    assert recorded(cli, "well", "metrics", "process.cpu.time")["value"] >= 0
    assert recorded(cli, "well", "metrics", "process.memory.max")["value"] > 200_000_000


def test_the_exit_code_is_the_programs_and_a_bad_one_keeps_the_end_of_its_output(cli):
    code = "import sys; [print('out', n) for n in range(300)]; print('no such table', file=sys.stderr); sys.exit(3)"
    done = run(cli, "bad", PYTHON, "-c", code)
    assert done.returncode == 3
    assert done.stdout == "".join(f"out {n}\n" for n in range(300))
    assert done.stderr == "no such table\n"
    session = cli.box.ended("bad")
    assert (session["status"], session["end_reason"], session["exit_code"]) == ("crashed", "exit_code", 3)
    tail = recorded(cli, "bad", "events", "output_tail")
    assert tail["level"] == "error"
    assert tail["message"] == "no such table"
    assert tail["data"] == {"stdout": [f"out {n}" for n in range(100, 300)], "stderr": ["no such table"]}
    crash = recorded(cli, "bad", "events", "parent_process_crashed")
    assert crash["data"]["stderr"] == ["no such table"]
    assert crash["data"]["last_state"]["command"][0] == PYTHON


@pytest.mark.parametrize(
    ("number", "status", "reason", "keeps_tail"),
    [
        (signal.SIGSEGV, "crashed", "signal", True),
        (signal.SIGKILL, "crashed", "killed", True),
        (signal.SIGTERM, "ended", "terminated", False),
    ],
)
def test_a_signal_is_128_and_its_number_and_its_reason_is_on_record(cli, number, status, reason, keeps_tail):
    product = f"signal-{number.name}"
    done = run(cli, product, "sh", "-c", f"echo bye; kill -{number.name[3:]} $$")
    assert done.returncode == 128 + number
    session = cli.box.ended(product)
    assert (session["status"], session["end_reason"], session["exit_signal"]) == (status, reason, number)
    assert recorded(cli, product, "metrics", "process.cpu.time")  # the event would come with it
    if keeps_tail:
        assert recorded(cli, product, "events", "output_tail")["data"] == {"stdout": ["bye"], "stderr": []}
    else:
        assert "output_tail" not in [event["name"] for event in cli.box.session(product)["events"]]


def test_the_session_has_the_pid_of_the_program(cli):
    done = run(cli, "pid", "sh", "-c", "echo $$")
    assert cli.box.ended("pid")["pid"] == int(done.stdout)


@pytest.mark.parametrize(
    ("program", "code", "said"),
    [("no-such-program-at-all", 127, "no such file"), ("/etc/passwd", 126, "permission"), ("/tmp", 126, "permission")],
)
def test_what_cannot_be_started_is_127_or_126_and_makes_no_session(cli, program, code, said):
    done = run(cli, "unstartable", program)
    assert (done.returncode, done.stdout) == (code, "")
    assert program in done.stderr
    assert said in done.stderr
    assert cli.box.heads(product="unstartable") == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_signals_are_passed_on_to_the_program_once(cli, number):
    code = (
        "import signal, sys, threading\n"
        "got, pause = [], threading.Event()\n"  # a handler must not wait for a lock that its own thread may hold
        f"signal.signal({int(number)}, lambda *_: got.append(1))\n"
        "print('ready', flush=True)\n"
        "while not got: pause.wait(0.05)\n"
        "pause.wait(0.3)\n"
        "print('got it', len(got) > 1, flush=True)\n"
        "sys.exit(5)"
    )
    running = cli.start(
        "run", "--product", f"passed-{number.name}", "--", PYTHON, "-c", code,
        stdout=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    assert running.stdout.readline() == "ready\n"
    running.send_signal(number)
    output, _ = running.communicate(timeout=20)
    assert (running.returncode, output) == (5, "got it False\n")


def test_ctrl_c_in_a_terminal_reaches_the_program_once(cli):
    code = (
        "import signal, threading\n"
        "got, pause = [], threading.Event()\n"
        "signal.signal(signal.SIGINT, lambda *_: got.append(1))\n"
        "print('ready', flush=True)\n"
        "while not got: pause.wait(0.05)\n"
        "pause.wait(0.5)\n"
        "print('again' if len(got) > 1 else 'once', flush=True)"
    )
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(BIN / "datacat", ["datacat", "run", "--product", "ctrl-c", "--", PYTHON, "-c", code], cli.env)
    shown = b""
    while b"ready" not in shown:
        shown += os.read(terminal, 1024)
    os.write(terminal, b"\x03")
    while b"once" not in shown and b"again" not in shown:
        shown += os.read(terminal, 1024)
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert b"once" in shown
    assert os.waitstatus_to_exitcode(status) == 0


def test_standard_input_is_the_programs_own(cli):
    assert run(cli, "stdin", "cat", stdin=None, input="line\nlast").stdout == "line\nlast"


def test_output_is_passed_on_while_the_program_runs(cli):
    running = cli.start(
        "run", "--product", "live", "--", "sh", "-c", "printf prompt; read answer; echo $answer",
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert running.stdout.read(6) == "prompt"
    output, _ = running.communicate("yes\n", timeout=20)
    assert (running.returncode, output) == (0, "yes\n")


def test_a_hundred_megabytes_on_both_streams_pass_unchanged(cli):
    code = "import sys; b = bytes(range(256)) * 4096\nfor _ in range(50): sys.stdout.buffer.write(b); sys.stderr.buffer.write(b)"
    done = run(cli, "large", PYTHON, "-c", code, text=False)
    expected = hashlib.sha256(bytes(range(256)) * 4096 * 50).digest()
    assert done.returncode == 0
    assert hashlib.sha256(done.stdout).digest() == expected
    assert hashlib.sha256(done.stderr).digest() == expected


def test_a_reader_that_leaves_ends_the_program_as_it_would_without_us(cli):
    running = cli.start("run", "--product", "reader", "--", "yes", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert running.stdout.readline() == "y\n"
    running.stdout.close()
    assert running.wait(20) == 128 + signal.SIGPIPE
    assert running.stderr.read() == ""
    running.stderr.close()


def test_a_grandchild_that_keeps_the_pipe_open_does_not_keep_us(cli):
    done = run(cli, "grandchild", "sh", "-c", "sleep 30 & echo $!", timeout_s=15)
    os.kill(int(done.stdout), signal.SIGKILL)
    assert done.returncode == 0
    assert cli.box.ended("grandchild")["end_reason"] == "exit_zero"


def test_options_behind_the_program_are_the_programs(cli):
    assert cli("run", "--product", "dashes", "printf", "%s", "--version").stdout == "--version"
    assert cli.box.ended("dashes")["state"]["command"] == ["printf", "%s", "--version"]


def test_the_product_is_the_name_of_the_program_unless_it_is_told(cli):
    cli("run", "--", "/bin/true")
    assert cli.box.ended("true")["version"] == "unknown"


def test_it_runs_without_a_server_and_says_nothing_about_it(cli):
    done = run(cli, "offline", "echo", "hi", env={"DATACAT_SERVER_URL": "http://127.0.0.1:9"})
    assert (done.returncode, done.stdout, done.stderr) == (0, "hi\n", "")


def test_verbose_says_which_session_it_is_and_what_to_type(cli):
    done = cli("run", "-v", "--product", "verbose", "--", "sh", "-c", "exit 4")
    session = eventually(lambda: cli.box.heads(product="verbose"))[0]
    assert done.stdout == ""
    assert done.stderr.count(session["id"]) == 2
    assert "exit code 4" in done.stderr


def test_the_tail_of_both_streams_fits_one_record_whatever_they_hold():
    nasty = ['"\\\x01' * 160, "é" * 500, "x" * 500]
    streams = {"stdout": nasty * 67, "stderr": nasty * 67}
    kept = bounded(streams, 48 * 1024)
    line = encode(Event(2**50, "output_tail", "error", message=last_words(kept), data=kept))
    assert 40 * 1024 < len(line) < MAX_RECORD_BYTES
    assert kept["stdout"] == streams["stdout"][-len(kept["stdout"]) :]
    assert kept["lines_cut"]["stdout"] == len(streams["stdout"]) - len(kept["stdout"])


def test_a_stream_takes_the_room_that_the_other_does_not_need():
    kept = bounded({"stdout": ["x" * 97] * 100, "stderr": ["y" * 97]}, 5100)
    assert (len(kept["stdout"]), len(kept["stderr"])) == (50, 1)
    assert kept["lines_cut"] == {"stdout": 50}


def test_the_last_words_are_of_stderr_when_it_says_anything():
    assert last_words({"stdout": ["out"], "stderr": ["err", "  "]}) == "err"
    assert last_words({"stdout": ["out"], "stderr": []}) == "out"
    assert last_words({"stdout": [], "stderr": []}) is None
