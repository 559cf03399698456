"""datacat alerts: what is watched, what fires, and whether webhooks can be reached."""

import contextlib

import pytest
from click.testing import CliRunner
from receiving import receiver

from datacat.cli import main
from datacat.server import keys, service
from datacat.server.audit import Audit
from datacat.server.config import load


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Run the command in this process as a user without settings."""
    for name in ("DATACAT_SERVER_URL", "DATACAT_API_KEY", "DATACAT_KEY_FILE", "DATACAT_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    empty = tmp_path / "cli.toml"
    empty.write_text("")
    monkeypatch.setenv("DATACAT_CLI_CONFIG", str(empty))
    return lambda *args: CliRunner().invoke(main.group, ["alerts", *map(str, args)], standalone_mode=False)


def settings(folder, url):
    path = folder / "server.toml"
    path.write_text(
        f'port = 0\nstore = "memory:"\ndata_dir = "{folder / "data"}"\n'
        f'[[webhooks]]\nname = "team"\nurl = "{url}"\n'
        '[[webhooks]]\nname = "other"\nurl = "http://127.0.0.1:1/secret"\nformat = "slack"\n'
        '[[alerts]]\nname = "silence"\nrule = "no_data"\nfor_s = 1\nwebhooks = ["team"]\n'
    )
    return path


@contextlib.contextmanager
def serving(config):
    built = service.build(load({"config": str(config)}, {}), {})
    try:
        built.start()
        yield built
    finally:
        built.stop()


def test_a_test_from_here_says_what_came_back(run, tmp_path):
    with receiver(200, b"thanks") as (url, seen):
        config = settings(tmp_path, url)
        one = run("test", "silence", "--config", config)
        assert (one.return_value, one.stdout) == (0, "ok team (json): HTTP 200: thanks\n")
        both = run("test", "--config", config)
        assert both.return_value == 1
        assert "ok team" in both.stdout
        assert "FAILED other (slack): Connection refused" in both.stdout
        assert "secret" not in both.stdout
        assert run("test", "team", "--config", config).return_value == 0
        assert "no alert or webhook 'none'" in str(run("test", "none", "--config", config).exception)
        assert len(seen) == 3


def test_a_test_by_the_server_needs_an_admin_key_and_is_in_the_audit_log(run, tmp_path):
    with receiver() as (url, seen), serving(settings(tmp_path, url)) as server:
        assert run("test", "silence", "--server", server.url).exception.status == 401
        key, text = keys.make("ops", "admin", (), 0, 1)
        keys.KeyFile(tmp_path / "data").add(key)
        server.reload(lambda: server.live.now)
        asked = ("--server", server.url, "--api-key", text)
        assert run("test", "silence", *asked).stdout == "ok team (json): HTTP 200: ok\n"
        assert run("test", "none", *asked).exception.status == 404
        assert len(seen) == 1
        assert [row["act"] for row in Audit(tmp_path / "data", int).newest_first()] == ["alerts_tested"]


def test_what_fires_is_listed_without_addresses(run, tmp_path):
    with receiver() as (url, _), serving(settings(tmp_path, url)) as server:
        told = run("list", "--server", server.url)
        assert "silence" in told.stdout
        assert "no_data" in told.stdout
        as_json = run("list", "--json", "--server", server.url).stdout
        assert url not in as_json
        assert '"firing": []' in as_json


def test_without_any_alerts_it_is_said_how_to_make_some(run, tmp_path):
    config = tmp_path / "server.toml"
    config.write_text('port = 0\nstore = "memory:"\n')
    with serving(config) as server:
        assert "there are no alerts; [[alerts]]" in run("list", "--server", server.url).stderr
    tried = run("test", "--config", config)
    assert tried.return_value == 1
    assert "there are no webhooks" in tried.stderr
