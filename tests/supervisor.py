"""A service manager for tests: a NOTIFY_SOCKET, a descriptor store, and processes that get what it keeps."""

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
import urllib.request

from helpers import eventually

# The manager's child learns its own pid only by itself; the kept socket has to be descriptor 3.
_LAUNCH = (
    "import os, sys\n"
    "fd = int(sys.argv[1])\n"
    "if fd >= 0:\n"
    "    os.dup2(fd, 3, inheritable=True)\n"
    "    fd == 3 or os.close(fd)\n"
    "    os.environ['LISTEN_PID'] = str(os.getpid())\n"
    "os.execv(sys.executable, [sys.executable, '-m', 'datacat.cli.server', *sys.argv[2:]])\n"
)


class Manager:
    """Does for datacat-server what systemd does. told: every message, in order, as a dict."""

    def __init__(self, folder, **environ):
        self.folder = folder
        self.path = str(folder / "notify")
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(self.path)
        self.told = []
        self.kept = None
        self.process = None
        self.stderr = folder / "stderr"
        self.port = 0
        self.environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("DATACAT_")},
            "NOTIFY_SOCKET": self.path,
            "FDSTORE": "4",  # systemd 254 and later: it backs off by itself
            "STATE_DIRECTORY": str(folder / "state"),
            **environ,
        }

    def start(self, *flags, fd_name="http", through=()):
        """Start the server with the socket that is kept, if there is one; return when it is ready.

        through: a command that runs it.
        """
        flags = ["--port", str(self.port), *flags]
        environ = dict(self.environ)
        fd = -1
        if self.kept is not None:
            fd = self.kept.fileno()
            environ |= {"LISTEN_FDS": "1", "LISTEN_FDNAMES": fd_name}
        already = len(self.told)
        with self.stderr.open("ab") as log:
            self.process = subprocess.Popen(
                [*through, sys.executable, "-c", _LAUNCH, str(fd), *flags],
                env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log,
                pass_fds=[fd] if fd >= 0 else [],
            )  # fmt: skip
        self.until("READY", after=already)
        if not self.port:
            self.port = self.kept.getsockname()[1]
        return self

    def receive(self, timeout_s):
        """Take one message; False when there is none in time."""
        if not select.select([self.sock], [], [], timeout_s)[0]:
            return False
        data, fds, _, _ = socket.recv_fds(self.sock, 4096, 4)
        message = dict(line.split("=", 1) for line in data.decode().splitlines())
        message["at"] = time.monotonic()
        if message.get("FDSTORE") == "1":
            assert len(fds) == 1
            self.keep(socket.socket(fileno=fds[0]))
        else:
            assert not fds
        if message.get("FDSTOREREMOVE") == "1":
            self.keep(None)
        self.told.append(message)
        return True

    def keep(self, sock):
        if self.kept is not None:
            self.kept.close()
        self.kept = sock

    def until(self, name, after=0, timeout_s=30.0):
        """Wait for a message with that name, the first behind so many; return it."""
        deadline = time.monotonic() + timeout_s
        while True:
            found = next((message for message in self.told[after:] if name in message), None)
            if found:
                return found
            assert self.process.poll() is None, self.stderr.read_text()
            assert time.monotonic() < deadline, f"no {name} in {self.told[after:]}; {self.stderr.read_text()}"
            self.receive(0.1)

    def heard_for(self, seconds):
        """Return the messages of the next seconds."""
        already, deadline = len(self.told), time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.receive(left)
        return self.told[already:]

    def quiet(self, seconds, timeout_s=20.0):
        """Wait until no WATCHDOG has come for so long."""
        last, deadline = time.monotonic(), time.monotonic() + timeout_s
        while time.monotonic() - last < seconds:
            assert time.monotonic() < deadline, "the watchdog still beats"
            already = len(self.told)
            if self.receive(0.05) and "WATCHDOG" in self.told[already]:
                last = time.monotonic()

    def drain(self):
        """Take every message that is there."""
        while self.receive(0):
            pass

    def end(self, number=signal.SIGTERM, timeout_s=20):
        """Send a signal; return the exit status."""
        self.process.send_signal(number)
        return self.wait(timeout_s)

    def wait(self, timeout_s=20):
        """Return the exit status; messages are taken meanwhile."""
        eventually(lambda: (self.drain(), self.process.poll() is not None)[1], timeout_s)
        self.drain()
        return self.process.returncode

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def get(self, path):
        with urllib.request.urlopen(self.url + path, timeout=20) as answer:
            return answer.read()

    def close(self):
        if self.process is not None and self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait(10)
        self.keep(None)
        self.sock.close()
