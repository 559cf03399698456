"""The processes of the demo: a real server and six programs, each started here and ended here."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Self

from datacat import host
from datacat.cli.demo.ledger import Ledger
from datacat.cli.demo.programs import PROGRAMS
from datacat.client import spawn
from datacat.errors import Busy, DatacatError, HostError
from datacat.wire import layout
from datacat.worker import Pump

START_TIMEOUT_S = 20.0
"""A server on a slow machine needs 2 s."""
STOP_TIMEOUT_S = 10.0
_TICK_S = 0.002
"""How soon a program that has reached its mark is killed: 50,000 events take a tenth of a second."""
_STOP_TICK_S = 0.1
_SETTINGS = {"DATACAT_BATCH_INTERVAL_SECONDS": "0.5"}
"""The demo is not to last a minute: everything is shipped and judged ten times as often."""


class Stage:
    """Everything that runs during the demo; leaving `with` ends it all. For one thread."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self.folder = folder
        self.started: dict[str, float] = {}
        self.ledgers: dict[str, Ledger] = {}
        self._programs: dict[str, subprocess.Popen[bytes]] = {}
        self._server: subprocess.Popen[bytes] | None = None
        self._killer: Pump | None = None
        self._over = threading.Event()
        self._logs: list[IO[bytes]] = []
        kept = {name: value for name, value in environ.items() if not name.startswith("DATACAT_")}
        # A package keeps datacat where only its own commands look for it.
        self._environ = spawn.daemon_environ(kept)
        self._environ |= _SETTINGS
        # The journals of the demo are not the user's; what a demo leaves behind disturbs nobody.
        self._environ["XDG_STATE_HOME"] = str(folder / "state")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end_programs()
        self.end_server()
        for log in self._logs:
            log.close()

    def start_server(self, data_dir: Path, port: int) -> str:
        """Start a server with the embedded store in data_dir; return its address once it listens.

        Raises: DatacatError with the end of its log when it does not.
        """
        port_file = self.folder / "port"
        flags = {"--port": str(port), "--port-file": str(port_file), "--data-dir": str(data_dir)}
        command = [sys.executable, "-m", "datacat.cli.server", *(word for flag in flags.items() for word in flag)]
        self._server = self._start("server", command)
        deadline = time.monotonic() + START_TIMEOUT_S
        while self._server.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError, ValueError):
                return f"http://127.0.0.1:{int(port_file.read_text(encoding='ascii'))}"
            self._over.wait(0.02)
        raise DatacatError(
            f"the demo's server did not start: {self._last_line('server')}", hint="see --data-dir, --port"
        )

    def start_programs(self, url: str) -> None:
        """Start the six programs side by side."""
        for name in PROGRAMS:
            path = self.folder / f"{name}.ledger"
            self.ledgers[name] = Ledger(path)
            command = [sys.executable, "-m", "datacat.cli.demo.programs", name, url, str(path)]
            self._programs[name] = self._start(name, command)
            self.started[name] = time.monotonic()
        self._killer = Pump("demo-killer", self._kill_engine, self._over.set)
        self._killer.start()

    def kill(self, name: str) -> None:
        """Kill a program, if it runs."""
        self._programs[name].kill()

    def running(self, name: str) -> bool:
        """Return whether a program runs. It is not reaped: its daemon may still have to see how it ended."""
        return not _has_ended(self._programs[name])

    def pause(self, seconds: float) -> None:
        """Wait."""
        self._over.wait(seconds)

    def end_programs(self) -> None:
        """End the programs and the daemons that they started."""
        self._over.set()
        if self._killer:
            self._killer.stop()
        for program in self._programs.values():
            program.kill()
            program.wait(STOP_TIMEOUT_S)
        # Everything is shipped when we come here: the daemons would leave by themselves within seconds.
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while (daemons := self._daemons()) and time.monotonic() < deadline:
            for daemon in daemons:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(daemon, signal.SIGTERM)
            threading.Event().wait(_STOP_TICK_S)
        for ledger in self.ledgers.values():
            ledger.__exit__()

    def wait_for_server(self) -> None:
        """Return when the server ends, or raise KeyboardInterrupt at Ctrl-C."""
        if self._server:
            self._server.wait()

    def end_server(self) -> None:
        """End the server and wait until its store is closed."""
        if self._server:
            self._server.terminate()
            try:
                self._server.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._server.kill()
                self._server.wait()

    def _start(self, name: str, command: list[str]) -> subprocess.Popen[bytes]:
        log = (self.folder / f"{name}.log").open("wb")
        self._logs.append(log)
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environ, start_new_session=True
        )

    def _kill_engine(self) -> None:
        """Kill the program that writes a burst as soon as it is in the middle of it."""
        while not self.ledgers["engine"].marked and not self._over.wait(_TICK_S):
            pass
        self.kill("engine")

    def _daemons(self) -> set[int]:
        """Return the pids of the daemons of our programs that still run: each holds the lock of its program."""
        pids = set()
        for path in self.folder.glob(f"state/**/{layout.OWNERS_DIR}/*.lock"):
            try:
                host.lock(path).release()
            except Busy as busy:
                pids.add(int(busy.holder or 0))
            except HostError:
                continue
        return pids - {0}

    def _last_line(self, name: str) -> str:
        text = (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace").strip()
        return text.splitlines()[-1] if text else "it said nothing"


def _has_ended(program: subprocess.Popen[bytes]) -> bool:
    """Return whether a child has ended, without reaping it where the platform can tell."""
    if sys.platform != "linux":
        return program.poll() is not None
    if program.returncode is not None:
        return True
    return os.waitid(os.P_PID, program.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
