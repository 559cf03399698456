"""The command as a whole: help, version, exit codes, and what it says when something is wrong."""

import subprocess
import sys

import pytest
from system.box import BIN

import datacat

NOBODY = "http://127.0.0.1:9"  # the discard port: nobody listens there


def run(*args, **more):
    return subprocess.run(
        [BIN / "datacat", *args],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
        stdin=subprocess.DEVNULL,
        **more,
    )


def test_version_and_help_work_without_a_server():
    assert run("--version").stdout == f"datacat {datacat.__version__}\n"
    shown = run("--help").stdout
    for name in ("sessions", "show", "tail", "run", "demo"):
        assert name in shown
        assert run(name, "--help").returncode == 0


def test_python_m_datacat_is_the_same_command():
    done = subprocess.run([sys.executable, "-m", "datacat", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"datacat {datacat.__version__}\n"


@pytest.mark.parametrize("args", [["sessions"], ["show", "019a"], ["tail"], ["tail", "019a"]])
def test_a_server_that_is_not_there_is_69_and_a_line_that_says_what_to_do(args):
    done = run("--server", NOBODY, *args)
    assert done.returncode == 69
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert NOBODY in done.stderr
    assert "datacat-server" in done.stderr


@pytest.mark.parametrize(
    "args",
    [
        ["frobnicate"],
        ["sessions", "--frobnicate"],
        ["sessions", "--limit", "0"],
        ["sessions", "--limit", "many"],
        ["sessions", "--from", "yesterday"],
        ["sessions", "--at", "noon"],
        ["show"],
        ["tail", "--kind", "noise"],
        ["run"],
        ["demo", "--port", "70000"],
        ["--server", "ftp://localhost", "sessions"],
        ["--server", "http://", "sessions"],
        ["sessions", "--server", "http://localhost:99999"],
    ],
)
def test_what_was_typed_wrong_is_2_and_says_so(args):
    done = run(*args)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "Error" in done.stderr


def test_the_server_may_be_named_in_the_environment_before_or_behind_the_subcommand(cli):
    nowhere = {"DATACAT_SERVER_URL": NOBODY}
    assert cli("sessions").returncode == 0
    assert cli("sessions", env=nowhere).returncode == 69
    assert cli("--server", cli.box.url, "sessions", env=nowhere).returncode == 0
    assert cli("sessions", "--server", cli.box.url.removeprefix("http://"), env=nowhere).returncode == 0


def test_a_proxy_in_the_environment_is_not_asked_for_this_machine(cli):
    assert cli("sessions", env={"http_proxy": NOBODY, "HTTP_PROXY": NOBODY, "ALL_PROXY": NOBODY}).returncode == 0


def test_a_reader_that_has_seen_enough_gets_no_complaint(cli):
    cli.session("pipe")
    listing = cli.start("sessions", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    listing.stdout.close()
    _, errors = listing.communicate(timeout=30)
    assert errors == ""
    assert listing.returncode == 128 + 13
