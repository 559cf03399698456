"""datacat doctor: find out what is wrong with the server on this machine, and say what to do about it."""

import json
import os
import sys
from collections.abc import Iterator

import click

from datacat import __version__
from datacat.cli import checks, exits
from datacat.cli.ask import server_option, server_url
from datacat.cli.checks import Answer, Finding
from datacat.cli.preferences import Target, target
from datacat.errors import HostError

_MARKS = {"ok": ("ok", "green"), "note": ("note", "yellow"), "problem": ("PROBLEM", "red")}
_TIMEOUT_S = 5.0


@click.command(short_help="Find out what is wrong with the server.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as a JSON array.")
@click.option(
    "--data-dir", default="", metavar="PATH", help="The server's data folder, if it is not where it would be."
)
@server_option
@click.pass_context
def command(ctx: click.Context, as_json: bool, data_dir: str, server: str | None, api_key: str | None) -> int:
    """Find out what is wrong with the server, its service and its folders, and what to do about it.

    The exit code is 1 when there is a problem.
    """
    findings = list(_findings(server_url(ctx, server), target(ctx, server, api_key), data_dir))
    if as_json:
        click.echo(json.dumps([finding._asdict() for finding in findings], indent=2))
    else:
        for finding in findings:
            mark, colour = _MARKS[finding.level]
            click.echo(f"{click.style(f'{mark:<8}', fg=colour)} {finding.name}: {finding.text}")
            if finding.remedy:
                click.echo(f"         -> {finding.remedy}")
    return exits.FAILED if any(finding.level == "problem" for finding in findings) else exits.OK


def _findings(url: str, wanted: Target, data_dir: str) -> Iterator[Finding]:
    about_server = list(checks.server(url, lambda path: _get(url, path, wanted), __version__, checks.now_s()))
    yield from about_server
    yield from checks.port(url, about_server[0].level == "ok")
    if sys.platform == "linux":
        for user in (False, True):
            yield from checks.unit(checks.ask, user=user)
    try:
        yield from checks.data(*checks.data_folder(data_dir, os.environ))
    except (HostError, OSError) as error:
        yield Finding("data", "problem", str(error))
    yield from checks.spool()


def _get(url: str, path: str, wanted: Target) -> Answer:
    import requests  # 100 ms that the help does not need

    headers = {"Authorization": f"Bearer {wanted.api_key}"} if wanted.api_key else {}
    try:
        with requests.Session() as http:
            http.trust_env = False
            answer = http.get(url + path, headers=headers, timeout=_TIMEOUT_S, verify=wanted.ca_file or True)
    except OSError as error:  # requests: also a CA file that is not there
        return Answer(0, type(error).__name__)
    try:
        body = answer.json()
    except ValueError:
        body = None
    return Answer(answer.status_code, answer.text[:200], answer.headers.get("Date", ""), body)
