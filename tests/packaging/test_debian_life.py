"""The package's life on a booted Debian: installed, used, upgraded, removed, purged."""

import json
import re
import shutil
import time

import pytest
from booting import USER, Load, say
from helpers import eventually

pytestmark = pytest.mark.timeout(240)

ELSEWHERE = [
    *("proc", "sys", "run", "tmp", "srv", "dev", "root"),
    *("var/cache", "var/log", "var/lib/apt", "var/lib/dpkg", "var/lib/systemd", "var/tmp"),
]


OPEN_APP = """
import threading
import datacat
session = datacat.create_session(product="open", version="1")
session.log_event("before_reboot")
threading.Event().wait(600)
"""


def tree(root):
    """Return every file with mode, owner and size, but what the system itself writes all the time."""
    found = {}
    for path in root.rglob("*"):
        name = str(path.relative_to(root))
        if any(name == top or name.startswith(f"{top}/") for top in ELSEWHERE) or name.startswith("etc/.pwd"):
            continue
        if re.fullmatch(r"etc/(passwd|group|shadow|gshadow|subuid|subgid)-?|etc/ld.so.cache", name):
            continue  # the user stays
        info = path.lstat()
        found[name] = (oct(info.st_mode), info.st_uid, info.st_gid, info.st_size if path.is_file() else 0)
    return found


def record(machine, product="notes"):
    """Record a program as a user who is not root."""
    command = ["datacat", "run", "--product", product, "--", "sh", "-c", "echo hello; exit 3"]
    done = machine.run(*command, user=USER, check=False)
    assert (done.returncode, done.stdout) == (3, "hello\n"), done.stderr
    return eventually(
        lambda: [head for head in machine.get(f"/api/sessions?product={product}")["sessions"] if not head["active"]], 30
    )


def test_one_command_installs_enables_and_starts_a_service_that_records_another_users_program(bare):
    started = time.monotonic()
    bare.apt("install", "/srv/datacat.deb")
    say(f"installed and started in {time.monotonic() - started:.1f} s")
    assert bare.run("systemctl", "is-enabled", "datacat-server").stdout == "enabled\n"
    assert bare.run("systemctl", "is-active", "datacat-server").stdout == "active\n"
    assert bare.ask("/livez")[0] == 200
    assert bare.show("User") == "datacat"
    ended = record(bare)
    assert (ended[0]["status"], ended[0]["exit_code"]) == ("crashed", 3)
    assert bare.run("systemctl", "status", "datacat-server").returncode == 0
    assert bare.run("systemctl", "--failed", "--no-legend").stdout == ""


def test_the_demo_runs_as_any_user(machine):
    shown = machine.run("datacat", "demo", user=USER, timeout_s=120)
    assert "crashed" in shown.stdout
    assert "hung" in shown.stdout


def test_policy_rc_d_keeps_the_service_from_starting(bare):
    bare.write("/usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n")
    (bare.root / "usr/sbin/policy-rc.d").chmod(0o755)
    bare.apt("install", "/srv/datacat.deb")
    assert bare.run("systemctl", "is-active", "datacat-server", check=False).stdout == "inactive\n"
    assert bare.run("systemctl", "is-enabled", "datacat-server").stdout == "enabled\n"


def test_removing_keeps_the_data_and_purging_leaves_nothing_behind(bare):
    before = tree(bare.root)
    bare.apt("install", "/srv/datacat.deb")
    session = record(bare)[0]["id"]
    with (bare.root / "etc/datacat/server.toml").open("a") as file:
        file.write("retention_days = 7\n")
    bare.apt("remove", "datacat")
    assert bare.ask() is None
    assert not (bare.root / "usr/lib/datacat").exists()
    assert (bare.root / "etc/datacat/server.toml").read_text().endswith("retention_days = 7\n")
    bare.apt("install", "/srv/datacat.deb")
    eventually(bare.ask)
    assert bare.get(f"/api/sessions/{session}")["id"] == session
    bare.apt("purge", "datacat")
    # What the recorded user's own programs wrote is his.
    after = {name: entry for name, entry in tree(bare.root).items() if not name.startswith(f"home/{USER}/")}
    before = {name: entry for name, entry in before.items() if not name.startswith(f"home/{USER}/")}
    assert after == before
    assert bare.run("systemctl", "list-unit-files", "datacat*", "--no-legend", check=False).stdout == ""
    assert bare.show("LoadState") == "not-found"


def test_an_upgrade_under_load_fails_no_request_and_keeps_data_and_configuration(machine, newer_deb):
    session = record(machine)[0]["id"]
    with (machine.root / "etc/datacat/server.toml").open("a") as file:
        file.write("retention_days = 7\n")
    shutil.copy(newer_deb, machine.root / "srv/newer.deb")
    before = machine.show("MainPID")
    with Load(machine) as kept, Load(machine, fresh=True) as fresh:
        started = time.monotonic()
        machine.apt("install", "/srv/newer.deb")
        took_s = time.monotonic() - started
        kept.more()
        fresh.more()
    worst_s = max(kept.worst_s, fresh.worst_s)
    say(f"upgrade {took_s:.1f} s, {kept.answered + fresh.answered} answered, worst {worst_s:.2f} s")
    assert machine.show("MainPID") != before
    assert kept.failures + fresh.failures == []
    assert worst_s < 3
    assert machine.get(f"/api/sessions/{session}")["id"] == session
    assert (machine.root / "etc/datacat/server.toml").read_text().endswith("retention_days = 7\n")


def test_a_reboot_keeps_sessions_and_ships_what_was_under_way(machine):
    session = record(machine)[0]["id"]
    machine.write("/srv/app.py", OPEN_APP)
    machine.run("sh", "-c", "PYTHONPATH=/usr/lib/datacat setsid python3 /srv/app.py >/tmp/out 2>&1 &", user=USER)
    eventually(lambda: machine.get("/api/sessions?product=open")["sessions"], 30)
    machine.reboot()
    eventually(machine.ask, 20)
    assert machine.get(f"/api/sessions/{session}")["id"] == session
    record(machine, "after")  # the next program of that user
    ended = eventually(
        lambda: [head for head in machine.get("/api/sessions?product=open")["sessions"] if not head["active"]], 60
    )
    whole = machine.get(f"/api/sessions/{ended[0]['id']}?events=all")
    assert "before_reboot" in json.dumps(whole["events"])
