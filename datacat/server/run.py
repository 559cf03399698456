"""The server as a process: signals, the settings that SIGHUP reads again, and where it says that it serves."""

import faulthandler
import gc
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from datacat import host
from datacat.errors import DatacatError, HostError
from datacat.server import listen, logs, memory, restarts
from datacat.server.config import Config
from datacat.server.notify import Notifier
from datacat.server.service import Service, build, data_folder

_log = logging.getLogger(__name__)

ENDS_IN_S = 9.0
"""A stop that takes longer is ended, with the stacks of all threads on stderr; managers wait for 10 s and more."""
_STOP = ("SIGTERM", "SIGINT", "SIGBREAK")


def run(read: Callable[[], Config]) -> bool:
    """Serve until SIGTERM or SIGINT; True when it stopped because it was asked to.

    read returns the settings; SIGHUP calls it again. Raises: as build(), and what read() raises at the start.
    """
    config = read()
    memory.give_back()
    logs.set_up(config.log_level, config.log_file, os.environ)
    if sys.stderr is not None:
        faulthandler.enable()
    wake, stop, reload = threading.Event(), threading.Event(), threading.Event()

    def asked(*events: threading.Event) -> Callable[[int, FrameType | None], None]:
        def handler(_number: int, _frame: FrameType | None) -> None:
            for event in (*events, wake):
                event.set()

        return handler

    handlers = dict.fromkeys(_STOP, asked(stop))
    # A terminal that is closed ends what runs in it; a service has none.
    handlers["SIGHUP"] = asked(stop) if _on_terminal() else asked(reload)
    with _signals(handlers):
        environ = dict(os.environ)
        for name in listen.VARIABLES:
            os.environ.pop(name, None)
        folder = data_folder(config, environ) if restarts.needed(environ) else None
        if folder is not None and not _after_a_pause(folder, environ, stop):
            return True
        # The index of the store has a million objects that live for good: no collection needs to look at them again.
        gc.disable()
        try:
            service = build(config, environ, ends_in_s=ENDS_IN_S)
        except DatacatError as error:
            if folder is not None and error.permanent:
                restarts.end(folder)  # nobody tries again until somebody has mended it
            raise
        finally:
            gc.freeze()
            gc.enable()
        try:
            service.start()
            if service.running:
                _announce(service, config)
            while service.running and not stop.is_set():
                # A wait without end would keep Windows from delivering Ctrl-C.
                wake.wait(1.0)
                wake.clear()
                if reload.is_set():
                    reload.clear()
                    service.reload(read)
                    logs.set_level(service.live.now.log_level)
            if folder is not None and stop.is_set():
                restarts.end(folder)
            return stop.is_set()
        finally:
            service.stop()


def _after_a_pause(folder: Path, environ: Mapping[str, str], stop: threading.Event) -> bool:
    """Wait as long as the failed starts before this one ask for; False when it was stopped meanwhile."""
    failed = restarts.failed_before(folder, time.time())
    pause_s = restarts.pause_s(failed)
    if pause_s:
        text = f"{failed} starts in a row have failed: the next begins in {pause_s:.0f} s"
        _log.warning("%s", text)
        notifier = Notifier(environ)
        notifier.status(text)
        notifier.close()
        if stop.wait(pause_s):
            restarts.end(folder)
            return False
    restarts.begin(folder, failed, time.time())
    return True


@contextmanager
def _signals(handlers: dict[str, Callable[[int, FrameType | None], None]]) -> Iterator[None]:
    before = {
        number: signal.signal(number, handler)
        for name, handler in handlers.items()
        if (number := getattr(signal, name, None)) is not None
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _on_terminal() -> bool:
    try:
        return os.isatty(0)
    except OSError:
        return False


def _announce(service: Service, config: Config) -> None:
    _log.info("serving on %s", service.url)
    if sys.stdout is not None:
        sys.stdout.write(f"datacat-server: serving on {service.url}\n")
        sys.stdout.flush()
    if config.port_file:
        path = Path(config.port_file)
        part = path.with_name(path.name + ".part")
        try:
            part.write_text(f"{service.port}\n", encoding="ascii")
            part.replace(path)
        except OSError as error:
            raise HostError(
                f"cannot write the port to {path}: {error.strerror}",
                hint="use another --port-file",
                permanent=host.needs_a_person(error),
            ) from error
