"""The audit log: what was done that changes or deletes, by whom, to what, from where, when; one JSON line an act.

Each act goes to the log too (logger datacat.audit), so that it also is where the server's messages are gathered.
"""

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from datacat.server.keys import hand_over
from datacat.wire.times import rfc3339

_log = logging.getLogger("datacat.audit")

FILE = "audit.ndjson"
FILE_BYTES = 4 * 1024 * 1024
"""When the file has reached this, a new one begins."""
OLD_FILES = 4


class Audit:
    """Appends to the file in a data folder; folder None: to the log alone. Any thread.

    Lines are appended in one write, so that a command may write too. What cannot be written is logged, and stops
    nothing: a full disk must not keep an administrator from deleting.
    """

    def __init__(self, folder: Path | None, clock_us: Callable[[], int]) -> None:
        self._path = folder / FILE if folder else None
        self._clock_us = clock_us
        self._lock = threading.Lock()

    def write(self, act: str, on: str = "", *, who: str, key_id: str = "", address: str = "", **more: Any) -> None:
        """Keep one act, such as session_deleted, on something; who is a key's name or a user of this machine."""
        told = {
            "timestamp": rfc3339(self._clock_us()),
            "act": act,
            "on": on,
            "who": who,
            "key_id": key_id or None,
            "address": address or None,
            **more,
        }
        line = msgspec.json.encode(told)
        _log.info("%s", line.decode())
        if self._path is None:
            return
        with self._lock:
            try:
                self._append(self._path, line + b"\n")
            except OSError as error:
                _log.error("cannot write the audit log %s: %s", self._path, error.strerror)

    def newest_first(self) -> Iterator[dict[str, Any]]:
        """Yield the acts that the files have; a line that was torn by a crash is left out. Raises: OSError."""
        if self._path is None:
            return
        for path in (self._path, *(_old(self._path, number) for number in range(1, OLD_FILES + 1))):
            try:
                lines = path.read_bytes().splitlines()
            except FileNotFoundError:
                continue
            for line in reversed(lines):
                with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):
                    yield msgspec.json.decode(line, type=dict[str, Any])

    def _append(self, path: Path, line: bytes) -> None:
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_size >= FILE_BYTES:
                _rotate(path)
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
        try:
            os.write(fd, line)
            os.fsync(fd)
        finally:
            os.close(fd)
        hand_over(path)


def _old(path: Path, number: int) -> Path:
    return path.with_name(f"{path.stem}.{number}{path.suffix}")


def _rotate(path: Path) -> None:
    for number in range(OLD_FILES, 0, -1):
        with contextlib.suppress(FileNotFoundError):
            (_old(path, number - 1) if number > 1 else path).replace(_old(path, number))
