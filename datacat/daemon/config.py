"""The daemon's settings: one table, four sources (default < JSON file < environment < flag), one frozen Config.

A setting is `name` in the file and in a session's own settings, DATACAT_NAME in the environment, --name on the command
line (- for _). What is malformed raises; what is unknown in the file is named, so that the caller can warn.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from datacat.errors import ConfigError
from datacat.wire import hangs
from datacat.wire.routes import DAEMON_PORT, SERVER_URL

ENVIRONMENT_PREFIX = "DATACAT_"
CONFIG_VARIABLE = "DATACAT_CONFIG"
AUTO_PORT = -1


class Config(msgspec.Struct, frozen=True):
    """Every setting with its value; SETTINGS says what each one means."""

    daemon_port: int = AUTO_PORT
    server_url: str = SERVER_URL
    batch_interval_seconds: float = 5.0
    heartbeat_timeout_seconds: float = 60.0
    slow_seconds: float = hangs.SLOW_S
    hang_stacks: str = "auto"
    py_spy: bool = True
    api_key: str = ""
    api_key_file: str = ""
    max_batch_size: int = 100_000
    enable_compression: bool = True
    tls_verify: bool = True
    tls_ca_file: str = ""
    max_spool_bytes: int = 256 * 1024 * 1024
    process_metrics: bool = True
    process_metrics_interval_seconds: float = 10.0
    linger_seconds: float = 5.0
    log_level: str = "warning"
    log_file: str = ""


class Setting(NamedTuple):
    """How a setting is read: parse raises ValueError, allowed says what it takes."""

    parse: Callable[[Any], Any]
    allowed: str
    about: str


def _number(low: float, high: float) -> Callable[[Any], float]:
    def parse(value: Any) -> float:
        number = float(value)
        if isinstance(value, bool) or not low <= number <= high:
            raise ValueError
        return number

    return parse


def _whole(low: int, high: int) -> Callable[[Any], int]:
    def parse(value: Any) -> int:
        number = int(str(value))
        if isinstance(value, bool) or not low <= number <= high:
            raise ValueError
        return number

    return parse


def _port(value: Any) -> int:
    return AUTO_PORT if str(value).strip().lower() in ("auto", "") else _whole(0, 65535)(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError  # noqa: TRY004  what every parser here raises
    return value


def _url(value: Any) -> str:
    text = _text(value).strip().rstrip("/")
    if not text.startswith(("http://", "https://")):
        raise ValueError
    return text


def _flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    try:
        return words[str(value).strip().lower()]
    except KeyError:
        raise ValueError from None


def _stacks(value: Any) -> str:
    word = hangs.stacks_way({hangs.STACKS_SETTING: value}, {})
    if word.lower() != _text(value).strip().lower():
        raise ValueError
    return word


def _level(value: Any) -> str:
    level = _text(value).lower()
    if level not in ("debug", "info", "warning", "error"):
        raise ValueError
    return level


SECRET = frozenset({"api_key"})
"""Settings that are no flags: a command line can be read by every user of the machine."""

SETTINGS: dict[str, Setting] = {
    "daemon_port": Setting(
        _port, "auto or 0 to 65535", f"local port; auto is {DAEMON_PORT}, or the next free one; 0 any free one"
    ),
    "server_url": Setting(_url, "an http or https address", "where sessions are shipped to, unless they name a server"),
    "batch_interval_seconds": Setting(_number(0.05, 3600), "0.05 to 3600", "how often batches are sent"),
    "heartbeat_timeout_seconds": Setting(
        _number(0.1, 86400 * 365), "0.1 to a year", "silence after which an app is hung, unless it names its own"
    ),
    "api_key": Setting(_text, "a text", "key for the server; no flag, because other users can read those"),
    "api_key_file": Setting(_text, "a path", "file with the key, when api_key is not set; read anew when refused"),
    "slow_seconds": Setting(
        _number(0, 86400 * 365), "0 to a year", "silence after which a slow app is sampled; 0 is never"
    ),
    "hang_stacks": Setting(
        _stacks,
        "auto, thread, off or " + ", ".join(hangs.SIGNALS),
        "how an app that hangs is made to write its stacks: by a signal (auto: SIGURG), only by itself, or not at all",
    ),
    "py_spy": Setting(_flag, "true or false", "whether an installed py-spy is asked when the app writes no stacks"),
    "max_batch_size": Setting(_whole(1, 10_000_000), "1 to 10000000", "records of the journal in one batch"),
    "enable_compression": Setting(_flag, "true or false", "whether batches are compressed (zstd)"),
    "tls_verify": Setting(_flag, "true or false", "whether the server's certificate is checked"),
    "tls_ca_file": Setting(_text, "a path", "PEM file with the only authorities that count; else the system's"),
    "max_spool_bytes": Setting(
        _whole(4 * 1024 * 1024, 2**50), "4194304 or more", "what all journals of the user may take on this machine"
    ),
    "process_metrics": Setting(
        _flag, "true or false", "whether CPU, memory, threads, descriptors and disk I/O of the app are recorded"
    ),
    "process_metrics_interval_seconds": Setting(
        _number(0.1, 3600), "0.1 to 3600", "how often that is done, at most with each batch"
    ),
    "linger_seconds": Setting(_number(0, 3600), "0 to 3600", "how long a daemon of a client stays at the end"),
    "log_level": Setting(_level, "debug, info, warning or error", "what the daemon's own log tells"),
    "log_file": Setting(_text, "a path", "where the daemon's own log goes; standard error when empty"),
}


def load(flags: Mapping[str, Any], environ: Mapping[str, str]) -> tuple[Config, list[str]]:
    """Return the settings, and the names in the file that nobody knows. Raises: ConfigError."""
    path = flags.get("config") or environ.get(CONFIG_VARIABLE, "")
    given: dict[str, Any] = {}
    unknown: list[str] = []
    if path:
        for name, value in _read_file(str(path)).items():
            if name in SETTINGS:
                given[name] = _parse(name, value)
            else:
                unknown.append(name)
    for name in SETTINGS:
        if text := environ.get(ENVIRONMENT_PREFIX + name.upper()):
            given[name] = _parse(name, text)
        if (value := flags.get(name)) is not None:
            given[name] = _parse(name, value)
    return Config(**given), unknown


def adjusted(config: Config, settings: Mapping[str, Any]) -> Config:
    """Return config with what a session asks for; what is malformed there is left as it is."""
    given = {}
    for name, value in settings.items():
        if name in SETTINGS:
            try:
                given[name] = SETTINGS[name].parse(value)
            except (ValueError, TypeError, OverflowError):
                continue
    return msgspec.structs.replace(config, **given) if given else config


def _parse(name: str, value: Any) -> Any:
    try:
        return SETTINGS[name].parse(value)
    except (ValueError, TypeError, OverflowError):
        shown = "…" if name in SECRET else value
        raise ConfigError(name, shown, SETTINGS[name].allowed) from None


def _read_file(path: str) -> dict[str, Any]:
    try:
        document = json.loads(Path(path).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError("config", path, f"a readable JSON file ({error})") from error
    if not isinstance(document, dict):
        raise ConfigError("config", path, "a file with one JSON object")
    return document
