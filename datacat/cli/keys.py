"""datacat keys: make, list and revoke keys, in the data folder of this machine's server or through a server."""

import getpass
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import click

from datacat.cli import ask, checks, exits, preferences, screen, text
from datacat.cli.screen import Cell, Column
from datacat.errors import WireError
from datacat.server import keys
from datacat.server.audit import Audit
from datacat.server.config import load, read_file
from datacat.server.keys import KeyFile
from datacat.wire.times import rfc3339

PATH = "/api/keys"
SYSTEM_CONFIG = Path("/etc/datacat/server.toml")
COLUMNS = (
    Column("ID"),
    Column("NAME"),
    Column("ROLE"),
    Column("PRODUCTS", rank=1),
    Column("CREATED", rank=2),
    Column("EXPIRES"),
)
_Command = TypeVar("_Command", bound=Callable[..., Any])


def _where(command: _Command) -> _Command:
    folder = click.option("--data-dir", metavar="PATH", default="", help="The data folder of a server of this machine.")
    config = click.option("--config", metavar="PATH", default="", help="The settings of that server, which name it.")
    return ask.server_option(folder(config(command)))


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Make, list and revoke the keys of a server.

    With --server (or DATACAT_SERVER_URL, which needs an admin key) through that server; else in the data folder of the
    server on this machine, which takes a change within a second. As soon as there is one key, everybody needs one.
    """


@command.command()
@click.argument("name")
@click.option(
    "--role", type=click.Choice(keys.ROLES), required=True, help="ingest: write; read; admin: both, and manage."
)
@click.option("--product", "products", multiple=True, help="Only for this product; may be repeated. Not for admin.")
@click.option("--expires", metavar="TIME", help="Until when: 90d, 2027-01-31 or RFC 3339. [default: for ever]")
@click.option("--json", "as_json", is_flag=True, help="Print the key and what is known of it as JSON.")
@_where
@click.pass_context
def create(
    ctx: click.Context,
    /,
    name: str,
    role: str,
    products: tuple[str, ...],
    expires: str | None,
    as_json: bool,
    **where: Any,
) -> None:
    """Make a key. It is printed now and kept nowhere: whoever loses it makes a new one."""
    now_us = time.time_ns() // 1000
    try:
        expires_at = text.later_us(expires, now_us) if expires else 0
    except WireError as error:
        raise click.BadParameter(str(error), param_hint="--expires") from error
    made = _keys(ctx, where).create(name, role, list(products), expires_at, now_us)
    if as_json:
        screen.print_json(made)
        return
    click.echo(made["key"])
    until = f" until {text.date_and_time(made['expires_at'])}" if made["expires_at"] else ""
    only = f" for {', '.join(made['products'])}" if made["products"] else ""
    click.echo(f"{made['role']} key {made['id']} ({made['name']}){only}{until}; it is not shown again", err=True)


@command.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print them as a JSON array.")
@_where
@click.pass_context
def list_(ctx: click.Context, /, as_json: bool, **where: Any) -> None:
    """List the keys; never their texts."""
    found = _keys(ctx, where).all()
    if as_json:
        screen.print_json(found)
        return
    if not found:
        click.echo("there are no keys: programs on the server's own machine may read and write", err=True)
        return
    screen.print_table(COLUMNS, [_row(key) for key in found])


@command.command()
@click.argument("key")
@_where
@click.pass_context
def revoke(ctx: click.Context, /, key: str, **where: Any) -> int:
    """Let a key, given by its id or its name, be worth nothing from now on."""
    removed = _keys(ctx, where).revoke(key)
    click.echo(f"revoked {key}" if removed else f"there is no key {key}; datacat keys list shows them", err=True)
    return exits.OK if removed else exits.FAILED


class _InFolder:
    """The keys in a data folder of this machine."""

    def __init__(self, folder: Path) -> None:
        self._file = KeyFile(folder)
        self._audit = Audit(folder, lambda: time.time_ns() // 1000)

    def create(self, name: str, role: str, products: list[str], expires_at: int, now_us: int) -> dict[str, Any]:
        first = not self._file.read()
        key, made = keys.make(name, role, products, expires_at, now_us)
        self._file.add(key)
        self._tell("key_created", key.id, name=key.name, role=key.role, products=key.products)
        if first:
            click.echo(f"the first key in {self._file.path}: everybody needs one now, also on this machine", err=True)
        return {**keys.public(key, now_us), "key": made}

    def all(self) -> list[dict[str, Any]]:
        now_us = time.time_ns() // 1000
        return [keys.public(key, now_us) for key in self._file.read()]

    def revoke(self, which: str) -> bool:
        removed = self._file.remove(which)
        if removed is not None:
            self._tell("key_revoked", removed.id, name=removed.name, role=removed.role)
        return removed is not None

    def _tell(self, act: str, on: str, **more: Any) -> None:
        self._audit.write(act, on, who=f"{_user()} on the command line", **more)


class _OfServer:
    """The keys of a server, which an admin key asks."""

    def __init__(self, server: ask.Server) -> None:
        self._server = server

    def create(self, name: str, role: str, products: list[str], expires_at: int, _now_us: int) -> dict[str, Any]:
        body: dict[str, Any] = {"name": name, "role": role, "products": products}
        if expires_at:
            body["expires_at"] = rfc3339(expires_at)
        made: dict[str, Any] = self._server.ask("POST", PATH, body=body)
        return made

    def all(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._server.get(PATH)["keys"]
        return found

    def revoke(self, which: str) -> bool:
        if not any(which in (key["id"], key["name"]) for key in self.all()):
            return False
        self._server.ask("DELETE", f"{PATH}/{quote(which, safe='')}")
        return True


def _keys(ctx: click.Context, where: dict[str, Any]) -> _InFolder | _OfServer:
    local = bool(where["data_dir"] or where["config"])
    if not local and preferences.target(ctx, where["server"]).named:
        return _OfServer(ctx.with_resource(ask.server_of(ctx, where["server"], where["api_key"])))
    return _InFolder(data_folder(where["data_dir"], where["config"]))


def data_folder(data_dir: str, config: str, system_config: Path = SYSTEM_CONFIG) -> Path:
    """Return the data folder of the server: as told, as its settings tell, or where the system's or the user's is.

    Raises: ConfigError, HostError.
    """
    if data_dir:
        return Path(data_dir).expanduser()
    settings = load({"config": config or None}, os.environ)
    named = settings.data_dir
    if not named and not settings.config and os.access(system_config, os.R_OK):
        named = str(read_file(system_config).get("data_dir", ""))
    return Path(named).expanduser() if named else checks.data_folder("", os.environ)[0]


def _row(key: dict[str, Any]) -> screen.Row:
    expires = text.date_and_time(key["expires_at"]) if key["expires_at"] else "-"
    return (
        key["id"],
        key["name"],
        key["role"],
        ", ".join(key["products"]) or "all",
        text.date_and_time(key["created_at"]),
        Cell(f"expired {expires}", "red") if key["expired"] else expires,
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return str(os.getuid()) if hasattr(os, "getuid") else "somebody"
