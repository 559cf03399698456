"""What it takes to install, run and look at the service with each platform's manager: lists of steps. Pure."""

import re
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

from datacat.errors import HostError

Action: TypeAlias = Literal["install", "uninstall", "start", "stop", "restart", "status", "logs"]

UNIT = "datacat-server"
CONFIG_FILE = "/etc/datacat/server.toml"
_CONFIG = """\
# Settings of datacat-server, one `name = value` a line; `datacat-server --help` lists them all. After a change:
# systemctl reload datacat-server
#port = 8080
#retention_days = 30
"""
_HOMES = ("/home/", "/root/", "/run/user/")
"""What ProtectHome= of the unit hides (systemd.exec(5)); no folders of one machine."""


class Run(NamedTuple):
    """Run a program; the exit code of the last is the command's. needed: what follows makes no sense when it fails."""

    argv: tuple[str, ...]
    needed: bool = True

    def __str__(self) -> str:
        return " ".join(f"'{word}'" if re.search(r"[^\w@%+=:,./\\-]", word) else word for word in self.argv)


class Write(NamedTuple):
    """Write a file, and the folders above it; keep: not when it is there."""

    path: Path
    text: str
    keep: bool = False

    def __str__(self) -> str:
        return f"write {self.path}" + (" unless it is there" if self.keep else "")


class Remove(NamedTuple):
    """Remove a file, if it is there."""

    path: Path

    def __str__(self) -> str:
        return f"remove {self.path}"


class Say(NamedTuple):
    """Tell the user something."""

    text: str

    def __str__(self) -> str:
        return self.text


Step: TypeAlias = Run | Write | Remove | Say


class Facts(NamedTuple):
    """What a plan depends on. platform is sys.platform; root is / but in tests.

    program is the datacat-server that the service runs, python its interpreter; files holds the unit files and scripts;
    user: a service of this user instead of the machine.
    """

    platform: str
    user: bool
    program: Path
    python: Path
    files: Path
    home: Path
    uid: int
    version: str
    root: Path = Path("/")


class Tail(NamedTuple):
    """What of the log is wanted."""

    lines: int = 100
    follow: bool = False


def plan(action: Action, facts: Facts, tail: Tail | None = None) -> list[Step]:
    """Return the steps. Raises: HostError when the action cannot work on this machine."""
    if facts.platform == "win32":
        return _windows(action, facts, tail or Tail())
    if facts.platform == "darwin":
        return _launchd(action, facts, tail or Tail())
    if facts.platform.startswith("linux"):
        return _systemd(action, facts, tail or Tail())
    raise HostError(
        f"there is no way to make services on {facts.platform}",
        hint="let its own manager run datacat-server",
        permanent=True,
    )


def packaged_unit(facts: Facts) -> Path | None:
    """Return the unit file that a package of the distribution has installed; None when there is none."""
    sub = "user" if facts.user else "system"
    folders = (facts.root / "usr/lib/systemd" / sub, facts.root / "lib/systemd" / sub)
    return next((folder / f"{UNIT}.service" for folder in folders if (folder / f"{UNIT}.service").exists()), None)


def _systemd(action: Action, facts: Facts, tail: Tail) -> list[Step]:
    control = ("systemctl", "--user") if facts.user else ("systemctl",)
    if action == "install":
        return [
            *([] if packaged_unit(facts) else _unit_files(facts)),
            Run((*control, "daemon-reload")),
            Run((*control, "enable", "--now", UNIT)),
            Run((*control, "--no-pager", "--lines=5", "status", UNIT)),
            *([Say("To let it run while you are not logged in: loginctl enable-linger")] if facts.user else []),
        ]
    if action == "uninstall":
        data = "~/.local/share/datacat/server" if facts.user else "/var/lib/datacat"
        return [
            Run((*control, "disable", "--now", UNIT), needed=False),
            *(Remove(path) for path in _own_unit_files(facts)),
            Run((*control, "daemon-reload")),
            *(
                [Say(f"The unit belongs to a package, which stays: {packaged_unit(facts)}")]
                if packaged_unit(facts)
                else []
            ),
            Say(f"Sessions and settings stay: {data}{'' if facts.user else ', /etc/datacat'}"),
        ]
    if action == "logs":
        of = "--user-unit" if facts.user else "--unit"
        follow = ["--follow"] if tail.follow else ["--no-pager"]
        return [Run(("journalctl", of, UNIT, f"--lines={tail.lines}", *follow))]
    if action == "status":
        return [Run((*control, "--no-pager", "status", UNIT))]
    return [Run((*control, action, UNIT))]


def _own_unit_files(facts: Facts) -> list[Path]:
    if facts.user:
        return [facts.home / ".config/systemd/user" / f"{UNIT}.service"]
    return [facts.root / "etc/systemd/system" / f"{UNIT}.service", facts.root / "etc/sysusers.d/datacat.conf"]


def _unit_files(facts: Facts) -> list[Step]:
    """Return the steps that put the unit where an administrator's own belong; the program in it is ours."""
    unit, *others = _own_unit_files(facts)
    if facts.user:
        return [Write(unit, _unit(facts.files / "systemd/user" / f"{UNIT}.service", facts.program))]
    for path in (facts.program, facts.python):
        if str(path).startswith(_HOMES):
            raise HostError(
                f"a service of the machine cannot run {path}: it may not look into home folders",
                hint="install datacat outside of them, for example in /opt/datacat, or use --user",
                permanent=True,
            )
    return [
        Write(others[0], (facts.files / "systemd/datacat.sysusers").read_text(encoding="utf-8")),
        Run(("systemd-sysusers", str(others[0]))),
        Write(facts.root / CONFIG_FILE[1:], _CONFIG, keep=True),
        Write(unit, _unit(facts.files / "systemd" / f"{UNIT}.service", facts.program)),
    ]


def _unit(source: Path, program: Path) -> str:
    """Return a unit file that runs program (systemd.service(5): % is doubled, spaces need quotes)."""
    word = str(program).replace("%", "%%")
    word = f'"{word}"' if re.search(r"\s", word) else word
    text = source.read_text(encoding="utf-8")
    return re.sub(r"^ExecStart=\S+", lambda _: f"ExecStart={word}", text, count=1, flags=re.MULTILINE)


def _launchd(action: Action, facts: Facts, tail: Tail) -> list[Step]:
    label = "org.datacat.server.agent" if facts.user else "org.datacat.server"
    domain = f"gui/{facts.uid}" if facts.user else "system"
    plist = (facts.home if facts.user else facts.root) / "Library" / ("LaunchAgents" if facts.user else "LaunchDaemons")
    logs = (facts.home if facts.user else facts.root) / "Library/Logs/datacat"
    scripts = facts.files / "launchd"
    if action == "install":
        how = (
            ("--user", "--program", str(facts.program))
            if facts.user
            else ("--from", f"datacat[server]=={facts.version}", "--python", str(facts.python))
        )
        return [Run(("sh", str(scripts / "install.sh"), *how))]
    if action == "uninstall":
        return [Run(("sh", str(scripts / "uninstall.sh"), *(["--user"] if facts.user else [])))]
    if action == "start":
        return [Run(("launchctl", "bootstrap", domain, str(plist / f"{label}.plist")))]
    if action == "stop":
        # KeepAlive would start it again after anything less.
        return [Run(("launchctl", "bootout", f"{domain}/{label}"))]
    if action == "restart":
        return [Run(("launchctl", "kickstart", "-k", f"{domain}/{label}"))]
    if action == "status":
        return [Run(("launchctl", "print", f"{domain}/{label}"))]
    files = (str(logs / "server.log"), str(logs / "stderr.log"))
    return [Run(("tail", "-n", str(tail.lines), *(["-F"] if tail.follow else []), *files))]


def _windows(action: Action, facts: Facts, tail: Tail) -> list[Step]:
    if facts.user:
        raise HostError("Windows has no services of single users", hint="leave --user away", permanent=True)
    shell = ("powershell.exe", "-NoProfile", "-ExecutionPolicy", "Bypass")
    scripts = facts.files / "windows"
    if action == "install":
        # The script adds the extras that a service needs.
        return [Run((*shell, "-File", str(scripts / "install.ps1"), "-From", "datacat", "-Python", str(facts.python)))]
    if action == "uninstall":
        return [Run((*shell, "-File", str(scripts / "uninstall.ps1")))]
    if action == "logs":
        path = "$env:ProgramData\\datacat\\Logs\\server.log"
        wait = " -Wait" if tail.follow else ""
        return [Run((*shell, "-Command", f"Get-Content -LiteralPath {path} -Tail {tail.lines}{wait}"))]
    if action == "status":
        return [Run(("sc.exe", "queryex", UNIT))]
    words = {"start": "Start-Service", "stop": "Stop-Service", "restart": "Restart-Service"}
    return [Run((*shell, "-Command", f"{words[action]} {UNIT}"))]
