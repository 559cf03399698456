"""The version marker of a store's folder: which datacat can read it."""

import re
from pathlib import Path

from datacat.errors import StoreError
from datacat.host import needs_a_person
from datacat.store import durable

FORMAT_FILE = "format"
VERSION = 3
FORMAT = b"datacat store %d\n" % VERSION
EARLIER = (b"datacat store 1\n", b"datacat store 2\n")
"""What this datacat can read too. A store is marked with the own version when it was opened: then merged entries (from
2 on) and records with ahead (3) may follow, which an earlier datacat would not understand."""

_MARKER = re.compile(rb"datacat store (\d{1,6})\n")


def check(root: Path) -> None:
    """Refuse a store of an unknown version, untouched; write the version into a new one. Raises: StoreError."""
    path = root / FORMAT_FILE
    try:
        if not path.exists():
            durable.create(path, FORMAT)
        found = path.read_bytes()
    except OSError as error:
        raise StoreError(
            f"cannot read or write {path}: {error}",
            hint="check the path and its permissions",
            permanent=needs_a_person(error),
        ) from error
    if trouble(found):
        raise StoreError(
            f"{root} {trouble(found)}", hint="use the datacat that wrote it, or a later one", permanent=True
        )


def mark(root: Path) -> None:
    """Mark a store of an earlier version with the own one. Raises: StoreError."""
    path = root / FORMAT_FILE
    try:
        if path.read_bytes() != FORMAT:
            durable.create(path, FORMAT)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error}", hint="check the disk and its permissions") from error


def trouble(found: bytes) -> str:
    """Return what is wrong with a marker, as the rest of a sentence; an empty text when nothing is."""
    if found in (FORMAT, *EARLIER):
        return ""
    marker = _MARKER.fullmatch(found)
    if marker is None:
        return f"is of a version that this datacat does not know ({found[:40]!r})"
    return f"has the format {int(marker[1])}, which this datacat does not know: its own is {VERSION}"
