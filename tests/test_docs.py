"""The documents tell the truth: their code runs, and every setting, endpoint and command is in them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from system.box import Box

from datacat.cli.main import COMMANDS
from datacat.daemon import config as daemon_config
from datacat.daemon import intake
from datacat.server import config as server_config
from datacat.server import ingest, service
from datacat.server.config import Config

ROOT = Path(__file__).parents[1]
DOCS = sorted([ROOT / "README.md", *ROOT.glob("docs/*.md")])


def text(name):
    return (ROOT / name).read_text(encoding="utf-8")


def rows(name):
    """Return (first cell, second cell) of every row of the tables of a page, without code marks."""
    cells = re.findall(r"^\| ([^|]+) \| ([^|]+) \|", text(name), re.MULTILINE)
    return [(first.strip().strip("`"), second.strip().strip("`")) for first, second in cells]


def test_the_code_of_the_readme_runs_and_its_session_is_on_the_server(tmp_path):
    (code,) = re.findall(r"^```python\n(.*?)^```", text("README.md"), re.DOTALL | re.MULTILINE)
    assert len(code.splitlines()) <= 10
    box = Box(tmp_path)
    try:
        box.start_server()
        assert "http://localhost:8080" in code
        program = code.replace("http://localhost:8080", box.url)
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", program], env=box.env, capture_output=True, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
        session = box.ended("editor")
    finally:
        box.close()
    assert (session["status"], session["end_reason"]) == ("ended", "clean")
    assert session["state"]["document"] == {"name": "letter.txt", "pages": 3}
    assert [event["name"] for event in session["events"]] == ["document_saved"]
    assert {metric["name"] for metric in session["metrics"]} >= {"document.save", "saves", "open_windows"}


def test_the_way_back_works_as_documented(tmp_path):
    (code,) = re.findall(r"^```python\n(.*?)^```", text("docs/witness.md"), re.DOTALL | re.MULTILINE)
    box = Box(tmp_path)
    program = code.replace("http://localhost:8080", "http://127.0.0.1:9")
    crash = program + "session.update_state({'document': 'letter.txt'})\nimport os; os._exit(7)\n"
    try:
        said = [box.said(crash) for _ in range(4)]
        said.append(box.said(program))
        assert said[0] == ["normal mode"]
        bad = ["the last run ended badly: exit_code exit code 7", "it had not hung", "open then: letter.txt"]
        assert said[1:] == [[*bad, mode] for mode in ("normal mode", "normal mode", "safe mode", "safe mode")]
        assert box.said(program) == ["normal mode"]
    finally:
        box.close()


def test_the_commands_of_the_readme_exist():
    named = set(re.findall(r"^    datacat (\w+)", text("README.md"), re.MULTILINE))
    assert named
    assert named <= set(COMMANDS)
    for script in re.findall(r"^    \./(scripts/\w+)", text("README.md"), re.MULTILINE):
        assert (ROOT / script).stat().st_mode & 0o111


def test_every_setting_of_the_server_is_documented_as_it_is():
    assert text("docs/settings.md") == server_config.settings_doc()


def test_every_setting_of_the_daemon_is_documented_as_it_is():
    documented = dict(rows("docs/daemon.md"))
    assert {name: documented.get(name) for name in daemon_config.SETTINGS} == {
        name: setting.allowed for name, setting in daemon_config.SETTINGS.items()
    }


def test_every_endpoint_of_the_server_is_documented_and_no_other(monkeypatch):
    served = {("POST", "/api/sessions/{id}/batches"), ("GET", "/api/sessions/{id}/acked")}  # beside the table
    assert all(ingest.PATH.fullmatch(path) for _, path in served)
    router = service.router.Router
    monkeypatch.setattr(
        service.router,
        "Router",
        lambda table, *more: served.update((route.method, route.path) for route in table) or router(table, *more),
    )
    service.build(Config(store="memory:", port=0)).stop()
    documented = [row for row in rows("docs/api.md") if row[0] in ("GET", "POST", "DELETE", "PUT", "PATCH")]
    assert sorted(documented) == sorted(served)


def test_every_endpoint_of_the_daemon_is_documented_and_no_other():
    served = [("POST", f"/{name}") for name in intake.POSTS] + [("GET", f"/{name}") for name in intake.GETS]
    documented = [row for row in rows("docs/daemon.md") if row[0] in ("GET", "POST")]
    assert sorted(documented) == sorted(served)


@pytest.mark.parametrize("page", DOCS, ids=lambda path: path.name)
def test_what_a_page_links_to_is_there(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target
