"""datacat run: run a program in any language and record it."""

import contextlib
import errno
import math
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from datacat.cli import ask, child, exits, text
from datacat.cli.child import Ended
from datacat.cli.tee import Tee
from datacat.client.child import close_child_session, create_child_session
from datacat.client.session import Session
from datacat.wire.records import OUTPUT_EVENT
from datacat.worker import Pump

TAIL_BYTES = 48 * 1024
"""What the lines of both streams may take of a record of 64 KiB; the rest is for quoting and the other members."""
DRAIN_QUIET_S = 1.0
"""After the child's end its pipes are read until they have been quiet for so long: a grandchild may keep them open."""
RECORD_AFTER_S = 2.0
"""The end is recorded so long after it at the latest, whatever still flows: the daemon stays for 5 s."""
_POLL_S = 0.02
ASKED_TO_STOP = ("SIGTERM", "SIGINT", "SIGHUP")
"""An end by one of these is no bad end."""


@click.command(
    context_settings={"help_option_names": ["-h", "--help"], "ignore_unknown_options": False},
    epilog="The exit code is the program's own, 128 + N when signal N ended it, 127 when there is no such program, and"
    " 126 when it cannot be executed.",
)
@click.option("--product", metavar="P", help="What it is. [default: the name of the program]")
@click.option("--version", metavar="V", default="unknown", show_default=True, help="Which version of it.")
@click.option("--environment", metavar="E", help="Where it runs: production, staging, ...")
@click.option("-v", "--verbose", is_flag=True, help="Say on standard error which session it is and how it ended.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@ask.server_option
@click.pass_context
def command(
    ctx: click.Context,
    product: str | None,
    version: str,
    environment: str | None,
    verbose: bool,
    command: tuple[str, ...],
    server: str | None,
    api_key: str | None,
) -> int:
    """Run a program in any language and record it: how it ended, the end of its output, CPU and memory.

    Its input, output and signals are its own; nothing is written in between. It needs no server to run: what was
    recorded waits for one.
    """
    url = ask.server_url(ctx, server)
    forwarder = child.Forwarder()
    with forwarder.installed():
        try:
            process = child.start(command)
        except OSError as error:
            return _not_started(command[0], error)
        forwarder.to(process)
        session = create_child_session(
            process.pid,
            url,
            product or Path(command[0]).name,
            version,
            environment=environment,
            state={"command": list(command), "directory": _directory()},
            api_key=ask.key_of(ctx, api_key),
        )
        if verbose:
            click.echo(f"datacat: session {session.id}", err=True)
        with _passing_through(process) as tees:
            ended = child.wait(process)
            _await_end(tees, RECORD_AFTER_S)
            _record_end(session, ended, tees)
    if verbose:
        how = text.signal_name(ended.signal) or f"exit code {ended.code}"
        click.echo(f"datacat: {how}; datacat --server {url} show {session.id}", err=True)
    return ended.shell_code


command.allow_interspersed_args = False  # what stands behind the program's name is the program's


@contextlib.contextmanager
def _passing_through(process: subprocess.Popen[bytes]) -> Iterator[dict[str, Tee]]:
    """Copy both streams meanwhile, and afterwards until they end or are quiet."""
    pipes = {"stdout": (process.stdout, 1), "stderr": (process.stderr, 2)}
    tees = {}
    for name, (pipe, target) in pipes.items():
        if pipe is not None:
            tees[name] = Tee(os.dup(pipe.fileno()), target)
            pipe.close()
    pumps = [Pump(f"run-{name}", tee.copy, lambda: None) for name, tee in tees.items()]
    for pump in pumps:
        pump.start()
    yield tees
    _await_end(tees, math.inf)


def _await_end(tees: dict[str, Tee], timeout_s: float) -> None:
    """Wait until every stream has ended or is quiet, at most timeout_s seconds."""
    pause = threading.Event()
    deadline = time.monotonic() + timeout_s
    while any(tee.quiet_s() < DRAIN_QUIET_S for tee in tees.values()) and time.monotonic() < deadline:
        pause.wait(_POLL_S)


def _record_end(session: Session, ended: Ended, tees: dict[str, Tee]) -> None:
    """Record what the child used, the end of its output at a bad end, and how it ended."""
    if ended.usage:
        session.log_metric("process.cpu.time", ended.usage.user_s, ["user"], "counter", unit="s")
        session.log_metric("process.cpu.time", ended.usage.system_s, ["system"], "counter", unit="s")
        if ended.usage.max_rss_bytes is not None:
            session.log_gauge("process.memory.max", ended.usage.max_rss_bytes, "By")
    if not ended.well and text.signal_name(ended.signal) not in ASKED_TO_STOP:
        lines = bounded({name: tee.tail.lines() for name, tee in tees.items()}, TAIL_BYTES)
        session.log_event(OUTPUT_EVENT, level="error", message=last_words(lines), data=lines)
    close_child_session(session, ended.code, ended.signal)


def bounded(streams: dict[str, list[str]], size_bytes: int) -> dict[str, Any]:
    """Return the newest lines of each stream that together take at most size_bytes as JSON. Pure.

    Each stream gets half; what one does not need is the other's. lines_cut counts, by stream, what had to go.
    """
    costs = {name: sum(map(_cost, lines)) for name, lines in streams.items()}
    share = size_bytes // max(len(streams), 1)
    spare = sum(max(share - cost, 0) for cost in costs.values())
    kept: dict[str, Any] = {}
    cut: dict[str, int] = {}
    for name, lines in streams.items():
        left = share + spare if costs[name] > share else share
        newest: list[str] = []
        for line in reversed(lines):
            left -= _cost(line)
            if left < 0:
                break
            newest.append(line)
        kept[name] = newest[::-1]
        if len(newest) < len(lines):
            cut[name] = len(lines) - len(newest)
    return {**kept, "lines_cut": cut} if cut else kept


def last_words(streams: dict[str, Any]) -> str | None:
    """Return the last line that says something: of stderr, else of stdout."""
    for name in ("stderr", "stdout"):
        for line in reversed(streams.get(name, [])):
            if line.strip():
                return str(text.one_line(line, 300))
    return None


def _cost(line: str) -> int:
    """Return the most that a line takes in JSON: control characters take six bytes each."""
    return 3 + sum(6 if char < " " else 2 if char in '"\\' else len(char.encode("utf-8", "replace")) for char in line)


def _directory() -> str | None:
    try:
        return os.getcwd()  # noqa: PTH109  a text, also of a folder that is gone
    except OSError:
        return None


def _not_started(program: str, error: OSError) -> int:
    missing = error.errno in (errno.ENOENT, errno.ENOTDIR)
    hint = "is it installed, and on PATH?" if missing else "is it a program, and executable?"
    click.echo(f"datacat: cannot run {program}: {(error.strerror or str(error)).lower()}; {hint}", err=True)
    return exits.NOT_FOUND if missing else exits.NOT_EXECUTABLE
