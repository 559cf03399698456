"""What packages contain and the program itself knows best: configuration file, man pages, shell completion.

Usage: python packaging/generated.py FOLDER writes all of them; made from the settings table and the commands, so that
none of them can be out of date.
"""

import argparse
import json
import re
import sys
import textwrap
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from click.shell_completion import get_completion_class

from datacat import __version__
from datacat.cli import daemon, main, server
from datacat.server.config import SETTINGS

FILE_HEAD = """\
# Settings of datacat-server: /etc/datacat/server.toml
#
# Every setting is here with its default. Take the # away and change the value, then: systemctl reload datacat-server
# applies what can change while it runs, systemctl restart datacat-server applies all, without losing a request.
# A DATACAT_NAME in /etc/default/datacat-server and a flag win over this file. See datacat-server(8).
"""
SERVER_FILES = [
    ("/etc/datacat/server.toml", "Settings, each with its default, its meaning and what it may be."),
    (
        "/etc/default/datacat-server",
        "Environment of the service, for example DATACAT_LOG_LEVEL=debug. It need not exist.",
    ),
    ("/var/lib/datacat", "Where the service keeps sessions."),
    ("/usr/share/doc/datacat/examples/sealed", "The variant of the service without any network of its own."),
]
CANNOT_START = (
    "Something has to be changed before it can start: a wrong setting, a port in use, a damaged store, a folder that"
    " cannot be written. The last line says what. The service manager does not start it again."
)
SERVER_STATUS = [
    ("0", "It was asked to stop."),
    ("1", "It failed; the service manager starts it again."),
    ("2", "A flag that it does not know. The service manager does not start it again."),
    ("78", CANNOT_START),
]
DAEMON_TEXT = (
    "The client library starts this program by itself, one for each recorded program: nobody has to. Started by hand it"
    " takes records from programs in any language over HTTP, on 127.0.0.1 port 8079. It ends when its work is done or"
    " at SIGTERM; what it could not ship stays in its folder and is shipped by the next one."
)
FOLDED = re.compile(r"\s+")
UNQUOTED = re.compile(r"[^ -~]|[]['\\:]")
"""What means something to zsh inside of a description."""


def config_file() -> str:
    """Return server.toml: every setting with its meaning and its default, commented out."""
    parts = [FILE_HEAD]
    for setting in SETTINGS:
        if setting.name == "config":  # a file does not name another one
            continue
        about = textwrap.wrap(f"{setting.about} Value: {setting.allowed}.", 116)
        parts.append("\n".join(["", *(f"# {line}" for line in about), f"#{setting.name} = {_toml(setting)}", ""]))
    return "".join(parts)


def _toml(setting: Any) -> str:
    """Return a default as the file says it; all defaults but tables are written as in JSON."""
    if isinstance(setting.default, tuple):
        return "{}" if "a table" in setting.allowed else json.dumps(list(setting.default))
    return json.dumps(setting.default)


def roff(text: str) -> str:
    """Return text for a man page: nothing in it is taken for an instruction."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("…", "...")
    return re.sub(r"^([.'])", r"\\&\1", escaped, flags=re.MULTILINE)


def page(name: str, section: int, about: str, date: str, sections: list[tuple[str, list[str]]]) -> str:
    """Return a man page; sections: (heading, lines in roff)."""
    lines = [
        f'.TH {name.upper()} {section} {date} "datacat {__version__}"',
        ".SH NAME",
        f"{name} \\- {roff(about)}",
    ]
    for heading, body in sections:
        if body:
            lines += [f'.SH "{heading}"', *body]
    return "\n".join(lines) + "\n"


def entries(rows: Any) -> list[str]:
    """Return a list of (term, text) as tagged paragraphs."""
    return [line for term, text in rows for line in (".TP", f"\\fB{roff(term)}\\fR", roff(text))]


def paragraphs(text: str | None) -> list[str]:
    """Return the paragraphs of a help text."""
    found = [FOLDED.sub(" ", part.replace("\b", "")).strip() for part in (text or "").split("\n\n")]
    return [line for part in found if part for line in (".PP", roff(part))]


def options(command: click.Command, ctx: click.Context) -> list[str]:
    """Return the options of a click command as its own help tells them."""
    records = [parameter.get_help_record(ctx) for parameter in command.get_params(ctx)]
    return entries(record for record in records if record)


def synopsis(ctx: click.Context) -> list[str]:
    """Return how a command is called."""
    usage = ctx.command.collect_usage_pieces(ctx)
    return [f"\\fB{roff(ctx.command_path)}\\fR {roff(' '.join(usage))}"]


def datacat_page(date: str) -> str:
    """Return datacat(1) with all subcommands."""
    group = main.group
    ctx = click.Context(group, info_name="datacat", **group.context_settings)
    commands: list[str] = []
    for name in group.list_commands(ctx):
        commands += list(subcommand(group.get_command(ctx, name), ctx, name))
    return page("datacat", 1, "a flight recorder for applications", date, [
        ("SYNOPSIS", synopsis(ctx)),
        ("DESCRIPTION", paragraphs(group.help)),
        ("OPTIONS", options(group, ctx)),
        ("COMMANDS", commands),
        ("SEE ALSO", ["\\fBdatacat\\-server\\fR(8), \\fBdatacat\\-daemon\\fR(1)"]),
    ])  # fmt: skip


def subcommand(command: click.Command | None, parent: click.Context, name: str) -> Iterator[str]:
    """Yield one subcommand, and those below it."""
    if command is None or command.hidden:
        return
    ctx = click.Context(command, info_name=name, parent=parent, **command.context_settings)
    yield f'.SS "{roff(ctx.command_path)}"'
    yield from synopsis(ctx)
    yield from paragraphs(command.help)
    yield from options(command, ctx)
    yield from paragraphs(command.epilog)
    if isinstance(command, click.Group):
        for below in command.list_commands(ctx):
            yield from subcommand(command.get_command(ctx, below), ctx, below)


def server_page(date: str) -> str:
    """Return datacat-server(8)."""
    ctx = click.Context(server.command, info_name="datacat-server", **server.command.context_settings)
    return page("datacat-server", 8, "keep the sessions of recorded applications", date, [
        ("SYNOPSIS", synopsis(ctx)),
        ("DESCRIPTION", [
            *paragraphs(server.command.help),
            *paragraphs("Each setting is a flag, a DATACAT_NAME in the environment, or a line in the file that --config"
                        " names; the first of them that is given counts."),
        ]),
        ("OPTIONS", options(server.command, ctx)),
        ("SIGNALS", entries([
            ("SIGTERM, SIGINT", "Answer what is being asked, write everything down, leave."),
            ("SIGHUP", "Read the settings again and apply those that can change while it runs."),
        ])),
        ("EXIT STATUS", entries(SERVER_STATUS)),
        ("FILES", entries(SERVER_FILES)),
        ("SEE ALSO", ["\\fBdatacat\\fR(1), \\fBsystemctl\\fR(1), \\fBjournalctl\\fR(1)"]),
    ])  # fmt: skip


def daemon_actions() -> list[argparse.Action]:
    """Return the options of datacat-daemon that are for people."""
    actions = daemon._parser()._actions  # noqa: SLF001  argparse has no public list of its options
    return [action for action in actions if action.help != argparse.SUPPRESS]


def daemon_page(date: str) -> str:
    """Return datacat-daemon(1)."""
    parser = daemon._parser()  # noqa: SLF001  the parser is all that is wanted of it
    rows = []
    for action in daemon_actions():
        value = f" {action.metavar}" if action.metavar else ""
        rows.append((", ".join(action.option_strings) + value, (action.help or "") % {"prog": "datacat-daemon"}))
    return page("datacat-daemon", 1, "ship the records of local programs to a datacat server", date, [
        ("SYNOPSIS", ["\\fBdatacat\\-daemon\\fR [OPTIONS]"]),
        ("DESCRIPTION", [*paragraphs(DAEMON_TEXT), *paragraphs(parser.epilog)]),
        ("OPTIONS", entries(rows)),
        ("SEE ALSO", ["\\fBdatacat\\fR(1), \\fBdatacat\\-server\\fR(8)"]),
    ])  # fmt: skip


def completion(shell: str, command: click.Command, name: str) -> str:
    """Return the completion script of a command for bash, zsh or fish."""
    kind = get_completion_class(shell)
    assert kind is not None, shell
    variable = f"_{name.replace('-', '_').upper()}_COMPLETE"
    if shell == "bash":
        # Its source() starts bash and asks for its version; the script itself needs none.
        kind._check_version = staticmethod(lambda: None)  # type: ignore[attr-defined]  # noqa: SLF001
    return kind(command, {}, name, variable).source()


def daemon_completion(shell: str) -> str:
    """Return the completion script of datacat-daemon: its options, and files behind them."""
    flags = [
        (flag, " ".join((action.help or "").split())) for action in daemon_actions() for flag in action.option_strings
    ]
    name = "datacat-daemon"
    if shell == "bash":
        return f"complete -o default -W '{' '.join(flag for flag, _ in flags)}' {name}\n"
    if shell == "fish":
        lines = [f"complete -c {name} {fish_option(flag)} -d {json.dumps(about)}" for flag, about in flags]
        return "\n".join(lines) + "\n"
    plain = [(flag, UNQUOTED.sub("", about)) for flag, about in flags]
    offered = " ".join(f"'{flag}[{about}]'" for flag, about in plain)
    return f"#compdef {name}\n_arguments {offered} '*:file:_files'\n"


def fish_option(flag: str) -> str:
    """Return a flag as fish's complete wants it."""
    return f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}"


def files(date: str) -> dict[str, str]:
    """Return everything: path below the root of the system, text."""
    found = {
        "etc/datacat/server.toml": config_file(),
        "usr/share/man/man1/datacat.1": datacat_page(date),
        "usr/share/man/man1/datacat-daemon.1": daemon_page(date),
        "usr/share/man/man8/datacat-server.8": server_page(date),
    }
    for name, command in (("datacat", main.group), ("datacat-server", server.command)):
        found[f"usr/share/bash-completion/completions/{name}"] = completion("bash", command, name)
        found[f"usr/share/zsh/vendor-completions/_{name}"] = completion("zsh", command, name)
        found[f"usr/share/fish/vendor_completions.d/{name}.fish"] = completion("fish", command, name)
    found["usr/share/bash-completion/completions/datacat-daemon"] = daemon_completion("bash")
    found["usr/share/zsh/vendor-completions/_datacat-daemon"] = daemon_completion("zsh")
    found["usr/share/fish/vendor_completions.d/datacat-daemon.fish"] = daemon_completion("fish")
    return found


def write(folder: Path, epoch_s: int) -> None:
    """Write everything below folder; the man pages carry the day of epoch_s."""
    date = datetime.fromtimestamp(epoch_s, UTC).date().isoformat()
    for path, text in files(date).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else int(datetime.now(UTC).timestamp()))
