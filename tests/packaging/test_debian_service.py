"""The service on a booted Debian: hangs, faults, restarts under load, its sandbox, its sealed variant, the user's own."""

import itertools
import json
import re
import time

import pytest
from booting import USER, Load, restart_times, say
from helpers import eventually

pytestmark = pytest.mark.timeout(240)

TICKER = """
import os, sys, threading
import datacat
session = datacat.create_session(product="ticker", version="1")
n = 0
while not os.path.exists("/tmp/enough"):
    session.log_event("tick", data={"n": n})
    n += 1
    threading.Event().wait(0.02)
session.update_state({"ticks": n})
session.end()
"""
RECORDERS = 8


def start_recorders(machine):
    """Start programs of another user, each with a daemon that ships all the time."""
    machine.write("/srv/ticker.py", TICKER)
    line = "for i in $(seq 8); do PYTHONPATH=/usr/lib/datacat setsid python3 /srv/ticker.py >/tmp/out.$i 2>&1 & done"
    machine.run("sh", "-c", line, user=USER, DATACAT_BATCH_INTERVAL_SECONDS="0.2")
    eventually(lambda: len(machine.get("/api/sessions?product=ticker")["sessions"]) == RECORDERS, 60)


def lost_ticks(machine):
    """Let the programs end; return how many of their records are not on the server, and how many are."""
    machine.run("touch", "/tmp/enough")
    ended = eventually(
        lambda: (
            (heads := machine.get("/api/sessions?product=ticker")["sessions"])
            and not any(head["active"] for head in heads)
            and heads
        ),
        60,
        0.2,
    )
    lost = seen = 0
    for head in ended:
        whole = machine.get(f"/api/sessions/{head['id']}?events=all")
        numbers = [event["data"]["n"] for event in whole["events"] if event["name"] == "tick"]
        assert len(numbers) == len(set(numbers)), "a record was stored twice"
        seen += len(numbers)
        lost += whole["state"]["ticks"] - len(numbers)
    return lost, seen


def kill(machine, name):
    machine.run("sh", "-c", f"kill -{name} {machine.show('MainPID')}")


def test_restarts_and_a_watchdog_kill_under_load_lose_no_record_and_restarts_fail_no_request(machine):
    machine.drop_in("[Service]\nWatchdogSec=5s\n")
    machine.run("systemctl", "restart", "datacat-server")
    start_recorders(machine)
    with Load(machine) as kept, Load(machine, fresh=True) as fresh:
        for _ in range(3):
            machine.run("systemctl", "restart", "datacat-server")
            kept.more(20)
            fresh.more(20)
    say(f"{kept.answered + fresh.answered} answered, worst {max(kept.worst_s, fresh.worst_s):.2f} s")
    assert kept.failures + fresh.failures == []
    with Load(machine, readers=2, fresh=True) as load:
        before = machine.show("MainPID")
        started = time.monotonic()
        kill(machine, "STOP")
        eventually(lambda: machine.show("MainPID") not in {before, "0"} and machine.show("ActiveState") == "active", 30)
        took_s = time.monotonic() - started
        load.more(20)
    say(f"stopped by SIGSTOP, serving again after {took_s:.1f} s; failed in flight {len(load.failures)}")
    assert took_s < 5 + 5
    assert len(load.failures) <= 2
    assert "most recent call first" in machine.journal()
    kill(machine, "KILL")
    eventually(machine.ask, 20)
    lost, seen = lost_ticks(machine)
    say(f"{seen} records")
    assert lost == 0
    assert seen > 8 * 50


def ended(machine, product):
    return machine.get(f"/api/sessions?product={product}&status=ended")["sessions"]


@pytest.mark.parametrize("part", ["store", "pool"])
def test_a_store_that_blocks_and_a_pool_that_hangs_are_killed_and_what_was_acknowledged_is_there(machine, part):
    machine.drop_in(
        "[Service]\nWatchdogSec=5s\n"
        f"Environment=DATACAT_FAULT={part}:/var/lib/datacat/fault\n"
        "ExecStopPost=/bin/rm -f /var/lib/datacat/fault\n"
    )
    machine.run("systemctl", "restart", "datacat-server")
    machine.run("datacat", "run", "--product", "kept", "--", "true", user=USER)
    eventually(lambda: ended(machine, "kept"), 30)
    before = machine.show("MainPID")
    started = time.monotonic()
    machine.run("install", "-m", "644", "/dev/null", "/var/lib/datacat/fault")
    machine.run("sh", "-c", "datacat run --product late -- true >/dev/null 2>&1 &", user=USER)
    eventually(lambda: machine.show("MainPID") not in {before, "0"} and machine.show("ActiveState") == "active", 30)
    took_s = time.monotonic() - started
    say(f"{part} blocked, serving again after {took_s:.1f} s")
    # The blocked store has to keep a write waiting before anything is wrong: that write is on its way meanwhile.
    assert took_s < 5 + 5 + 2
    assert "most recent call first" in machine.journal()
    assert ended(machine, "kept")
    # Its daemon left when the server did not answer: the next one on this machine ships what is in the spool.
    machine.run("datacat", "run", "--", "true", user=USER)
    eventually(lambda: ended(machine, "late"), 60)


def test_a_server_that_dies_after_each_start_is_started_less_and_less_often(machine):
    machine.drop_in("[Service]\nExecStartPost=/bin/sh -c 'kill -KILL $MAINPID'\n")
    machine.run("systemctl", "restart", "datacat-server", check=False)
    times = eventually(lambda: len(found := restart_times(machine)) >= 5 and found, 60, 0.5)
    pauses = [after - before for before, after in itertools.pairwise(times)]
    say(f"systemd {machine.run('systemctl', '--version').stdout.split()[1]}, pauses of a crash loop: {pauses}")
    assert pauses[-1] > 2 * pauses[0]
    assert "starts in a row have failed" in machine.journal()


def test_stop_closes_the_port_at_once_and_start_opens_it(machine):
    started = time.monotonic()
    machine.run("systemctl", "stop", "datacat-server")
    assert time.monotonic() - started < 10
    assert machine.ask() is None
    assert machine.show("Result") == "success"
    machine.run("systemctl", "start", "datacat-server")
    assert machine.ask()[0] == 200


def test_reload_takes_the_settings_that_can_change_without_a_new_process(machine):
    before = machine.show("MainPID")
    with (machine.root / "etc/datacat/server.toml").open("a") as file:
        file.write('retention_days = 7\nlog_level = "debug"\n')
    machine.run("systemctl", "reload", "datacat-server")
    eventually(lambda: "retention_days" in machine.journal(), 10)
    assert machine.show("MainPID") == before
    assert machine.ask()[0] == 200


def break_config(machine):
    machine.write("/etc/datacat/server.toml", "prot = 8080\n")


def take_port(machine):
    code = "import socket,threading; s=socket.create_server(('127.0.0.1', 8080)); threading.Event().wait()"
    machine.run("sh", "-c", f'setsid python3 -c "{code}" >/dev/null 2>&1 & echo $! >/tmp/holder')
    eventually(lambda: "1F90" in (machine.run("cat", "/proc/net/tcp").stdout))


def change_owner(machine):
    machine.run("chown", "-R", "root:root", "/var/lib/datacat/store")  # somebody ran the server as root


def leave_sandbox(machine):
    machine.run("install", "-d", "-o", "datacat", "/srv/other")
    machine.write("/etc/datacat/server.toml", 'data_dir = "/srv/other"\n')


def fill_disk(machine):
    machine.run("mount", "-t", "tmpfs", "-o", "size=4k,mode=777", "tmpfs", "/var/lib/datacat")


def make_read_only(machine):
    machine.drop_in("[Service]\nReadOnlyPaths=/var/lib/datacat\n", "ro")


FAULTS = {
    "a broken configuration": (break_config, "prot"),
    "a port that is taken": (take_port, "8080"),
    "a store of somebody else": (change_owner, "/var/lib/datacat"),
    "a data folder outside of the sandbox": (leave_sandbox, "/srv/other"),
    "a full disk": (fill_disk, "/var/lib/datacat"),
    "a data folder that is read-only": (make_read_only, "/var/lib/datacat"),
}


def test_what_cannot_work_ends_with_one_line_and_78_and_is_not_tried_again(machine):
    """All on one machine: each fault is set up and taken back, and the service must be well again after it."""
    config = (machine.root / "etc/datacat/server.toml").read_text()
    for fault, (cause, word) in FAULTS.items():
        machine.run("systemctl", "stop", "datacat-server")
        cause(machine)
        machine.run("journalctl", "--rotate")
        machine.run("journalctl", "--vacuum-time=1s", check=False)
        since = machine.run("date", "+%s.%N").stdout.strip()
        machine.run("systemctl", "start", "datacat-server", check=False)
        state = eventually(
            lambda: (
                (found := machine.show("ActiveState", "ExecMainStatus", "NRestarts"))
                and found["ActiveState"] == "failed"
                and found
            ),
            20,
        )
        said = machine.run("journalctl", "-u", "datacat-server", f"--since=@{since}", "-o", "json", "--no-pager").stdout
        lines = [entry["MESSAGE"] for entry in map(json.loads, said.splitlines()) if entry.get("_COMM") != "systemd"]
        say(f"{fault}: {lines}")
        assert state["ExecMainStatus"] == "78", (fault, state, said)
        assert state["NRestarts"] == "0", fault
        assert len(lines) == 1, (fault, lines)
        assert word in lines[0], fault
        advice = machine.run("datacat", "doctor", check=False)
        say(advice.stdout)
        assert advice.returncode != 0, fault
        assert word in advice.stdout, (fault, advice.stdout)
        machine.write("/etc/datacat/server.toml", config)
        machine.run("sh", "-c", "rm -f /etc/systemd/system/datacat-server.service.d/*; systemctl daemon-reload")
        machine.run("sh", "-c", "[ ! -e /tmp/holder ] || kill -9 $(cat /tmp/holder); rm -f /tmp/holder")
        machine.run("umount", "/var/lib/datacat", check=False)
        machine.run("chown", "-R", "datacat:datacat", "/var/lib/datacat")
        machine.run("systemctl", "start", "datacat-server")
        assert eventually(machine.ask)[0] == 200, fault


def score(machine):
    told = machine.run("systemd-analyze", "security", "datacat-server", "--no-pager").stdout
    return float(re.search(r"Overall exposure level for datacat-server.service: ([0-9.]+)", told)[1])


def test_the_sandbox_is_as_tight_as_the_best_and_the_files_are_the_services_own(machine):
    assert score(machine) <= 1.1
    for name in ("datacat-server.service", "/usr/lib/systemd/user/datacat-server.service"):
        told = machine.run("systemd-analyze", "verify", "--man=no", name, check=False)
        # systemd 252 does not know how to back off, says so and goes on; 254 and later do.
        odd = [line for line in told.stderr.splitlines() if "Unknown key 'Restart" not in line]
        assert odd == []
    state = machine.run("stat", "-c", "%U %a", "/var/lib/datacat").stdout.strip()
    assert state == "datacat 700"
    assert machine.run("sh", "-c", "find /var/lib/datacat -perm /077 | head -3").stdout == ""


def test_the_sealed_variant_serves_without_any_network_and_restarts_without_a_failure(machine):
    """As the README of the variant tells it."""
    readme = (machine.root / "usr/share/doc/datacat/examples/sealed/README").read_text()
    setup, _, back = (
        part.split("\n\n")[1] for part in re.split(r"Set it up, as root:|Stop it .*:|Go back:", readme)[1:]
    )
    machine.run("sh", "-e", "-c", setup)
    assert score(machine) <= 0.3
    assert machine.ask()[0] == 200
    machine.run("datacat", "run", "--product", "sealed", "--", "sh", "-c", "exit 3", user=USER, check=False)
    eventually(
        lambda: [head for head in machine.get("/api/sessions?product=sealed")["sessions"] if not head["active"]], 30
    )
    links = machine.run("nsenter", "-t", machine.show("MainPID"), "-n", "cat", "/proc/net/dev").stdout
    assert [line.split(":")[0].strip() for line in links.splitlines()[2:]] == ["lo"]
    with Load(machine) as kept, Load(machine, fresh=True) as fresh:
        for _ in range(2):
            machine.run("systemctl", "restart", "datacat-server")
            kept.more(20)
            fresh.more(20)
    assert kept.failures + fresh.failures == []
    machine.drop_in("[Service]\nWatchdogSec=5s\n")
    machine.run("systemctl", "restart", "datacat-server")
    before = machine.show("MainPID")
    kill(machine, "STOP")
    eventually(lambda: machine.show("MainPID") not in {before, "0"} and machine.show("ActiveState") == "active", 10)
    machine.run("systemctl", "stop", "datacat-server.socket", "datacat-server.service")
    assert machine.ask() is None
    machine.run("sh", "-e", "-c", back)
    assert eventually(machine.ask)[0] == 200
    assert score(machine) > 0.3


def test_backups_come_into_a_folder_that_the_unit_opens_and_are_restored(machine):
    machine.run("datacat", "run", "--product", "kept", "--", "sh", "-c", "exit 0", user=USER)
    eventually(lambda: machine.get("/api/sessions?product=kept")["sessions"], 30)
    machine.run("install", "-d", "-o", "datacat", "-m", "700", "/srv/backups")
    machine.drop_in("[Service]\nEnvironment=DATACAT_BACKUP_DIR=/srv/backups\nReadWritePaths=/srv/backups\n")
    machine.run("systemctl", "restart", "datacat-server")
    made = eventually(lambda: list((machine.root / "srv/backups").glob("datacat-*Z/backup.json")), 30)
    name = f"/srv/backups/{made[0].parent.name}"
    assert "sound" in machine.run("datacat", "store", "check", "--data-dir", name).stdout
    # By hand, as root, while the server runs; then the way back.
    machine.run("datacat", "store", "backup", "/srv/copy")
    machine.run("systemctl", "stop", "datacat-server")
    machine.run(
        "sh", "-c", "mv /var/lib/datacat /var/lib/old; install -d -o datacat -g datacat -m 700 /var/lib/datacat"
    )
    machine.run("datacat", "store", "restore", "/srv/copy")
    machine.run("systemctl", "start", "datacat-server")
    assert len(machine.get("/api/sessions?product=kept")["sessions"]) == 1


def test_a_user_runs_a_server_of_his_own_without_root(machine):
    machine.run("loginctl", "enable-linger", USER)
    eventually((machine.root / "var/lib/systemd/linger" / USER).exists)
    uid = machine.run("id", "-u", USER).stdout.strip()
    home = machine.root / "home" / USER / ".config/datacat"
    machine.run("mkdir", "-p", f"/home/{USER}/.config/datacat", user=USER)
    (home / "server.env").write_text("DATACAT_PORT=8090\n")
    eventually(lambda: machine.run("systemctl", "is-active", f"user@{uid}", check=False).stdout == "active\n", 20)
    own = {"XDG_RUNTIME_DIR": f"/run/user/{uid}"}
    machine.run("systemctl", "--user", "enable", "--now", "datacat-server", user=USER, **own)
    assert machine.ask(port=8090)[0] == 200
    assert machine.run("ls", f"/home/{USER}/.local/share/datacat/server", user=USER).stdout
    assert machine.run("systemctl", "--user", "is-enabled", "datacat-server", user=USER, **own).stdout == "enabled\n"


def test_commands_have_pages_and_complete_what_is_typed(machine):
    for name in ("man1/datacat.1", "man1/datacat-daemon.1", "man8/datacat-server.8"):
        assert (machine.root / f"usr/share/man/{name}.gz").stat().st_size > 500
    offered = machine.run("datacat", _DATACAT_COMPLETE="bash_complete", COMP_WORDS="datacat se", COMP_CWORD="1").stdout
    assert "sessions" in offered
    offered = machine.run(
        "datacat-server", _DATACAT_SERVER_COMPLETE="bash_complete", COMP_WORDS="datacat-server --por", COMP_CWORD="1"
    ).stdout
    assert "--port" in offered
    script = "source /usr/share/bash-completion/completions/datacat && complete -p datacat"
    assert "_datacat_completion" in machine.run("bash", "-c", script).stdout
    script = "source /usr/share/bash-completion/completions/datacat-daemon && complete -p datacat-daemon"
    assert "--spool" in machine.run("bash", "-c", script).stdout
