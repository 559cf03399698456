"""The version marker of a store's folder: which datacat can read it."""

import re
from pathlib import Path

from datacat.errors import StoreError
from datacat.host import needs_a_person
from datacat.store import durable

FORMAT_FILE = "format"
VERSION = 1
FORMAT = b"datacat store %d\n" % VERSION

_MARKER = re.compile(rb"datacat store (\d{1,6})\n")


def check(root: Path) -> None:
    """Refuse a store of another version, untouched; write the version into a new one. Raises: StoreError."""
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
    if found != FORMAT:
        raise StoreError(
            f"{root} {trouble(found)}", hint="use the datacat that wrote it, or a later one", permanent=True
        )


def trouble(found: bytes) -> str:
    """Return what is wrong with a marker, as the rest of a sentence; an empty text when nothing is."""
    if found == FORMAT:
        return ""
    marker = _MARKER.fullmatch(found)
    if marker is None:
        return f"is of a version that this datacat does not know ({found[:40]!r})"
    return f"has the format {int(marker[1])}, which this datacat does not know: its own is {VERSION}"
