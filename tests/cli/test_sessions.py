"""datacat sessions lists, filters, and watches."""

import json
import os
import pty
import signal
import subprocess

import pytest
from system.box import BIN, eventually

from datacat.cli.screen import Column, fitting


@pytest.fixture(scope="module")
def made(cli):
    """Three sessions: one ended, one crashed, one active; their ids."""
    ended = cli.session("lister", "1.0", hostname="alpha")
    cli.post(f"/api/sessions/{ended}/events", {"name": "saved", "level": "error"})
    cli.post(f"/api/sessions/{ended}/end", {"exit_code": 0})
    crashed = cli.session("lister", "1.1", hostname="beta")
    cli.post(f"/api/sessions/{crashed}/crash", {"reason": "boom"})
    active = cli.session("lister", "2.0", hostname="beta", environment="staging", state={"mode": "dark"})
    return {"ended": ended, "crashed": crashed, "active": active}


def ids(done):
    assert done.returncode == 0, done.stderr
    return [session["id"] for session in json.loads(done.stdout)]


def test_a_piped_list_is_plain_with_whole_ids_the_newest_first(cli, made):
    done = cli("sessions", "--product", "lister")
    header, *lines = done.stdout.splitlines()
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    assert header.split()[:4] == ["ID", "PRODUCT", "VERSION", "STATUS"]
    assert [line.split()[0] for line in lines] == [made["active"], made["crashed"], made["ended"]]
    assert lines[2].split()[1:6] == ["lister", "1.0", "ended", "clean", "0"]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--status", "crashed"], ["crashed"]),
        (["--status", "active,ended"], ["active", "ended"]),
        (["--status", "active", "--status", "ended"], ["active", "ended"]),
        (["--version", "1.1"], ["crashed"]),
        (["--hostname", "beta"], ["active", "crashed"]),
        (["--environment", "staging"], ["active"]),
        (["--end-reason", "clean"], ["ended"]),
        (["--has", "crash"], ["crashed"]),
        (["--event", "saved"], ["ended"]),
        (["--state", "mode:dark"], ["active"]),
        (["--from", "1h"], ["active", "crashed", "ended"]),
        (["--to", "1h"], []),
        (["--sort", "created_at"], ["ended", "crashed", "active"]),
        (["--limit", "1"], ["active"]),
        (["-q", "alpha"], ["ended"]),
    ],
)
def test_filters_narrow_the_list(cli, made, flags, expected):
    assert ids(cli("sessions", "--product", "lister", "--json", *flags)) == [made[name] for name in expected]


def test_a_filter_that_the_server_does_not_understand_is_2_and_names_what_it_may_be(cli):
    done = cli("sessions", "--status", "sleepy")
    assert done.returncode == 2
    assert "hung" in done.stderr


def test_no_match_is_no_failure_and_says_where_it_looked(cli):
    done = cli("sessions", "--product", "nobody-made-this")
    assert (done.returncode, done.stdout) == (0, "")
    assert cli.box.url in done.stderr
    assert json.loads(cli("sessions", "--product", "nobody-made-this", "--json").stdout) == []


def test_watching_in_a_pipe_writes_a_line_for_each_change_until_it_is_interrupted(cli, made):
    watch = cli.start(
        "sessions", "--product", "lister", "--watch", "--json", stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    first = [json.loads(watch.stdout.readline())["id"] for _ in range(3)]
    assert first == [made["ended"], made["crashed"], made["active"]]
    cli.post(f"/api/sessions/{made['active']}/events", {"name": "again"})
    assert json.loads(watch.stdout.readline())["counts"]["events"] == 1
    watch.send_signal(signal.SIGINT)
    output, errors = watch.communicate(timeout=20)
    assert (watch.returncode, output, errors) == (130, "", "")


def test_a_terminal_gets_colours_and_short_ids(cli, made):
    ours, theirs = pty.openpty()
    env = {**cli.env, "TERM": "xterm-256color", "COLUMNS": "80"}
    listing = subprocess.Popen(
        [BIN / "datacat", "sessions", "--product", "lister"], env=env, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    shown = b""
    while chunk := read_or_end(ours):
        shown += chunk
    os.close(ours)
    assert listing.wait(20) == 0
    assert b"\x1b[" in shown
    assert b"crashed" in shown
    assert made["crashed"].encode() not in shown
    assert made["crashed"][:13].encode() in shown


def read_or_end(fd):
    try:
        return os.read(fd, 65536)
    except OSError:  # Linux says so when the other end of a terminal is closed
        return b""


def test_a_narrow_terminal_loses_the_least_important_columns_only():
    columns = [Column("ID"), Column("HOST", rank=2), Column("STATUS", rank=1)]
    rows = [["0123456789", "a-long-name", "crashed"]]
    assert [c.title for c in fitting(columns, rows, 80)[0]] == ["ID", "HOST", "STATUS"]
    assert fitting(columns, rows, 25) == ([columns[0], columns[2]], [["0123456789", "crashed"]])
    assert [c.title for c in fitting(columns, rows, 1)[0]] == ["ID"]


def test_it_pages_through_more_than_the_server_gives_at_once(cli):
    made = [cli.session("many", str(number)) for number in range(25)]
    assert sorted(ids(cli("sessions", "--product", "many", "--json", "--limit", "1000"))) == sorted(made)
    assert eventually(lambda: len(ids(cli("sessions", "--product", "many", "--json", "--limit", "7"))) == 7)
