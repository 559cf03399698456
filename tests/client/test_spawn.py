import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from client_helpers import app_environ, run_app, sessions, written
from helpers import eventually

from datacat import host
from datacat.client import local, spawn
from datacat.client.session import LOOK_EVERY_US
from datacat.errors import HostError
from datacat.wire import layout

WITNESS = """#!{python}
import fcntl, json, os, signal, sys
facts = {{
    "argv": sys.argv[1:],
    "ppid": os.getppid(),
    "sid": os.getsid(0),
    "fds": sorted(int(fd) for fd in os.listdir("/proc/self/fd")),
    "fd3": os.readlink("/proc/self/fd/3") if os.path.exists("/proc/self/fd/3") else "",
    "out": os.readlink("/proc/self/fd/1"),
    "pythonpath": os.environ["PYTHONPATH"],
    "term": signal.getsignal(signal.SIGTERM) is signal.SIG_DFL,
}}
with open(os.environ["FACTS"] + ".new", "w") as file:
    json.dump(facts, file)
os.rename(os.environ["FACTS"] + ".new", os.environ["FACTS"])
if "HOLD" in os.environ:
    lock = open(os.environ["HOLD"], "w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    sys.stdin.read()
"""


@pytest.fixture
def witness(tmp_path):
    """A daemon that only writes down how it was started; returns (environment for the app, file of facts)."""
    script = tmp_path / "python-witness"
    script.write_text(WITNESS.format(python=sys.executable))
    script.chmod(0o755)
    return {"DATACAT_PYTHON": str(script), "FACTS": str(tmp_path / "facts")}, tmp_path / "facts"


def facts_of(file):
    return json.loads(eventually(lambda: file.exists() and file.read_text()))


def test_the_daemon_is_told_whom_it_serves_and_shares_nothing_with_the_app(tmp_path, witness):
    environ, file = witness
    app = run_app(
        """
        import os, signal, datacat
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        leak = os.open("/dev/null", os.O_RDONLY)
        session = datacat.create_session(product="p", version="1", state_dir=os.environ["STATE"])
        print(os.getpid(), session.meta.process_start, os.getsid(0))
        session.end()
        """,
        tmp_path / "state",
        environ=environ,
    )
    pid, start, sid = app.stdout.split()
    facts = facts_of(file)
    assert facts["argv"] == [
        "-m",
        "datacat.cli.daemon",
        "--owner",
        pid,
        "--owner-start",
        start,
        "--spool",
        str(tmp_path / "state" / "spool"),
        "--owner-fd",
        "3",
    ]
    assert facts["sid"] != int(sid)
    assert facts["out"] == "/dev/null"
    assert "pidfd" in facts["fd3"]
    assert facts["fds"][:4] == [0, 1, 2, 3]
    assert len(facts["fds"]) == 5  # the fifth is the listing itself
    assert facts["term"]
    assert str(Path(spawn.__file__).parents[2]) in facts["pythonpath"].split(os.pathsep)


def test_the_app_has_no_child_and_no_zombie_and_its_output_ends_with_it(tmp_path, witness):
    environ, _ = witness
    code = """
    import os, datacat
    session = datacat.create_session(product="p", version="1", state_dir=os.environ["STATE"])
    try:
        print(os.waitpid(-1, os.WNOHANG))
    except ChildProcessError:
        print("no children")
    """
    # The daemon lives on and would hold the pipe of the captured output open, if it had it.
    hold = tmp_path / "hold"
    app = run_app(code, tmp_path / "state", environ={**environ, "HOLD": str(hold)}, timeout_s=20)
    assert app.stdout == "no children\n", app.stderr


def test_one_daemon_serves_all_sessions_of_a_process(tmp_path, monkeypatch):
    started = []
    owner = local.process_identity()
    spool = tmp_path / "spool"
    (spool / "owners").mkdir(parents=True)
    carriers = []
    for name in "ab":
        (spool / name).mkdir()
        carriers.append(local.Local(spool / name, "s", owner, lambda *args: started.append(args)))
    now = [10**12]
    monkeypatch.setattr(local.host, "awake_ns", lambda: now[0])
    for carrier in carriers:
        carrier.look()
    assert started == [(spool, *owner)]
    now[0] += local.SPAWN_EVERY_NS
    with host.lock(spawn.owner_lock(spool, *owner)):
        carriers[0].look()
    assert len(started) == 1
    carriers[1].look()
    assert len(started) == 2
    for carrier in carriers:
        carrier.close()


def test_a_daemon_that_cannot_be_started_is_no_matter_for_the_app(tmp_path):
    app = run_app(
        """
        import os, datacat
        session = datacat.create_session(product="p", version="1", state_dir=os.environ["STATE"])
        session.log_event("x")
        print(session.stats()["dropped"], session.stats()["faults"])
        """,
        tmp_path,
        environ={"DATACAT_PYTHON": "/no/such/python", "PATH": "/nowhere"},
    )
    assert app.stdout == "{} 0\n", app.stderr
    (folder,) = sessions(tmp_path)
    assert len(written(folder)) == 3


def test_calls_of_the_app_notice_that_nobody_ships(session, monkeypatch):
    looks = []
    monkeypatch.setattr(session._carrier, "look", lambda: looks.append(1))
    calls = [
        lambda: session.log_event("x"),
        lambda: session.update_state({}),
        lambda: session.log_gauge("g", 1),
        session.heartbeat,
    ]
    for call in calls:
        session._look_at_us = 0
        session._slots[0] = 0
        call()
        call()
    assert len(looks) == len(calls)


def test_a_call_that_looks_does_not_wait_for_another_one_that_does(session, monkeypatch):
    inside, go_on = threading.Event(), threading.Event()

    def look():
        inside.set()
        assert go_on.wait(10)

    monkeypatch.setattr(session._carrier, "look", look)
    session._look_at_us = 0
    other = threading.Thread(target=session.log_event, args=("slow",))
    other.start()
    assert inside.wait(10)
    session._look_at_us = 0
    session.log_event("fast")
    go_on.set()
    other.join()
    assert [record.name for record in written(session.journal_folder)[1:]] == ["fast", "slow"]


@pytest.mark.parametrize(
    ("frozen", "environ", "executable", "start"),
    [
        (False, {}, "/opt/py/bin/python3.11", ["/opt/py/bin/python3.11", "-m", "datacat.cli.daemon"]),
        (False, {"DATACAT_PYTHON": "/x/python"}, "/usr/bin/blender", ["/x/python", "-m", "datacat.cli.daemon"]),
        (True, {}, "/opt/app/editor", ["/opt/app/editor", "--datacat-daemon"]),
        (True, {"DATACAT_PYTHON": "/x/python"}, "/opt/app/editor", ["/x/python", "-m", "datacat.cli.daemon"]),
    ],
)
def test_the_interpreter_of_the_daemon(frozen, environ, executable, start):
    command = spawn.daemon_command(Path("/s"), 1, 2, environ=environ, frozen=frozen, executable=executable)
    assert command == [*start, "--owner", "1", "--owner-start", "2", "--spool", "/s"]


def test_an_app_that_embeds_python_uses_the_python_it_was_built_with():
    assert Path(spawn.interpreter({}, "/usr/bin/blender")).name.startswith("python")


def test_without_any_python_it_says_what_to_do(monkeypatch):
    monkeypatch.setattr(sys, "prefix", "/nowhere")
    monkeypatch.setattr(sys, "base_prefix", "/nowhere")
    with pytest.raises(HostError, match="DATACAT_PYTHON"):
        spawn.interpreter({}, "/usr/bin/blender")


def test_the_environment_finds_the_same_datacat_and_keeps_the_rest():
    environ = spawn.daemon_environ({"PYTHONPATH": "/mine", "DATACAT_API_KEY": "k", "PYTHONSTARTUP": "x"})
    assert environ["PYTHONPATH"].split(os.pathsep) == [str(Path(spawn.__file__).parents[2]), "/mine"]
    assert environ["DATACAT_API_KEY"] == "k"
    assert "PYTHONSTARTUP" not in environ


def test_a_frozen_app_becomes_the_daemon_when_it_is_started_as_one(tmp_path):
    code = "import sys, datacat; datacat.freeze_support(); print('the app')"
    environ = app_environ(tmp_path)
    plain = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    assert plain.stdout == "the app\n"
    daemon = subprocess.run(
        [sys.executable, "-c", code, spawn.GUARD_FLAG, "--version"],
        env=environ,
        capture_output=True,
        text=True,
        check=True,
    )
    assert daemon.stdout.startswith("datacat-daemon ")


def test_ask_takes_only_a_good_answer_of_a_daemon(tmp_path):
    import socketserver

    answers = iter(
        [b'HTTP/1.0 200 OK\r\n\r\n{"id":"x"}', b'HTTP/1.0 404 No\r\n\r\n{"id":"x"}', b"HTTP/1.0 200 OK\r\n\r\nno"]
    )
    asked = []

    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            asked.append(self.request.recv(4096).split(b"\r\n")[0])
            self.request.sendall(next(answers))

    with socketserver.TCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        port = server.server_address[1]
        assert [local.ask(port, "/session?session_id=x") for _ in range(3)] == [{"id": "x"}, None, None]
        server.shutdown()
        thread.join()
    assert local.ask(port, "/") is None
    assert asked == [b"GET /session?session_id=x HTTP/1.0"] * 3


def test_drops_are_in_the_beat_file_at_once(session):
    session._drops.count("too_large", 3)
    session._drops.count("disk_full")
    page = (session.journal_folder / layout.BEAT_FILE).read_bytes()
    assert layout.unpack_dropped(page) == {"too_large": 3, "disk_full": 1}


def test_the_look_that_is_due_after_a_start_may_start_a_daemon_again():
    assert local.SPAWN_EVERY_NS < (LOOK_EVERY_US - 500_000) * 1000


@pytest.mark.parametrize("end", ["sys.exit(3)", "raise ValueError", "pass"])
def test_an_app_whose_daemon_was_killed_starts_one_before_it_ends(tmp_path, end):
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/starts\n')
    script.chmod(0o755)
    run_app(
        f"""
        import os, sys, datacat
        from datacat.client import local
        session = datacat.create_session(product="p", version="1", state_dir=os.environ["STATE"])
        local._spawned_ns.clear()  # as after some seconds
        {end}
        """,
        tmp_path / "state",
        environ={"DATACAT_PYTHON": str(script)},
    )
    first, second = eventually(lambda: len(found := (tmp_path / "starts").read_text().splitlines()) == 2 and found)
    assert first == second


def test_a_pipe_that_the_app_leaves_to_its_children_is_not_held_open_by_the_daemon(tmp_path):
    app = run_app(
        """
        import os, select, datacat
        reader, writer = os.pipe()
        os.set_inheritable(writer, True)
        session = datacat.create_session("http://127.0.0.1:1", "p", "1", state_dir=os.environ["STATE"])
        os.close(writer)
        print(select.select([reader], [], [], 20)[0] == [reader])
        session.end()
        """,
        tmp_path,
        environ={"DATACAT_PYTHON": sys.executable, "DATACAT_DAEMON_PORT": "0", "DATACAT_LINGER_SECONDS": "0"},
        timeout_s=40,
    )
    assert app.stdout == "True\n", app.stderr


def test_an_app_whose_working_directory_is_gone_hears_nothing_of_it(tmp_path):
    app = run_app(
        """
        import os, datacat
        os.mkdir(os.environ["STATE"] + "/gone")
        os.chdir(os.environ["STATE"] + "/gone")
        os.rmdir(os.environ["STATE"] + "/gone")
        session = datacat.create_session(product="p", version="1", state_dir=os.environ["STATE"])
        session.end()
        print(session.stats()["dropped"])
        """,
        tmp_path,
    )
    assert (app.stdout, app.stderr) == ("{}\n", "")
