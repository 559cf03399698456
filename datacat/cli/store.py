"""datacat store: look after the store in a data folder. The group, and check, repair, compact, stats."""

import dataclasses
import importlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import click

from datacat.cli import exits, keys, screen
from datacat.cli.progress import follow
from datacat.cli.screen import Column
from datacat.errors import Busy, StoreError
from datacat.server.config import load, read_file
from datacat.store import checking, mending, survey
from datacat.store.backup import MANIFEST
from datacat.store.checking import Report, Trouble
from datacat.store.semi import SemiStore
from datacat.store.survey import Step

_Command = TypeVar("_Command", bound=Callable[..., Any])
TEND_S = 1.0
"""One step of compacting; after each the progress is shown and Ctrl-C is heard."""
_MANY = 1000
_ELSEWHERE = {
    "backup": "datacat.cli.store_copies",
    "restore": "datacat.cli.store_copies",
    "export": "datacat.cli.store_lines",
    "import": "datacat.cli.store_lines",
}


def folder_options(command: _Command) -> _Command:
    """Add --data-dir and --config; data_dir_of(data_dir, config) takes them."""
    folder = click.option("--data-dir", metavar="PATH", default="", help="The data folder of a server of this machine.")
    return folder(
        click.option("--config", metavar="PATH", default="", help="Its settings, which name the folder.")(command)
    )


def data_dir_of(data_dir: str, config: str) -> Path:
    """Return the data folder: as told, as the settings tell, or where the system's or the user's server has it."""
    return keys.data_folder(data_dir, config)


def root_of(data_dir: str, config: str) -> Path:
    """Return the folder of the store, which the setting `store` may have put elsewhere. Raises: StoreError."""
    if not data_dir:
        url = load({"config": config or None}, os.environ).store
        if not url and not config and os.access(keys.SYSTEM_CONFIG, os.R_OK):
            url = str(read_file(keys.SYSTEM_CONFIG).get("store", ""))
        if url == "memory:":
            raise StoreError("this server keeps its sessions in memory", hint="there is no folder to look after")
        if url:
            return Path(url.removeprefix("semidbm:")).expanduser()
    return data_dir_of(data_dir, config) / "store"


def refuse_if_held(root: Path) -> None:
    """Raise unless this process may change the store: Busy with the pid of a server that has it open, StoreError."""
    if (root.parent / MANIFEST).exists():
        raise StoreError(f"{root.parent} is a backup, which nothing may change", hint="restore it to another folder")
    owner = _owner(root)
    if owner:
        raise StoreError(
            f"the store in {root} belongs to {owner}, and a superuser would make files that its server cannot read",
            hint=f"use sudo -u {owner}",
            permanent=True,
        )
    pid = survey.holder(root)
    if pid:
        raise Busy(f"the store in {root} is in use by pid {pid}", holder=pid, hint="stop that server first")


def _owner(root: Path) -> str:
    """Return whose the store is when that is somebody else than a superuser who asks; empty otherwise."""
    if sys.platform == "win32" or os.geteuid() != 0 or not root.exists():
        return ""
    import pwd  # not on Windows

    uid = root.stat().st_uid
    if uid == 0:
        return ""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"'#{uid}'"


class _Group(click.Group):
    """The group; what is in other modules is imported when it is chosen."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *_ELSEWHERE})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in _ELSEWHERE:
            found: click.Command = importlib.import_module(_ELSEWHERE[cmd_name]).COMMANDS[cmd_name]
            return found
        return super().get_command(ctx, cmd_name)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Look after the store of a server on this machine: verify, repair, back up, move.

    check, stats, backup and export may be used while the server runs; the others when it is stopped.
    """


@command.command()
@click.option("--quick", is_flag=True, help="Do not compare every session with its records.")
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
@folder_options
def check(quick: bool, as_json: bool, data_dir: str, config: str) -> int:
    """Verify everything: checksums, entries, sessions against their records, roll-ups, hints. Changes nothing.

    Exit status 1 when anything is not as it was written. While the server runs, what it writes meanwhile is left out,
    and sessions are not compared.
    """
    root = root_of(data_dir, config)
    report = _examine(root, deep=not quick)
    if as_json:
        screen.print_json(_as_json(root, report))
        return exits.OK if report.sound else exits.FAILED
    _print_troubles(report.troubles, repairing=False)
    compared = "; the server runs: sessions were not compared" if report.live else ""
    click.echo(
        f"{root}: {'sound' if report.sound else 'DAMAGED'}: {report.segments} segments with {report.records} entries, "
        f"{report.lines} records of {report.sessions} sessions, {report.pages} pages of roll-ups{compared}"
    )
    return exits.OK if report.sound else exits.FAILED


@command.command()
@click.option("--dry-run", is_flag=True, help="Only tell what would be done, with file and offset.")
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
@folder_options
def repair(dry_run: bool, as_json: bool, data_dir: str, config: str) -> int:
    """Put the store right: cut off unfinished writes, move damaged bytes to quarantine, keep everything that is sound.

    A server does the same for its segments when it starts. Exit status 1 when something is left that only a backup, or
    a person, can mend; with --dry-run when there is anything to do.
    """
    root = root_of(data_dir, config)
    if not dry_run:
        refuse_if_held(root)
    report = _examine(root, deep=False)
    if dry_run:
        if as_json:
            screen.print_json(_as_json(root, report))
        else:
            _print_troubles(report.troubles, repairing=True)
            click.echo(f"{root}: {len(report.troubles)} things to repair" if report.troubles else f"{root}: sound")
        return exits.OK if report.sound else exits.FAILED
    findings = mending.repair(root)
    after = _examine(root, deep=True)
    if as_json:
        done = [
            {"path": str(one.path), "offset": one.offset, "size_bytes": one.size_bytes, "reason": one.reason,
             "kept": str(one.kept) if one.kept else None}
            for one in findings
        ]  # fmt: skip
        screen.print_json({"repaired": done, "before": _as_json(root, report), "after": _as_json(root, after)})
        return exits.OK if after.sound else exits.FAILED
    _print_troubles(report.troubles, repairing=True)
    left = "" if after.sound else "; what is left:"
    click.echo(f"{root}: {'repaired' if report.troubles else 'sound, nothing to repair'}{left}")
    if left:
        _print_troubles(after.troubles, repairing=False)
    return exits.OK if after.sound else exits.FAILED


@command.command()
@folder_options
def compact(data_dir: str, config: str) -> int:
    """Merge what ended, and free all space that nobody needs any more.

    A running server does this by itself, but leaves segments that are mostly alive. Needs the space of one segment.
    """
    root = root_of(data_dir, config)
    survey.require(root)
    refuse_if_held(root)
    before = _size(root)
    store = SemiStore(root, quiet_s=0.0)
    try:
        follow(_compacting(store, root))
    finally:
        store.close()
    after = _size(root)
    click.echo(f"{root}: {_mib(before)} before, {_mib(after)} now")
    return exits.OK


@command.command()
@click.option("--json", "as_json", is_flag=True, help="Print the figures as a JSON object.")
@folder_options
def stats(as_json: bool, data_dir: str, config: str) -> int:
    """Tell what is in the store and what it takes. Changes nothing, and reads everything."""
    root = root_of(data_dir, config)
    report = _examine(root, deep=False)
    figures: dict[str, Any] = {
        "path": str(root),
        "held_by": survey.holder(root) or None,
        "sessions": report.sessions,
        "deleted_sessions": report.deleted_sessions,
        "records": report.lines,
        "entries": report.records,
        "segments": report.segments,
        "segment_bytes": report.bytes,
        "rollup_pages": report.pages,
        "rollup_bytes": _size(root / "rollups"),
        "hint_bytes": _size(root / "hints"),
        "quarantined_files": report.quarantined,
        "size_bytes": _size(root),
        "free_bytes": shutil.disk_usage(root).free,
        "troubles": sum(trouble.kind not in checking.NOTES for trouble in report.troubles),
    }
    if as_json:
        screen.print_json(figures)
    else:
        columns = (Column("WHAT"), Column("HOW MUCH", right=True))
        screen.print_table(columns, [(name, "-" if value is None else str(value)) for name, value in figures.items()])
    return exits.OK


def _examine(root: Path, *, deep: bool) -> Report:
    report = Report(live=bool(survey.holder(root)))
    follow(checking.check(root, report, deep=deep))
    return report


def _compacting(store: SemiStore, root: Path) -> Iterator[Step]:
    before = _size(root)
    more = True
    for emptied in (False, True):
        if emptied:
            store.empty_dead()
        more = True
        while more:
            more = store.tend(TEND_S)
            yield Step(min(before, before - store.stats()["dead_bytes"]), before, "compacting")


def _print_troubles(troubles: list[Trouble], *, repairing: bool) -> None:
    for trouble in troubles[:_MANY]:
        session = f" (session {trouble.session})" if trouble.session else ""
        click.echo(f"{trouble.path} at {trouble.offset}, {trouble.size_bytes} bytes: {trouble.what}{session}")
        if repairing:
            click.echo(f"    {trouble.remedy}")
    if len(troubles) > _MANY:
        click.echo(f"... and {len(troubles) - _MANY} more; --json tells all")


def _as_json(root: Path, report: Report) -> dict[str, Any]:
    told = dataclasses.asdict(report)
    told["troubles"] = [
        {"kind": one.kind, "path": one.path, "offset": one.offset, "size_bytes": one.size_bytes, "what": one.what,
         "session": one.session or None, "remedy": one.remedy}
        for one in report.troubles
    ]  # fmt: skip
    return {"path": str(root), "sound": report.sound, **told}


def _size(folder: Path) -> int:
    sizes = 0
    for path in survey.files_below(folder):
        try:
            sizes += path.stat().st_size
        except FileNotFoundError:
            continue  # a server is at work
    return sizes


def _mib(size: int) -> str:
    return f"{size / 1024 / 1024:.1f} MiB"
