"""What `datacat doctor` looks at: each check takes facts and tells findings, with what to do about them."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

from datacat import host
from datacat.errors import HostError
from datacat.store import version
from datacat.wire import layout

Level = Literal["ok", "note", "problem"]
Ask = Callable[[tuple[str, ...]], str]
"""Run a program and return what it printed; an empty text when it cannot be run."""

UNIT = "datacat-server"
SYSTEM_DATA = Path("/var/lib/datacat")
LEAST_FREE_BYTES = 1 << 30
MANY_SPOOLED_BYTES = 1 << 30
MOST_SKEW_S = 5.0
_EX_CONFIG = "78"
_UNIT_PROPERTIES = "LoadState,UnitFileState,ActiveState,SubState,Result,ExecMainStatus,NRestarts,StatusText"


class Finding(NamedTuple):
    """One thing that was looked at, how it is, and what to do when it is not well."""

    name: str
    level: Level
    text: str
    remedy: str = ""


class Answer(NamedTuple):
    """What a server answered; status 0: nothing, and text says why."""

    status: int
    text: str
    date: str = ""
    body: Any = None


def server(url: str, get: Callable[[str], Answer], version: str, now_s: float) -> Iterator[Finding]:
    """Tell whether a server answers, takes writes, is of this version and has the same time."""
    alive = get("/livez")
    if alive.status == 0:
        yield Finding("server", "problem", f"nothing answers at {url} ({alive.text})", "datacat service start")
        return
    if alive.status != 200:
        yield Finding(
            "server", "problem", f"what answers at {url} is no datacat server (status {alive.status})",
            "name the right one with --server, or free its port",
        )  # fmt: skip
        return
    yield Finding("server", "ok", f"answers at {url}")
    ready = get("/readyz")
    if ready.status == 200:
        yield Finding("store", "ok", "takes writes")
    else:
        why = ready.body.get("detail", "") if isinstance(ready.body, dict) else ready.text
        yield Finding(
            "store", "problem", why or f"/readyz says {ready.status}", "look at the disk: datacat service logs"
        )
    health = get("/health")
    running = health.body.get("version", "") if isinstance(health.body, dict) else ""
    if running and running != version:
        yield Finding("version", "note", f"the server is {running}, this command {version}", "datacat service restart")
    elif running:
        yield Finding("version", "ok", running)
    yield from _clock(alive.date, now_s)


def _clock(date: str, now_s: float) -> Iterator[Finding]:
    try:
        skew_s = parsedate_to_datetime(date).timestamp() - now_s
    except (TypeError, ValueError):
        return
    # The header has whole seconds and was made a moment ago.
    if abs(skew_s) > MOST_SKEW_S:
        yield Finding(
            "clock", "problem", f"the server's clock is {abs(skew_s):.0f} s {'ahead' if skew_s > 0 else 'behind'}",
            "let both machines take their time from NTP: timedatectl set-ntp true",
        )  # fmt: skip
    else:
        yield Finding("clock", "ok", "the same as the server's")


def port(url: str, answered: bool) -> Iterator[Finding]:
    """Tell who holds the port when it is on this machine and no datacat server answers there."""
    from datacat.host.ports import listener_of

    parts = urlsplit(url)
    number = parts.port or (443 if parts.scheme == "https" else 80)
    if answered or parts.hostname not in ("localhost", "127.0.0.1", "::1"):
        return
    owner = listener_of(number)
    if owner is None:
        yield Finding("port", "note", f"nobody listens on port {number}")
    else:
        who = f"{owner.name or 'a process'} (pid {owner.pid})" if owner.pid else "a process of another user"
        yield Finding(
            "port",
            "problem",
            f"port {number} is held by {who}",
            "stop it, or give the server another port in its settings",
        )


def data(folder: Path, user: str = "") -> Iterator[Finding]:
    """Tell whether the server's folder is there, is its own, can be read by this version, and has room.

    user: who has to own it, if that is known.
    """
    if not folder.exists():
        yield Finding("data", "note", f"{folder} is not there yet; the server makes it")
        return
    owner = _owner(folder)
    if user and owner and owner != user:
        yield Finding(
            "data", "problem", f"{folder} belongs to {owner}, the service runs as {user}", f"chown -R {user}: {folder}"
        )
    elif not os.access(folder, os.R_OK | os.X_OK):
        yield Finding(
            "data", "note", f"{folder} is {owner or 'another user'}'s; you may not look into it", "sudo datacat doctor"
        )
        return
    else:
        yield Finding("data", "ok", f"{folder}{f', of {owner}' if owner else ''}")
    marker = folder / "store" / version.FORMAT_FILE
    with contextlib.suppress(OSError):
        if trouble := version.trouble(marker.read_bytes()):
            yield Finding(
                "store format", "problem", f"{folder}/store {trouble}", "use the datacat that wrote it, or a later one"
            )
    yield from room("disk", folder)


def room(name: str, folder: Path) -> Iterator[Finding]:
    """Tell how much space is left where a folder is."""
    usage = shutil.disk_usage(folder)
    text = f"{usage.free / 1e9:.1f} GB of {usage.total / 1e9:.1f} GB free at {folder}"
    if usage.free < LEAST_FREE_BYTES:
        yield Finding(
            name, "problem", text, "free some; or keep sessions for fewer days: retention_days in the server's settings"
        )
    else:
        yield Finding(name, "ok", text)


def _owner(folder: Path) -> str:
    if sys.platform == "win32":
        return ""
    import pwd

    number = folder.stat().st_uid
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def unit(ask: Ask, *, user: bool) -> Iterator[Finding]:
    """Tell how the unit of systemd is, and what its last exit status meant."""
    control = ("systemctl", "--user") if user else ("systemctl",)
    name = "user service" if user else "service"
    flag = " --user" if user else ""
    shown = ask((*control, "show", UNIT, f"--property={_UNIT_PROPERTIES}"))
    state = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
    if not state:
        return
    if state.get("LoadState") == "not-found":
        if not user:
            yield Finding(
                name, "note", "not installed", "sudo datacat service install, or datacat service install --user"
            )
        return
    active, result = state.get("ActiveState", ""), state.get("Result", "")
    if active == "active":
        yield Finding(name, "ok", f"running: {state.get('StatusText') or state.get('SubState', '')}")
    elif active == "failed" and state.get("ExecMainStatus") == _EX_CONFIG:
        said = _last_words(ask, user=user)
        yield Finding(
            name, "problem", f"it needs you (exit status 78): {said or 'datacat service logs says why'}",
            f"change that, then: datacat service start{flag}",
        )  # fmt: skip
    elif active == "failed" or result not in ("", "success"):
        yield Finding(
            name,
            "problem",
            f"{active}: {result}, exit status {state.get('ExecMainStatus')}; {_last_words(ask, user=user)}",
            f"datacat service logs{flag}",
        )
    else:
        yield Finding(name, "problem", f"it does not run ({active or 'unknown'})", f"datacat service start{flag}")
    if state.get("UnitFileState") not in ("enabled", "enabled-runtime", ""):
        yield Finding(
            f"{name} at boot", "note", f"it does not start with the machine ({state['UnitFileState']})",
            f"systemctl{flag} enable {UNIT}",
        )  # fmt: skip
    if state.get("NRestarts", "0") not in ("0", ""):
        yield Finding(
            f"{name} restarts", "note", f"its manager has restarted it {state['NRestarts']} times by itself",
            f"datacat service logs{flag}; stacks of all threads stand there when the watchdog struck",
        )  # fmt: skip


def _last_words(ask: Ask, *, user: bool) -> str:
    of = "--user-unit" if user else "--unit"
    lines = ask(("journalctl", of, UNIT, "--lines=50", "--output=cat", "--no-pager")).splitlines()
    words = [line.partition("datacat-server: ")[2] for line in lines if line.startswith("datacat-server: ")]
    return next((line for line in reversed(words) if not line.startswith("serving on")), "")


def spool() -> Iterator[Finding]:
    """Tell what this user's apps have recorded that is not shipped yet."""
    try:
        folder = host.state_dir() / layout.SPOOL_DIR
    except HostError as error:
        yield Finding("spool", "problem", error.message, error.hint)
        return
    if not folder.is_dir():
        yield Finding("spool", "ok", "empty")
        return
    waiting = size = 0
    for session in folder.iterdir():
        if (session / layout.META_FILE).exists():
            waiting += not (session / layout.SUMMARY_FILE).exists()
            size += sum(_disk_bytes(path) for path in session.rglob("*") if path.is_file())
    text = f"{waiting} sessions not shipped whole yet, {size / 1e6:.1f} MB in {folder}"
    if size > MANY_SPOOLED_BYTES:
        yield Finding("spool", "problem", text, "let the server be reachable; daemons ship by themselves then")
    else:
        yield Finding("spool", "ok", text)


def _disk_bytes(path: Path) -> int:
    about = path.stat()
    # Segments are preallocated; a file system may know better what they take.
    return int(getattr(about, "st_blocks", 0)) * 512 or about.st_size


def data_folder(given: str, environ: Mapping[str, str], system_data: Path = SYSTEM_DATA) -> tuple[Path, str]:
    """Return the server's data folder and the user who has to own it (empty: not known). Raises: HostError."""
    if given:
        return Path(given), ""
    if system_data.exists() and not environ.get("STATE_DIRECTORY"):
        return system_data, "datacat"
    return host.data_dir(environ), ""


def ask(argv: tuple[str, ...]) -> str:
    """Run a program of the machine and return what it printed; an empty text when it cannot be run."""
    try:
        return subprocess.run(argv, capture_output=True, text=True, errors="replace", check=False, timeout=15).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def now_s() -> float:
    """Return Unix seconds, to compare with the server's Date."""
    return time.time()
