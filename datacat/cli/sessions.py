"""datacat sessions: which run, which hang, which crashed."""

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import click

from datacat.cli import ask, clock, screen, text
from datacat.cli.screen import Cell, Column
from datacat.errors import WireError

WATCH_INTERVAL_S = 2.0
"""A refresh costs the server one indexed query."""

COLUMNS = (
    Column("ID"),
    Column("PRODUCT"),
    Column("VERSION", rank=2),
    Column("STATUS"),
    Column("REASON", rank=1),
    Column("EXIT", rank=3),
    Column("STARTED"),
    Column("RAN", right=True, rank=4),
    Column("EVENTS", right=True, rank=5),
    Column("ERRORS", right=True, rank=6),
    Column("HOST", rank=7),
)

_FILTERS = (
    ("--product", "Only of these products."),
    ("--version", "Only of these versions."),
    ("--environment", "Only of these environments."),
    ("--status", "active, hung, suspended, ended, crashed or abnormal."),
    ("--end-reason", "clean, exception, signal, killed, oom, ..."),
    ("--hostname", "Only on these hosts."),
    ("--machine", "Only on the machines with these ids."),
    ("--daemon", "Only shipped by these daemons."),
    ("--state", "PATH:VALUE that the state has now."),
    ("--state-ever", "PATH:VALUE that the state has had."),
    ("--event", "Only with an event of this name."),
    ("--has", "crash, hang or exception."),
)


def filter_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that choose sessions by their names and values."""
    for flag, line in reversed(_FILTERS):
        command = click.option(flag, multiple=True, help=line)(command)
    return command


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@filter_options
@click.option("--from", "start", metavar="TIME", help="Not before: 2h, 7d (ago), 2026-01-31 or RFC 3339.")
@click.option("--to", "end", metavar="TIME", help="Before this time.")
@click.option("--at", type=click.Choice(["start", "overlap", "end"]), help="What of a session lies in that span.")
@click.option("-q", "q", metavar="TEXT", help="A text in product, version, hostname or id.")
@click.option("--sort", metavar="FIELD", help="Order by a field, with - in front: falling. [default: -created_at]")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="How many at most.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print session objects; with --watch one a line, when it changes."
)
@click.option("--watch", is_flag=True, help="Stay, and show what changes, until Ctrl-C.")
@ask.server_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    start: str | None,
    end: str | None,
    at: str | None,
    q: str | None,
    sort: str | None,
    limit: int,
    as_json: bool,
    watch: bool,
    server: str | None,
    api_key: str | None,
    **filters: tuple[str, ...],
) -> None:
    """List sessions, the newest first.

    An option that names something may be repeated or take a comma list: --status hung,crashed.
    """
    now_us = time.time_ns() // 1000
    try:
        span = {"from": start and text.moment_us(start, now_us), "to": end and text.moment_us(end, now_us)}
    except WireError as error:
        raise click.BadParameter(str(error)) from error
    wanted = {**{name: list(values) for name, values in filters.items()}, **span, "at": at, "q": q, "sort": sort}
    params = {name: value for name, value in wanted.items() if value}
    with ask.server_of(ctx, server, api_key) as asked:

        def heads() -> list[dict[str, Any]]:
            return list(asked.sessions(params, limit))

        if watch:
            _watch(heads, as_json=as_json)
        elif as_json:
            screen.print_json(heads())
        else:
            _print(heads(), asked.url)


def rows(heads: list[dict[str, Any]], now_us: int, *, whole_ids: bool) -> list[screen.Row]:
    """Return one row of COLUMNS for each head. whole_ids: for a pipe, where the next program needs them."""
    shorts = text.short_ids([head["id"] for head in heads])
    return [
        (
            head["id"] if whole_ids else Cell(shorts[head["id"]], "cyan"),
            head["product"],
            head["version"],
            Cell(head["status"], text.STATUS_STYLES.get(head["status"], "")),
            head.get("end_reason") or "-",
            text.exit_of(head),
            head["created_at"] if whole_ids else text.ago(head["created_at"], now_us),
            text.lasted(head, now_us),
            str(head["counts"].get("events", 0)),
            Cell(str(errors := head["counts"].get("errors", 0)), "red" if errors else ""),
            head.get("hostname") or "-",
        )
        for head in map(clock.corrected, heads)
    ]


def _print(heads: list[dict[str, Any]], url: str) -> None:
    if not heads:
        click.echo(f"no sessions on {url} match", err=True)
        return
    screen.print_table(COLUMNS, rows(heads, time.time_ns() // 1000, whole_ids=not screen.console().is_terminal))


def _watch(heads: Callable[[], list[dict[str, Any]]], *, as_json: bool) -> None:
    """Show heads again and again until Ctrl-C. In a pipe: a line for each session that is new or has changed."""
    pause = threading.Event()
    out = screen.console()
    if out.is_terminal and not as_json:
        from rich.live import Live

        with Live(console=out, auto_refresh=False, screen=True) as live:
            while True:
                shown = heads()
                table = screen.table(
                    COLUMNS,
                    rows(shown, time.time_ns() // 1000, whole_ids=False),
                    width=out.width,
                    caption=f"{len(shown)} sessions at {time.strftime('%H:%M:%S')}, Ctrl-C ends",
                )
                live.update(table, refresh=True)
                pause.wait(WATCH_INTERVAL_S)
    known: dict[str, dict[str, Any]] = {}
    if not as_json:
        click.echo("  ".join(column.title for column in COLUMNS))
    while True:
        changed = [head for head in reversed(heads()) if known.get(head["id"]) != head]
        known.update((head["id"], head) for head in changed)
        for head, row in zip(changed, rows(changed, time.time_ns() // 1000, whole_ids=True), strict=True):
            plain = "  ".join(map(screen.text_of, row))
            click.echo(json.dumps(head, ensure_ascii=False) if as_json else plain)
        pause.wait(WATCH_INTERVAL_S)
