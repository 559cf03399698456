import subprocess
import sys
import uuid

import pytest
from client_helpers import NO_DAEMON, Broken, BrokenDict, meta, sessions, written

import datacat
from datacat.client import create, guard, live
from datacat.wire.records import Event

HEAVY = {
    "cherrypy",
    "requests",
    "psutil",
    "semidbm",
    "asyncio",
    "http",
    "http.client",
    "urllib.request",
    "logging",
    "socket",
}


def test_importing_and_using_datacat_loads_nothing_heavy(tmp_path):
    code = f"""
import sys
before = set(sys.modules)
import datacat
session = datacat.create_session(product="p", version="1", state_dir={str(tmp_path)!r})
session.log_event("x"); session.update_state({{"a": 1}}); session.heartbeat(); session.log_gauge("g", 1)
with session.timer("t"): pass
session.end()
print(*(set(sys.modules) - before))
"""
    run = subprocess.run(
        [sys.executable, "-I", "-c", code],
        env={"DATACAT_PYTHON": NO_DAEMON, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert sorted(set(run.stdout.split()) & HEAVY) == []


def test_what_is_not_said_is_found_out(tmp_path):
    session = datacat.create_session(state_dir=tmp_path)
    session.end()
    first = written(session.journal_folder)[0]
    assert (first.product, first.version) == (create.main_program(sys.argv), "unknown")
    assert uuid.UUID(session.id).version == 7
    assert meta(session.journal_folder).server_url == "http://localhost:8080"


@pytest.mark.parametrize(
    ("argv", "name"),
    [
        (["/opt/app/editor.py"], "editor"),
        (["/usr/bin/tool"], "tool"),
        (["/x/pytest/__main__.py"], "pytest"),
        (["-c"], "python"),
        ([""], "python"),
        ([], "python"),
    ],
)
def test_the_product_is_named_like_the_program(argv, name):
    assert create.main_program(argv) == name


def test_settings_for_the_daemon_travel_in_session_json(tmp_path):
    session = datacat.create_session(
        product="p",
        version="1",
        state_dir=tmp_path,
        api_key="k",
        daemon_port=8200,
        settings={"batch_interval_seconds": 1, "odd": object()},
    )
    session.end()
    settings = meta(session.journal_folder).settings
    assert settings.pop("odd").startswith("<object")
    assert settings == {"api_key": "k", "daemon_port": 8200, "batch_interval_seconds": 1}


def test_a_session_id_of_one_s_own_is_used_when_it_is_a_uuid(tmp_path):
    own = str(uuid.uuid4())
    assert datacat.create_session(session_id=own.upper(), state_dir=tmp_path).id == own
    assert uuid.UUID(datacat.create_session(session_id="mine", state_dir=tmp_path).id)


@pytest.mark.parametrize("value", [0, -1, 1.5, b"x", [], {}, object(), "\ud800", "x" * 10_000, True])
def test_create_session_takes_any_argument(tmp_path, value):
    session = datacat.create_session(
        value, value, value, environment=value, session_id=value, state=value, api_key=value, daemon_port=value,
        state_dir=tmp_path,
    )  # fmt: skip
    session.log_event("x")
    session.end()
    first = written(session.journal_folder)[0]
    assert first.product
    assert first.version
    assert guard.faults == 0


def test_two_sessions_of_one_process_are_independent(tmp_path):
    first = datacat.create_session(product="a", version="1", state_dir=tmp_path)
    second = datacat.create_session(product="b", version="1", state_dir=tmp_path)
    assert live.sessions() == [first, second]
    first.log_event("in first")
    first.end()
    second.log_event("in second")
    second.end()
    assert [record.name for record in written(second.journal_folder)[1:-1]] == ["in second"]
    assert live.sessions() == []


def test_a_mistake_of_ours_is_counted_and_the_app_goes_on(tmp_path, monkeypatch):
    def broken(*_args, **_kwargs):
        raise ZeroDivisionError

    monkeypatch.setattr(guard, "strict", False)
    monkeypatch.setattr(create, "_local_session", broken)
    session = datacat.create_session(product="p", version="1", state_dir=tmp_path)
    session.log_event("x")
    session.end()
    assert guard.faults == 1


def test_a_first_state_that_is_no_json_is_kept_in_a_safe_form(tmp_path):
    session = datacat.create_session(product="p", version="1", state={"x": float("nan"), "y": 1}, state_dir=tmp_path)
    assert written(session.journal_folder)[0].state == {"x": "nan", "y": 1}


@pytest.mark.parametrize("value", [0, 1.5, b"x", [1], {1: 2}, object(), True, Broken(), BrokenDict(a=1)])
def test_a_setting_or_folder_of_a_wrong_type_does_not_cost_the_session(tmp_path, monkeypatch, value):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    for wrong in ("settings", "state_dir", "base_url", "product", "session_id", "environment", "state"):
        session = datacat.create_session(**{"product": "p", "version": "1", wrong: value})
        session.log_event("x")
        session.end()
        assert [record.name for record in written(session.journal_folder) if isinstance(record, Event)] == ["x"], wrong
    assert guard.faults == 0


def test_a_folder_with_an_impossible_name_is_dropped_and_counted_without_a_mistake(tmp_path):
    for name in ("a\0b", "\ud800", "x" * 5000):
        session = datacat.create_session(product="p", version="1", state_dir=name)
        session.log_event("x")
        assert session.stats()["dropped"] == {"no_folder": 1}
    assert guard.faults == 0


def test_an_app_that_changes_its_working_directory_goes_on_in_its_journal(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    session = datacat.create_session(product="p", version="1", state_dir="here")
    monkeypatch.chdir("/")
    text = "x" * 30_000
    for number in range(100):
        session.log_event(f"e{number}", message=text)
    session.end()
    assert session.stats()["dropped"] == {}
    (folder,) = sessions(tmp_path / "here")
    assert [record.name for record in written(folder)[1:-1]] == [f"e{number}" for number in range(100)]
