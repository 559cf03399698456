"""Machines for tests of packages: a fresh Debian, booted with its own systemd in a container, and nothing left behind.

A root file system is made once by mmdebstrap from this machine's own apt sources and kept in .roots; each machine is a
copy of it with a network of its own, so that every port is free and no traffic leaves it.
"""

import contextlib
import ctypes
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from helpers import eventually

CHECKOUT = Path(__file__).resolve().parents[1]
ROOTS = CHECKOUT / ".roots"
# No procps, no curl, no build tools: what a minimal Debian has, and what the package depends on.
USER = "alice"
PACKAGES = "systemd,systemd-sysv,dbus,libpam-systemd,passwd,python3,ca-certificates,init-system-helpers"
# What Debian's installer would have done.
FINISH = f'chroot "$1" useradd -m -s /bin/bash {USER} && echo "127.0.0.1 localhost" >"$1/etc/hosts"'
CLEAN = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "TERM": "dumb"}
CLONE_NEWNET = 0x40000000


def build_deb(folder):
    """Build the package of this checkout into folder; return its path."""
    run = subprocess.run(
        [sys.executable, CHECKOUT / "packaging/debian/build.py", "--out", folder],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    return next(folder.glob("*.deb"))


def say(text):
    """Tell a figure; pytest -s shows it."""
    sys.stdout.write(f"{text}\n")


def suite():
    """Return the name of this machine's Debian release, or skip."""
    release = dict(
        line.split("=", 1) for line in Path("/etc/os-release").read_text().replace('"', "").splitlines() if "=" in line
    )
    if release.get("ID") != "debian":
        pytest.skip("capability: this machine is no Debian, its apt sources make no Debian root")
    return release["VERSION_CODENAME"]


def lacking():
    """Return what this machine lacks to boot a container, or nothing."""
    if os.geteuid() != 0:
        return "no root rights"
    missing = [tool for tool in ("systemd-nspawn", "mmdebstrap", "nsenter", "dpkg-deb") if not shutil.which(tool)]
    return f"{', '.join(missing)} not installed" if missing else ""


def sources(name, folder):
    """Write this machine's Debian sources, for a release, to a file in folder; return its path."""
    for path in (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list")):
        if path.exists() and "debian" in (text := path.read_text()):
            break
    else:
        pytest.skip("capability: no apt sources of Debian on this machine")
    here = suite()
    copy = folder / f"sources{path.suffix if path.suffix == '.sources' else '.list'}"
    copy.write_text(re.sub(rf"\b{here}\b", name, text))
    return copy


def bare_root(name):
    """Return the tar file of a fresh root of a release, made if need be."""
    ROOTS.mkdir(exist_ok=True)
    tar = ROOTS / f"{name}.tar"
    wanted, recipe = ROOTS / f"{name}.recipe", f"{PACKAGES}\n{FINISH}\n"
    if not tar.exists() or not wanted.exists() or wanted.read_text() != recipe:
        part = ROOTS / f"{name}.part.tar"
        run = subprocess.run(
            ["mmdebstrap", "--quiet", "--variant=apt", "--aptopt=Acquire::Check-Valid-Until false",
             f"--include={PACKAGES}", f"--customize-hook={FINISH}",
             name, part, sources(name, ROOTS)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert run.returncode == 0, run.stderr
        part.replace(tar)
        wanted.write_text(recipe)
    return tar


def unpack(tar, folder):
    """Unpack a root into folder, which is made."""
    folder.mkdir()
    subprocess.run(["tar", "-C", folder, "-xpf", tar], check=True)
    return folder


class Root:
    """A root file system of its own on top of folders that stay as they are; path is where it is."""

    def __init__(self, lowers, folder):
        self.lowers = lowers
        self.folder = folder
        self.path = folder / "root"
        for path in (folder, self.path, folder / "upper", folder / "work"):
            path.mkdir()
        options = f"lowerdir={':'.join(map(str, lowers))},upperdir={folder / 'upper'},workdir={folder / 'work'}"
        command = ["mount", "-t", "overlay", "overlay", "-o", options, self.path]
        self.mounted = subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode == 0
        if not self.mounted:  # inside of some containers
            for lower in reversed(lowers):
                subprocess.run(["cp", "-a", f"{lower}/.", self.path], check=True)

    def freeze(self):
        """Let go of it; return the folders that other roots can lie on."""
        if not self.mounted:
            return [self.path]
        self._unmount()
        return [self.folder / "upper", *self.lowers]

    def remove(self):
        """Remove it."""
        if self.mounted:
            self._unmount()
        shutil.rmtree(self.folder)

    def _unmount(self):
        eventually(
            lambda: subprocess.run(["umount", self.path], check=False, stderr=subprocess.DEVNULL).returncode == 0
        )
        self.mounted = False


def install_unbooted(root, deb):
    """Install a package into a root that does not run, as image builders do."""
    shutil.copy(deb, root / "srv")
    done = subprocess.run(
        ["systemd-nspawn", "-q", "-D", root, "--register=no", *keep_unit(), "--private-network", "--pipe",
         "apt-get", "install", "-y", "-q", f"/srv/{deb.name}"],
        capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, env=CLEAN,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def keep_unit():
    """Without a systemd on this machine there is nobody who could give the container a unit."""
    return [] if Path("/run/systemd/system").exists() else ["--keep-unit"]


class Machine:
    """One container with a root of its own. Call close() in any case."""

    def __init__(self, root):
        self._root = root
        self.root = root.path
        self.console = root.folder / "console"
        self.process = None
        self.leader = 0

    def boot(self):
        """Boot and wait until the system runs."""
        with self.console.open("ab") as console:
            self.process = subprocess.Popen(
                ["systemd-nspawn", "-q", "-D", self.root, "-b", "--register=no", *keep_unit(), "--private-network",
                 "--machine", f"datacat-test-{os.getpid()}", "--kill-signal=SIGRTMIN+3"],
                stdin=subprocess.DEVNULL, stdout=console, stderr=console, start_new_session=True, env=CLEAN,
            )  # fmt: skip
        eventually(self._runs, 60, 0.1)
        return self

    def _children(self):
        pid = self.process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def _alive(self):
        assert self.process.poll() is None, f"systemd-nspawn left with {self.process.returncode}: {self.console_tail()}"
        return True

    def _runs(self):
        self._alive()
        # Its first child only prepares the root and forks the container's first process.
        self.leader = next(iter(self._children()), 0)
        if not self.leader or not Path(f"/proc/{self.leader}/exe").exists():
            return False
        return self.run("systemctl", "is-system-running", check=False).stdout.strip() in {"running", "degraded"}

    def console_tail(self):
        return self.console.read_text(errors="replace")[-1500:]

    def run(self, *command, user="root", check=True, timeout_s=60, **environ):
        """Run a command inside; its output as text. Fails with what it wrote."""
        home = "/root" if user == "root" else f"/home/{user}"
        variables = [f"{name}={value}" for name, value in {**CLEAN, "HOME": home, "USER": user, **environ}.items()]
        become = [] if user == "root" else ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"]
        done = subprocess.run(
            ["nsenter", "-t", str(self.leader), "-m", "-u", "-i", "-n", "-p", "-C", "env", "-i", *variables, *become,
             *map(str, command)],
            capture_output=True, text=True, check=False, timeout=timeout_s, stdin=subprocess.DEVNULL, cwd="/",
        )  # fmt: skip
        if check:
            assert done.returncode == 0, f"{command} left with {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def apt(self, *arguments):
        """Run apt-get; everything it needs is there already, for the machine has no network."""
        return self.run("apt-get", "-y", "-q", *arguments, DEBIAN_FRONTEND="noninteractive", timeout_s=120)

    def write(self, path, text):
        """Write a file of root's."""
        target = self.root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def drop_in(self, text, name="test"):
        """Change the unit."""
        self.write(f"/etc/systemd/system/datacat-server.service.d/{name}.conf", text)
        self.run("systemctl", "daemon-reload")

    def show(self, *properties, unit="datacat-server"):
        """Return properties of the unit."""
        lines = self.run("systemctl", "show", unit, *(f"-p{name}" for name in properties)).stdout.splitlines()
        found = dict(line.split("=", 1) for line in lines)
        return found[properties[0]] if len(properties) == 1 else found

    def journal(self, unit="datacat-server"):
        """Return what the unit said."""
        return self.run("journalctl", "-b", "-u", unit, "-o", "cat", "--no-pager").stdout

    def clients(self, count):
        """Return a pool of threads whose sockets are the machine's."""
        leader = self.leader

        def enter():
            fd = os.open(f"/proc/{leader}/ns/net", os.O_RDONLY)
            try:
                libc = ctypes.CDLL(None, use_errno=True)
                if libc.setns(fd, CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), "setns")
            finally:
                os.close(fd)

        return ThreadPoolExecutor(count, initializer=enter)

    def ask(self, path="/livez", port=8080, timeout_s=5):
        """GET a path; (status, body), or None when nobody listens."""

        def get():
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
            try:
                connection.request("GET", path, headers={"Connection": "close"})
                answer = connection.getresponse()
                return answer.status, answer.read()
            except ConnectionRefusedError:
                return None
            finally:
                connection.close()

        with self.clients(1) as pool:
            return pool.submit(get).result()

    def get(self, path):
        """GET JSON."""
        status, body = self.ask(path, timeout_s=30)
        assert status == 200, body
        return json.loads(body)

    def reboot(self):
        """Reboot from inside. systemd-nspawn then ends with 133 and is started again."""
        self.run("systemctl", "reboot", check=False)
        assert self.process.wait(60) == 133, self.console_tail()
        self.boot()

    def close(self):
        """End the container, however it is, and remove it."""
        try:
            if self.process is not None and self.process.poll() is None:
                # The end of a container's first process is the end of all others: the kernel's rule for namespaces.
                with contextlib.suppress(IndexError, ProcessLookupError):
                    os.kill(self._children()[0], signal.SIGKILL)
                try:
                    self.process.wait(20)
                except subprocess.TimeoutExpired:
                    self.process.kill()
                    self.process.wait()
                    raise
        finally:
            self._root.remove()


def restart_times(machine):
    """Return when the unit was started again by systemd, in seconds."""
    told = machine.run("journalctl", "-b", "-u", "datacat-server", "-o", "short-unix", "--no-pager").stdout
    return [float(line.split()[0]) for line in told.splitlines() if "Scheduled restart job" in line]


class Load:
    """Readers that keep their connection and never try again."""

    def __init__(self, machine, readers=4, path="/livez", fresh=False):
        self.answered = 0
        self.failures = []
        self.worst_s = 0.0
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._pool = machine.clients(readers)
        self._path = path
        self._fresh = fresh
        self._readers = [self._pool.submit(self._read) for _ in range(readers)]

    def __enter__(self):
        eventually(lambda: self.answered > 20, 20)
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._pool.shutdown(wait=True)
        for reader in self._readers:
            reader.result()

    def more(self, count=50):
        """Wait for so many further answers."""
        target = self.answered + count
        eventually(lambda: self.answered >= target, 30)

    def _read(self):
        connection = http.client.HTTPConnection("127.0.0.1", 8080, timeout=30)
        while not self._stop.wait(0.01):
            started = time.monotonic()
            try:
                connection.request("GET", self._path, headers={"Connection": "close"} if self._fresh else {})
                answer = connection.getresponse()
                answer.read()
                failure = "" if answer.status == 200 else f"status {answer.status}"
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                failure = repr(error)
            with self._lock:
                self.worst_s = max(self.worst_s, time.monotonic() - started)
                if failure:
                    self.failures.append(failure)
                else:
                    self.answered += 1
        connection.close()
