"""Stacks by py-spy, where it is installed and may read the app's memory: for apps that cannot write their own.

It is asked without stopping the app (--nonblocking), for each look for which the app itself wrote nothing.
"""

import contextlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, Any

import msgspec

from datacat.daemon.dumps import Frame, Thread
from datacat.daemon.stackfile import Stacks, arranged

PROGRAM = "py-spy"
MAX_BYTES = 4 * 1024 * 1024


class PySpy:
    """Owns one run of py-spy at a time; nobody waits for it. Of the daemon's main thread."""

    def __init__(self, program: str | None = None) -> None:
        self._program = program or installed()
        self._process: subprocess.Popen[bytes] | None = None
        self._output: IO[bytes] | None = None

    def start(self, pid: int) -> bool:
        """Begin to read the stacks of a process; return False when there is no py-spy, or an earlier run goes on."""
        if self._program is None or self._process is not None:
            return False
        self._output = tempfile.TemporaryFile()  # noqa: SIM115  closed with the run
        command = [self._program, "dump", "--json", "--nonblocking", "--pid", str(pid)]
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=self._output, stderr=subprocess.DEVNULL
            )
        except OSError:
            self._program = None
            self.close()
            return False
        return True

    def take(self) -> Stacks | None:
        """Return what it told, once it has ended; None until then, and when it may not look."""
        if self._process is None or self._output is None or self._process.poll() is None:
            return None
        self._output.seek(0)
        told = self._output.read(MAX_BYTES)
        failed = self._process.returncode != 0
        self.close()
        return None if failed else parse(told)

    def close(self) -> None:
        """End the run that goes on, if any."""
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(1.0)
        output, self._output = self._output, None
        if output is not None:
            output.close()


def installed() -> str | None:
    """Return the path of py-spy: on PATH, else beside this interpreter, as in an environment that nobody activated."""
    return shutil.which(PROGRAM) or shutil.which(PROGRAM, path=str(Path(sys.executable).parent))


def parse(told: bytes) -> Stacks | None:
    """Return the stacks in the JSON of py-spy dump: threads with their frames, the most recent call first."""
    try:
        rows = msgspec.json.decode(told, type=list[dict[str, Any]])
        threads = tuple(_thread(row) for row in rows)
    except (msgspec.DecodeError, KeyError, TypeError, ValueError):
        return None
    return arranged(Stacks(PROGRAM, threads), {}) if threads else None


def _thread(row: dict[str, Any]) -> Thread:
    frames = tuple(
        Frame(str(each["filename"]), each.get("line"), _plain(str(each["name"]))) for each in reversed(row["frames"])
    )
    name = row.get("thread_name")
    return Thread(f"{int(row['thread_id']):x}", str(name) if name else None, False, frames)


def _plain(name: str) -> str:
    """Return a function's name as the app itself writes it: groups of hangs must not depend on who looked."""
    return name.rpartition(".")[2]
