"""datacat service: make the server a service of this machine, whatever its manager is."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import click

from datacat import __version__
from datacat.cli import exits
from datacat.cli.plans import UNIT, Action, Facts, Remove, Run, Say, Step, Tail, Write, plan
from datacat.errors import HostError

_CHANGING: tuple[Action, ...] = ("install", "uninstall", "start", "stop", "restart")
_ABOUT: dict[Action, str] = {
    "install": "Make the server a service that starts with the machine, and start it.",
    "uninstall": "Stop the service and remove it; sessions and settings stay.",
    "start": "Start the service.",
    "stop": "Stop the service.",
    "restart": "Restart the service.",
    "status": "Tell whether the service runs, in its manager's words.",
    "logs": "Show what the service told about itself.",
}


@click.group(short_help="Make the server a service of this machine.")
def command() -> None:
    """Make the server a service of this machine: systemd on Linux, launchd on macOS, the services of Windows."""


def facts_of_this_machine(*, user: bool) -> Facts:
    """Return what plans depend on. Raises: HostError when there is no datacat-server to run."""
    suffix = ".exe" if sys.platform == "win32" else ""
    beside = Path(sys.executable).with_name(f"{UNIT}{suffix}")
    found = str(beside) if beside.exists() else shutil.which(UNIT)
    if found is None:
        raise HostError(
            f"there is no {UNIT} beside {sys.executable} or in PATH", hint="install datacat[server]", permanent=True
        )
    return Facts(
        platform=sys.platform,
        user=user,
        program=Path(found).absolute(),
        python=Path(sys.executable).resolve(),
        files=Path(__file__).with_name("service_files"),
        home=Path.home(),
        uid=os.getuid() if hasattr(os, "getuid") else 0,
        version=__version__,
    )


def carry_out(steps: list[Step], run: Callable[[tuple[str, ...]], int]) -> int:
    """Do the steps in order, showing each; return the exit code of the last program. Raises: HostError."""
    code = exits.OK
    for step in steps:
        if not isinstance(step, Say) and len(steps) > 1:
            click.echo(f"+ {step}", err=True)
        if isinstance(step, Run):
            code = run(step.argv)
            if code and step.needed and step is not steps[-1]:
                raise HostError(f"this ended with {code}: {step}", hint="datacat doctor may know why")
            code = code if step.needed else exits.OK
        elif isinstance(step, Write):
            _write(step)
        elif isinstance(step, Remove):
            try:
                step.path.unlink(missing_ok=True)
            except OSError as error:
                raise HostError(f"cannot remove {step.path}: {error.strerror}") from error
        else:
            click.echo(step.text)
    return code


def _write(step: Write) -> None:
    if step.keep and step.path.exists():
        return
    try:
        step.path.parent.mkdir(parents=True, exist_ok=True)
        step.path.write_text(step.text, encoding="utf-8")
        step.path.chmod(0o644)
    except OSError as error:
        raise HostError(f"cannot write {step.path}: {error.strerror}") from error


def _run(argv: tuple[str, ...]) -> int:
    sys.stdout.flush()
    try:
        return subprocess.run(argv, check=False).returncode
    except OSError as error:
        raise HostError(
            f"cannot run {argv[0]}: {error.strerror}", hint="is this machine run by another manager?"
        ) from error


def _check_rights(action: Action, facts: Facts) -> None:
    if facts.platform == "win32":
        return
    needs_root = not facts.user and action in _CHANGING
    if needs_root and facts.uid != 0:
        raise HostError(
            f"to {action} a service of the machine needs root",
            hint=f"sudo datacat service {action}, or datacat service {action} --user for a service of your own",
            permanent=True,
        )
    if facts.platform.startswith("linux") and not (facts.root / "run/systemd/system").exists():
        raise HostError(
            "this machine is not run by systemd", hint="let what runs it start datacat-server", permanent=True
        )


def _act(action: Action, *, user: bool, dry_run: bool, tail: Tail | None = None) -> int:
    facts = facts_of_this_machine(user=user)
    steps = plan(action, facts, tail)
    if dry_run:
        for step in steps:
            click.echo(str(step))
        return exits.OK
    _check_rights(action, facts)
    return carry_out(steps, _run)


def _subcommand(action: Action) -> click.Command:
    def act(user: bool, dry_run: bool, **of_the_log: Any) -> int:
        return _act(action, user=user, dry_run=dry_run, tail=Tail(**of_the_log) if of_the_log else None)

    options: list[click.Parameter] = [
        click.Option(["--user"], is_flag=True, help="A service of this user, without root."),
        click.Option(["--dry-run"], is_flag=True, help="Show what would be done; do nothing."),
    ]
    if action == "logs":
        options += [
            click.Option(["-n", "--lines"], type=click.IntRange(1, 1_000_000), default=100, show_default=True,
                         metavar="N", help="How many of the newest lines."),
            click.Option(["-f", "--follow"], is_flag=True, help="Go on with what comes."),
        ]  # fmt: skip
    return click.Command(action, callback=act, params=options, help=_ABOUT[action])


for _action in get_args(Action):
    command.add_command(_subcommand(_action))
