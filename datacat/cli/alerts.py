"""datacat alerts: what a server watches and what fires, and whether its webhooks can be reached."""

import os
import time
from pathlib import Path
from typing import Any

import click

from datacat.cli import ask, exits, preferences, screen, text
from datacat.cli.screen import Cell, Column
from datacat.server import alerting
from datacat.server.config import load
from datacat.server.rules import Alerting

SYSTEM_CONFIG = Path("/etc/datacat/server.toml")
_config = click.option(
    "--config", metavar="PATH", default="", help="A settings file: its webhooks are asked from here, not by the server."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """List what a server watches and what fires; test its webhooks."""


@command.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print what the server tells as JSON.")
@ask.server_option
@click.pass_context
def list_(ctx: click.Context, /, as_json: bool, server: str | None, api_key: str | None) -> None:
    """List the alerts of a server, and what fires."""
    with ask.server_of(ctx, server, api_key) as asked:
        told = asked.get("/api/alerts")
    if as_json:
        screen.print_json(told)
        return
    if not told["alerts"]:
        click.echo("there are no alerts; [[alerts]] in the server's settings file makes some", err=True)
        return
    columns = (Column("ALERT"), Column("RULE"), Column("PRODUCT"), Column("WEBHOOKS", rank=1), Column("FIRES"))
    rows: list[screen.Row] = [
        (
            alert["name"],
            alert["rule"],
            alert["product"] or "each",
            ", ".join(alert["webhooks"]),
            Cell(str(count), "bold red") if (count := len(alert["firing"])) else "-",
        )
        for alert in told["alerts"]
    ]
    screen.print_table(columns, rows)
    now_us = time.time_ns() // 1000
    for alert in told["alerts"]:
        for one in alert["firing"]:
            click.echo(f"{alert['name']}: {text.one_line(one['title'], 200)}, since {text.ago(one['since'], now_us)}")


@command.command()
@click.argument("name", default="")
@_config
@ask.server_option
@click.pass_context
def test(ctx: click.Context, /, name: str, config: str, server: str | None, api_key: str | None) -> int:
    """Send a test message to the webhooks of an alert, to one webhook, or to all, and say what came back.

    A server that is named sends it itself, which needs an admin key. Otherwise it is sent from here, with the settings
    of the server of this machine.
    """
    if not config and preferences.target(ctx, server).named:
        with ask.server_of(ctx, server, api_key) as asked:
            rows = asked.ask("POST", "/api/alerts/test", params={"name": name} if name else None)["rows"]
    else:
        try:
            rows = alerting.try_out(_read(config), name, time.time_ns() // 1000)
        except KeyError as error:
            raise click.UsageError(f"there is no alert or webhook {name!r}") from error
    return _tell(rows)


def _read(config: str) -> Alerting:
    path = config or os.environ.get("DATACAT_CONFIG") or (str(SYSTEM_CONFIG) if SYSTEM_CONFIG.exists() else "")
    return load({"config": path or None}, os.environ).alerting


def _tell(rows: list[dict[str, Any]]) -> int:
    if not rows:
        click.echo("there are no webhooks; [[webhooks]] in the server's settings file makes some", err=True)
        return exits.FAILED
    for row in rows:
        mark = click.style("ok", fg="green") if row["ok"] else click.style("FAILED", fg="red")
        click.echo(f"{mark} {row['webhook']} ({row['format']}): {text.one_line(row['said'], 300)}")
    return exits.OK if all(row["ok"] for row in rows) else exits.FAILED
