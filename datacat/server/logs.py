"""Where the server's own messages go: to the journal with priorities, to stderr with times, or to files that rotate.

Sources: sd-daemon(3) (the prefix <N>), systemd.exec(5) (JOURNAL_STREAM is device:inode of the stream).
"""

import logging
import logging.handlers
import os
from collections.abc import Mapping

from datacat import host
from datacat.errors import HostError

FILE_BYTES = 10 * 1024 * 1024
FILES = 5
"""Old files beside the one that is written."""

_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))


def set_up(level: str, log_file: str, environ: Mapping[str, str]) -> None:
    """Send the messages of all modules to the file, or else to stderr. Raises: HostError when the file is refused."""
    handler: logging.Handler
    if log_file:
        try:
            handler = logging.handlers.RotatingFileHandler(
                log_file, maxBytes=FILE_BYTES, backupCount=FILES, encoding="utf-8"
            )
        except OSError as error:
            raise HostError(
                f"cannot write the log file {log_file}: {error.strerror}",
                hint="use another --log-file",
                permanent=host.needs_a_person(error),
            ) from error
    else:
        handler = logging.StreamHandler()
    handler.setFormatter(_Priorities() if not log_file and is_journal(environ, 2) else _with_time())
    # No line of ours tells the place or the process, and each request has one (Python's logging HOWTO, "Optimization").
    logging._srcfile = None  # noqa: SLF001 the switch that the HOWTO names
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def set_level(level: str) -> None:
    """Tell more or less from now on."""
    logging.getLogger().setLevel(level.upper())


def last_words(text: str, environ: Mapping[str, str]) -> str:
    """Return the line for stderr that says why the server did not start."""
    line = f"datacat-server: {text}"
    return f"<3>{line}" if is_journal(environ, 2) else line


def is_journal(environ: Mapping[str, str], fd: int) -> bool:
    """Return whether fd goes straight to systemd's journal."""
    device, _, inode = environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        found = os.fstat(fd)
        return (found.st_dev, found.st_ino) == (int(device), int(inode))
    except (OSError, ValueError):
        return False


def _with_time() -> logging.Formatter:
    return _Bare("%(asctime)s %(levelname)s %(name)s: %(message)s")


class _Bare(logging.Formatter):
    """A message that is JSON stands alone in its line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the message, with what goes before it unless it is bare."""
        return record.getMessage() if getattr(record, "bare", False) else super().format(record)


class _Priorities(_Bare):
    """The journal knows the time and the process; it takes the priority from the beginning of each line."""

    def __init__(self) -> None:
        super().__init__("%(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Return the message with the priority before each of its lines."""
        priority = next((number for level, number in _PRIORITIES if record.levelno >= level), 7)
        return "\n".join(f"<{priority}>{line}" for line in super().format(record).splitlines())
