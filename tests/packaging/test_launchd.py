"""launchd: the property lists are what launchd.plist(5) allows, and the scripts install, upgrade, take back, remove.

The scripts run for real; what only macOS has (launchctl, dscl, chown to its accounts) is played by programs of the test,
and the fake launchctl starts what the property list says.
"""

import json
import os
import plistlib
import shutil
import signal
import stat
import subprocess
import sys
import urllib.request
from pathlib import Path

import psutil
import pytest

LAUNCHD = Path(__file__).parents[2] / "packaging" / "launchd"
SYSTEM = LAUNCHD / "org.datacat.server.plist"
AGENT = LAUNCHD / "org.datacat.server.agent.plist"
BIN = Path(sys.executable).parent

# launchd.plist(5): the keys that a job may have, and the type of each.
KEYS = {
    "AbandonProcessGroup": bool,
    "EnvironmentVariables": dict,
    "ExitTimeOut": int,
    "GroupName": str,
    "HardResourceLimits": dict,
    "KeepAlive": (bool, dict),
    "Label": str,
    "LimitLoadToSessionType": (str, list),
    "Nice": int,
    "ProcessType": str,
    "ProgramArguments": list,
    "RunAtLoad": bool,
    "SoftResourceLimits": dict,
    "StandardErrorPath": str,
    "StandardOutPath": str,
    "ThrottleInterval": int,
    "Umask": int,
    "UserName": str,
    "WorkingDirectory": str,
}
PROCESS_TYPES = {"Background", "Standard", "Adaptive", "Interactive"}
SESSION_TYPES = {"Aqua", "Background", "LoginWindow", "StandardIO", "System"}


def faults(job):
    """Return what launchd would not understand in a job."""
    found = [f"unknown key {key}" for key in job if key not in KEYS]
    for key, value in job.items():
        kind = KEYS.get(key, object)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            found.append(f"type of {key}")
    paths = [job["ProgramArguments"][0], *(job[key] for key in job if key.endswith(("Path", "Directory")))]
    found += [f"{path} is not a whole path" for path in paths if not path.startswith("/")]
    texts = [*job["ProgramArguments"], *job.get("EnvironmentVariables", {}).values()]
    found += [f"{text!r} is not a text" for text in texts if not isinstance(text, str)]
    if job.get("ProcessType", "Standard") not in PROCESS_TYPES:
        found.append("ProcessType")
    if not set(job.get("LimitLoadToSessionType", [])) <= SESSION_TYPES:
        found.append("LimitLoadToSessionType")
    return found


def filled(path):
    text = (
        path.read_text(encoding="utf-8").replace("@PROGRAM@", "/opt/bin/datacat-server").replace("@HOME@", "/Users/a")
    )
    return plistlib.loads(text.encode())


@pytest.mark.parametrize("path", [SYSTEM, AGENT], ids=lambda path: path.name)
def test_a_property_list_has_only_keys_that_launchd_knows_with_values_of_their_type(path):
    job = filled(path)
    assert faults(job) == []
    assert path.name == job["Label"] + ".plist"


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"Keepalive": True}, "unknown key Keepalive"),
        ({"ThrottleInterval": "10"}, "type of ThrottleInterval"),
        ({"ExitTimeOut": True}, "type of ExitTimeOut"),
        ({"ProgramArguments": ["datacat-server"]}, "datacat-server is not a whole path"),
        ({"EnvironmentVariables": {"PORT": 1}}, "1 is not a text"),
        ({"ProcessType": "Low"}, "ProcessType"),
    ],
)
def test_the_table_of_keys_finds_what_is_wrong(change, fault):
    assert faults({**filled(SYSTEM), **change}) == [fault]


@pytest.mark.parametrize("path", [SYSTEM, AGENT], ids=lambda path: path.name)
def test_plistutil_reads_the_property_lists(path, tmp_path):
    plistutil = shutil.which("plistutil") or pytest.skip("capability: no plistutil on this machine")
    done = subprocess.run([plistutil, "-i", path, "-o", tmp_path / "out"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert plistlib.loads((tmp_path / "out").read_bytes()) == plistlib.loads(path.read_bytes())


def test_the_server_is_kept_alive_runs_as_its_own_account_and_its_data_is_its_own():
    job = filled(SYSTEM)
    assert (job["UserName"], job["KeepAlive"], job["RunAtLoad"]) == ("_datacat", True, True)
    assert "--self-watchdog" in job["ProgramArguments"]  # launchd starts what ended, but does not see what hangs
    assert job["Umask"] == 0o077
    assert job["EnvironmentVariables"]["STATE_DIRECTORY"] == job["WorkingDirectory"]
    assert job["ExitTimeOut"] >= 10  # the server ends within 10 s of SIGTERM


@pytest.mark.parametrize("script", ["install.sh", "uninstall.sh", "common.sh"])
def test_the_scripts_are_plain_sh(script):
    assert subprocess.run(["sh", "-n", LAUNCHD / script], check=False).returncode == 0
    shellcheck = shutil.which("shellcheck") or pytest.skip("capability: no shellcheck on this machine")
    done = subprocess.run([shellcheck, "-x", script], cwd=LAUNCHD, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


LAUNCHCTL = r"""
import json, os, plistlib, signal, subprocess, sys
from pathlib import Path
import psutil

root, jobs = Path(os.environ["DATACAT_ROOT"] or "/nowhere"), Path(os.environ["FAKE_MAC"]) / "jobs"
jobs.mkdir(exist_ok=True)
verb, where = sys.argv[1:3]
job = jobs / where.replace("/", "_")
if verb == "print":
    sys.exit(0 if job.exists() else 113)
if verb == "bootstrap":
    plist = Path(sys.argv[3])
    text = plist.read_text().replace("<string>/Library/", f"<string>{root}/Library/")
    spec = plistlib.loads(text.replace("<string>/usr/local/", f"<string>{root}/usr/local/").encode())
    job = jobs / f"{where}/{spec['Label']}".replace("/", "_")
    if job.exists():
        sys.exit("Bootstrap failed: 5: Input/output error")
    os.umask(spec["Umask"])
    with open(spec["StandardErrorPath"], "ab") as log:
        process = subprocess.Popen(
            spec["ProgramArguments"], env={**spec["EnvironmentVariables"], "HOME": os.environ["HOME"]},
            cwd=spec["WorkingDirectory"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )
    job.write_text(json.dumps({"pid": process.pid, "started": psutil.Process(process.pid).create_time()}))
if verb == "bootout":
    known = json.loads(job.read_text())
    job.unlink()
    try:
        process = psutil.Process(known["pid"])
        process.send_signal(signal.SIGTERM)
        while process.status() != "zombie":
            try:
                process.wait(0.05)
                break
            except psutil.TimeoutExpired:
                pass
    except psutil.NoSuchProcess:
        pass
"""

PYTHON = r"""#!/bin/sh
# A Python whose environments hold the datacat-server of this checkout, or one that does not start.
[ "$1" = -m ] || exec "$FAKE_PYTHON" "$@"
mkdir -p "$3/bin"
printf '#!/bin/sh\necho "$0 $*" >>"$FAKE_MAC/pip"\nexit ${FAKE_PIP:-0}\n' >"$3/bin/python"
if [ "${FAKE_BROKEN:-}" ]; then
    printf '#!/bin/sh\necho "datacat-server: the disk is gone"\nexit 1\n' >"$3/bin/datacat-server"
else
    printf '#!/bin/sh\nexec %s/datacat-server "$@"\n' "$(dirname "$FAKE_PYTHON")" >"$3/bin/datacat-server"
fi
chmod +x "$3/bin/python" "$3/bin/datacat-server"
"""

# An account is a file; a number belongs to the account in whose file it stands.
DSCL = r"""#!/bin/sh
mkdir -p "$FAKE_MAC/accounts"
name=$FAKE_MAC/accounts/$(echo "$3" | tr / _)
case $2 in
-read) test -e "$name" ;;
-create) echo "$4 $5" >>"$name" ;;
-delete) rm "$name" ;;
-search) grep -lx "$4 $5" "$FAKE_MAC"/accounts/"$(echo "$3" | tr / _)"_* 2>/dev/null || test "$5" = 300 && echo taken || true ;;
esac
"""


class Mac:
    """A folder that plays the root of a Mac, with its commands in front of the real ones."""

    def __init__(self, folder):
        self.folder = folder
        self.root = folder / "root"
        self.home = folder / "home with & and |"
        commands = folder / "bin"
        for path in (self.root, self.home, commands):
            path.mkdir()
        self.env = {
            "PATH": f"{commands}:/usr/bin:/bin",
            "HOME": str(self.home),
            "DATACAT_ROOT": str(self.root),
            "DATACAT_POLL_S": "0.1",
            "FAKE_MAC": str(folder),
            "FAKE_PYTHON": sys.executable,
        }
        scripts = {
            "uname": "#!/bin/sh\necho Darwin\n",
            "id": "#!/bin/sh\necho ${FAKE_UID:-0}\n",
            "chown": '#!/bin/sh\necho "$*" >>"$FAKE_MAC/chown"\n',
            "dscl": DSCL,
            "launchctl": f"#!{sys.executable}\n{LAUNCHCTL}",
            "fakepython": PYTHON,
        }
        for name, text in scripts.items():
            (commands / name).write_text(text)
            (commands / name).chmod(0o755)
        self.data = self.root / "Library/Application Support/datacat"
        self.versions = self.root / "usr/local/lib/datacat"

    def run(self, script, *args, **env):
        return subprocess.run(
            ["sh", LAUNCHD / script, *map(str, args)],
            env={**self.env, **env}, capture_output=True, text=True, check=False, timeout=50,
        )  # fmt: skip

    def install(self, *args, **env):
        self.data.mkdir(parents=True, exist_ok=True)
        settings = self.data / "server.toml"
        if not settings.exists():
            settings.write_text("port = 0\n")
        return self.run("install.sh", "--python", "fakepython", *args, **env)

    def jobs(self):
        return {path.name: json.loads(path.read_text()) for path in (self.folder / "jobs").glob("*")}

    def answer(self, port_file):
        url = f"http://127.0.0.1:{int(port_file.read_text())}/readyz"
        with urllib.request.urlopen(url, timeout=10) as response:
            return response.read()

    def close(self):
        for job in self.jobs().values():
            try:
                process = psutil.Process(job["pid"])
                if process.create_time() == job["started"]:
                    process.send_signal(signal.SIGKILL)
            except psutil.NoSuchProcess:
                continue


@pytest.fixture
def mac(tmp_path):
    mac = Mac(tmp_path)
    yield mac
    mac.close()


def test_install_makes_account_and_folders_and_the_server_serves(mac):
    done = mac.install()
    assert done.returncode == 0, done.stdout + done.stderr
    assert mac.answer(mac.data / "server" / "port") == b"ok\n"
    assert list(mac.jobs()) == ["system_org.datacat.server"]
    assert (mac.folder / "accounts" / "_Users__datacat").read_text().split("\n")[1] == "UniqueID 301"  # 300 is taken
    assert stat.S_IMODE((mac.data / "server").stat().st_mode) == 0o700
    owners = (mac.folder / "chown").read_text()
    assert f"_datacat:_datacat {mac.data}/server" in owners
    assert f"root:wheel {mac.data}\n" in owners
    assert (mac.data / "server.toml").read_text() == "port = 0\n"  # settings that were there stay
    assert f"{LAUNCHD}/../..[server]" in (mac.folder / "pip").read_text()


def test_install_again_upgrades_and_keeps_one_version_for_a_way_back(mac):
    versions = []
    for _ in range(3):
        assert mac.install().returncode == 0
        versions.append(os.readlink(mac.versions / "current"))
    assert len(set(versions)) == 3
    assert sorted(path.name for path in mac.versions.iterdir()) == sorted([*versions[1:], "current"])
    assert len(mac.jobs()) == 1
    assert mac.answer(mac.data / "server" / "port") == b"ok\n"


def test_a_version_that_does_not_come_up_is_taken_back_and_its_last_words_are_shown(mac):
    assert mac.install().returncode == 0
    before = os.readlink(mac.versions / "current")
    done = mac.install(FAKE_BROKEN="1", DATACAT_POLL_S="0.05")
    assert done.returncode == 1
    assert "the disk is gone" in done.stderr
    assert "the old one runs again" in done.stderr
    assert os.readlink(mac.versions / "current") == before
    assert mac.answer(mac.data / "server" / "port") == b"ok\n"


def test_when_pip_fails_what_runs_is_not_touched(mac):
    assert mac.install().returncode == 0
    jobs = mac.jobs()
    done = mac.install(FAKE_PIP="1")
    assert done.returncode == 1
    assert "what runs now was not touched" in done.stderr
    assert mac.jobs() == jobs
    assert len(list(mac.versions.iterdir())) == 2  # the one version, and current


def test_uninstall_keeps_the_sessions_and_purge_leaves_nothing(mac):
    assert mac.install().returncode == 0
    done = mac.run("uninstall.sh")
    assert done.returncode == 0, done.stderr
    assert mac.jobs() == {}
    assert (mac.data / "server" / "store").exists()
    assert not mac.versions.exists()
    assert "--purge removes them" in done.stdout
    assert mac.run("uninstall.sh", "--purge").returncode == 0
    assert [path for path in mac.root.rglob("*") if "datacat" in path.name] == []
    assert list((mac.folder / "accounts").iterdir()) == []


def test_an_agent_of_a_user_needs_no_root_and_stands_any_name_of_a_home(mac):
    settings = {"DATACAT_PORT": "0", "DATACAT_ROOT": "", "FAKE_UID": "501"}
    program = mac.folder / "datacat-server"
    program.write_text(f'#!/bin/sh\nexec {BIN}/datacat-server --port 0 "$@"\n')
    program.chmod(0o755)
    done = mac.run("install.sh", "--user", "--program", program, **settings)
    assert done.returncode == 0, done.stdout + done.stderr
    own = mac.home / "Library/Application Support/datacat/server"
    assert mac.answer(own / "port") == b"ok\n"
    job = plistlib.loads((mac.home / "Library/LaunchAgents/org.datacat.server.agent.plist").read_bytes())
    assert faults(job) == []
    assert job["EnvironmentVariables"]["STATE_DIRECTORY"] == str(own)
    assert list(mac.jobs()) == ["gui_501_org.datacat.server.agent"]
    journals = own.parent / "spool"
    journals.mkdir()
    assert mac.run("uninstall.sh", "--user", "--purge", **settings).returncode == 0
    assert mac.jobs() == {}
    assert (own.exists(), journals.exists()) == (False, True)


def test_a_dry_run_shows_what_would_be_done_and_does_nothing(mac):
    done = mac.run("install.sh", "--python", "fakepython", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "+ launchctl bootstrap system" in done.stdout
    assert list(mac.root.rglob("*")) == []
    assert not (mac.folder / "accounts").exists() or list((mac.folder / "accounts").iterdir()) == []


@pytest.mark.parametrize(
    ("script", "args", "env", "word"),
    [
        ("install.sh", (), {"FAKE_UID": "501"}, "needs root"),
        ("uninstall.sh", (), {"FAKE_UID": "501"}, "needs root"),
        ("install.sh", ("--user", "--program", "bin/datacat-server"), {"FAKE_UID": "501"}, "whole path"),
        ("install.sh", ("--user", "--program", "/nowhere/datacat-server"), {"FAKE_UID": "501"}, "there is no program"),
        ("install.sh", ("--user", "--program", "/bin/sh"), {"DATACAT_ROOT": ""}, "without sudo"),
        ("install.sh", ("--python", "false"), {}, "is not Python 3.11"),
    ],
)
def test_what_cannot_work_is_refused_with_words(mac, script, args, env, word):
    done = mac.run(script, *args, **env)
    assert done.returncode == 1
    assert word in done.stderr
    assert list(mac.root.rglob("*")) == []


def test_elsewhere_than_on_macos_the_scripts_name_the_command_to_use():
    for script, verb in (("install.sh", "install"), ("uninstall.sh", "uninstall")):
        done = subprocess.run(["sh", LAUNCHD / script], capture_output=True, text=True, check=False)
        if sys.platform == "darwin":
            pytest.skip("capability: this is macOS")
        assert done.returncode == 1
        assert f"datacat service {verb}" in done.stderr
