"""datacat spool: what lies on this machine and is not on a server yet; works without any server or daemon."""

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import click

from datacat.cli import exits, screen, spool_text, text
from datacat.daemon import by_hand, config, inventory
from datacat.daemon.inventory import Item
from datacat.daemon.uplink import Uplink, uplink_of
from datacat.errors import Busy, JournalError
from datacat.wire.layout import Meta

_HELP = {"help_option_names": ["-h", "--help"]}
_folder = click.option("--spool", "folder", metavar="DIR", help="Look here. [default: where this user's clients write]")
_ids = click.argument("session_ids", metavar="[ID]...", nargs=-1)


@click.group(context_settings=_HELP)
def command() -> None:
    """Look at journals on this machine: list, show and export them, ship them by hand, drop them.

    The beginning of an ID is enough. A session that a daemon serves is left to it.
    """


@command.command("list", context_settings=_HELP)
@_folder
@click.option("--all", "everything", is_flag=True, help="Sessions too that are done.")
@click.option("--json", "as_json", is_flag=True, help="Print one object for each.")
def list_(folder: str | None, *, everything: bool, as_json: bool) -> None:
    """List the sessions that are not wholly on their server yet, and what the servers refused."""
    items = [item for item in _items(folder) if everything or not item.done or item.quarantined]
    if as_json:
        screen.print_json([spool_text.members(item) for item in items])
    elif not items:
        click.echo("nothing waits here", err=True)
    else:
        whole = not screen.console().is_terminal
        screen.print_table(spool_text.COLUMNS, spool_text.rows(items, time.time_ns() // 1000, whole_ids=whole))


@command.command(context_settings=_HELP)
@click.argument("session_id", metavar="ID")
@_folder
@click.option("--events", type=click.IntRange(0), default=20, show_default=True, help="How many of the last events.")
@click.option("--json", "as_json", is_flag=True, help="Print the session object, its streams and its quarantine.")
def show(session_id: str, folder: str | None, events: int, *, as_json: bool) -> None:
    """Read a journal as a black box: what the app was, did and said, and why it ended."""
    (item,) = _chosen(_items(folder), (session_id,))
    session = spool_text.session(item)
    if as_json:
        session["events"] = session["events"][-events:] if events else []
        screen.print_json({**session, "spool": spool_text.members(item)})
        return
    for title, lines in spool_text.pages(item, session, events, time.time_ns() // 1000):
        click.echo("\n".join([text.tame(title), *(f"  {screen.text_of(line)}" for line in lines), ""]))


@command.command(context_settings=_HELP)
@_ids
@_folder
@click.option("--to", "server", metavar="URL", help="Ship to this server instead of the one that a session names.")
@click.option("--key-file", metavar="FILE", help="File with the key. [default: DATACAT_API_KEY, or as the daemon]")
@click.option("--ca-file", metavar="FILE", help="PEM file with the authorities that count. [default: the system's]")
@click.option("--json", "as_json", is_flag=True, help="Print one object for each.")
def ship(
    session_ids: tuple[str, ...],
    folder: str | None,
    server: str | None,
    key_file: str | None,
    ca_file: str | None,
    *,
    as_json: bool,
) -> None:
    """Ship sessions now; all that wait when none is named. One whose app is gone gets its verdict.

    Ends with 1 when something could not be shipped.
    """
    flags = {"server_url": server, "api_key_file": key_file, "tls_ca_file": ca_file}
    settings, _ = config.load(flags, os.environ)

    def uplink(meta: Meta) -> Uplink:
        if server:
            meta = Meta(meta.id, meta.product, meta.version, meta.stream, meta.created_us, server_url=server)
        return uplink_of(settings, meta, "")

    items = _items(folder)
    chosen = _chosen(items, session_ids) if session_ids else [item for item in items if not item.done]
    failed = False
    for item in chosen:
        outcome = by_hand.ship(item, settings, uplink)
        failed = failed or outcome.word in ("failed", "partly")
        if as_json:
            click.echo(json.dumps({"id": item.meta.id, "outcome": outcome.word, "detail": outcome.detail}))
        else:
            click.echo(f"{item.meta.id}  {outcome.word}  {outcome.detail}".rstrip())
    if not chosen and not as_json:
        click.echo("nothing waits here", err=True)
    click.get_current_context().exit(exits.FAILED if failed else exits.OK)


@command.command(context_settings=_HELP)
@_ids
@_folder
@click.option("-o", "--output", metavar="FILE", help="Write here instead of standard output.")
def export(session_ids: tuple[str, ...], folder: str | None, output: str | None) -> None:
    """Write sessions as NDJSON: who each is, every record with its stream and offset, and what was refused.

    All sessions when none is named. Keys in the settings of a session are left out.
    """
    items = _items(folder)
    chosen = _chosen(items, session_ids) if session_ids else items
    with _opened(output) as out:
        for item in chosen:
            out.write(json.dumps({"session_id": item.meta.id, "session": inventory.told(item.meta)}) + "\n")
            try:
                for row in inventory.records(item):
                    out.write(json.dumps({"session_id": item.meta.id, **row}, ensure_ascii=False) + "\n")
            except JournalError as error:
                click.echo(f"datacat: {item.meta.id}: {error}", err=True)


@command.command(context_settings=_HELP)
@_ids
@_folder
@click.option("--done", is_flag=True, help="All sessions that are done.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def drop(session_ids: tuple[str, ...], folder: str | None, *, done: bool, yes: bool) -> None:
    """Remove sessions for good, whether a server has them or not. Those that a daemon serves stay."""
    items = _items(folder)
    chosen = _chosen(items, session_ids) if session_ids else [item for item in items if done and item.done]
    if not chosen:
        raise click.UsageError("name sessions, or say --done")
    waiting = sum(item.waiting for item in chosen)
    if not yes:
        click.confirm(f"remove {len(chosen)} sessions with {waiting} records that no server has?", abort=True, err=True)
    failed = False
    for item in chosen:
        try:
            by_hand.drop(item.folder)
        except Busy:
            failed = True
            click.echo(f"{item.meta.id}  stays: a daemon serves it", err=True)
        else:
            click.echo(f"{item.meta.id}  removed")
    click.get_current_context().exit(exits.FAILED if failed else exits.OK)


def _items(folder: str | None) -> list[Item]:
    return inventory.items([Path(folder)] if folder else inventory.spools())


def _chosen(items: list[Item], session_ids: tuple[str, ...]) -> list[Item]:
    """Return the sessions with these ids or beginnings of ids. Raises: click.BadParameter."""
    chosen = []
    for given in session_ids:
        found = [item for item in items if item.meta.id.startswith(given.lower())]
        if len(found) != 1:
            what = f"{len(found)} sessions begin" if found else "no session begins"
            raise click.BadParameter(f"{what} with {given}", param_hint="ID")
        chosen += found
    return chosen


@contextlib.contextmanager
def _opened(output: str | None) -> Iterator[TextIO]:
    if output is None:
        yield sys.stdout
        return
    try:
        fd = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)  # what apps record is not for everybody
    except OSError as error:
        raise click.FileError(output, error.strerror) from error
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        yield file
