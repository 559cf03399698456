"""Where the command line finds server, key and certificate authority: flag over environment over a file of the user."""

import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click
import platformdirs

from datacat.wire import routes

FILE_VARIABLE = "DATACAT_CLI_CONFIG"
_VARIABLES = {
    "server": "DATACAT_SERVER_URL",
    "api_key": "DATACAT_API_KEY",
    "key_file": "DATACAT_KEY_FILE",
    "ca_file": "DATACAT_CA_FILE",
}
_Command = TypeVar("_Command", bound=Callable[..., Any])


class Target(NamedTuple):
    """Which server, with which key; named tells whether somebody said which. ca_file empty: the system's own."""

    server: str
    named: bool
    api_key: str
    ca_file: str


def file_path() -> Path:
    """Return where the file is: FILE_VARIABLE, else datacat/cli.toml in the user's folder of settings."""
    given = os.environ.get(FILE_VARIABLE)
    return Path(given) if given else Path(platformdirs.user_config_dir("datacat", appauthor=False)) / "cli.toml"


def key_options(command: _Command) -> _Command:
    """Let --key-file and --ca-file stand behind a subcommand or before it."""
    for flag, name, about in (
        ("--ca-file", "ca_file", "A PEM file with the authority that the server's certificate is from."),
        ("--key-file", "key_file", "A file whose first line is the key."),
    ):
        option = click.option(
            flag,
            metavar="PATH",
            expose_value=False,
            callback=_keep(name),
            help=f"{about} [env: {_VARIABLES[name]}]",
        )
        command = option(command)
    return command


def target(ctx: click.Context, server: str | None = None, api_key: str | None = None) -> Target:
    """Return what the flags of the subcommand (the arguments), those before it, environment or file name.

    Raises: click.ClickException when the file of the key, or the user's file, cannot be read.
    """
    flags = ctx.obj or {}
    before = {"server": server, "api_key": api_key, "key_file": None, "ca_file": None}
    given = {name: value or flags.get(name) for name, value in before.items()}
    if not (given["api_key"] or given["key_file"]):
        given |= {name: os.environ.get(_VARIABLES[name]) for name in ("api_key", "key_file")}
    for name in ("server", "ca_file"):
        given[name] = given[name] or os.environ.get(_VARIABLES[name])
    file = _read() if not all(given[name] for name in ("server", "ca_file")) or not _has_key(given) else {}
    if not _has_key(given):
        given |= {name: file.get(name) for name in ("api_key", "key_file")}
    url = given["server"] or file.get("server")
    key = given["api_key"] or (_first_line(given["key_file"]) if given["key_file"] else "")
    return Target(url or routes.SERVER_URL, bool(url), key, given["ca_file"] or file.get("ca_file") or "")


def _keep(name: str) -> Callable[[click.Context, click.Parameter, str | None], None]:
    def callback(ctx: click.Context, _parameter: click.Parameter, value: str | None) -> None:
        if value is not None:
            ctx.ensure_object(dict)[name] = value

    return callback


def _has_key(given: dict[str, str | None]) -> bool:
    return bool(given["api_key"] or given["key_file"])


def _read() -> dict[str, str]:
    path = file_path()
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        if os.environ.get(FILE_VARIABLE):
            raise click.ClickException(f"there is no file {path}, which {FILE_VARIABLE} names") from None
        return {}
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise click.ClickException(f"cannot read {path}: {error}") from error
    for name, value in found.items():
        if name not in _VARIABLES or not isinstance(value, str):
            allowed = ", ".join(_VARIABLES)
            raise click.ClickException(f"unexpected {name} in {path}; it may have {allowed}, each a text")
    return found


def _first_line(path: str) -> str:
    try:
        lines = Path(path).expanduser().read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise click.ClickException(f"cannot read the key in {path}: {error}") from error
    if not lines or not lines[0].strip():
        raise click.ClickException(f"there is no key in the first line of {path}")
    return lines[0].strip()
