"""The server as a Windows service: python.exe hosts it, the service control manager starts and stops it.

packaging/windows/install.ps1 registers `python.exe -I run.py datacat.cli.winservice`. A failure before main() has told
the manager that it is there reaches no event log, so nothing is imported until then but the standard library.

How it ends tells the manager what to do (its recovery actions need the failure flag, which install.ps1 sets): a fault
that somebody has to mend (DatacatError.permanent) is written to the event log and the service stops without an error
code, so that it is not started again and again; every other one leaves as an exception, and the service is restarted.
"""

import contextlib
import faulthandler
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

NAME = "datacat-server"
START_HINT_MS = 120_000
"""A store of many sessions is read before the server serves; the manager waits so long for the next word."""
STOP_HINT_MS = 30_000
STDERR_BYTES = 10_000_000
"""What is longer at a start begins anew."""


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
        with _stderr_to(root / "Logs"):
            _serve({"STATE_DIRECTORY": str(root / "server"), **environ}, root, asked, serves, tell)
    except DatacatError as error:
        complain(f"{NAME} ends: {error}")
        if not error.permanent:
            raise


def _serve(
    environ: Mapping[str, str],
    root: Path,
    asked: threading.Event,
    serves: Callable[[], object],
    tell: Callable[[str], object],
) -> None:
    from datacat.errors import DatacatError
    from datacat.server import logs
    from datacat.server.config import load
    from datacat.server.run import ENDS_IN_S  # CherryPy
    from datacat.server.service import build

    settings = root / "server.toml"
    # The manager starts a process that ended, but does not see one that hangs.
    flags = {"log_file": str(root / "Logs" / "server.log"), "self_watchdog": True}
    config = load({**flags, "config": str(settings)} if settings.exists() else flags, environ)
    logs.set_up(config.log_level, config.log_file, environ)
    service = build(config, environ, ends_in_s=ENDS_IN_S)
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
def _stderr_to(folder: Path) -> Iterator[None]:
    """Send to a file what the interpreter prints: a service has no console, and the stacks of a hang need a place.

    Raises: HostError.
    """
    from datacat import host
    from datacat.errors import HostError

    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / "stderr.log").open("a", encoding="utf-8", buffering=1)
    except OSError as error:
        raise HostError(
            f"cannot write logs to {folder}: {error.strerror}",
            hint="let the service write there",
            permanent=host.needs_a_person(error),
        ) from error
    before = sys.stdout, sys.stderr
    with file:
        if file.tell() > STDERR_BYTES:
            file.truncate(0)
        sys.stdout = sys.stderr = file
        faulthandler.enable()
        try:
            yield
        finally:
            sys.stdout, sys.stderr = before
            faulthandler.disable()


if __name__ == "__main__":
    main()
