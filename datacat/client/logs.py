"""LogHandler: what the app logs with the standard library becomes events of its session."""

import logging
from typing import Any

from datacat.client import exceptions, guard, live
from datacat.client.session import Session
from datacat.wire import records
from datacat.wire.records import Event

LOG_EVENT = "log"
_LEVELS = (
    (logging.CRITICAL, "critical"),
    (logging.ERROR, "error"),
    (logging.WARNING, "warning"),
    (logging.INFO, "info"),
)
_OWN = "datacat"
_STANDARD = frozenset(vars(logging.LogRecord("", 0, "", 0, "", (), None))) | {"message", "asctime", "taskName"}


class LogHandler(logging.Handler):
    """Records every log record that reaches it: logging.getLogger().addHandler(datacat.LogHandler(session)).

    The event has the message, the level, the logger's name as its group, the fields of `extra` in data, and the
    exception with its stack. Without a session it uses the newest one of the process at each record.
    """

    def __init__(self, session: Session | None = None, level: int | str = logging.NOTSET) -> None:
        super().__init__(level)
        self.session = session

    def emit(self, record: logging.LogRecord) -> None:
        """Record one log record; never raises and never logs itself."""
        try:
            if record.name == _OWN or record.name.startswith(f"{_OWN}."):
                return  # our own worries must not feed themselves
            session = self.session or _newest()
            if session is not None:
                session._put(event(record))  # noqa: SLF001  the handler is a part of the client
        except Exception as error:
            guard.swallowed(error)


def event(record: logging.LogRecord) -> Event:
    """Return the event of a log record, at the time of the record."""
    t = int(record.created * 1_000_000)
    name = level_name(record.levelno)
    extra = {key: value for key, value in vars(record).items() if key not in _STANDARD}
    error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
    made = exceptions.event(t, error, name=LOG_EVENT, level=name) if error is not None else Event(t, LOG_EVENT, name)
    made.category = LOG_EVENT
    made.group = record.name
    made.message = _message(record)
    made.data = {"thread": record.threadName, **extra}
    if error is None:
        made.source_file, made.source_line, made.source_function = record.pathname, record.lineno, record.funcName
        if record.stack_info:
            made.stacktrace = record.stack_info.splitlines()
    return made


def level_name(number: int) -> str:
    """Return our level of a logging level, also of those between the standard ones."""
    return next((name for least, name in _LEVELS if number >= least), "debug")


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # arguments that do not fit the format belong to the app
        return records.cut_text(f"{record.msg!r} {record.args!r}", records.MAX_TEXT_CHARS)


def _newest() -> Session | None:
    found: Any = live.sessions()
    return found[-1] if found else None
