"""datacat store backup and restore: a copy of everything that a server keeps, while it runs, and back."""

import time
from pathlib import Path

import click

from datacat import __version__
from datacat.cli import exits, screen
from datacat.cli.progress import follow
from datacat.cli.store import data_dir_of, folder_options, root_of
from datacat.store import backup as copying
from datacat.wire.times import rfc3339


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print what was copied as JSON.")
@folder_options
def backup(folder: Path, as_json: bool, data_dir: str, config: str) -> int:
    """Copy the store and what lies beside it (keys, audit log, alerts) to DIR, which must not exist or be empty.

    May be used while the server runs: the copy has every batch that was acknowledged before the copying ended. It is
    read again and verified before it gets its name, so what is called DIR is whole.
    """
    root = root_of(data_dir, config)
    follow(
        copying.back_up(
            root, copying.files_beside(data_dir_of(data_dir, config)), folder, time.time_ns() // 1000, __version__
        )
    )
    made = copying.read_manifest(folder)
    size = sum(entry.size_bytes for entry in made.files)
    if as_json:
        told = {"path": str(folder), "made_at": rfc3339(made.made_at), "files": len(made.files), "size_bytes": size}
        screen.print_json({**told, "sessions": made.sessions, "records": made.records})
    else:
        click.echo(f"{folder}: {made.records} records of {made.sessions} sessions, {size} bytes, verified")
    return exits.OK


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, exists=True, file_okay=False))
@folder_options
def restore(folder: Path, data_dir: str, config: str) -> int:
    """Put the backup in DIR into a data folder, which must not exist or be empty. The server must not run.

    The backup is verified first. Daemons that still have what the backup lacks send it again.
    """
    target = data_dir_of(data_dir, config)
    follow(copying.restore(folder, target))
    made = copying.read_manifest(folder)
    click.echo(f"{target}: {made.records} records of {made.sessions} sessions as of {rfc3339(made.made_at)}")
    return exits.OK


COMMANDS = {"backup": backup, "restore": restore}
