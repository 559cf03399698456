"""datacat doctor: what is wrong, and what to do. The unit's states are canned; servers, ports and folders are real."""

import json
import os
import socket
import subprocess

import pytest
from system.box import BIN, Box

from datacat import __version__
from datacat.cli import checks
from datacat.cli.checks import Answer

NOW_S = 1_800_000_000.0
DATE = "Fri, 15 Jan 2027 08:00:00 GMT"


def told(findings):
    return {finding.name: finding for finding in findings}


def server(answers, now_s=NOW_S):
    return told(checks.server("http://x:1", lambda path: answers.get(path, Answer(404, "")), "1.0", now_s))


HEALTHY = {
    "/livez": Answer(200, "ok", DATE),
    "/readyz": Answer(200, "ok"),
    "/health": Answer(200, "", "", {"status": "ok", "version": "1.0"}),
}


def test_a_healthy_server_has_no_findings_but_good_ones():
    found = server(HEALTHY)
    assert {finding.level for finding in found.values()} == {"ok"}
    assert list(found) == ["server", "store", "version", "clock"]


@pytest.mark.parametrize(
    ("answers", "name", "level", "text", "remedy"),
    [
        ({"/livez": Answer(0, "ConnectionError")}, "server", "problem", "nothing answers", "service start"),
        ({"/livez": Answer(404, "")}, "server", "problem", "no datacat server", "--server"),
        (
            {**HEALTHY, "/readyz": Answer(503, "", "", {"detail": "cannot take writes: disk full"})},
            "store", "problem", "disk full", "logs",
        ),
        (
            {**HEALTHY, "/health": Answer(200, "", "", {"version": "0.9"})},
            "version", "note", "the server is 0.9, this command 1.0", "service restart",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_server_is_said_with_a_remedy(answers, name, level, text, remedy):
    finding = server(answers)[name]
    assert finding.level == level
    assert text in finding.text
    assert remedy in finding.remedy


@pytest.mark.parametrize(("off_s", "level", "word"), [(3, "ok", "same"), (90, "problem", "90 s behind"), (-90, "problem", "90 s ahead")])  # fmt: skip
def test_a_clock_that_differs_is_said(off_s, level, word):
    finding = server(HEALTHY, NOW_S + off_s)["clock"]
    assert finding.level == level
    assert word in finding.text


def unit(show, journal="", *, user=False):
    asked = []

    def ask(argv):
        asked.append(argv)
        return journal if argv[0] == "journalctl" else show

    found = told(checks.unit(ask, user=user))
    assert all(("--user" in argv or "--user-unit" in argv) == user for argv in asked)
    return found


RUNNING = (
    "LoadState=loaded\nUnitFileState=enabled\nActiveState=active\nSubState=running\nResult=success\n"
    "ExecMainStatus=0\nNRestarts=0\nStatusText=12 sessions open, 340 records/s, store 1.2 GB\n"
)


def test_a_running_service_tells_its_status():
    assert unit(RUNNING) == {"service": ("service", "ok", "running: 12 sessions open, 340 records/s, store 1.2 GB", "")}


def test_exit_status_78_is_explained_with_the_servers_last_words():
    show = RUNNING.replace("=active", "=failed").replace("=running", "=failed").replace("=success", "=exit-code")
    journal = (
        "datacat-server: serving on http://127.0.0.1:8080\n"
        "datacat-server: cannot listen on 127.0.0.1:8080: Address already in use; stop what listens there\n"
        "datacat-server.service: Failed with result 'exit-code'.\n"
    )
    finding = unit(show.replace("ExecMainStatus=0", "ExecMainStatus=78"), journal)["service"]
    assert finding.level == "problem"
    assert "it needs you (exit status 78): cannot listen on 127.0.0.1:8080: Address already in use" in finding.text
    assert finding.remedy == "change that, then: datacat service start"


@pytest.mark.parametrize(
    ("change", "name", "level", "text"),
    [
        (("=active", "=inactive"), "service", "problem", "it does not run (inactive)"),
        (("=enabled", "=disabled"), "service at boot", "note", "does not start with the machine (disabled)"),
        (("NRestarts=0", "NRestarts=3"), "service restarts", "note", "restarted it 3 times"),
    ],
)
def test_the_states_of_a_unit_are_told_apart(change, name, level, text):
    finding = unit(RUNNING.replace(*change))[name]
    assert finding.level == level
    assert text in finding.text
    assert finding.remedy


def test_a_watchdog_that_struck_for_good_is_told():
    show = RUNNING.replace("=active", "=failed").replace("=success", "=watchdog")
    assert "failed: watchdog" in unit(show)["service"].text


def test_no_unit_is_a_note_for_the_machine_and_nothing_for_the_user():
    assert unit("LoadState=not-found\nActiveState=inactive\n")["service"].level == "note"
    assert unit("LoadState=not-found\nActiveState=inactive\n", user=True) == {}
    assert unit("") == {}


def test_the_owner_of_a_port_is_named():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        (finding,) = checks.port(url, answered=False)
        assert finding.level == "problem"
        assert f"(pid {os.getpid()})" in finding.text
        assert list(checks.port(url, answered=True)) == []
    (finding,) = checks.port(url, answered=False)
    assert finding.level == "note"
    assert list(checks.port("http://cat.example:80", answered=False)) == []


def test_a_data_folder_is_looked_at(tmp_path):
    (missing,) = checks.data(tmp_path / "none")
    assert missing.level == "note"
    assert {finding.level for finding in checks.data(tmp_path)} <= {"ok", "problem"}
    wrong = told(checks.data(tmp_path, "nobody-of-that-name"))["data"]
    assert wrong.level == "problem"
    assert wrong.remedy == f"chown -R nobody-of-that-name: {tmp_path}"
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "format").write_bytes(b"datacat store 9\n")
    assert "has the format 9" in told(checks.data(tmp_path))["store format"].text


def test_a_full_disk_is_a_problem(tmp_path, monkeypatch):
    monkeypatch.setattr(checks, "LEAST_FREE_BYTES", 1 << 62)
    (finding,) = checks.room("disk", tmp_path)
    assert finding.level == "problem"
    assert "retention_days" in finding.remedy


def test_the_folder_of_the_machines_service_is_found_first(tmp_path):
    assert checks.data_folder("/x", {}) == (checks.Path("/x"), "")
    assert checks.data_folder("", {}, tmp_path) == (tmp_path, "datacat")
    assert checks.data_folder("", {"STATE_DIRECTORY": "/s"}, tmp_path) == (checks.Path("/s"), "")
    assert checks.data_folder("", {}, tmp_path / "no")[0].name == "server"


def test_the_spool_is_counted(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    (empty,) = checks.spool()
    assert (empty.level, empty.text) == ("ok", "empty")
    for name, done in (("a", True), ("b", False)):
        folder = tmp_path / "datacat" / "spool" / name
        folder.mkdir(parents=True)
        (folder / "session.json").write_text("{}")
        if done:
            (folder / "summary.json").write_text("{}")
    (found,) = checks.spool()
    assert found.text.startswith("1 sessions not shipped whole yet, 0.0 MB in ")
    monkeypatch.setattr(checks, "MANY_SPOOLED_BYTES", -1)
    (found,) = checks.spool()
    assert found.level == "problem"


def doctor(box, *flags):
    return subprocess.run(
        [BIN / "datacat", "--server", box.url, "doctor", "--data-dir", box.folder / "data", *flags],
        env=box.env, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def test_the_doctor_finds_a_running_server_well_and_a_stopped_one_ill(tmp_path):
    box = Box(tmp_path)
    try:
        box.start_server()
        well = doctor(box, "--json")
        found = {finding["name"]: finding for finding in json.loads(well.stdout)}
        assert (found["server"]["level"], found["version"]["text"]) == ("ok", __version__)
        assert {"store", "clock", "data", "disk", "spool"} <= set(found)
        assert well.returncode == int(any(finding["level"] == "problem" for finding in found.values()))
        box.stop_server()
        ill = doctor(box)
        assert ill.returncode == 1
        assert f"PROBLEM  server: nothing answers at {box.url}" in ill.stdout
        assert "-> datacat service start" in ill.stdout
    finally:
        box.close()
