"""datacat grafana: write the files that Grafana and Prometheus need for datacat, with the server's address in them."""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from datacat.cli import exits, preferences, screen
from datacat.errors import HostError

FILES = Path(__file__).with_name("grafana_files")
FOLDERS = ("dashboards", "provisioning", "prometheus")
ADDRESS = "http://datacat:8080"
"""What stands in the files for the server's address; beside it only its host and port, scheme and path of /metrics."""
NOTE = ".datacat-grafana.json"
"""What was written last, and its digests: what is still so may be replaced."""
PLUGIN = "yesoreyeram-infinity-datasource"
PLUGIN_VERSION = "3.7.0"
GRAFANA_VERSION = "11.6.0"
_INPUT = "DS_DATACAT"
_URL = re.compile(r"https?://(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?(?:/[A-Za-z0-9._~-]+)*/*")
_PANELS = {
    "barchart": "Bar chart",
    "logs": "Logs",
    "stat": "Stat",
    "state-timeline": "State timeline",
    "status-history": "Status history",
    "table": "Table",
    "timeseries": "Time series",
}


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Write dashboards, alert rules and settings for Grafana, and those for Prometheus."""


@command.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--url",
    metavar="URL",
    default="",
    help="The server as Grafana reaches it. [default: that of this command: DATACAT_SERVER_URL or http://localhost:8080]",
)
@click.option(
    "--import-format",
    "importing",
    is_flag=True,
    help="Only dashboards, such that Grafana's import dialog asks for the data source.",
)
@click.option("--force", is_flag=True, help="Replace files also that were changed or are not from this command.")
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON.")
@click.pass_context
def export(ctx: click.Context, /, folder: Path, url: str, importing: bool, force: bool, as_json: bool) -> int:
    """Write five dashboards, a data source, alert rules, and the settings of Prometheus to DIR.

    What was written before and not changed since is replaced; other files stay, and nothing is written then.
    """
    address = address_of(url or preferences.target(ctx).server)
    files = made(address, importing=importing)
    try:
        known = _read_note(folder)
        foreign = [] if force else [name for name in files if _is_foreign(folder / name, files[name], known.get(name))]
        if foreign:
            raise click.ClickException(
                f"{folder} has files that were changed or are not from this command: {', '.join(foreign)}; nothing was "
                "written; choose another folder, or replace them with --force"
            )
        written = [name for name, text in files.items() if _write(folder / name, text)]
        note = known | {name: _digest(text) for name, text in files.items()}
        _write(folder / NOTE, json.dumps(note, indent=1, sort_keys=True) + "\n")
    except OSError as error:
        raise HostError(f"cannot write to {folder}: {error.strerror or error}") from error
    if as_json:
        rows = [{"name": name, "written": name in written} for name in files]
        screen.print_json({"folder": str(folder), "url": address, "files": rows})
        return exits.OK
    for name in files:
        click.echo(f"{folder / name}{'' if name in written else ' (as it was)'}")
    click.echo(_next_step(folder, address, importing=importing), err=True)
    return exits.OK


def address_of(url: str) -> str:
    """Return the address without a slash at the end: paths are put behind it. Raises: click.BadParameter."""
    try:
        good = _URL.fullmatch(url) is not None and urlsplit(url).port != 0
    except ValueError:  # a port beyond 65535
        good = False
    if not good:
        raise click.BadParameter(
            f"{url!r} is no address of a server; write it like https://datacat.example.com or http://10.0.0.7:8080",
            param_hint="--url",
        )
    return url.rstrip("/")


def made(address: str, *, importing: bool = False, source: Path = FILES) -> dict[str, str]:
    """Return the text of every file by its name below the folder, in order."""
    found: dict[str, str] = {}
    for folder in FOLDERS[:1] if importing else FOLDERS:
        for path in sorted((source / folder).rglob("*")):
            if path.is_file() and not path.name.startswith("."):
                text = path.read_text(encoding="utf-8")
                if importing:
                    text = json.dumps(for_import(json.loads(text)), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
                found[path.relative_to(source).as_posix()] = filled(text, address)
    return found


def filled(text: str, address: str) -> str:
    """Return the text of a file with the server's address in it."""
    parts = urlsplit(address)
    text = text.replace(ADDRESS, address).replace(urlsplit(ADDRESS).netloc, parts.netloc)
    text = re.sub(r"^(\s*(?:- )?scheme:) http$", rf"\1 {parts.scheme}", text, flags=re.MULTILINE)
    return re.sub(r"^(\s*(?:- )?metrics_path:) /metrics$", rf"\1 {parts.path}/metrics", text, flags=re.MULTILINE)


def for_import(board: Mapping[str, Any]) -> dict[str, Any]:
    """Return a dashboard as the import dialog and grafana.com take it.

    The dialog asks for the data source and puts it where DS_DATACAT stands. Files that Grafana reads itself must not
    look like that: it would search for a data source of this name.
    """
    plain = json.dumps(board).replace("&${datasource:queryparam}", "").replace("${datasource}", f"${{{_INPUT}}}")
    made: dict[str, Any] = json.loads(plain)
    made["id"] = None
    variables = made["templating"]["list"]
    made["templating"]["list"] = [one for one in variables if one["name"] != "datasource"]
    kinds = sorted({panel["type"] for panel in made["panels"]})
    made["__inputs"] = [
        {
            "name": _INPUT,
            "label": "datacat",
            "description": "The data source that leads to the datacat server",
            "type": "datasource",
            "pluginId": PLUGIN,
            "pluginName": "Infinity",
        }
    ]
    made["__requires"] = [
        {"type": "grafana", "id": "grafana", "name": "Grafana", "version": GRAFANA_VERSION},
        {"type": "datasource", "id": PLUGIN, "name": "Infinity", "version": PLUGIN_VERSION},
        *({"type": "panel", "id": kind, "name": _PANELS[kind], "version": ""} for kind in kinds),
    ]
    return made


def _next_step(folder: Path, address: str, *, importing: bool) -> str:
    if importing:
        return "next: Dashboards, New, Import in Grafana, once for each file; it asks for the data source"
    steps = (
        f"next, for {address}:",
        f"  1. grafana cli plugins install {PLUGIN}",
        "  2. datacat keys create grafana --role read     the key goes into Grafana's environment: DATACAT_READ_TOKEN",
        f"  3. copy {folder / 'provisioning'} to /etc/grafana/provisioning,",
        f"     and {folder / 'dashboards'}/*.json to /etc/grafana/dashboards/datacat",
        "  4. restart Grafana",
    )
    return "\n".join(steps)


def _read_note(folder: Path) -> dict[str, str]:
    """Return the digests of what was written last; nothing when there is no note, or none of ours. Raises: OSError."""
    try:
        found = json.loads((folder / NOTE).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return {str(name): str(digest) for name, digest in found.items()} if isinstance(found, dict) else {}


def _is_foreign(path: Path, text: str, digest: str | None) -> bool:
    """Whether there is something that is neither what it would become nor what was written last. Raises: OSError."""
    if not path.exists():
        return False
    return not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() not in (_digest(text), digest)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _write(path: Path, text: str) -> bool:
    """Write a file unless it is so already; return whether it was written. Raises: OSError."""
    data = text.encode()
    if path.is_file() and path.read_bytes() == data:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return True
