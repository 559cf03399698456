"""What tests of the client share: read a journal back, and run apps that end in every way."""

import os
import subprocess
import sys
import textwrap

import msgspec

from datacat.wire import layout, lines

NO_DAEMON = "/bin/true"
"""Given as DATACAT_PYTHON it makes a daemon that ends at once: the journal stays as the app wrote it."""


def sessions(state_dir):
    """Return the folders of the sessions in a state folder, oldest first."""
    spool = state_dir / layout.SPOOL_DIR
    return sorted(each.parent for each in spool.glob(f"*/{layout.META_FILE}"))


def meta(folder):
    return msgspec.json.decode((folder / layout.META_FILE).read_bytes(), type=layout.Meta)


def written(folder):
    """Return the records of the app's stream in order; every line must be one that the language accepts."""
    found = []
    for segment in sorted((folder / meta(folder).stream).glob("*.ndjson")):
        body = layout.whole_lines(segment.read_bytes(), 0)
        found += [lines.decode(raw) for raw in body.splitlines()]
    return found


def run_app(code, state_dir, *, environ=(), timeout_s=30, **options):
    """Run code as an app whose journal goes to state_dir; return the finished process with its output as text."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=app_environ(state_dir, environ),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        **options,
    )


def app_environ(state_dir, extra=()):
    """Return the environment of an app: strict, without a daemon, its journal below state_dir."""
    return {
        **os.environ,
        "DATACAT_STRICT": "1",
        "DATACAT_PYTHON": NO_DAEMON,
        "STATE": str(state_dir),
        **dict(extra),
    }


class Broken:
    """Raises whatever is asked of it."""

    def __repr__(self):
        raise RuntimeError("no repr")

    __str__ = __repr__


class BrokenDict(dict):
    """A dict that raises when it is looked through."""

    def items(self):
        raise RuntimeError("no items")

    __iter__ = items
