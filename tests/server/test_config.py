"""Settings: one table, four sources, nothing unknown, nothing malformed."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from datacat.cli.server import command
from datacat.errors import ConfigError
from datacat.server.config import SETTINGS, Config, is_loopback, load, settings_doc

ROOT = Path(__file__).parents[2]


def test_without_anything_every_setting_has_its_default():
    assert load({}, {}) == Config()


def test_a_flag_wins_over_the_environment_over_the_file_over_the_default(tmp_path):
    file = tmp_path / "server.toml"
    file.write_text("port = 1\nthreads = 2\nlog_level = 'debug'\n")
    config = load(
        {"port": "3", "host": None}, {"DATACAT_CONFIG": str(file), "DATACAT_PORT": "2", "DATACAT_THREADS": "4"}
    )
    assert (config.port, config.threads, config.log_level, config.host) == (3, 4, "debug", "127.0.0.1")


def test_the_file_may_be_named_by_a_flag(tmp_path):
    file = tmp_path / "server.toml"
    file.write_text('retention_days = 7\ninsecure = true\nallowed_hosts = ["cat.example"]\n')
    config = load({"config": str(file)}, {})
    assert (config.retention_days, config.insecure, config.allowed_hosts) == (7.0, True, ("cat.example",))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", "abc"),
        ("port", "65536"),
        ("port", "-1"),
        ("port", "1.5"),
        ("threads", "0"),
        ("retention_days", "-1"),
        ("retention_days", "nan"),
        ("lease_s", "inf"),
        ("insecure", "maybe"),
        ("log_level", "loud"),
        ("heartbeat_timeout_s", ""),
    ],
)
def test_a_malformed_value_is_named_with_the_allowed_form(name, value):
    with pytest.raises(ConfigError) as caught:
        load({}, {f"DATACAT_{name.upper()}": value})
    allowed = next(setting.allowed for setting in SETTINGS if setting.name == name)
    assert str(caught.value) == f"unexpected value DATACAT_{name.upper()}={value}; use {allowed}"
    with pytest.raises(ConfigError, match=f"--{name.replace('_', '-')}={value}"):
        load({name: value}, {})


@pytest.mark.parametrize(
    "line",
    [
        "port = true",
        "port = 1.0",
        "port = []",
        "log_level = 3",
        "allowed_hosts = [1]",
        "insecure = 1",
        "lease_s = true",
    ],
)
def test_a_wrong_type_in_the_file_stops_the_start(tmp_path, line):
    file = tmp_path / "server.toml"
    file.write_text(line)
    with pytest.raises(ConfigError, match="unexpected value"):
        load({"config": str(file)}, {})


def test_an_unknown_name_in_the_file_stops_the_start(tmp_path):
    file = tmp_path / "server.toml"
    file.write_text("prot = 9000\n")
    with pytest.raises(ConfigError, match=r"prot=9000; use a setting that exists: .*port"):
        load({"config": str(file)}, {})


def test_names_of_other_programs_in_the_environment_are_left_alone():
    assert load({}, {"DATACAT_SERVER_URL": "http://x", "DATACAT_API_KEY": "k"}) == Config()


@pytest.mark.parametrize("content", ["port = ", b"\xff\xfe", None])
def test_a_file_that_cannot_be_read_stops_the_start(tmp_path, content):
    file = tmp_path / "server.toml"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match=r"config=.*server\.toml"):
        load({"config": str(file)}, {})


@pytest.mark.parametrize("name", ["tls_cert", "tls_key"])
def test_https_needs_both_files(name):
    other = {"tls_cert": "tls_key", "tls_key": "tls_cert"}[name]
    with pytest.raises(ConfigError, match=f"{other}=; use .*{name} is given"):
        load({name: "/etc/a.pem"}, {})
    assert load({"tls_cert": "a", "tls_key": "b"}, {}).tls_key == "b"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost", "LOCALHOST"])
def test_loopback_is_known(host):
    assert is_loopback(host)


def test_the_page_of_settings_is_fresh():
    assert (ROOT / "docs" / "settings.md").read_text(encoding="utf-8") == settings_doc()


def test_the_page_of_settings_tells_every_setting():
    page = settings_doc()
    for item in SETTINGS:
        assert f"\n## {item.name}\n" in page
        assert f"`DATACAT_{item.name.upper()}`" in page


def test_the_help_tells_every_setting():
    told = CliRunner().invoke(command, ["--help"])
    assert told.exit_code == 0
    for item in SETTINGS:
        assert f"--{item.name.replace('_', '-')}" in told.output


def test_the_command_prints_the_page_of_settings():
    told = CliRunner().invoke(command, ["--settings-doc"])
    assert told.output == settings_doc()


@pytest.mark.parametrize("wrong", ["datacat.example", "ftp://x", "http://", "https://me@x", "https://x?y"])
def test_the_public_address_is_one_of_a_server(wrong):
    with pytest.raises(ConfigError):
        load({"public_url": wrong}, {})


def test_retention_by_product_is_a_table_of_the_file_or_a_text(tmp_path):
    file = tmp_path / "server.toml"
    file.write_text('retention_days = 7\n[retention]\neditor = 90\n"my player" = 0.5\n')
    assert load({"config": str(file)}, {}).retention == (("editor", 90.0), ("my player", 0.5))
    assert load({}, {"DATACAT_RETENTION": "b=3, a = 2"}).retention == (("a", 2.0), ("b", 3.0))
    for wrong in ("a", "=3", "a=x", "a=-1"):
        with pytest.raises(ConfigError, match="retention"):
            load({"retention": wrong}, {})
