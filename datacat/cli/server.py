"""The command datacat-server: flags made from the settings table, errors in one line."""

import os
import sys
from collections.abc import Callable
from typing import Any

import click

from datacat import __version__
from datacat.errors import DatacatError
from datacat.server import logs
from datacat.server.config import ENVIRONMENT_PREFIX, SETTINGS, load, settings_doc

EX_OK = 0
EX_FAILED = 1
EX_CONFIG = 78
"""sysexits.h: something in the configuration has to be changed; service managers do not try again."""


def _flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add a flag for every setting; click only passes texts on, the table parses them."""
    for setting in reversed(SETTINGS):
        flag = f"--{setting.name.replace('_', '-')}"
        about = f"{setting.about} [env: {ENVIRONMENT_PREFIX}{setting.name.upper()}]"
        if setting.is_switch:
            option = click.option(f"{flag}/--no-{flag[2:]}", setting.name, default=None, help=about)
        else:
            shown = f" [default: {setting.default:g}]" if isinstance(setting.default, float) else ""
            shown = shown or (f" [default: {setting.default}]" if setting.default not in ("", ()) else "")
            option = click.option(flag, setting.name, default=None, metavar="VALUE", help=about + shown)
        command = option(command)
    return command


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@_flags
@click.option("--settings-doc", "print_doc", is_flag=True, help="Print docs/settings.md and leave.")
@click.version_option(__version__, message="datacat-server %(version)s")
def command(print_doc: bool, **flags: object) -> int:
    """Keep the sessions of a fleet: take what daemons and clients send, serve it to people, Grafana and the API."""
    if print_doc:
        click.echo(settings_doc(), nl=False)
        return EX_OK
    load(flags, os.environ)  # says what is wrong before CherryPy is loaded
    from datacat.server.run import run  # CherryPy takes 0.2 s that --help does not need

    return EX_OK if run(lambda: load(flags, os.environ)) else EX_FAILED


def main() -> None:
    """Run the command.

    Exit code 78 (EX_CONFIG) when a person has to change something before it can start; 1 when the next try may succeed.
    """
    try:
        code = command.main(prog_name="datacat-server", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except click.Abort:
        code = EX_FAILED
    except DatacatError as error:
        click.echo(logs.last_words(str(error), os.environ), err=True)
        code = EX_CONFIG if error.permanent else EX_FAILED
    sys.exit(code if isinstance(code, int) else EX_OK)


if __name__ == "__main__":
    main()
