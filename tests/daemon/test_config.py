"""Settings: each source, their order, and what is wrong with them."""

import pytest

from datacat.daemon.config import AUTO_PORT, SETTINGS, Config, adjusted, load
from datacat.errors import ConfigError


def test_flags_win_over_the_environment_over_the_file_over_defaults(tmp_path):
    file = tmp_path / "d.json"
    file.write_text('{"server_url": "http://file", "api_key": "file", "max_batch_size": 7, "colour": 1}')
    environ = {"DATACAT_CONFIG": str(file), "DATACAT_SERVER_URL": "http://environ/", "DATACAT_API_KEY": "environ"}
    config, unknown = load({"api_key": "flag", "tls_verify": None}, environ)
    assert (config.server_url, config.api_key, config.max_batch_size) == ("http://environ", "flag", 7)
    assert config.tls_verify is True
    assert unknown == ["colour"]
    assert load({}, {}) == (Config(), [])


@pytest.mark.parametrize(
    ("given", "port"), [("auto", AUTO_PORT), ("", AUTO_PORT), ("8079", 8079), (8079, 8079), (0, 0)]
)
def test_the_port_is_auto_a_text_or_a_number(given, port):
    assert load({"daemon_port": given}, {})[0].daemon_port == port


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("daemon_port", "70000"),
        ("daemon_port", "web"),
        ("daemon_port", True),
        ("server_url", "localhost:8080"),
        ("batch_interval_seconds", "0"),
        ("batch_interval_seconds", "nan"),
        ("heartbeat_timeout_seconds", "soon"),
        ("enable_compression", "maybe"),
        ("max_batch_size", 0),
        ("max_batch_size", "1e3"),
        ("api_key", 7),
        ("log_level", "loud"),
    ],
)
def test_what_is_malformed_is_named_with_what_is_allowed(name, value):
    with pytest.raises(ConfigError) as caught:
        load({name: value}, {})
    assert caught.value.name == name
    assert caught.value.allowed == SETTINGS[name].allowed


@pytest.mark.parametrize("text", ["{", "[1]", None])
def test_a_file_that_cannot_be_read_is_an_error(tmp_path, text):
    file = tmp_path / "d.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError):
        load({"config": str(file)}, {})


def test_a_key_is_never_shown():
    with pytest.raises(ConfigError) as caught:
        load({"api_key": ["secret"]}, {})
    assert "secret" not in str(caught.value)


def test_a_session_may_ask_for_its_own_settings_and_nonsense_is_left_out():
    config = adjusted(Config(), {"batch_interval_seconds": 1, "heartbeat_timeout_seconds": "x", "colour": 2})
    assert config == Config(batch_interval_seconds=1.0)
    assert adjusted(config, {}) is config


def test_every_field_is_a_setting():
    assert set(SETTINGS) == set(Config.__struct_fields__)
