"""faulthandler's one timer of the process: a thread of C that writes the stacks when nobody arms it anew in time.

It needs no lock of the interpreter, so it fires exactly when C code keeps that lock. An app that uses the timer itself
keeps it: from its first call on (through the module faulthandler) ours steps back, until the app cancels.

A child that is forked while the timer runs would wait for its thread for ever at its end (CPython, faulthandler's
fini), so it is cancelled before every fork and armed again by the next beat.
"""

import faulthandler
import os
import threading
from typing import Any

from datacat.client import guard

ARM_EVERY_NS = 1_000_000_000
"""Arming costs 50 to 80 us and starts a thread of C: once a second is nothing."""
SHORTEST_S = 0.05

_arm = faulthandler.dump_traceback_later
_cancel = faulthandler.cancel_dump_traceback_later
_lock = threading.RLock()
"""Held while it is armed and while the process forks."""
_armed_ns = 0
_theirs = False
_sees_forks = False


def arm(fd: int, after_s: float, now_ns: int) -> None:
    """Let it fire after after_s seconds unless it is armed again; at most once a second, more often for short times."""
    global _armed_ns
    after_s = max(SHORTEST_S, after_s)
    if _theirs or 0 <= now_ns - _armed_ns < min(ARM_EVERY_NS, after_s * 2e8):
        return
    if not _lock.acquire(blocking=False):  # a fork is under way
        return
    try:
        _watch_the_app()
        _arm(after_s, file=fd)
        _armed_ns = now_ns
    except (OSError, ValueError, RuntimeError) as error:
        guard.swallowed(error)
    finally:
        _lock.release()


def disarm() -> None:
    """Let it not fire, and let the app have the timer as it was."""
    global _armed_ns
    armed, _armed_ns = _armed_ns, 0
    if armed and not _theirs:
        _cancel()
    if faulthandler.dump_traceback_later is _their_arm:
        faulthandler.dump_traceback_later = _arm
    if faulthandler.cancel_dump_traceback_later is _their_cancel:
        faulthandler.cancel_dump_traceback_later = _cancel


def in_child() -> None:
    """Be unarmed in a forked child."""
    global _lock, _armed_ns
    _lock = threading.RLock()
    _armed_ns = 0


def _watch_the_app() -> None:
    """See from now on when the app uses the timer, and when it forks."""
    global _sees_forks
    if faulthandler.dump_traceback_later is _arm:
        faulthandler.dump_traceback_later = _their_arm
    if faulthandler.cancel_dump_traceback_later is _cancel:
        faulthandler.cancel_dump_traceback_later = _their_cancel
    if not _sees_forks and hasattr(os, "register_at_fork"):
        _sees_forks = True
        os.register_at_fork(before=_before_fork, after_in_parent=_after_fork)


def _their_arm(*args: Any, **kwargs: Any) -> Any:
    global _theirs
    _theirs = True
    return _arm(*args, **kwargs)


def _their_cancel() -> Any:
    global _theirs
    _theirs = False
    return _cancel()


def _before_fork() -> None:
    global _armed_ns
    _lock.acquire()
    armed, _armed_ns = _armed_ns, 0
    if armed and not _theirs:
        _cancel()


def _after_fork() -> None:
    _lock.release()
