"""The server as a Windows service: python.exe hosts it, the service control manager starts and stops it.

packaging/windows/install.ps1 registers `python.exe -I run.py datacat.cli.winservice`. A failure before main() has told
the manager that it is there reaches no event log, so nothing is imported until then but the standard library.

How it ends tells the manager what to do (its recovery actions need the failure flag, which install.ps1 sets): a fault
that somebody has to mend (DatacatError.permanent) is written to the event log and the service stops without an error
code, so that it is not started again and again; every other one leaves as an exception, and the service is restarted.
"""

import contextlib
import logging
import logging.handlers
import os
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

NAME = "datacat-server"
START_HINT_MS = 120_000
"""A store of many sessions is read before the server serves; the manager waits so long for the next word."""
STOP_HINT_MS = 30_000
LOG_BYTES = 10_000_000
LOG_FILES = 5


def main() -> None:
    """Let the service control manager run the service; returns when it has stopped."""
    import servicemanager

    servicemanager.Initialize(NAME, None)
    servicemanager.PrepareToHostSingle(framework())
    servicemanager.StartServiceCtrlDispatcher()


def framework() -> Any:
    """Return the class that pywin32 hosts. Its Svc methods are called by threads of the manager."""
    import servicemanager
    import win32service
    import win32serviceutil

    class Framework(win32serviceutil.ServiceFramework):
        """One service: SvcRun belongs to one thread, the handlers of controls to another."""

        _svc_name_ = NAME

        def __init__(self, args: Any) -> None:
            super().__init__(args)
            self._asked = threading.Event()

        def GetAcceptedControls(self) -> int:  # noqa: N802  pywin32 names it
            """Return the controls to be told of: with PRESHUTDOWN there is time to end before the machine does."""
            return int(super().GetAcceptedControls() | win32service.SERVICE_ACCEPT_PRESHUTDOWN)

        def SvcStop(self) -> None:  # noqa: N802  pywin32 names it
            """Begin to stop."""
            self.ReportServiceStatus(win32service.SERVICE_STOP_PENDING, waitHint=STOP_HINT_MS)
            self._asked.set()

        def SvcOtherEx(self, control: int, event_type: int, data: Any) -> Any:  # noqa: N802  pywin32 names it
            """Stop before the machine does; the rest is pywin32's."""
            if control == win32service.SERVICE_CONTROL_PRESHUTDOWN:
                return self.SvcStop()
            return super().SvcOtherEx(control, event_type, data)

        def SvcRun(self) -> None:  # noqa: N802  pywin32 names it
            """Be the service; the manager is told RUNNING when the server serves, not before."""
            self.ReportServiceStatus(win32service.SERVICE_START_PENDING, waitHint=START_HINT_MS)
            self.SvcDoRun()
            self.ReportServiceStatus(win32service.SERVICE_STOP_PENDING, waitHint=STOP_HINT_MS)

        def SvcDoRun(self) -> None:  # noqa: N802  pywin32 names it
            """Serve until told to stop."""
            serve(
                os.environ,
                self._asked,
                lambda: self.ReportServiceStatus(win32service.SERVICE_RUNNING),
                servicemanager.LogInfoMsg,
                servicemanager.LogErrorMsg,
            )

    return Framework


def home(environ: Mapping[str, str]) -> Path:
    """Return the folder of settings, data and logs; install.ps1 gives it its rights."""
    return Path(environ.get("PROGRAMDATA", r"C:\ProgramData")) / "datacat"


def serve(
    environ: Mapping[str, str],
    asked: threading.Event,
    serves: Callable[[], object],
    tell: Callable[[str], object],
    complain: Callable[[str], object],
) -> None:
    """Serve until asked; serves is called when it does, tell and complain write to the event log.

    Not in the main thread, where signals are handled. Returns also after a fault that starting again cannot mend.
    Raises: whatever else ends the server.
    """
    from datacat.errors import DatacatError

    root = home(environ)
    try:
        with _log_to(root / "Logs"):
            _serve({"STATE_DIRECTORY": str(root / "server"), **environ}, root / "server.toml", asked, serves, tell)
    except DatacatError as error:
        complain(f"{NAME} ends: {error}")
        if not error.permanent:
            raise


def _serve(
    environ: Mapping[str, str],
    settings: Path,
    asked: threading.Event,
    serves: Callable[[], object],
    tell: Callable[[str], object],
) -> None:
    from datacat.errors import DatacatError
    from datacat.server.config import load
    from datacat.server.service import build  # CherryPy

    config = load({"config": str(settings)} if settings.exists() else {}, environ)
    logging.getLogger().setLevel(config.log_level.upper())
    service = build(config, environ)
    try:
        service.start()
        if service.running:
            serves()
            tell(f"{NAME} serves on {service.url}")
        while service.running and not asked.wait(1.0):
            pass
    finally:
        service.stop()
    if not asked.is_set():
        raise DatacatError("the server stopped by itself", hint="see server.log")
    tell(f"{NAME} stopped")


@contextlib.contextmanager
def _log_to(folder: Path) -> Any:
    """Log to files of bounded size meanwhile; what the interpreter prints goes to a file of its own.

    Raises: HostError.
    """
    from datacat.errors import HostError

    try:
        folder.mkdir(parents=True, exist_ok=True)
        handler = logging.handlers.RotatingFileHandler(
            folder / "server.log", maxBytes=LOG_BYTES, backupCount=LOG_FILES - 1, encoding="utf-8"
        )
        # A service has no console: the stacks that faulthandler prints before the end need a file.
        stderr = (folder / "stderr.log").open("a", encoding="utf-8", buffering=1)
        if stderr.tell() > LOG_BYTES:
            stderr.truncate(0)
    except OSError as error:
        raise HostError(
            f"cannot write logs to {folder}: {error.strerror}", hint="let the service write there", permanent=True
        ) from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.getLogger().addHandler(handler)
    before = sys.stdout, sys.stderr
    sys.stdout = sys.stderr = stderr
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        logging.getLogger().removeHandler(handler)
        handler.close()
        stderr.close()


if __name__ == "__main__":
    main()
