"""Server, key and authority: flag over environment over the user's file."""

import click
import pytest
from click.testing import CliRunner

from datacat.cli import main
from datacat.cli.preferences import Target, target


@pytest.fixture
def told(monkeypatch, tmp_path):
    """Return what a subcommand is told; the file and the environment are the test's."""
    for name in ("DATACAT_SERVER_URL", "DATACAT_API_KEY", "DATACAT_KEY_FILE", "DATACAT_CA_FILE"):
        monkeypatch.delenv(name, raising=False)
    file = tmp_path / "cli.toml"
    file.write_text("")
    monkeypatch.setenv("DATACAT_CLI_CONFIG", str(file))

    def told(*args, server=None, api_key=None):
        seen = []

        @main.group.command("seen", hidden=True)
        @click.pass_context
        def seen_command(ctx):
            seen.append(target(ctx, server, api_key))

        monkeypatch.setitem(main.COMMANDS, "seen", ("", ""))
        monkeypatch.setattr(type(main.group), "get_command", lambda *_: seen_command)
        done = CliRunner().invoke(main.group, [*args, "seen"], standalone_mode=False)
        if done.exception:
            raise done.exception
        return seen[0]

    told.file = file
    return told


def test_without_anything_it_is_the_server_of_this_machine(told):
    assert told() == Target("http://localhost:8080", False, "", "")


def test_a_flag_wins_over_the_environment_over_the_file(told, monkeypatch):
    told.file.write_text('server = "http://file"\napi_key = "f"\nca_file = "/f.pem"\n')
    assert told() == Target("http://file", True, "f", "/f.pem")
    monkeypatch.setenv("DATACAT_SERVER_URL", "http://environment")
    monkeypatch.setenv("DATACAT_API_KEY", "e")
    monkeypatch.setenv("DATACAT_CA_FILE", "/e.pem")
    assert told() == Target("http://environment", True, "e", "/e.pem")
    flags = ("--server", "http://flag", "--api-key", "g", "--ca-file", "/g.pem")
    assert told(*flags) == Target("http://flag", True, "g", "/g.pem")
    assert told(*flags, server="http://behind", api_key="b") == Target("http://behind", True, "b", "/g.pem")


def test_a_key_may_be_in_a_file(told, monkeypatch, tmp_path):
    key = tmp_path / "key"
    key.write_text("  secret \nsomething else\n")
    assert told("--key-file", str(key)).api_key == "secret"
    told.file.write_text(f'key_file = "{key}"\n')
    assert told().api_key == "secret"
    monkeypatch.setenv("DATACAT_API_KEY", "e")
    assert told().api_key == "e"
    assert told("--key-file", str(key)).api_key == "secret"


@pytest.mark.parametrize("content", [None, b"", b"\n", b"\xff"])
def test_a_file_without_a_key_is_said(told, tmp_path, content):
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(click.ClickException, match="key"):
        told("--key-file", str(path))


@pytest.mark.parametrize("content", ["prot = 1", "server = 1", "server = ", "[server]"])
def test_a_malformed_file_of_settings_is_said(told, content):
    told.file.write_text(content)
    with pytest.raises(click.ClickException, match=r"cli\.toml"):
        told()


def test_a_file_that_was_named_and_is_missing_is_said(told):
    told.file.unlink()
    with pytest.raises(click.ClickException, match="DATACAT_CLI_CONFIG"):
        told()
