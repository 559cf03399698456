"""datacat store export and import: sessions as NDJSON or CSV, out of a store and back into one."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import click
import msgspec

from datacat.cli import ask, exits, preferences, screen, text
from datacat.cli.sessions import filter_options
from datacat.cli.store import folder_options, refuse_if_held, root_of
from datacat.errors import StoreError, UplinkError, WireError
from datacat.store import survey, transfer
from datacat.store.backup import PARTIAL_SUFFIX
from datacat.store.semi import SemiStore
from datacat.wire import ids

SYNC_S = 1.0
"""An import into a folder is made durable so often, and at its end: it can be repeated from its beginning."""
SEND_BYTES = 4 * 1024 * 1024
"""After so many bytes of lines a request to a server goes, at the end of a batch."""


@click.command()
@click.argument("sessions", metavar="[SESSION]...", nargs=-1)
@filter_options
@click.option("--from", "start", metavar="TIME", help="Not before: 2h, 7d (ago), 2026-01-31 or RFC 3339.")
@click.option("--to", "end", metavar="TIME", help="Before this time.")
@click.option("--at", type=click.Choice(["start", "overlap", "end"]), help="What of a session lies in that span.")
@click.option("-q", "q", metavar="TEXT", help="A text in product, version, hostname or id.")
@click.option("--format", "form", type=click.Choice(["ndjson", "csv"]), default="ndjson", show_default=True)
@click.option("-o", "--output", metavar="FILE", type=click.Path(path_type=Path), help="[default: standard output]")
@folder_options
@ask.server_option
@click.pass_context
def export(
    ctx: click.Context,
    /,
    sessions: tuple[str, ...],
    start: str | None,
    end: str | None,
    at: str | None,
    q: str | None,
    form: str,
    output: Path | None,
    data_dir: str,
    config: str,
    server: str | None,
    api_key: str | None,
    **names: tuple[str, ...],
) -> int:
    """Write whole sessions as NDJSON, which `import` takes, or as CSV, one line for each record.

    Without SESSION those that the options choose. From the server that --server or DATACAT_SERVER_URL names, else from
    the data folder of a server that is stopped. FILE gets its name when it is complete.
    """
    now_us = time.time_ns() // 1000
    try:
        span = {"from": start and text.moment_us(start, now_us), "to": end and text.moment_us(end, now_us)}
        wanted = [ids.session_id(one) for one in sessions]
    except WireError as error:
        raise click.BadParameter(str(error)) from error
    chosen: dict[str, Any] = {**{name: list(values) for name, values in names.items()}, **span, "at": at, "q": q}
    params = {name: value for name, value in chosen.items() if value}
    if wanted:
        params = {"id": wanted}
    local = bool(data_dir or config) or not preferences.target(ctx, server).named
    with _output(output) as out:
        if local:
            _export_folder(root_of(data_dir, config), params, form, out)
        else:
            with ask.server_of(ctx, server, api_key) as asked:
                for piece in asked.stream("/api/export", {**params, "format": form}):
                    out.write(piece)
    return exits.OK


@click.command(name="import")
@click.argument("files", metavar="[FILE]...", nargs=-1, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--json", "as_json", is_flag=True, help="Print what was imported as JSON.")
@folder_options
@ask.server_option
@click.pass_context
def import_(
    ctx: click.Context,
    /,
    files: tuple[Path, ...],
    as_json: bool,
    data_dir: str,
    config: str,
    server: str | None,
    api_key: str | None,
) -> int:
    """Take in NDJSON that `export` wrote, from FILES or standard input; batches that are there already change nothing.

    Into the server that --server or DATACAT_SERVER_URL names, which needs an admin key, else into the data folder of a
    server that is stopped. Exit status 1 when a session was refused: it was deleted here, or its streams differ.
    """
    local = bool(data_dir or config) or not preferences.target(ctx, server).named
    told = transfer.Imported()
    if local:
        _import_folder(root_of(data_dir, config), files, told)
    else:
        with ask.server_of(ctx, server, api_key) as asked:
            _import_server(asked, files, told)
    if as_json:
        screen.print_json(msgspec.to_builtins(told))
    else:
        click.echo(
            f"{told.sessions} new sessions, {told.batches} new batches with {told.records} records; "
            f"{told.known} batches were there already"
        )
        for refused in told.refused:
            click.echo(f"not imported: {refused}", err=True)
    return exits.FAILED if told.refused else exits.OK


def _export_folder(root: Path, params: dict[str, Any], form: str, out: IO[bytes]) -> None:
    from datacat.server import exports, filters  # CherryPy takes 0.2 s that other commands do not need
    from datacat.server.router import Request

    survey.require(root)
    refuse_if_held(root)
    store = SemiStore(root)
    try:
        if "id" in params:
            heads = iter([store.head(one) for one in params["id"]])
        else:
            asked = Request({}, query={name: _texts(value) for name, value in params.items()})
            heads = exports.every(store, filters.sessions(asked, limit=filters.MAX_LIMIT), limited=False)
        for piece in exports.lines(store, heads, form):
            out.write(piece)
    finally:
        store.close()


def _texts(value: Any) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list) else [str(value)]


def _import_folder(root: Path, files: tuple[Path, ...], told: transfer.Imported) -> None:
    refuse_if_held(root)
    store = SemiStore(root, sync_interval_s=SYNC_S)
    try:
        importer = transfer.Importer(store, told, lambda: time.time_ns() // 1000)
        _each_line(files, importer.take, importer.close)
    finally:
        store.close()


def _import_server(asked: ask.Server, files: tuple[Path, ...], told: transfer.Imported) -> None:
    """Send lines in requests of whole batches; each begins with the head of the session that it goes on with."""
    waiting: list[bytes] = []
    size = 0
    head = b""
    batch: list[Any] | None = None

    def send() -> None:
        nonlocal waiting, size
        if waiting:
            answer = asked.post_lines("/api/import", b"\n".join(waiting))
            for name in ("sessions", "batches", "records", "known"):
                setattr(told, name, getattr(told, name) + answer[name])
            told.refused += [one for one in answer["refused"] if one not in told.refused]
        waiting, size = [head] if head else [], len(head)

    def take(raw: bytes) -> None:
        nonlocal size, head, batch
        line = msgspec.json.decode(raw)
        if not isinstance(line, dict):
            raise WireError("it is no line of an export")
        begins = line.get("batch") != batch
        batch = line.get("batch")
        if "head" in line:
            head = b""
        if begins and size > SEND_BYTES:
            send()
        if "head" in line:
            head = raw
        waiting.append(raw)
        size += len(raw)

    _each_line(files, take, send)


def _each_line(files: tuple[Path, ...], take: Callable[[bytes], None], close: Callable[[], None]) -> None:
    """Give every line of the files to take. Raises: WireError with file and line."""
    where = ""
    try:
        for name, source in _inputs(files):
            for number, raw in enumerate(source, 1):
                where = f"{name}, line {number}"
                if stripped := raw.strip():
                    take(stripped)
        close()
    except (WireError, msgspec.DecodeError) as error:
        raise WireError(
            f"{where}: {error}", hint="what was before it is imported; the same may be imported again"
        ) from error


def _inputs(files: tuple[Path, ...]) -> Iterator[tuple[str, IO[bytes]]]:
    if not files:
        yield "standard input", sys.stdin.buffer
    for path in files:
        try:
            with path.open("rb") as file:
                yield str(path), file
        except OSError as error:
            raise StoreError(f"cannot read {path}: {error.strerror}", permanent=True) from error


@contextmanager
def _output(path: Path | None) -> Iterator[IO[bytes]]:
    """Open where an export goes; a file gets its name when all is in it. Raises: StoreError."""
    if path is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    partial = path.with_name(f"{path.name}-{os.getpid()}{PARTIAL_SUFFIX}")
    try:
        try:
            with partial.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except UplinkError:
        raise
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror}", permanent=True) from error


COMMANDS = {"export": export, "import": import_}
