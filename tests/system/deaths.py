"""Ways to die, each done by a real app that its real daemon watches: for a test of the words, and a table of the times.

No server is needed: the verdict is read where the daemon writes it, in the session's journal.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

import msgspec

from datacat import host
from datacat.client.last import records_in
from datacat.daemon.facts import STOP_EVENT
from datacat.wire import layout
from datacat.wire.records import CRASHED_EVENT, Event, Verdict
from datacat.wire.routes import OPEN_STATUSES

BEGIN = """
import asyncio, datacat, os, signal, sys, threading
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell in the background hands down that it is ignored
signal.signal(signal.SIGQUIT, signal.SIG_DFL)
session = datacat.create_session("http://127.0.0.1:9", product="deaths", version="1.0", state_dir=sys.argv[1],
                                 settings={"linger_seconds": 0, "daemon_port": 0})
session.update_state({"page": 3})
session.log_event("working")
print(os.getpid(), session.id, flush=True)
sys.stdin.readline()
"""
# An app that is run by this one is reaped by the kernel at once: nobody can read its status in /proc.
UNREAPED_NEVER = """
import signal, subprocess, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
default = lambda: signal.signal(signal.SIGCHLD, signal.SIG_DFL)
subprocess.Popen(sys.argv[1:], preexec_fn=default)
signal.pause()
"""
# A daemon on a kernel before 6.15: the ioctl is one that no kernel has.
OLDER_KERNEL = """#!{python}
import runpy, sys
from datacat.host import process
process.PIDFD_GET_INFO = 0
sys.argv[1:3] = []
runpy.run_module(module := "datacat.cli.daemon", run_name="__main__")
"""


class Death(NamedTuple):
    """cause: for the table. code: what the app does when it is told to go on. kill: a signal from outside instead.

    status, reason: the verdict; detail: a part of its text. older: (status, reason) on a kernel that does not tell the
    exit of a process that is not the daemon's child, when nobody can read it in /proc any more. event: an event that the
    app itself leaves. way: how it is done, when it is not one app that ends.
    """

    cause: str
    code: str
    status: str
    reason: str
    detail: str = ""
    kill: int = 0
    older: tuple[str, str] | None = ("crashed", "unknown")
    event: str = ""
    way: str = "app"


def _raised(name: str) -> Death:
    return Death(f"{name}", f"os.kill(os.getpid(), signal.{name})", "crashed", "signal", name, older=None)


_CLOSED = ("ended", "closed")
_ATEXIT = "import atexit\ndef leave():\n    raise ValueError('too late')\natexit.register(leave)"
_TASK = """
async def fails():
    raise ValueError("in a task")
async def main():
    task = asyncio.ensure_future(fails())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    del task
asyncio.run(main())
"""
_BUS = """
import mmap
file = open(sys.argv[1] + "/page", "w+b"); file.truncate(4096)
page = mmap.mmap(file.fileno(), 4096); file.truncate(0)
page[0]
"""
_OVERFLOW = """
sys.setrecursionlimit(10**8)
threading.stack_size(64 * 1024)
def deeper(*args): return list(map(deeper, [1]))
thread = threading.Thread(target=deeper); thread.start(); thread.join()
"""
_MEMORY = """
import resource
resource.setrlimit(resource.RLIMIT_AS, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 + (400 << 20),) * 2)
hog, size = [], 8 << 20
while True:
    try:
        hog.append(bytearray(size))
    except MemoryError:
        if size < 64:  # not a byte is left
            raise
        size //= 2
"""
_HOG = "hog = []\nwhile True:\n    hog.append(bytearray(b'x' * (8 << 20)))"
_CPU = "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (1, 5))\nwhile True: pass"
_HANG = "session.start_heartbeat_monitor(timeout=0.4, loop=None)\nsession.heartbeat()\nthreading.Event().wait()"
_THREADS = "threading.Thread(target=threading.Event().wait, daemon=True).start()\nsys.exit(0)"
_WAIT = "threading.Event().wait()"

DEATHS = (
    Death("`session.end()`, then the end of the program", "session.end()", "ended", "clean", older=None),
    Death("end of the program", "pass", "ended", "exit_zero", older=_CLOSED),
    Death("end of the program while threads run", _THREADS, "ended", "exit_zero", older=_CLOSED),
    Death("`sys.exit(0)`", "sys.exit(0)", "ended", "exit_zero", older=_CLOSED),
    Death("`sys.exit(3)`", "sys.exit(3)", "crashed", "exit_code", "exit code 3", older=_CLOSED),
    Death("`sys.exit('no licence')`", "sys.exit('no licence')", "crashed", "exit_code", "exit code 1", older=_CLOSED),
    Death("`os._exit(0)`", "os._exit(0)", "ended", "exit_zero"),
    Death("`os._exit(7)`", "os._exit(7)", "crashed", "exit_code", "exit code 7"),
    Death("exception in the main thread", "raise ValueError('no page')", "crashed", "exception", "ValueError: no page",
          older=("crashed", "exception"), event="unhandled_exception"),
    Death("exception in a thread, the program goes on to its end",
          "thread = threading.Thread(target=lambda: 1 / 0); thread.start(); thread.join()",
          "ended", "exit_zero", older=_CLOSED, event="unhandled_exception"),
    Death("exception in an asyncio task that nobody awaits", _TASK, "ended", "exit_zero", older=_CLOSED,
          event="unhandled_exception"),
    Death("exception in an `atexit` function", _ATEXIT, "ended", "exit_zero", older=_CLOSED,
          event="unhandled_exception"),
    Death("`MemoryError` under `RLIMIT_AS`", _MEMORY, "crashed", "exception", "MemoryError",
          older=("crashed", "exception"), event="unhandled_exception"),
    Death("`KeyboardInterrupt` (Ctrl-C)", _WAIT, "ended", "terminated", "SIGINT", kill=signal.SIGINT, older=_CLOSED),
    Death("SIGTERM without a handler", _WAIT, "ended", "terminated", "SIGTERM", kill=signal.SIGTERM),
    Death("SIGHUP without a handler", _WAIT, "ended", "terminated", "SIGHUP", kill=signal.SIGHUP),
    Death("SIGKILL", _WAIT, "crashed", "killed", "SIGKILL", kill=signal.SIGKILL),
    Death("SIGKILL, and the parent does not reap it", _WAIT, "crashed", "killed", "SIGKILL", kill=signal.SIGKILL,
          older=None, way="unreaped"),
    Death("SIGKILL while it is stopped (SIGSTOP)", "os.kill(os.getpid(), signal.SIGSTOP)", "crashed", "killed",
          "SIGKILL", kill=signal.SIGKILL),
    Death("SIGKILL while it hangs", _HANG, "crashed", "hang", "killed after it hung", kill=signal.SIGKILL,
          older=("crashed", "hang"), way="hung"),
    Death("out of memory in its control group", _HOG, "crashed", "oom", "out of memory", older=("crashed", "oom"),
          way="cgroup"),
    Death("segmentation fault in C", "import ctypes; ctypes.string_at(0)", "crashed", "signal",
          "SIGSEGV: Segmentation fault", older=("crashed", "signal")),
    Death("overflow of the C stack in a thread", _OVERFLOW, "crashed", "signal", "SIGSEGV"),
    Death("bus error: a mapped file was cut", _BUS, "crashed", "signal", "SIGBUS: Bus error",
          older=("crashed", "signal")),
    Death("`os.abort()`", "os.abort()", "crashed", "signal", "SIGABRT: Aborted", older=("crashed", "signal")),
    Death("fatal error of the interpreter", "import faulthandler; faulthandler._fatal_error_c_thread()", "crashed",
          "signal", "SIGABRT"),
    Death("SIGFPE", "os.kill(os.getpid(), signal.SIGFPE)", "crashed", "signal", "SIGFPE: Floating point exception",
          older=("crashed", "signal")),
    Death("SIGILL", "os.kill(os.getpid(), signal.SIGILL)", "crashed", "signal", "SIGILL: Illegal instruction",
          older=("crashed", "signal")),
    Death("SIGQUIT", "os.kill(os.getpid(), signal.SIGQUIT)", "crashed", "signal", "SIGQUIT"),
    *(_raised(name) for name in ("SIGTRAP", "SIGSYS", "SIGALRM", "SIGVTALRM", "SIGPROF", "SIGUSR1", "SIGIO",
                                 "SIGPWR", "SIGSTKFLT", "SIGRTMIN")),
    Death("SIGPIPE, where the app restored its default",
          "signal.signal(signal.SIGPIPE, signal.SIG_DFL); os.kill(os.getpid(), signal.SIGPIPE)",
          "crashed", "signal", "SIGPIPE"),
    Death("processor time used up (`RLIMIT_CPU`)", _CPU, "crashed", "signal", "SIGXCPU"),
    Death("killed as soon as it has a session, before its daemon runs", _WAIT, "crashed", "killed", "SIGKILL",
          kill=signal.SIGKILL, way="early"),
    Death("app and daemon killed together; the next daemon on the machine looks", _WAIT, "crashed", "unknown",
          "nobody saw how", kill=signal.SIGKILL, older=None, way="both"),
    Death("power failure: another boot id", _WAIT, "abnormal", "power", "the machine went down", kill=signal.SIGKILL,
          older=None, way="power"),
    Death("shutdown: another boot id, and the daemon was told to stop", _WAIT, "abnormal", "reboot",
          "the machine went down", kill=signal.SIGKILL, older=None, way="reboot"),
)  # fmt: skip


class Seen(NamedTuple):
    """What the journal says in the end, and how long after the death the verdict stood there."""

    verdict: Verdict
    crash: Event | None
    events: list[str]
    after_s: float


def die(death: Death, folder: Path, *, older_kernel: bool = False, cgroup: Path | None = None) -> Seen:
    """Let a real app die and return what its daemon makes of it. folder is an empty one of this death alone."""
    app = _App(folder, death, older_kernel=older_kernel, cgroup=cgroup)
    try:
        if death.way != "early":
            app.await_daemon()
        if death.way in ("both", "power", "reboot"):
            return app.die_with_daemon(death)
        app.go(death)
        dead_s = app.await_death()
        return app.verdict(dead_s)
    finally:
        app.close()


class _App:
    def __init__(self, folder: Path, death: Death, *, older_kernel: bool, cgroup: Path | None) -> None:
        self.folder = folder
        self.death = death
        environ = {name: value for name, value in os.environ.items() if not name.startswith("DATACAT_")}
        command = [sys.executable, "-c", BEGIN + death.code, str(folder)]
        if older_kernel:
            script = folder / "python"
            script.write_text(OLDER_KERNEL.format(python=sys.executable))
            script.chmod(0o755)
            environ["DATACAT_PYTHON"] = str(script)
            command = [sys.executable, "-c", UNREAPED_NEVER, *command]
        join = f"echo $$ > {cgroup}; " if cgroup is not None else ""
        command = ["/bin/sh", "-c", f'{join}ulimit -c 0; exec "$@"', "sh", *command]
        self.reaped = not older_kernel and death.way != "unreaped"
        self.process = subprocess.Popen(
            command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert self.process.stdout is not None
        pid, session_id = self.process.stdout.readline().split()
        self.pid = int(pid)
        self.pidfd = os.pidfd_open(self.pid)
        self.session = folder / layout.SPOOL_DIR / session_id.decode()

    def await_daemon(self) -> None:
        shipper = self.session / layout.SHIPPER_FILE
        _until(lambda: shipper.exists() and self._shipper(), 20)

    def go(self, death: Death) -> None:
        assert self.process.stdin is not None
        if death.way != "early":
            self.process.stdin.write(b"go\n")
            self.process.stdin.flush()
        if death.way == "hung":
            _until(lambda: self._statuses()[-1:] == ["hung"], 20)
        if "SIGSTOP" in death.code:
            _until(lambda: "\nState:\tT" in Path(f"/proc/{self.pid}/status").read_text(), 10)
        elif death.kill and death.way != "early":
            # The handler of SIGINT and the wait that it ends must be there: the app sleeps in the kernel then.
            _until(lambda: "futex" in Path(f"/proc/{self.pid}/wchan").read_text() or death.way == "hung", 10)
        if death.kill:
            os.kill(self.pid, death.kill)

    def await_death(self) -> float:
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        assert poll.poll(60_000), f"{self.death.cause}: it lives"
        dead_s = time.monotonic()
        if self.reaped:
            self.process.wait()
        return dead_s

    def verdict(self, dead_s: float) -> Seen:
        _until(lambda: self._final() is not None, 30, every_s=0.001)
        after_s = time.monotonic() - dead_s
        records = records_in(self.session)
        final = self._final()
        assert final is not None
        crashes = [record for record in records if isinstance(record, Event) and record.name == CRASHED_EVENT]
        events = [record.name for record in records if isinstance(record, Event)]
        return Seen(final, crashes[-1] if crashes else None, events, after_s)

    def die_with_daemon(self, death: Death) -> Seen:
        daemon = self._shipper()
        assert daemon is not None
        if death.way == "reboot":
            os.kill(daemon.pid, signal.SIGTERM)
            _until(lambda: STOP_EVENT in [record.name for record in records_in(self.session) if _is_event(record)], 20)
        with _pidfd(daemon.pid) as gone:
            os.kill(daemon.pid, signal.SIGKILL)
            os.kill(self.pid, signal.SIGKILL)
            self.await_death()
            _until(lambda: gone.poll(0), 10)
        if death.way in ("power", "reboot"):
            file = self.session / layout.META_FILE
            meta = msgspec.json.decode(file.read_bytes(), type=layout.Meta)
            file.write_bytes(msgspec.json.encode(msgspec.structs.replace(meta, boot_id="another-boot")))
        spool = self.session.parent
        with subprocess.Popen(
            [sys.executable, "-m", "datacat.cli.daemon", "--spool", str(spool), "--daemon-port", "0"],
            stderr=subprocess.DEVNULL,
        ) as later:
            try:
                return self.verdict(time.monotonic())
            finally:
                later.kill()

    def close(self) -> None:
        shipper = self._shipper()
        if shipper is not None:
            _end(shipper.pid)
        if self.process.poll() is None or not self.reaped:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
            self.process.kill()
        self.process.communicate()
        os.close(self.pidfd)

    def _shipper(self) -> layout.Shipper | None:
        try:
            return msgspec.json.decode((self.session / layout.SHIPPER_FILE).read_bytes(), type=layout.Shipper)
        except (OSError, msgspec.DecodeError):
            return None

    def _statuses(self) -> list[str]:
        return [record.status for record in records_in(self.session) if isinstance(record, Verdict)]

    def _final(self) -> Verdict | None:
        found = (record for record in reversed(records_in(self.session)) if isinstance(record, Verdict))
        return next((verdict for verdict in found if verdict.status not in OPEN_STATUSES), None)


def _is_event(record) -> bool:
    return isinstance(record, Event)


@contextlib.contextmanager
def _pidfd(pid: int):
    fd = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    try:
        yield poll
    finally:
        os.close(fd)


def _end(pid: int) -> None:
    """Kill a daemon that this death started, and wait until it is gone."""
    with contextlib.suppress(ProcessLookupError), _pidfd(pid) as gone:
        os.kill(pid, signal.SIGKILL)
        gone.poll(10_000)


def _until(check, timeout_s: float, every_s: float = 0.005) -> None:
    deadline = time.monotonic() + timeout_s
    pause = threading.Event()
    while not check():
        assert time.monotonic() < deadline, "it did not come true in time"
        pause.wait(every_s)


def tells_status_of_strangers() -> bool:
    """Whether this kernel's pidfd tells the exit status of a process that is reaped and no child (Linux 6.15)."""
    from datacat.host.process import Exit, Target, watch

    probe = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    watching = watch(Target(probe.pid, host.process_start(probe.pid)))
    probe.wait()
    seen = watching.wait(10.0)
    watching.close()
    return seen == Exit(3, None, core=False, known=True)
