"""A few states in memory, so that a session that is written all the time need not read its state from disk."""

import threading
from collections import OrderedDict
from typing import Any

CACHE_BYTES = 32 * 1024 * 1024
"""Size as JSON of all states together; as Python objects they take several times as much."""


class States:
    """The most recently used states, each at one rev, in at most size_bytes. Any thread may call."""

    def __init__(self, size_bytes: int = CACHE_BYTES) -> None:
        self._lock = threading.Lock()
        self._room = size_bytes
        self._states: OrderedDict[str, tuple[int, dict[str, Any], int]] = OrderedDict()

    def get(self, session_id: str, rev: int) -> dict[str, Any] | None:
        """Return the state at exactly this rev, if it is here."""
        with self._lock:
            found = self._states.get(session_id)
            if found is None or found[0] != rev:
                return None
            self._states.move_to_end(session_id)
            return found[1]

    def put(self, session_id: str, rev: int, state: dict[str, Any], size_bytes: int) -> None:
        """Keep a state, unless a newer one of the session is here; the oldest make room."""
        with self._lock:
            found = self._states.get(session_id)
            if found is not None:
                if found[0] > rev:
                    return
                self._room += found[2]
            self._states[session_id] = (rev, state, size_bytes)
            self._states.move_to_end(session_id)
            self._room -= size_bytes
            while self._room < 0:
                _, (_, _, freed) = self._states.popitem(last=False)
                self._room += freed

    def forget(self, session_id: str) -> None:
        """Let go of a session's state."""
        with self._lock:
            found = self._states.pop(session_id, None)
            if found is not None:
                self._room += found[2]
