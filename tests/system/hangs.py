"""Ways to hang, each done by a real app that its real daemon watches: for a test of the words, and a table of them.

No server is needed: the events are read where the daemon writes them, in the session's journal.
"""

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from helpers import eventually

from datacat import host
from datacat.client.last import records_in
from datacat.wire import layout
from datacat.wire.records import HUNG_EVENT, RESUMED_EVENT, SLOW_EVENT, SUSPENDED_EVENT, Event

TIMEOUT_S = 1.0
BEGIN = """
import asyncio, ctypes, datacat, os, re, socket, subprocess, sys, threading, time
folder, mode, timeout_s, slow_s, py_spy = *sys.argv[1:3], *map(float, sys.argv[3:5]), sys.argv[5] == "True"
session = datacat.create_session("http://127.0.0.1:9", product="hangs", version="1.0", state_dir=folder,
                                 settings={"linger_seconds": 0, "daemon_port": 0, "slow_seconds": slow_s, "py_spy": py_spy,
                                           "heartbeat_timeout_seconds": timeout_s})
def tick():
    while True: time.sleep(0.05)
threading.Thread(target=tick, name="worker", daemon=True).start()
print(os.getpid(), session.id, flush=True)
sys.stdin.readline()
def stuck():
"""
END = """
async def main():
    session.start_heartbeat_monitor(timeout=timeout_s)
    await asyncio.sleep(0.2)
    stuck()
    await asyncio.sleep(60)
if mode == "loop":
    asyncio.run(main())
if mode == "own":
    session.start_heartbeat_monitor(timeout=timeout_s, loop=None)
for _ in range(5):
    session.heartbeat()
    time.sleep(0.05)
stuck()
while True:
    session.heartbeat()
    time.sleep(0.05)
"""


class Hang(NamedTuple):
    """cause: for the table. code: what the main thread does. verdict: what is said of it.

    hold: stop, trace or freeze, done from outside to an app that would go on; then verdict is the reason of the
    suspension. stacks: in how many of the three samples there must be Python stacks, of an app that is watched and
    without py-spy; with it there must be some in all three.
    """

    cause: str
    code: str
    verdict: str
    hold: str = ""
    stacks: int = 3


HANGS = (
    Hang("busy loop in Python", "n = 0\nwhile True:\n    n += 1\n    n -= 1", "busy loop"),
    Hang(
        "regular expression that backtracks",
        "re.match('(a+)+$', 'a' * 60 + 'b')",
        "GIL held in C code",
        stacks=1,
    ),
    Hang(
        "C call that keeps the GIL and sleeps",
        "while True:\n    ctypes.PyDLL(None).usleep(60_000_000)",
        "GIL held in C code",
        stacks=0,
    ),
    Hang("deadlock on a lock", "lock = threading.Lock()\nlock.acquire()\nlock.acquire()", "waiting on a lock"),
    Hang("wait for an event that never comes", "threading.Event().wait()", "waiting on a lock"),
    Hang("`time.sleep`", "time.sleep(60)", "sleeping"),
    Hang("read of a socket that stays silent", "a, b = socket.socketpair()\na.recv(1)", "waiting on I/O"),
    Hang("read of a pipe that stays empty", "a, b = os.pipe()\nos.read(a, 1)", "waiting on I/O"),
    Hang("child process that does not end", "subprocess.run(['sleep', '60'])", "waiting for a child process"),
    Hang(
        "uninterruptible wait (state D): a vforked child that cannot start",
        "os.mkfifo(folder + '/fifo')\nto_open = (os.POSIX_SPAWN_OPEN, 0, folder + '/fifo', os.O_RDONLY, 0)\n"
        "os.posix_spawn('/bin/true', ['true'], {}, file_actions=[to_open])",
        "waiting on I/O",
        stacks=0,
    ),
    Hang("SIGSTOP, job control", "", "stopped", hold="stop"),
    Hang("a debugger is attached and holds it", "", "traced", hold="trace"),
    Hang("its control group is frozen", "", "frozen", hold="freeze"),
)


class Seen(NamedTuple):
    """The event of the hang, and how long after the last heartbeat it was on disk; or the names of all events."""

    event: Event | None
    after_s: float
    names: list[str]
    reason: str


class Impossible(Exception):
    """This machine cannot do it; the text says why."""


def stall(folder: Path, seconds: float, slow_s: float) -> Seen:
    """Let a real app stall for so long and go on; return the event of that."""
    app = _App(folder, Hang("", f"time.sleep({seconds})", ""), "loop", 60.0, slow_s)
    try:
        event = eventually(lambda: app.event(SLOW_EVENT), 20)
        return Seen(event, 0.0, app.names(), "")
    finally:
        app.close()


def hang(way: Hang, folder: Path, mode: str, timeout_s: float = TIMEOUT_S, *, py_spy: bool = False) -> Seen:
    """Let a real app hang and return what its daemon makes of it. mode: loop, own or unasked. Raises: Impossible."""
    app = _App(folder, way, mode, timeout_s, 5.0, py_spy=py_spy)
    try:
        return app.held(way.hold, timeout_s) if way.hold else app.hung()
    finally:
        app.close()


class _App:
    def __init__(
        self, folder: Path, way: Hang, mode: str, timeout_s: float, slow_s: float, *, py_spy: bool = False
    ) -> None:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("DATACAT_")}
        body = "".join(f"    {line}\n" for line in (way.code or "return").split("\n"))
        script = folder / "app.py"
        script.write_text(BEGIN + body + END)
        self.process = subprocess.Popen(
            [sys.executable, str(script), str(folder), mode, str(timeout_s), str(slow_s), str(py_spy)],
            env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        assert self.process.stdin is not None
        pid, session_id = self.process.stdout.readline().split()
        self.pid = int(pid)
        self.session = folder / layout.SPOOL_DIR / session_id.decode()
        eventually(self._daemon, 20)
        self.process.stdin.write(b"go\n")
        self.process.stdin.flush()

    def hung(self) -> Seen:
        event = eventually(lambda: self.event(HUNG_EVENT), 20, 0.005)
        after_s = (host.awake_ns() - self._beat().awake_ns) / 1e9
        return Seen(event, after_s, self.names(), "")

    def held(self, how: str, timeout_s: float) -> Seen:
        """Hold the app until it has been silent for three timeouts, then let it go on."""
        eventually(lambda: self._beat().awake_ns, 20)
        with _HOLDS[how](self.pid):
            event = eventually(lambda: self.event(SUSPENDED_EVENT), 20)
            eventually(lambda: host.awake_ns() - self._beat().awake_ns > 3 * timeout_s * 1e9, 20)
        eventually(lambda: self.event(RESUMED_EVENT), 20)
        return Seen(None, 0.0, self.names(), str((event.data or {}).get("reason")))

    def close(self) -> None:
        daemon = self._daemon()
        if self.process.stdin is not None:
            self.process.stdin.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(20)
        if self.process.stdout is not None:
            self.process.stdout.close()
        if daemon is not None:
            _end(daemon.pid)

    def _daemon(self) -> layout.Shipper | None:
        try:
            return msgspec.json.decode((self.session / layout.SHIPPER_FILE).read_bytes(), type=layout.Shipper)
        except (OSError, msgspec.DecodeError):
            return None

    def _beat(self) -> layout.Beat:
        return layout.unpack_beat((self.session / layout.BEAT_FILE).read_bytes())

    def _events(self) -> list[Event]:
        return [record for record in records_in(self.session) if isinstance(record, Event)]

    def event(self, name: str) -> Event | None:
        return next((event for event in self._events() if event.name == name), None)

    def names(self) -> list[str]:
        return [event.name for event in self._events()]


@contextlib.contextmanager
def _stopped(pid: int) -> Any:
    os.kill(pid, signal.SIGSTOP)
    yield
    os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def _traced(pid: int) -> Any:
    """Hold it by strace, stopped before its first system call as a debugger stops at a breakpoint."""
    strace = shutil.which("strace")
    if strace is None:
        raise Impossible("there is no strace")
    tracer = subprocess.Popen(
        [strace, "-f", "-qq", "-o", "/dev/null", "-e", "inject=all:delay_enter=60s", "-p", str(pid)],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        attached = f"TracerPid:\t{tracer.pid}\n"
        eventually(lambda: tracer.poll() is not None or attached in Path(f"/proc/{pid}/status").read_text(), 10)
        if tracer.poll() is not None:
            assert tracer.stderr is not None
            raise Impossible(f"no process can be traced: {tracer.stderr.read().strip()}")
        yield
    finally:
        tracer.kill()
        tracer.communicate()


@contextlib.contextmanager
def _frozen(pid: int) -> Any:
    group = switch = None
    for base in (Path("/sys/fs/cgroup/freezer"), Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified")):
        name = "freezer.state" if base.name == "freezer" else "cgroup.freeze"
        with contextlib.suppress(OSError):
            group = base / f"datacat-hangs-{os.getpid()}"
            group.mkdir()
            if (group / name).exists():
                switch = group / name
                break
            group.rmdir()
    if group is None or switch is None:
        raise Impossible("no control group can be made and frozen")
    freeze, thaw = ("FROZEN", "THAWED") if switch.name == "freezer.state" else ("1", "0")
    try:
        (group / "cgroup.procs").write_text(str(pid))
        switch.write_text(freeze)
        yield
    finally:
        switch.write_text(thaw)
        for member in (group / "cgroup.procs").read_text().split():
            (group.parent / "cgroup.procs").write_text(member)
        group.rmdir()


_HOLDS = {"stop": _stopped, "trace": _traced, "freeze": _frozen}


def _end(pid: int) -> None:
    """End the daemon that this app started, and wait until it is gone."""
    with contextlib.suppress(ProcessLookupError):
        fd = os.pidfd_open(pid)
        try:
            os.kill(pid, signal.SIGKILL)
            poll = select.poll()
            poll.register(fd, select.POLLIN)
            poll.poll(10_000)
        finally:
            os.close(fd)
