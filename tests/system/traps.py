"""Apps in awkward places, with their real daemons and without a server: what the journal says about them."""

import contextlib
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
from helpers import eventually

from datacat.client.last import records_in
from datacat.wire import layout
from datacat.wire.records import Event, Verdict

BEGIN = """
import datacat, os, signal, sys, threading
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell in the background hands down that it is ignored
def begin(**more):
    return datacat.create_session("http://127.0.0.1:9", product="trapped", version="1.0", settings={
        "linger_seconds": 0, "daemon_port": 0, "batch_interval_seconds": 0.2, **more})
def served(session):
    # Until somebody serves it: then its end is seen live.
    pause = threading.Event()
    while not (session.journal_folder / "daemon").exists():
        pause.wait(0.01)
def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())
"""
OVER = ("ended", "crashed", "abnormal")


class Trap:
    """One state folder, the apps that use it, and what their sessions became."""

    def __init__(self, folder):
        self.folder = folder
        self.started = []
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("DATACAT_", "XDG_"))}
        self.env = {**clean, "HOME": str(folder), "XDG_STATE_HOME": str(folder / "state"), "DATACAT_STRICT": "1"}

    def app(self, code, *args, prefix=(), env=None, **popen):
        """Start an app: BEGIN and code."""
        given = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **popen}
        process = subprocess.Popen(
            [*prefix, sys.executable, "-c", BEGIN + code, *map(str, args)],
            env=self.env if env is None else env,
            **given,
        )
        self.started.append(process)
        return process

    def run(self, code, *args, **more):
        """Run an app to its end; (its exit status, what it said, what it said on stderr)."""
        process = self.app(code, *args, **more)
        out, err = process.communicate(timeout=60)
        return process.returncode, out.decode(), err.decode()

    @property
    def sessions(self):
        """The folders of all sessions, oldest first."""
        found = self.folder.glob("**/spool/*/session.json")
        return [each.parent for each in sorted(found, key=lambda each: self.meta(each.parent).created_us)]

    def meta(self, folder):
        return msgspec.json.decode((folder / layout.META_FILE).read_bytes(), type=layout.Meta)

    def verdicts(self, folder):
        return [record for record in records_in(folder) if isinstance(record, Verdict)]

    def events(self, folder):
        return [record.name for record in records_in(folder) if isinstance(record, Event)]

    def ended(self, folder=None):
        """Wait for the verdict on a session (the only one when none is named); (status, reason)."""
        if folder is None:
            (folder,) = eventually(lambda: self.sessions, 20)
        (over,) = eventually(lambda: [v for v in self.verdicts(folder) if v.status in OVER], 20)
        return over.status, over.reason

    def shipper(self, folder):
        with contextlib.suppress(OSError, msgspec.DecodeError):
            return msgspec.json.decode((folder / layout.SHIPPER_FILE).read_bytes(), type=layout.Shipper)
        return None

    def kill_daemon(self, folder):
        """Kill the daemon that serves a session, and wait until it is gone."""
        pidfd = os.pidfd_open(self.shipper(folder).pid)
        try:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            assert select.select([pidfd], [], [], 20)[0]
        finally:
            os.close(pidfd)

    def close(self):
        """End every app, and every daemon that still serves one of its sessions."""
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.communicate()
        for folder in self.sessions:
            shipper = self.shipper(folder)
            if shipper is not None and _is_daemon(shipper.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(shipper.pid, signal.SIGKILL)


def _is_daemon(pid):
    with contextlib.suppress(OSError):
        return b"datacat.cli.daemon" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False
