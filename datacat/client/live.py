"""The sessions of this process: one registry, what a fork does to it, what the end of the interpreter does."""

import atexit
import os
import threading
from collections.abc import Callable
from typing import Protocol

from datacat.client import guard


class Living(Protocol):
    """What the registry needs of a session."""

    id: str

    def _closing(self) -> None: ...

    def _forget(self) -> None: ...


_lock = threading.RLock()
_sessions: dict[str, Living] = {}
_ready_in = 0
"""The process in which the end of the interpreter is noticed."""
_last: list[Callable[[], None]] = []
_in_child: list[Callable[[], None]] = []


def add(session: Living) -> None:
    """Register a session; with the first one of the process also what happens at fork and exit."""
    global _ready_in
    with _lock:
        _sessions[session.id] = session
        before, _ready_in = _ready_in, os.getpid()
    if not before and hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_forked)
    if before != _ready_in:
        # A child of multiprocessing forgets what its parent had registered (Python 3.13).
        atexit.unregister(_at_exit)
        atexit.register(_at_exit)


def remove(session: Living) -> bool:
    """Take a session out; True when it was in."""
    with _lock:
        return _sessions.pop(session.id, None) is not None


def sessions() -> list[Living]:
    """Return the sessions that have not ended, oldest first. A forked child has none until it makes its own."""
    with _lock:
        return list(_sessions.values())


def in_child(forget: Callable[[], None]) -> None:
    """Have forget() called in every forked child; it must only drop things."""
    if forget not in _in_child:
        _in_child.append(forget)


def at_exit(call: Callable[[], None]) -> None:
    """Have call() called at the end of the interpreter, after all sessions have noted it."""
    with _lock:
        _last.append(call)


def not_at_exit(call: Callable[[], None]) -> None:
    """Take back at_exit(call)."""
    with _lock:
        if call in _last:
            _last.remove(call)


def _forked() -> None:
    """Make the child inert: the parent's journals, threads and locks are not its own."""
    global _lock
    _lock = threading.RLock()
    forgotten = list(_sessions.values())
    _sessions.clear()
    _last.clear()
    for forget in [*(session._forget for session in forgotten), *_in_child]:  # noqa: SLF001  ours by the protocol
        try:
            forget()
        except Exception as error:  # a child of the app must start whatever we did wrong
            guard.swallowed(error)


def _at_exit() -> None:
    for call in [*(session._closing for session in reversed(sessions())), *_last]:  # noqa: SLF001  ours
        try:
            call()
        except Exception as error:  # the app is ending and must end as it wanted to
            guard.swallowed(error)
