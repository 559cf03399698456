"""The carrier of a journal: a daemon of this process that reads the session's folder."""

import mmap
import os
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from datacat import host
from datacat.client import folder, live, spawn
from datacat.client.ports import Slots
from datacat.errors import HostError
from datacat.wire import layout

SPAWN_EVERY_NS = 4_000_000_000
"""At most one try to start a daemon in so long: one that was just started needs some time to take its lock.

Less than the time between two looks of a session, or the look right after a start would never try again.
"""
DETAILS_TIMEOUT_S = 6.0
"""The daemon asks the server for at most 5 s before it answers from what it has."""

_TIMEOUT_AND_FLAGS = struct.Struct("<dB")  # the end of layout.BEAT
_TIMEOUT_OFFSET = 16

# One daemon serves all sessions that a process has in a spool: the time of the last try is the process's own.
_spawn_lock = threading.RLock()
_spawned_ns: dict[Path, int] = {}
_folders: list[Path] = []
"""Folders of this process's sessions: any of their pipes wakes the daemon that may not know the newest yet."""


class Local:
    """Owns the session's beat file, wakes the daemon, and starts it when its lock is free. From any thread."""

    def __init__(
        self,
        session_folder: Path,
        stream: str,
        owner: tuple[int, int],
        start_daemon: Callable[[Path, int, int], None] | None = spawn.start,
    ) -> None:
        """Make the beat file. owner is the pid and process start of this process. Raises: JournalError."""
        self.folder = session_folder
        self._stream = stream
        self._owner = owner
        self._start_daemon = start_daemon
        self._lock = threading.RLock()
        self._map: mmap.mmap | None = folder.map_beat(session_folder)
        self._view = memoryview(self._map).cast("q")
        self.slots: Slots = self._view

    def watch(self, timeout_s: float, flags: int) -> None:
        """Write the end of the beat slot; its times stay."""
        with self._lock:
            if self._map is not None:
                # Not pack_into: it writes zeros first, and the daemon may look just then.
                end = _TIMEOUT_OFFSET + _TIMEOUT_AND_FLAGS.size
                self._map[_TIMEOUT_OFFSET:end] = _TIMEOUT_AND_FLAGS.pack(timeout_s, flags)
        self.wake()  # the daemon looks every 5 s only, and a timeout may be shorter

    def look(self) -> None:
        """Start a daemon when nobody holds the lock of this process's daemon and the last try is old enough."""
        spool = self.folder.parent
        if self._start_daemon is None or host.held(spawn.owner_lock(spool, *self._owner)):
            return
        with _spawn_lock:
            now = host.awake_ns()
            if now - _spawned_ns.get(spool, -SPAWN_EVERY_NS) < SPAWN_EVERY_NS:
                return
            _spawned_ns[spool] = now
        try:
            self._start_daemon(spool, *self._owner)
        except HostError:  # no interpreter, no processes left: the journal waits for the next datacat on this machine
            return

    def wake(self) -> None:
        """Wake the daemon through this session's pipe and those of its siblings."""
        for each in {self.folder, *_folders}:
            folder.wake(each)

    def publish(self, meta: layout.Meta) -> None:
        """Make it a session: from now on a daemon may find it. Raises: JournalError."""
        live.in_child(_forget_process)
        folder.publish(self.folder, meta)
        _folders[:] = [*(each for each in _folders if each.exists()), self.folder]

    def acked(self) -> int:
        """Return what the daemon last said that the server has of the app's stream."""
        shipper = folder.shipper(self.folder)
        return shipper.acked.get(self._stream, 0) if shipper else 0

    def note_drops(self, totals: dict[str, int]) -> None:
        """Write the totals behind the beat slot: its page was allocated when there was room."""
        with self._lock:
            if self._map is not None:
                self._map[layout.DROPPED_OFFSET : layout.BEAT_FILE_BYTES] = layout.pack_dropped(totals)

    def close(self) -> None:
        """Unmap the beat file."""
        with self._lock:
            mapping, self._map = self._map, None
            self.slots = [0, 0]
            if mapping is not None:
                self._view.release()
                mapping.close()

    def forget(self) -> None:
        """Touch the parent's mapping never again."""
        self._lock = threading.RLock()
        self._map = None
        self.slots = [0, 0]
        self._start_daemon = None

    def details(self) -> dict[str, Any] | None:
        """Ask the daemon for the session object; it asks the server."""
        shipper = folder.shipper(self.folder)
        if shipper is None or not shipper.port:
            return None
        return ask(shipper.port, f"/session?session_id={self.folder.name}")


def ask(port: int, path: str) -> dict[str, Any] | None:
    """Return the JSON object that a GET to a daemon on this machine answers with; None when it does not.

    Plain HTTP/1.0 over a socket: the client stays free of http.client and what it imports.
    """
    import socket

    try:
        with socket.create_connection(("127.0.0.1", port), DETAILS_TIMEOUT_S) as connection:
            request = f"GET {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\nAccept: application/json\r\n\r\n"
            connection.sendall(request.encode())
            answer = b""
            while piece := connection.recv(65536):
                answer += piece
    except OSError:
        return None
    head, _, body = answer.partition(b"\r\n\r\n")
    if b" 200 " not in head.split(b"\r\n", 1)[0] + b" ":
        return None
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except msgspec.DecodeError:
        return None


def _forget_process() -> None:
    """Let a forked child start a daemon of its own at once."""
    global _spawn_lock
    _spawn_lock = threading.RLock()
    _spawned_ns.clear()
    _folders.clear()


def process_identity() -> tuple[int, int]:
    """Return pid and process start of this process; 0 as its start when the platform does not tell."""
    pid = os.getpid()
    try:
        return pid, host.process_start(pid)
    except HostError:
        return pid, 0
