"""See how the app ends: exceptions of main thread, threads, asyncio and atexit, crashes. Chained to what was there.

Everything here belongs to the process, not to one session: installed with the first session, taken back with the last
one that ended. A hook that somebody else has put over ours stays; ours then only passes on.
"""

import contextlib
import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from datacat.client import guard, live, reserve, stacks
from datacat.wire import hangs, layout

if TYPE_CHECKING:
    from datacat.client.session import Session

_sessions: list["Session"] = []
"""Sessions that want exceptions, oldest first."""
_chained: dict[str, Callable[..., Any]] = {}
_fault: tuple["Session", int] | None = None
"""The session whose fault file faulthandler writes to, and the descriptor."""


def install(session: "Session", *, exceptions: bool, crashes: bool) -> None:
    """Let a session see exceptions and crashes."""
    live.in_child(_forget)
    if exceptions:
        reserve.take()
        _sessions.append(session)
        if "sys" not in _chained:
            _chained["sys"] = sys.excepthook
            sys.excepthook = _on_exception
            _chained["threading"] = threading.excepthook
            threading.excepthook = _on_thread_exception
            _chained["unraisable"] = sys.unraisablehook
            sys.unraisablehook = _on_unraisable
    if crashes:
        _watch_crashes(session)
        stacks.install(session.journal_folder, hangs.stacks_way(session.meta.settings, os.environ))
    watch_asyncio()


def remove(session: "Session") -> None:
    """Take a session out that has ended; with the last one everything is as it was before."""
    if session in _sessions:
        _sessions.remove(session)
    if _fault is not None and _fault[0] is session:
        _stop_crashes()
    stacks.remove(session.journal_folder)
    if _sessions:
        return
    reserve.give()
    if sys.excepthook is _on_exception:
        sys.excepthook = _chained.pop("sys")
    if threading.excepthook is _on_thread_exception:
        threading.excepthook = _chained.pop("threading")
    if sys.unraisablehook is _on_unraisable:
        sys.unraisablehook = _chained.pop("unraisable")


def watch_asyncio() -> None:
    """See exceptions that reach an asyncio loop, once the app has imported asyncio; this never imports it.

    The class of the loops is wrapped, so handlers that the app sets on its loops still run, after ours.
    """
    events = sys.modules.get("asyncio.base_events")
    loop = getattr(events, "BaseEventLoop", None)
    if loop is None or "asyncio" in _chained:
        return
    original = loop.call_exception_handler
    _chained["asyncio"] = original

    def call_exception_handler(self: Any, context: dict[str, Any]) -> Any:
        _on_asyncio_context(context)
        return original(self, context)

    loop.call_exception_handler = call_exception_handler


def _on_exception(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None, *rest: object
) -> None:
    reserve.give()
    ends = False
    try:
        if not isinstance(error, (KeyboardInterrupt, SystemExit)):
            ends = threading.current_thread() is threading.main_thread() and _is_outermost()
            for session in tuple(_sessions):
                if ends:
                    session.fatal = error  # before its event, which may fail
                _record(session, error.with_traceback(traceback), "critical" if ends else "error", {})
    except Exception as mistake:  # the app's own hook must run
        guard.swallowed(mistake)
    try:
        _chained.get("sys", sys.__excepthook__)(kind, error, traceback, *rest)
    finally:
        if not ends:
            _put_by_again()


def _on_thread_exception(args: Any) -> None:
    reserve.give()
    try:
        if args.exc_value is not None and not isinstance(args.exc_value, SystemExit):
            thread = args.thread.name if args.thread is not None else ""
            for session in tuple(_sessions):
                _record(session, args.exc_value, "error", {"thread": thread})
    except Exception as mistake:  # the app's own hook must run
        guard.swallowed(mistake)
    try:
        _chained.get("threading", threading.__excepthook__)(args)
    finally:
        _put_by_again()


def _put_by_again() -> None:
    """Put the reserve by for the next one, when there is room by now."""
    if _sessions:
        reserve.take()


def _on_unraisable(args: Any) -> None:
    """See what cannot be raised to anybody: errors of atexit functions, of __del__, of callbacks of weak references."""
    try:
        if isinstance(args.exc_value, Exception):
            data = {"message": args.err_msg or "Exception ignored"}
            if name := getattr(args.object, "__qualname__", None):  # never its repr: it may be half gone
                data["object"] = str(name)
            for session in tuple(_sessions):
                _record(session, args.exc_value, "error", data)
    except Exception as mistake:  # the app's own hook must run
        guard.swallowed(mistake)
    chained: Callable[..., Any] = _chained.get("unraisable", sys.__unraisablehook__)
    chained(args)


def _on_asyncio_context(context: dict[str, Any]) -> None:
    try:
        error = context.get("exception")
        if not isinstance(error, BaseException):
            return
        data = {"message": str(context.get("message", ""))}
        task = context.get("task") or context.get("future")
        if task is not None:
            data["task"] = repr(task)
        for session in tuple(_sessions):
            _record(session, error, "error", data)
    except Exception as mistake:  # the loop goes on
        guard.swallowed(mistake)


def _record(session: "Session", error: BaseException, level: str, data: dict[str, Any]) -> None:
    from datacat.client import exceptions

    event = exceptions.event(
        time.time_ns() // 1000, error, name=exceptions.UNHANDLED_EVENT, level=level, data=data or None
    )
    session._put(event)  # noqa: SLF001  the hooks are a part of the client


def _is_outermost() -> bool:
    """Return whether nothing of the app runs any more below the hook: then the exception ends the process.

    GUI toolkits and consoles call sys.excepthook for exceptions in callbacks, and go on.
    """
    try:
        frame = sys._getframe(2)  # noqa: SLF001  the documented way to look at the caller
    except ValueError:
        return True  # nothing stands below the hook itself
    while frame is not None:
        if frame.f_code.co_name == "<module>":
            return False
        frame = frame.f_back  # type: ignore[assignment]  # None ends the loop
    return True


def _watch_crashes(session: "Session") -> None:
    """Let faulthandler write the traceback of a crash to the session's fault file, unless the app uses it itself."""
    global _fault
    path = session.journal_folder
    if path is None or _fault is not None or faulthandler.is_enabled():
        return
    with contextlib.suppress(OSError, ValueError):
        fd = stacks.open_high(path / layout.FAULT_FILE)
        # Windows calls it for exceptions too that the app then handles: while other threads run, only its own stack.
        faulthandler.enable(file=fd, all_threads=sys.platform != "win32")
        _fault = (session, fd)


def _stop_crashes() -> None:
    global _fault
    fault, _fault = _fault, None
    if fault is None:
        return
    faulthandler.disable()
    with contextlib.suppress(OSError):
        os.close(fault[1])
    for session in _sessions:
        _watch_crashes(session)
        break


def _forget() -> None:
    """In a forked child a crash must not be written to the parent's file; the hooks stay and find no session."""
    global _fault
    fault, _fault = _fault, None
    _sessions.clear()
    stacks.in_child()
    if fault is not None:
        faulthandler.disable()
        with contextlib.suppress(OSError):
            os.close(fault[1])
