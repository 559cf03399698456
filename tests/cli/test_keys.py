"""datacat keys: in a data folder, and through a server."""

import contextlib
import json
import subprocess

import pytest
from click.testing import CliRunner
from system.box import BIN

from datacat.cli import keys, main
from datacat.cli.keys import data_folder
from datacat.server import service
from datacat.server.audit import Audit
from datacat.server.config import Config
from datacat.server.keys import KeyFile, Ring


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Run the command in this process as a user without settings."""
    for name in ("DATACAT_SERVER_URL", "DATACAT_API_KEY", "DATACAT_KEY_FILE", "DATACAT_DATA_DIR", "DATACAT_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    empty = tmp_path / "cli.toml"
    empty.write_text("")
    monkeypatch.setenv("DATACAT_CLI_CONFIG", str(empty))

    def run(*args):
        return CliRunner().invoke(main.group, ["keys", *map(str, args)], standalone_mode=False)

    return run


@contextlib.contextmanager
def serving(folder):
    built = service.build(Config(port=0, store="memory:", data_dir=str(folder)), {})
    try:
        built.start()
        yield built
    finally:
        built.stop()


def test_the_key_alone_is_printed_and_works(run, tmp_path):
    told = run("create", "fleet", "--role", "ingest", "--product", "editor", "--data-dir", tmp_path)
    assert told.exception is None
    text = told.stdout.strip()
    key = Ring(KeyFile(tmp_path)).find(text)
    assert (key.name, key.role, key.products, key.expires_at) == ("fleet", "ingest", ("editor",), 0)
    assert "everybody needs one now" in told.stderr
    assert text not in told.stderr
    assert [row["who"].endswith(" on the command line") for row in Audit(tmp_path, int).newest_first()] == [True]


def test_a_key_may_end(run, tmp_path):
    made = json.loads(run("create", "x", "--role", "read", "--expires", "90d", "--json", "--data-dir", tmp_path).stdout)
    key = KeyFile(tmp_path).read()[0]
    assert key.expires_at - key.created_at == 90 * 86_400 * 1_000_000
    assert made["name"] == "x"
    assert run("create", "y", "--role", "read", "--expires", "soon", "--data-dir", tmp_path).exit_code != 0


def test_keys_are_listed_without_their_texts_and_revoked_by_name_or_id(run, tmp_path):
    assert "there are no keys" in run("list", "--data-dir", tmp_path).stderr
    texts = [run("create", name, "--role", "read", "--data-dir", tmp_path).stdout.strip() for name in ("one", "two")]
    listed = run("list", "--data-dir", tmp_path).stdout
    assert "one" in listed
    assert "two" in listed
    assert not any(text.split("_", 2)[2] in listed for text in texts)
    assert run("revoke", "one", "--data-dir", tmp_path).return_value == 0
    assert run("revoke", KeyFile(tmp_path).read()[0].id, "--data-dir", tmp_path).return_value == 0
    assert json.loads(run("list", "--json", "--data-dir", tmp_path).stdout) == []
    gone = run("revoke", "one", "--data-dir", tmp_path)
    assert gone.return_value == 1
    assert "there is no key one" in gone.stderr


def test_a_name_that_is_taken_is_said_in_one_line(tmp_path):
    command = [BIN / "datacat", "keys", "create", "x", "--role", "read", "--data-dir", tmp_path]
    first, second = (subprocess.run(command, capture_output=True, text=True, check=False, timeout=40) for _ in range(2))
    assert first.returncode == 0
    assert (second.returncode, second.stdout) == (1, "")
    assert second.stderr == "datacat: there is a key named 'x' already; revoke it first\n"


def test_through_a_server_with_an_admin_key(run, tmp_path, monkeypatch):
    folder = tmp_path / "data"
    admin = run("create", "ops", "--role", "admin", "--data-dir", folder).stdout.strip()
    with serving(folder) as server:
        assert run("list", "--server", server.url).exception.status == 401
        key_file = tmp_path / "key"
        key_file.write_text(f"{admin}\n")
        asked = ("--server", server.url, "--key-file", key_file)
        text = run("create", "fleet", "--role", "ingest", *asked).stdout.strip()
        assert Ring(KeyFile(folder)).find(text).name == "fleet"
        assert [key["name"] for key in json.loads(run("list", "--json", *asked).stdout)] == ["ops", "fleet"]
        monkeypatch.setenv("DATACAT_SERVER_URL", server.url)
        monkeypatch.setenv("DATACAT_API_KEY", admin)
        assert run("revoke", "fleet").return_value == 0
        assert run("revoke", "fleet").return_value == 1
        assert run("create", "ops", "--role", "read").exception.status == 422
        made = run("create", "guest", "--role", "read", "--expires", "2h", "--json")
        assert json.loads(made.stdout)["expires_at"]
    assert [row["who"] for row in Audit(folder, int).newest_first()][:3] == ["ops"] * 3


def test_the_folder_is_where_the_servers_settings_say(tmp_path, monkeypatch):
    monkeypatch.delenv("DATACAT_DATA_DIR", raising=False)
    config = tmp_path / "server.toml"
    config.write_text('data_dir = "/srv/datacat"\n')
    assert str(data_folder("", str(config))) == "/srv/datacat"
    assert str(data_folder("", "", config)) == "/srv/datacat"
    assert str(data_folder("/given", str(config))) == "/given"
    monkeypatch.setenv("DATACAT_DATA_DIR", "/from/environment")
    assert str(data_folder("", "", config)) == "/from/environment"


def test_without_settings_it_is_where_the_server_would_be(tmp_path, monkeypatch):
    monkeypatch.delenv("DATACAT_DATA_DIR", raising=False)
    monkeypatch.setattr(keys.checks, "data_folder", lambda given, _environ: (tmp_path / "default", given))
    assert data_folder("", "", tmp_path / "none.toml") == tmp_path / "default"
