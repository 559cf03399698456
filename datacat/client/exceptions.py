"""An exception as an event: type, message, stack as lines of text, and where in the app it happened."""

import os
import sys
import sysconfig
from types import TracebackType
from typing import Any

from datacat.wire import records
from datacat.wire.records import Closing, Event

UNHANDLED_EVENT = "unhandled_exception"
HANDLED_EVENT = "exception"
MAX_FRAMES = 60
"""Of a deep recursion the outermost and the innermost half of these are kept."""
MAX_CAUSES = 8
_MESSAGE_CHARS = 4096


def event(t: int, error: BaseException, *, name: str, level: str, data: dict[str, Any] | None = None) -> Event:
    """Return the event of an exception: stacktrace outermost call first, causes before what they caused."""
    source = _app_frame(error.__traceback__)
    return Event(
        t,
        name,
        level,
        category="exception",
        message=message(error),
        data=data,
        stacktrace=stack(error),
        exception_type=type_name(error),
        exception_msg=message(error),
        source_file=source[0] if source else None,
        source_line=source[1] if source else None,
        source_function=source[2] if source else None,
    )


def handled(t: int, exc_info: object, data: dict[str, Any] | None) -> Event:
    """Return the event of an exception that the app hands over; see current() for what exc_info may be."""
    error = current(exc_info)
    if error is None:
        return Event(t, HANDLED_EVENT, "error", message="no exception is being handled", data=data)
    return event(t, error, name=HANDLED_EVENT, level="error", data=data)


def closing(t: int, fatal: BaseException | None) -> Closing:
    """Return the record of the interpreter's end, with the exception that ends it."""
    if fatal is None:
        return Closing(t)
    return Closing(t, exit_code=1, exception_type=type_name(fatal), exception_msg=message(fatal))


def type_name(error: BaseException) -> str:
    """Return the name of the exception's class, with its module unless it is a built-in one."""
    kind = type(error)
    return (
        kind.__qualname__ if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}.{kind.__qualname__}"
    )


def message(error: BaseException) -> str:
    """Return what the exception says, in one text; never raises."""
    try:
        text = str(error)
    except Exception:  # a broken __str__ belongs to the app
        text = "<exception without text>"
    return records.cut_text(text.encode("utf-8", "replace").decode(), _MESSAGE_CHARS)


def stack(error: BaseException) -> list[str]:
    """Return the traceback as lines of text in the form of Python's own, causes first."""
    chain: list[tuple[str, BaseException]] = []
    link, current, seen = "", error, {id(error)}
    while len(chain) < MAX_CAUSES:
        chain.append((link, current))
        cause, context = current.__cause__, current.__context__
        following = cause or (None if current.__suppress_context__ else context)
        if following is None or id(following) in seen:
            break
        link = "caused this:" if cause else "and while that was handled:"
        seen.add(id(following))
        current = following
    text: list[str] = []
    for link, each in reversed(chain):
        text += frames(each.__traceback__)
        text += f"{type_name(each)}: {message(each)}".splitlines()[:20]
        text += [f"  {type_name(inner)}: {message(inner)}" for inner in getattr(each, "exceptions", ())[:20]]
        if link:
            text.append(link)
    return text


def frames(traceback: TracebackType | None) -> list[str]:
    """Return one line for each frame and one for its source, when that can be read; outermost first."""
    calls = []
    while traceback is not None:
        code = traceback.tb_frame.f_code
        calls.append((code.co_filename, traceback.tb_lineno, code.co_name))
        traceback = traceback.tb_next
    dropped = len(calls) - MAX_FRAMES
    if dropped > 0:
        calls = [*calls[: MAX_FRAMES // 2], ("", dropped, ""), *calls[-MAX_FRAMES // 2 :]]
    text: list[str] = []
    for file, line, function in calls:
        if not file:
            text.append(f"  … {line} more calls …")
            continue
        text.append(f'  File "{file}", line {line}, in {function}')
        if source := _source_line(file, line):
            text.append(f"    {source}")
    return text


def current(exc_info: object) -> BaseException | None:
    """Return the exception that exc_info means: one, a triple of sys.exc_info(), or None/True for the current one."""
    if isinstance(exc_info, BaseException):
        return exc_info
    if isinstance(exc_info, tuple) and len(exc_info) == 3 and isinstance(exc_info[1], BaseException):
        return exc_info[1]
    return sys.exception()


def _app_frame(traceback: TracebackType | None) -> tuple[str, int, str] | None:
    """Return file, line and function of the innermost frame that is the app's own, else of the innermost at all."""
    libraries = tuple({sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")})
    found = innermost = None
    while traceback is not None:
        code = traceback.tb_frame.f_code
        innermost = (code.co_filename, traceback.tb_lineno, code.co_name)
        if not code.co_filename.startswith((*libraries, "<frozen")):
            found = innermost
        traceback = traceback.tb_next
    return found or innermost


def _source_line(file: str, line: int) -> str:
    import linecache

    return linecache.getline(file, line).strip()
