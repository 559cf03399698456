"""datacat demo: six real programs side by side, what the server knows of them, and one table."""

import contextlib
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
from rich.live import Live
from rich.text import Text

from datacat.cli import ask, exits, screen, text
from datacat.cli.demo import report
from datacat.cli.demo.picture import draw
from datacat.cli.demo.programs import PROGRAMS
from datacat.cli.demo.report import Outcome
from datacat.cli.demo.stage import Stage
from datacat.cli.screen import Cell, Column
from datacat.errors import NotFound
from datacat.wire.routes import OPEN_STATUSES

TIME_LIMIT_S = 50.0
"""Everything is over in 15 s on a machine that has nothing else to do."""
_TICK_S = 0.25
_NARROW = 100
"""A terminal with fewer columns shows products without their versions."""
_PROGRESS = (
    Column("PROGRAM"),
    Column("WHAT HAPPENS TO IT", wraps=True),
    Column("STATUS"),
    Column("EVENTS", right=True),
)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--serve", is_flag=True, help="Keep the server up afterwards, until Ctrl-C.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port of the server. [default: a free one]")
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the server keeps the sessions. [default: a temporary folder]",
)
@click.option(
    "--picture", type=click.Path(dir_okay=False, path_type=Path), help="Also draw the table into this SVG file."
)
def command(serve: bool, port: int, data_dir: Path | None, picture: Path | None) -> int:
    """Start a server, run six programs that end in six ways, and show what was recorded of each."""
    with (
        _stops_like_ctrl_c(),
        tempfile.TemporaryDirectory(prefix="datacat-demo-") as folder,
        Stage(Path(folder), os.environ) as stage,
    ):
        kept = data_dir.absolute() if data_dir else Path(folder) / "data"
        url = stage.start_server(kept, port)
        click.echo(f"server at {url}, its store in {kept}")
        with ask.Server(url) as server:
            stage.start_programs(url)
            heads = _watch(stage, server)
            outcomes = [_outcome(stage, server, name, heads) for name in PROGRAMS]
        stage.end_programs()
        found = [line for outcome in outcomes for line in report.problems(outcome)]
        _print_result(outcomes, found)
        if picture:
            draw(
                picture,
                "datacat demo",
                screen.table(report.COLUMNS, [*map(report.row, outcomes)]),
                Text(_summary(outcomes)),
            )
        _print_next(outcomes, url, data_dir, serve=serve)
        if serve:
            with contextlib.suppress(KeyboardInterrupt):
                stage.wait_for_server()
    return exits.FAILED if found else exits.OK


@contextlib.contextmanager
def _stops_like_ctrl_c() -> Iterator[None]:
    """Let SIGTERM and a closed terminal end the demo as Ctrl-C does, so that it ends what it started."""
    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = [(getattr(signal, name), signal.signal(getattr(signal, name), _interrupt)) for name in names]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _watch(stage: Stage, server: ask.Server) -> dict[str, dict[str, Any]]:
    """Show what the server knows of the programs until it knows how each ended; return their heads by program."""
    heads: dict[str, dict[str, Any]] = {}
    start = time.monotonic()
    with _display() as show:
        while time.monotonic() - start < TIME_LIMIT_S:
            for name in PROGRAMS:
                with contextlib.suppress(NotFound):
                    if session_id := stage.ledgers[name].session_id:
                        heads[name] = server.session(session_id, {"events": 0, "metrics": 0, "history": 0})
            if heads.get("player", {}).get("status") == "hung" and stage.ledgers["player"].marked:
                stage.kill("player")
            show([_progress(stage, name, heads.get(name)) for name in PROGRAMS])
            if all(_complete(stage, name, heads.get(name)) for name in PROGRAMS):
                break
            stage.pause(_TICK_S)
    return heads


def _complete(stage: Stage, name: str, head: dict[str, Any] | None) -> bool:
    if head is None or head["status"] in OPEN_STATUSES:
        return False
    return not stage.running(name) and int(head["counts"].get("events", 0)) >= stage.ledgers[name].written


def _progress(stage: Stage, name: str, head: dict[str, Any] | None) -> screen.Row:
    program = PROGRAMS[name]
    status = head["status"] if head else "starting"
    reason = f" ({head['end_reason']})" if head and head.get("end_reason") else ""
    return (
        program.product,
        program.plan,
        Cell(status + reason, text.STATUS_STYLES.get(status, "")),
        f"{stage.ledgers[name].written:,}",
    )


@contextlib.contextmanager
def _display() -> Iterator[Callable[[list[screen.Row]], None]]:
    """Give a function that shows the rows: a live table in a terminal, else a line for each status that is new."""
    out = screen.console()
    if out.is_terminal:
        with Live(console=out, auto_refresh=False, transient=True) as live:
            yield lambda rows: live.update(screen.table(_PROGRESS, rows), refresh=True)
        return
    start = time.monotonic()
    known: dict[str, str] = {}

    def lines(rows: list[screen.Row]) -> None:
        for program, plan, status, _ in rows:
            name, now = str(program), status.text if isinstance(status, Cell) else status
            if known.get(name) != now:
                known[name] = now
                click.echo(f"{time.monotonic() - start:5.1f} s  {name:<15} {now:<22} {plan}")

    yield lines


def _outcome(stage: Stage, server: ask.Server, name: str, heads: dict[str, dict[str, Any]]) -> Outcome:
    session = None
    if name in heads:
        session = server.session(heads[name]["id"], {"events": "all", "metrics": 0, "history": 0})
    return Outcome(PROGRAMS[name], session, stage.ledgers[name].written)


def _print_result(outcomes: list[Outcome], found: list[str]) -> None:
    click.echo()
    out = screen.console()
    narrow = out.is_terminal and out.width < _NARROW
    screen.print_table(report.COLUMNS, [report.row(outcome, narrow=narrow) for outcome in outcomes])
    click.echo()
    for line in found:
        click.secho(line, fg="red", err=True)
    if not found:
        click.secho(_summary(outcomes), fg="green")


def _summary(outcomes: list[Outcome]) -> str:
    written = sum(report.written_of(outcome) for outcome in outcomes)
    received = sum(len(report.own_events(outcome.session)) for outcome in outcomes if outcome.session)
    return f"All {received:,} of {written:,} events arrived, and every end was understood."


def _print_next(outcomes: list[Outcome], url: str, data_dir: Path | None, *, serve: bool) -> None:
    known = [outcome.session["id"] for outcome in outcomes if outcome.session]
    if not known:
        return
    shorts = text.short_ids(known)
    crashed = next(
        (o.session["id"] for o in outcomes if o.session and o.session["end_reason"] == "exception"), known[0]
    )
    if serve or data_dir:
        where = "" if serve else f"  datacat-server --data-dir {data_dir} --port {url.rpartition(':')[2]}\n"
        click.echo(
            f"\nLook closer:\n{where}"
            f"  datacat --server {url} sessions\n"
            f"  datacat --server {url} show {shorts[crashed]}\n"
            f"  {url}/ in a browser"
        )
        click.echo("\nThe server stays up; Ctrl-C ends it." if serve else "")
    else:
        click.echo("\nThe server has ended. To look around in what it recorded: scripts/demo --serve")
