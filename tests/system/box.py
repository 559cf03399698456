"""A box for system tests: one real server, an own spool, real apps, and nothing left behind."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import requests

BIN = Path(sys.executable).parent


def eventually(check, timeout_s=20.0, every_s=0.05):
    """Return the first true value of check(); fail with its last value when there is none in time."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = check()
        if value:
            return value
        assert time.monotonic() < deadline, f"still {value!r} after {timeout_s} s"
        threading.Event().wait(every_s)


class Box:
    """One spool and one server in a folder of their own."""

    def __init__(self, folder):
        self.folder = folder
        self.port = 0
        self.server = None
        self.http = requests.Session()
        self.http.trust_env = False
        self.env = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("DATACAT_", "XDG_"))},
            "HOME": str(folder),
            "XDG_STATE_HOME": str(folder / "state"),
            "DATACAT_BATCH_INTERVAL_SECONDS": "0.5",
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def start_server(self, *args, timeout_s=20.0):
        """Start datacat-server; on the port it had before, if it had one."""
        port_file = self.folder / "port"
        port_file.unlink(missing_ok=True)
        log = (self.folder / "server.log").open("ab")
        self.server = subprocess.Popen(
            [BIN / "datacat-server", "--port", str(self.port), "--port-file", port_file, "--data-dir",
             self.folder / "data", *args],
            env=self.env, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        log.close()
        eventually(lambda: (port_file.exists() and port_file.read_text()) or self._dead_server(), timeout_s)
        self.port = int(port_file.read_text())
        return self

    def _dead_server(self):
        assert self.server.poll() is None, (self.folder / "server.log").read_text()
        return False

    def stop_server(self, how=signal.SIGTERM):
        self.server.send_signal(how)
        self.server.wait(20)

    def app(self, code, *args, **popen):
        """Start an app: Python code with URL, the box's server, in sys.argv[1] and args behind it."""
        return subprocess.Popen(
            [sys.executable, "-c", code, self.url, *map(str, args)],
            **{"stdin": subprocess.DEVNULL, **popen, "env": {**self.env, **popen.get("env", {})}},
        )  # fmt: skip

    def run(self, code, *args, **popen):
        """Run an app to its end; its exit status."""
        return self.app(code, *args, **popen).wait(60)

    def said(self, code):
        """Run code, and wait until its daemon has gone: it has told on disk how that ended; the lines it printed."""
        env = {**self.env, "DATACAT_LINGER_SECONDS": "0"}
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
        eventually(lambda: not self.daemons())
        return done.stdout.splitlines()

    def get(self, path, **params):
        answer = self.http.get(self.url + path, params=params, timeout=30)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def heads(self, **filters):
        return self.get("/api/sessions", **filters)["sessions"]

    def session(self, product, **params):
        """Return the whole newest session of a product, None when there is none."""
        heads = self.heads(product=product)
        return self.get(f"/api/sessions/{heads[0]['id']}", **{"events": "all", **params}) if heads else None

    def ended(self, product, timeout_s=20.0):
        """Wait for the newest session of a product to end; return it whole."""
        eventually(lambda: self.has_ended(product), timeout_s)
        return self.session(product)

    def has_ended(self, product):
        """Return whether the newest session of a product is known, and over."""
        heads = self.heads(product=product)
        return bool(heads) and not heads[0]["active"]

    def processes(self):
        """Return every process that was started in this box and still runs."""
        mine = f"XDG_STATE_HOME={self.folder / 'state'}"
        found = []
        for process in psutil.process_iter():
            try:
                # environ() of a zombie cannot be read, so a zombie is never taken for one of ours that runs.
                if any(f"{name}={value}" == mine for name, value in process.environ().items()):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def daemons(self):
        """Return the daemons of this box."""
        return [process for process in self.processes() if "datacat.cli.daemon" in " ".join(cmdline(process))]

    def spooled_sessions(self):
        """Return the session folders that are not done yet."""
        folders = [meta.parent for meta in self.folder.glob("state/**/session.json")]
        return [folder.name for folder in folders if not (folder / "summary.json").exists()]

    def close(self):
        self.http.close()
        for process in self.processes():
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        if self.server is not None:
            self.server.wait(10)


def cmdline(process):
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def event_numbers(session, name="tick"):
    """Return the member n of the data of the session's events of that name, in the order in which they are stored."""
    return [event["data"]["n"] for event in session["events"] if event["name"] == name]


def read_spool(box):
    """Return what the files `daemon` in the spool say; for messages of failed tests."""
    return {path.parent.name: json.loads(path.read_text()) for path in box.folder.glob("state/**/daemon")}
