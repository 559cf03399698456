"""The server's settings: one table, four sources (default < TOML file < environment < flag), one frozen Config.

Every field of Config is one setting: `port` in the file, DATACAT_PORT in the environment, --port on the command line.
What is unknown in the file or malformed anywhere stops the start. Names that the environment has beyond the table
belong to the other datacat programs and are left alone.
"""

import ipaddress
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path

from datacat.errors import ConfigError
from datacat.server import rules
from datacat.server.settings import Setting, address, by_name, names, number, setting, switch, text, whole, word

ENVIRONMENT_PREFIX = "DATACAT_"
FORMS = ("text", "json", "off")
"""Of the log of requests."""
LOG_LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True, slots=True)
class Config:
    """Every setting with its value. Times are in the unit of their name; an empty text means: not given."""

    config: str = setting("", text, "the path of a TOML file", "A file with settings, one `name = value` a line.")
    host: str = setting("127.0.0.1", text, "a name or an address of this machine", "The address to listen on.")
    port: int = setting(
        8080, whole(0, 65535), "a whole number from 0 to 65535", "The TCP port to listen on; 0 takes a free one."
    )
    port_file: str = setting("", text, "a path", "A file to write the port to once the server listens.")
    data_dir: str = setting(
        "",
        text,
        "the path of a folder",
        "Where sessions are kept. Not given: systemd's STATE_DIRECTORY, else the user's data folder.",
    )
    store: str = setting(
        "",
        text,
        "memory: or semidbm:PATH",
        "Which store keeps the sessions. Not given: semidbm in the folder `store` below data_dir.",
    )
    insecure: bool = setting(
        False,
        switch,
        "true or false",
        "Let everybody who can reach the port write and read without a key. Deleting and managing still need one.",
    )
    allowed_hosts: tuple[str, ...] = setting(
        (),
        names,
        "names or addresses, separated by commas",
        "Further names by which clients may call this server (the Host of their requests).",
    )
    public_url: str = setting(
        "",
        address,
        "http:// or https:// and a name",
        "Where people reach the pages, for links in answers and alerts. Not given: links are relative.",
    )
    trusted_proxies: tuple[str, ...] = setting(
        ("127.0.0.1", "::1"),
        names,
        "addresses, separated by commas",
        "Proxies whose X-Forwarded-For is believed: limits and the audit log then go by the address of the client.",
        live=True,
    )
    key_rate: float = setting(
        1000.0,
        number(0, 1_000_000),
        "requests a second from 0 to 1000000",
        "How many requests with one key are taken, as a mean over 10 s, reading and writing each; 0: as many as come.",
        live=True,
    )
    address_rate: float = setting(
        500.0,
        number(0, 1_000_000),
        "requests a second from 0 to 1000000",
        "The same for one address (IPv6: one /64). Programs on this machine are not counted while there are no keys.",
        live=True,
    )
    wrong_keys_per_minute: float = setting(
        30.0,
        number(0, 1_000_000),
        "a number from 0 to 1000000",
        "After so many wrong keys from one address the answer is 429 instead of 401; 0: never. Right keys still work.",
        live=True,
    )
    tls_cert: str = setting(
        "",
        text,
        "the path of a PEM file",
        "The certificate, with the intermediate ones behind it, for HTTPS; together with tls_key. New connections use "
        "it within seconds after the files have changed.",
    )
    tls_key: str = setting("", text, "the path of a PEM file", "The private key of tls_cert, without a password.")
    threads: int = setting(
        10,
        whole(1, 256),
        "a whole number from 1 to 256",
        "How many requests are served at once, beside batches: one thread takes all of them but large ones.",
    )
    max_connections: int = setting(
        800,
        whole(1, 100_000),
        "a whole number from 1 to 100000",
        "How many connections may be open at once; the open files of the process (ulimit -n) must allow it.",
        live=True,
    )
    heartbeat_timeout_s: float = setting(
        60.0,
        number(0.1, 86_400),
        "seconds from 0.1 to 86400",
        "A session that nobody ships is hung when its heartbeats stay away for so long.",
        live=True,
    )
    contact_timeout_s: float = setting(
        120.0,
        number(0.1, 86_400),
        "seconds from 0.1 to 86400",
        "A session that nobody ships is suspended when it has sent nothing for so long.",
        live=True,
    )
    lease_s: float = setting(
        60.0,
        number(0.1, 86_400),
        "seconds from 0.1 to 86400",
        "The sessions of a daemon are suspended when it has sent nothing for so long.",
        live=True,
    )
    lost_after_s: float = setting(
        86_400.0,
        number(0.1, 31_536_000),
        "seconds from 0.1 to 31536000",
        "A session is lost when nothing has been heard of it for so long.",
        live=True,
    )
    sweep_interval_s: float = setting(
        5.0, number(0.05, 3600), "seconds from 0.05 to 3600", "How often the status of open sessions is judged."
    )
    retention_days: float = setting(
        30.0,
        number(0, 36_500),
        "days from 0 to 36500",
        "Sessions are deleted so long after their end; 0 keeps them for ever. Open sessions are never deleted.",
        live=True,
    )
    retention: tuple[tuple[str, float], ...] = setting(
        (),
        by_name(0, 36_500),
        "days by product: a table [retention] of the file, or PRODUCT=DAYS separated by commas",
        "Products whose sessions are kept for other times than retention_days says.",
        live=True,
    )
    max_store_bytes: int = setting(
        0,
        whole(0, 2**60),
        "bytes, from 0",
        "How large the store may grow; 0 sets no limit. Of the sessions that have ended those that were created first "
        "are deleted when nine tenths of it are in use. What was deleted is given back some minutes later.",
        live=True,
    )
    sync_interval_ms: int = setting(
        0,
        whole(0, 60_000),
        "milliseconds from 0 to 60000",
        "0: a batch is acknowledged when it is on disk, so that a power cut loses nothing that was acknowledged. "
        "Otherwise it is acknowledged when it is written, and everything is put on disk so often: a power cut or a "
        "crash of the system loses what was acknowledged in that time; a crash of the server alone loses nothing.",
    )
    rollup_minutes_days: float = setting(
        2.0,
        number(0, 36_500),
        "days from 0 to 36500",
        "Roll-ups (numbers over time of all sessions) are kept by the minute for so long, then by the hour.",
    )
    rollup_hours_days: float = setting(
        90.0,
        number(0, 36_500),
        "days from 0 to 36500",
        "Roll-ups are kept by the hour until they are so old, then by the day.",
    )
    rollup_days: float = setting(
        400.0,
        number(0, 36_500),
        "days from 0 to 36500",
        "Roll-ups are forgotten when they are so old, whatever became of their sessions; 0 keeps them for ever.",
    )
    backup_dir: str = setting(
        "",
        text,
        "the path of a folder",
        "Where the server puts copies of everything it keeps, each in a folder of its own (`datacat store restore`). "
        "Not given: it makes none. A systemd unit has to open a folder outside of the data folder: ReadWritePaths=.",
        live=True,
    )
    backup_interval_h: float = setting(
        24.0, number(0.01, 8760), "hours from 0.01 to 8760", "How often such a copy is made.", live=True
    )
    backup_keep: int = setting(
        7, whole(1, 10_000), "a whole number from 1 to 10000", "How many of those copies are kept.", live=True
    )
    metrics_by_version: bool = setting(
        False,
        switch,
        "true or false",
        "Let /metrics also tell how many sessions are active by product and version, for the ten versions of each "
        "product that have the most; at most 561 more series.",
        live=True,
    )
    log_level: str = setting(
        "info",
        word(LOG_LEVELS),
        f"one of {', '.join(LOG_LEVELS)}",
        "How much the server tells about itself.",
        live=True,
    )
    request_log: str = setting(
        "text",
        word(FORMS),
        f"one of {', '.join(FORMS)}",
        "How each request is logged: a line of text, a JSON object, or not at all. A line has id, method, route, "
        "status, time in ms, bytes of the answer and address; never a path, a query, a body or a key. A batch that was "
        "stored has a line at the log level debug alone.",
        live=True,
    )
    log_file: str = setting(
        "",
        text,
        "a path",
        "A file for what the server tells about itself; at 10 MiB a new one begins, five old ones stay. Not given: "
        "stderr, with the journal's priorities when that is where it goes.",
    )
    self_watchdog: bool = setting(
        False,
        switch,
        "true or false",
        "End the process, with the stacks of all threads on stderr, when it does no work for 20 s; for managers that "
        "start it again but do not watch it, such as launchd and Windows.",
    )
    alerting: rules.Alerting = rules.NOTHING
    """No row of the table: the tables [[alerts]] and [[webhooks]] of the file."""


SETTINGS: tuple[Setting, ...] = tuple(
    Setting(
        item.name,
        item.default,
        item.metadata["parse"],
        item.metadata["allowed"],
        item.metadata["about"],
        item.metadata["live"],
    )
    for item in fields(Config)
    if item.metadata
)
"""The table: flags, environment, file and docs/settings.md are made from it."""
_BY_NAME = {row.name: row for row in SETTINGS}


class Live:
    """The settings as they are now. Any thread may read; a reload puts another Config there."""

    def __init__(self, config: Config) -> None:
        self.now = config

    def reload(self, wanted: Config) -> tuple[list[str], list[str]]:
        """Take the settings that can change while the server runs; return (changed, those that need a restart)."""
        differing = [row for row in SETTINGS if getattr(wanted, row.name) != getattr(self.now, row.name)]
        live = {row.name: getattr(wanted, row.name) for row in differing if row.live}
        if wanted.alerting != self.now.alerting:
            live["alerting"] = wanted.alerting
        self.now = replace(self.now, **live)
        return list(live), [row.name for row in differing if not row.live]


def load(flags: Mapping[str, object], environ: Mapping[str, str]) -> Config:
    """Return the settings: flags (None: not given) over environment over file over defaults.

    Raises: ConfigError with name, value and allowed form.
    """
    given: dict[str, object] = {}
    for row in SETTINGS:
        name = ENVIRONMENT_PREFIX + row.name.upper()
        if name in environ:
            given[row.name] = _parse(row, environ[name], name)
    for name, value in flags.items():
        if value is not None:
            given[name] = _parse(_known(name, value), value, f"--{name.replace('_', '-')}")
    path = str(given.get("config", ""))
    values = {**(read_file(Path(path)) if path else {}), **given}
    config = Config(**values)  # type: ignore[arg-type]  # each value went through its field's parser
    for given_one, missing in (("tls_cert", "tls_key"), ("tls_key", "tls_cert")):
        if getattr(config, given_one) and not getattr(config, missing):
            raise ConfigError(missing, "", f"the path of a PEM file: {given_one} is given, and HTTPS needs both")
    return config


def read_file(path: Path) -> dict[str, object]:
    """Return the settings in a TOML file. Raises: ConfigError."""
    try:
        loaded = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError("config", path, f"a file that can be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError("config", path, f"a TOML file ({error})") from error
    values: dict[str, object] = {
        name: _parse(_known(name, value), value, name)
        for name, value in loaded.items()
        if name != "config" and name not in rules.TABLES  # a file does not name another one
    }
    if any(name in loaded for name in rules.TABLES):
        values["alerting"] = rules.read(loaded)
    return values


@lru_cache(maxsize=1024)
def is_loopback(host: str) -> bool:
    """Return whether host is this machine and nobody else can reach it; another name than localhost is not known."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def settings_doc() -> str:
    """Return docs/settings.md."""
    parts = [
        "# Settings of datacat-server\n",
        "Each setting has one name: `port` in the TOML file that `--config` names, `DATACAT_PORT` in the environment,",
        "`--port` on the command line. A flag wins over the environment, the environment over the file, the file over",
        "the default. What is unknown in the file or malformed anywhere stops the start (exit code 78).\n",
        "A reload (`systemctl reload datacat-server`, or SIGHUP) reads the file again, changes what can change while",
        "the server runs, and says what needs a restart. A file that is malformed then changes nothing.\n",
        "This page is made from the table in `datacat/server/config.py`:",
        "`datacat-server --settings-doc > docs/settings.md`.\n",
    ]
    for row in SETTINGS:
        flag = row.name.replace("_", "-")
        shape = f"`--{flag}` or `--no-{flag}`" if row.is_switch else f"`--{flag} VALUE`"
        parts += [
            f"## {row.name}\n",
            f"{row.about}\n",
            f"- {shape}, `{ENVIRONMENT_PREFIX}{row.name.upper()}`",
            f"- value: {row.allowed}",
            f"- default: {_shown(row.default)}",
            f"- changed by: {'a reload or a restart' if row.live else 'a restart'}\n",
        ]
    return "\n".join([*parts, rules.rules_doc()])


def _shown(value: object) -> str:
    if value in ("", ()):
        return "not given"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return f"`{', '.join(value)}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _known(name: str, value: object) -> Setting:
    if name not in _BY_NAME:
        raise ConfigError(name, value, f"a setting that exists: {', '.join(_BY_NAME)}")
    return _BY_NAME[name]


def _parse(row: Setting, value: object, source: str) -> object:
    try:
        return row.parse(value)
    except (ValueError, OverflowError) as error:
        raise ConfigError(source, value, row.allowed) from error
