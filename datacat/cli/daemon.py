"""The command datacat-daemon, and what a client starts: flags, DATACAT_* variables, a JSON file. Imports little."""

import argparse
import contextlib
import logging
import os
import sys
from pathlib import Path

from datacat import __version__, host
from datacat.daemon import config as settings
from datacat.errors import Busy, ConfigError, DatacatError
from datacat.host import oom
from datacat.host.process import Target
from datacat.wire import layout

USAGE_ERROR = 2
FILES = 1024


def main(arguments: list[str] | None = None) -> None:
    """Run the daemon until its work is done; exits 2 on a wrong setting, 1 when it cannot serve."""
    if arguments is None:
        arguments = sys.argv[1:]
        _let_go(_parser().parse_args(arguments))
    sys.exit(run(arguments))


def run(arguments: list[str]) -> int:
    """Do what main() does and return the exit code."""
    parser = _parser()
    flags = vars(parser.parse_args(arguments))
    owner = Target(flags["owner"], flags["owner_start"]) if flags["owner"] > 0 else None
    try:
        config, unknown = settings.load(flags, os.environ)
    except ConfigError as error:
        if owner is None:
            sys.stderr.write(f"datacat-daemon: {error}\n")
            return USAGE_ERROR
        # Nobody reads our errors; the app's sessions are worth more than one wrong setting.
        config, unknown = settings.Config(), []
    _log_to(config)
    for name in unknown:
        logging.getLogger(__name__).warning("there is no setting %s; it is ignored", name)
    from datacat.daemon.daemon import Daemon
    from datacat.daemon.spool import prepared

    os.umask(0o077)  # the app's own is not made for a journal
    host.allow_files(FILES)  # an app with a tight limit hands it down
    if owner is not None:
        oom.be_spared()  # it shares the app's memory limit, and has to tell what became of the app
    try:
        given = [Path(flags["spool"])] if flags["spool"] else [each / layout.SPOOL_DIR for each in host.state_dirs()]
        folder = prepared(given)
        Daemon(config, folder, owner=owner, owner_fd=flags["owner_fd"], port_file=flags["port_file"]).run()
    except Busy:
        return 0  # another daemon serves this process already
    except (DatacatError, OSError) as error:
        sys.stderr.write(f"datacat-daemon: {error}\n")
        return 1
    return 0


def _let_go(flags: argparse.Namespace) -> None:
    """Close what the app left open for its children: who reads from such a pipe waits for the last writer's end."""
    if flags.owner > 0 and os.name != "nt":
        for path in list(Path("/dev/fd").iterdir()):
            if (fd := int(path.name)) > 2 and fd != flags.owner_fd:
                with contextlib.suppress(OSError):  # the listing's own
                    os.close(fd)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="datacat-daemon",
        description="Take records from local programs and ship them to a datacat server.",
        epilog=f"Every setting can also come from {settings.ENVIRONMENT_PREFIX}NAME, or from a JSON file.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"datacat-daemon {__version__}")
    parser.add_argument("--config", metavar="FILE", help=f"JSON file with settings (also {settings.CONFIG_VARIABLE})")
    for name, setting in settings.SETTINGS.items():
        if name in settings.SECRET:
            continue
        parser.add_argument(f"--{name.replace('_', '-')}", dest=name, metavar="VALUE", help=setting.about)
    parser.add_argument("--spool", metavar="DIR", default="", help="folder of the journals")
    parser.add_argument("--port-file", metavar="FILE", default="", help="write the local port to this file")
    owned = parser.add_argument_group("given by the client that starts it")
    owned.add_argument("--owner", metavar="PID", type=int, default=0, help="serve the sessions of this process")
    owned.add_argument("--owner-start", metavar="N", type=int, default=0, help="its start, as datacat.host tells it")
    owned.add_argument("--owner-fd", metavar="FD", type=int, default=-1, help="inherited pidfd of that process")
    return parser


def _log_to(config: settings.Config) -> None:
    handler = logging.FileHandler(config.log_file) if config.log_file else logging.StreamHandler()
    logging.basicConfig(
        level=config.log_level.upper(), format="%(asctime)s %(levelname)s %(message)s", handlers=[handler]
    )


if __name__ == "__main__":
    main()
