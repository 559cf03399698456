"""The command datacat: its subcommands, loaded when they are chosen, and how it says what went wrong."""

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click
from click.shell_completion import shell_complete

from datacat import __version__
from datacat.cli import exits, preferences
from datacat.errors import DatacatError, UplinkError
from datacat.wire import routes

COMMANDS = {
    "sessions": ("datacat.cli.sessions", "List sessions: which run, which hang, which crashed."),
    "show": ("datacat.cli.show", "Tell everything about one session, and why it ended."),
    "tail": ("datacat.cli.tail", "Follow what sessions do while they do it."),
    "run": ("datacat.cli.run", "Run a program in any language and record it."),
    "demo": ("datacat.cli.demo.command", "Watch six programs end in six ways."),
    "service": ("datacat.cli.service", "Make the server a service of this machine; start, stop, watch it."),
    "keys": ("datacat.cli.keys", "Make, list and revoke the keys of a server."),
    "store": ("datacat.cli.store", "Look after the store on this machine: check, repair, back up, export."),
    "spool": ("datacat.cli.spool", "Look at journals on this machine; ship, export or drop them by hand."),
    "alerts": ("datacat.cli.alerts", "List what is watched and what fires; test the webhooks."),
    "grafana": ("datacat.cli.grafana", "Write dashboards and alert rules for Grafana, settings for Prometheus."),
    "doctor": ("datacat.cli.doctor", "Find out what is wrong with the server, and what to do about it."),
}
"""Subcommand: the module whose `command` it is, and the line that the help shows without loading it."""


COMPLETE = "_DATACAT_COMPLETE"
"""A shell asks for completions through it: eval "$(_DATACAT_COMPLETE=bash_source datacat)"."""


class _Lazy(click.Group):
    """A group that imports a subcommand when it is chosen, so that the help is there at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 click gives it
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 click gives it
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(COMMANDS[cmd_name][0]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 click gives it
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, message="datacat %(version)s")
@click.option(
    "--server",
    metavar="URL",
    help=f"Where the server is. [env: DATACAT_SERVER_URL; default: {routes.SERVER_URL}]",
)
@click.option("--api-key", metavar="KEY", help="A key of the server. [env: DATACAT_API_KEY]")
@preferences.key_options
@click.option("--debug", is_flag=True, envvar="DATACAT_DEBUG", help="Show the stack of an error. [env: DATACAT_DEBUG]")
@click.pass_context
def group(ctx: click.Context, server: str | None, api_key: str | None, debug: bool) -> None:
    """Datacat, a flight recorder for applications: which sessions are active, hung or crashed, and why."""
    ctx.ensure_object(dict).update(server=server, api_key=api_key, debug=debug)


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command and leave the process with one of the codes of cli.exits."""
    code: Any = exits.OK
    if instruction := os.environ.get(COMPLETE):
        sys.exit(shell_complete(group, {}, "datacat", COMPLETE, instruction))
    try:
        # group.main() would take a closed pipe and Ctrl-C for itself and answer with other codes than a shell expects.
        with group.make_context("datacat", list(sys.argv[1:] if argv is None else argv)) as ctx:
            code = group.invoke(ctx)
        sys.stdout.flush()
    except click.exceptions.Exit as done:
        code = done.exit_code
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        code = exits.INTERRUPTED
    except BrokenPipeError:
        # The reader has seen enough (| head). Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = exits.PIPE_CLOSED
    except DatacatError as error:
        click.echo(f"datacat: {error}", err=True)
        code = _code_of(error)
    except Exception as error:
        if os.environ.get("DATACAT_DEBUG") or "--debug" in (sys.argv if argv is None else argv):
            raise
        click.echo(f"datacat: {type(error).__name__}: {error}; --debug shows where", err=True)
        code = exits.INTERNAL
    sys.exit(code if isinstance(code, int) else exits.OK)


def _code_of(error: DatacatError) -> int:
    if isinstance(error, UplinkError):
        # 0: nobody answered; 400 and 422: a filter that the server does not understand came from the command line.
        return {0: exits.UNAVAILABLE, 400: exits.USAGE, 422: exits.USAGE}.get(error.status, exits.FAILED)
    return exits.FAILED
