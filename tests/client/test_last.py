import subprocess
import sys

import msgspec
import pytest
from client_helpers import run_app

import datacat
from datacat import host
from datacat.client import folder, last
from datacat.wire import layout, lines
from datacat.wire.records import Close, Closing, Open, StatePatch, Verdict

START = """
import os
import datacat
session = datacat.create_session(product="editor", version="1", state={"a": 1}, state_dir=os.environ["STATE"])
session.update_state({"doc": {"name": "x"}, "a": None})
"""


def gone_pid():
    """A pid that was a process of this machine a moment ago."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def make(state_dir, number, records, *, product="editor", boot_id=None, pid=None):
    """Lay a session of a process that is gone into the spool."""
    spool = folder.choose_spool([state_dir])
    made = folder.make_session(spool, f"{number:08d}-0000-7000-8000-000000000000", "s")
    body = b"".join(lines.encode(record) for record in records)
    (made / "s" / layout.segment_name(0)).write_bytes(body + bytes(100))
    meta = layout.Meta(
        made.name, product, "1", "s", number, pid=pid or gone_pid(), process_start=1, boot_id=boot_id or host.boot_id()
    )
    meta.pid_namespace = host.pid_namespace()
    folder.publish(made, meta)
    return made


def opened(number):
    return Open(number, "editor", "1")


def test_nothing_ran_before(tmp_path):
    assert datacat.last_run("editor", tmp_path) is None
    make(tmp_path, 1, [opened(1)], product="other")
    assert datacat.last_run("editor", tmp_path) is None


@pytest.mark.parametrize(
    ("code", "status", "reason", "detail"),
    [
        ("session.end(0)", "ended", "clean", None),
        ("", "ended", "closed", None),
        ("raise ValueError('boom')", "crashed", "exception", "ValueError: boom"),
        ("os._exit(3)", "crashed", "unknown", None),
    ],
)
def test_how_the_previous_run_ended_is_known_without_any_daemon(tmp_path, code, status, reason, detail):
    run_app(START + code, tmp_path)
    run = datacat.last_run("editor", tmp_path)
    assert (run["status"], run["end_reason"], run["end_detail"]) == (status, reason, detail)
    assert run["state"] == {"product": "editor", "version": "1", "doc": {"name": "x"}}
    assert run["bad_ends"] == (1 if status == "crashed" else 0)


def test_the_own_session_is_not_the_last_run(tmp_path):
    run_app(START, tmp_path)
    with datacat.create_session(product="editor", version="2", state_dir=tmp_path):
        assert datacat.last_run("editor", tmp_path)["version"] == "1"


def test_a_run_that_goes_on_elsewhere_is_active(tmp_path):
    code = f"import sys; sys.path.insert(0, {sys.path[0]!r})\n" + START + "print(flush=True); input()"
    from client_helpers import app_environ

    app = subprocess.Popen(
        [sys.executable, "-c", code],
        env=app_environ(tmp_path),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        app.stdout.readline()
        run = datacat.last_run("editor", tmp_path)
        assert (run["status"], run["end_reason"], run["ended_at"]) == ("active", None, None)
    finally:
        app.communicate()


def test_what_the_daemon_judged_is_told_with_hangs_and_codes(tmp_path):
    made = make(tmp_path, 1, [opened(1), StatePatch(2, {"a": {"b": 1}})])
    daemon = made / "d"
    daemon.mkdir()
    verdicts = [
        Verdict(3, "hung"),
        Verdict(4, "active", hang_s=2.5),
        Verdict(5, "crashed", "signal", "SIGSEGV", exit_signal=11),
    ]
    (daemon / layout.segment_name(0)).write_bytes(b"".join(map(lines.encode, verdicts)))
    run = datacat.last_run("editor", tmp_path)
    assert run["status"] == "crashed"
    assert run["end_reason"] == "signal"
    assert (run["exit_signal"], run["exit_code"]) == (11, None)
    assert (run["hung"], run["hang_seconds"]) == (True, 2.5)
    assert run["state"]["a"] == {"b": 1}
    assert run["ended_at"] == "1970-01-01T00:00:00.000005Z"


def test_the_app_s_own_end_stands_against_a_verdict_that_only_adds_the_code(tmp_path):
    make(tmp_path, 1, [opened(1), Close(2), Verdict(3, "crashed", "unknown", exit_code=0)])
    run = datacat.last_run("editor", tmp_path)
    assert (run["status"], run["end_reason"], run["exit_code"]) == ("ended", "clean", 0)


def test_a_run_before_the_last_boot_ended_with_the_machine(tmp_path):
    make(tmp_path, 1, [opened(1)], boot_id="another boot")
    run = datacat.last_run("editor", tmp_path)
    assert (run["status"], run["end_reason"]) == ("abnormal", "reboot")


def test_a_summary_is_enough_and_bad_ends_in_a_row_are_counted(tmp_path):
    spool = folder.choose_spool([tmp_path])
    for number, status in enumerate(["crashed", "ended", "crashed", "abnormal"]):
        each = spool / f"{number}"
        each.mkdir()
        summary = layout.Summary(each.name, "editor", "1", number, number + 1, status, "killed", state={"n": number})
        (each / layout.SUMMARY_FILE).write_bytes(msgspec.json.encode(summary))
    make(tmp_path, 10, [opened(10), Closing(11, exception_type="KeyError")])
    run = datacat.last_run("editor", tmp_path)
    assert (run["id"][:8], run["bad_ends"]) == ("00000010", 3)
    assert last.last_run("editor", str(tmp_path)) == run
    running = layout.Summary("running", "editor", "1", 20)
    (spool / "running").mkdir()
    (spool / "running" / layout.SUMMARY_FILE).write_bytes(msgspec.json.encode(running))
    run = datacat.last_run("editor", tmp_path)
    assert (run["status"], run["bad_ends"]) == ("active", 3)


def test_rubbish_in_the_spool_is_passed_over(tmp_path):
    spool = folder.choose_spool([tmp_path])
    (spool / "file").write_text("x")
    (spool / "empty").mkdir()
    broken = spool / "broken"
    broken.mkdir()
    (broken / layout.META_FILE).write_text("{")
    made = make(tmp_path, 1, [opened(1), Close(2)])
    with (made / "s" / layout.segment_name(0)).open("r+b") as file:
        file.seek(0)
        file.write(b'{"k":"torn')
    assert datacat.last_run("editor", tmp_path)["status"] == "ended"


@pytest.mark.parametrize("value", [0, 1.5, b"x", [1], object(), "a\0b", "\ud800", "x" * 5000])
def test_a_folder_that_is_none_has_no_last_run(tmp_path, monkeypatch, value):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert datacat.last_run("p", state_dir=value) is None
    assert datacat.last_run(value) is None
