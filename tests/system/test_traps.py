"""The traps of an app's life, each with a real app and its real daemon: terminals, signals, forks, exec, odd surroundings."""

import contextlib
import os
import pty
import resource
import select
import shutil
import signal
import subprocess
import sys

import pytest
from daemon_helpers import FakeServer
from helpers import eventually
from system.traps import BEGIN, Trap

from datacat.client.last import records_in

WAIT = "\nserved(s); say('ready'); threading.Event().wait()"
UNPRIVILEGED = ("setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner,-sys_resource")
"""A root that may not pass over the modes of files: what every other user is."""


@pytest.fixture
def trap(tmp_path):
    made = Trap(tmp_path)
    yield made
    made.close()


@pytest.fixture
def server():
    fake = FakeServer()
    yield fake
    fake.close()


@pytest.fixture
def unprivileged():
    probe = subprocess.run([*UNPRIVILEGED, "true"], capture_output=True, check=False)
    if probe.returncode != 0:
        pytest.skip("capability: setpriv cannot take rights away here")
    return UNPRIVILEGED


@contextlib.contextmanager
def terminal(trap, code):
    """Run an app in a terminal of its own; yield (its pid, the terminal's other end), when it has said ready."""
    pid, fd = pty.fork()
    if pid == 0:
        os.execve(sys.executable, [sys.executable, "-c", BEGIN + code], trap.env)
    try:
        said = b""
        while b"ready" not in said:
            assert select.select([fd], [], [], 30)[0], said
            said += os.read(fd, 4096)
        yield pid, fd
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        with contextlib.suppress(OSError):
            os.close(fd)


# --- terminals and signals


def test_ctrl_c_in_the_terminal_ends_the_app_and_not_its_daemon(trap):
    with terminal(trap, "s = begin()" + WAIT) as (_, fd):
        os.write(fd, b"\x03")
        assert trap.ended() == ("ended", "terminated")


def test_an_app_that_takes_ctrl_c_goes_on_and_is_still_watched(trap):
    code = """
s = begin(); served(s)
try:
    say("ready")
    threading.Event().wait()
except KeyboardInterrupt:
    s.log_event("interrupted")
    os._exit(4)
"""
    with terminal(trap, code) as (_, fd):
        os.write(fd, b"\x03")
        assert trap.ended() == ("crashed", "exit_code")
    (folder,) = trap.sessions
    assert "interrupted" in trap.events(folder)


def test_a_closed_terminal_ends_the_app_and_not_its_daemon(trap):
    with terminal(trap, "s = begin()" + WAIT) as (_, fd):
        os.close(fd)
        assert trap.ended() == ("ended", "terminated")
    (folder,) = trap.sessions
    assert trap.verdicts(folder)[-1].exit_signal == signal.SIGHUP


@pytest.mark.parametrize(
    ("reaction", "ended"),
    [
        ("", ("ended", "terminated")),
        ("signal.signal(signal.SIGTERM, lambda *a: sys.exit(0))", ("ended", "exit_zero")),
        ("signal.signal(signal.SIGTERM, lambda *a: sys.exit(9))", ("crashed", "exit_code")),
        ("signal.signal(signal.SIGTERM, signal.SIG_IGN)", ("crashed", "killed")),
    ],
    ids=["default", "well", "badly", "ignored"],
)
def test_a_unit_that_is_stopped_asks_app_and_daemon_and_the_daemon_sees_the_apps_end(trap, reaction, ended):
    app = trap.app(f"s = begin()\n{reaction}" + WAIT)
    app.stdout.readline()
    (folder,) = trap.sessions
    for pid in (app.pid, trap.shipper(folder).pid):  # as systemd does with KillMode=control-group
        os.kill(pid, signal.SIGTERM)
    eventually(lambda: "daemon_told_to_stop" in trap.events(folder) or trap.verdicts(folder))
    if "SIG_IGN" in reaction:
        app.kill()  # and as it does after TimeoutStopSec
    assert trap.ended() == ended


def test_a_daemon_that_is_killed_is_followed_by_one_that_sees_the_end(trap):
    app = trap.app(
        """
from datacat.client import local
s = begin(); served(s); s.log_event("before"); say("ready")
sys.stdin.readline()
s._look_at_us = 0; local._spawned_ns.clear()  # as after some seconds
s.log_event("after")
threading.Event().wait()
"""
    )
    app.stdout.readline()
    (folder,) = trap.sessions
    first = trap.shipper(folder).pid
    trap.kill_daemon(folder)
    app.stdin.write(b"go on\n")
    app.stdin.flush()
    eventually(lambda: trap.shipper(folder).pid != first)
    app.kill()
    assert trap.ended() == ("crashed", "killed")
    assert trap.events(folder) == ["before", "after", "parent_process_crashed"]


# --- exec and fork


def test_an_app_that_becomes_another_program_has_ended_and_does_not_hang(trap):
    app = trap.app(
        "s = begin(heartbeat_timeout_seconds=0.3); served(s); s.start_heartbeat_monitor(timeout=0.3, loop=None)\n"
        "s.heartbeat(); os.execv('/bin/sleep', ['sleep', '60'])"
    )
    assert trap.ended() == ("ended", "closed")
    (folder,) = trap.sessions
    detail = trap.verdicts(folder)[-1].detail
    assert detail.startswith("it became another program by exec: ")
    assert [verdict.status for verdict in trap.verdicts(folder)] == ["ended"]
    assert app.poll() is None


def test_an_app_that_starts_itself_anew_has_a_session_for_each_life(trap):
    code = BEGIN + (
        "s = begin(); served(s)\n"
        "if sys.argv[1] == 'first': os.execv(sys.executable, [sys.executable, '-c', os.environ['CODE'], 'second'])\n"
        "os._exit(7)"
    )
    app = trap.app(code.removeprefix(BEGIN), "first", env={**trap.env, "CODE": code})
    assert app.wait(30) == 7
    first, second = trap.sessions
    assert trap.ended(second) == ("crashed", "exit_code")
    # The first life is over either way; whether its daemon looked while the second one ran is a matter of time.
    assert trap.ended(first) in {("ended", "closed"), ("crashed", "exit_code")}
    assert trap.meta(first).pid == trap.meta(second).pid


def test_a_fork_that_lives_on_does_not_hide_the_death_of_its_parent(trap):
    app = trap.app(
        """
s = begin(); served(s)
child = os.fork()
if child == 0:
    for fd in (0, 1, 2):
        os.close(fd)
    s.log_event("of the child")
    threading.Event().wait(30)
    os._exit(0)
say(child); threading.Event().wait()
"""
    )
    child = int(app.stdout.readline())
    try:
        app.kill()
        assert trap.ended() == ("crashed", "killed")
    finally:
        os.kill(child, signal.SIGKILL)
    (folder,) = trap.sessions
    assert trap.events(folder) == ["parent_process_crashed"]


def test_workers_of_a_pre_forking_server_each_have_a_session_of_their_own(trap):
    app = trap.app(
        """
master = begin(); served(master)
endings = {"killed": lambda: os.kill(os.getpid(), signal.SIGKILL), "exit_code": lambda: os._exit(3),
           "signal": os.abort, "clean": lambda: (s.end(), os._exit(0))}
workers = []
for name, ending in endings.items():
    if (pid := os.fork()) == 0:
        s = begin(); served(s); s.update_state({"worker": name}); ending()
    workers.append(pid)
for pid in workers:
    os.waitpid(pid, 0)
master.end()
"""
    )
    assert app.wait(60) == 0
    assert len(trap.sessions) == 5
    reasons = {}
    for folder in trap.sessions[1:]:
        state = {}
        for record in records_in(folder):
            state |= getattr(record, "patch", {})
        closed = any(type(record).__name__ == "Close" for record in records_in(folder))
        reasons[state["worker"]] = "clean" if closed else trap.ended(folder)[1]
    assert reasons == {name: name for name in ("killed", "exit_code", "signal", "clean")}


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_multiprocessing_leaves_the_session_of_the_parent_alone(trap, method):
    (trap.folder / "main.py").write_text(
        BEGIN
        + f"""
import multiprocessing
def work(n):
    if n == 2:
        os._exit(5)
    sys.exit(n)
if __name__ == "__main__":
    s = begin(); served(s)
    context = multiprocessing.get_context("{method}")
    workers = [context.Process(target=work, args=(n,)) for n in range(3)]
    [each.start() for each in workers]; [each.join() for each in workers]
    say(*[each.exitcode for each in workers])
    with context.Pool(2) as pool:
        say(sum(pool.map(abs, [-1, -2])))
    os._exit(6)
"""
    )
    done = subprocess.run(
        [sys.executable, trap.folder / "main.py"], env=trap.env, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (6, "0 1 5\n3\n"), done.stderr
    assert trap.ended() == ("crashed", "exit_code")
    (folder,) = trap.sessions
    assert trap.verdicts(folder)[-1].exit_code == 6


def test_two_sessions_of_one_process_end_with_it(trap):
    status, _, _ = trap.run("a = begin(); b = begin(); served(a); served(b); os._exit(8)")
    assert status == 8
    assert [trap.ended(folder) for folder in trap.sessions] == [("crashed", "exit_code")] * 2


def test_an_interpreter_that_ends_while_threads_log_says_nothing_and_does_not_wait(trap):
    status, out, err = trap.run(
        """
s = begin(); served(s)
def log():
    while True:
        s.log_event("tick"); s.log_gauge("fps", 60); s.heartbeat()
for _ in range(4):
    threading.Thread(target=log, daemon=True).start()
s.start_heartbeat_monitor(timeout=5)
threading.Event().wait(0.1)
"""
    )
    assert (status, out, err) == (0, "", "")
    assert trap.ended() == ("ended", "exit_zero")


# --- odd surroundings


def test_standard_streams_that_are_closed_are_not_mistaken_for_files_of_ours(trap):
    app = trap.app(
        """
for fd in (0, 1, 2):
    os.close(fd)
s = begin()
mine = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
os.write(mine, b"precious")
s.log_event("x"); served(s)
import ctypes; ctypes.string_at(0)
""",
        trap.folder / "mine",
    )
    app.wait(30)
    assert trap.ended() == ("crashed", "signal")
    assert (trap.folder / "mine").read_bytes() == b"precious"


def test_a_user_without_a_home_and_one_whose_home_cannot_be_written_are_recorded(trap, unprivileged):
    # The shared folder for journals is this test's own: a mount namespace hides the machine's.
    shared = trap.folder / "var-tmp"
    shared.mkdir()
    hidden = f"mount --bind {shared} /var/tmp && "
    if subprocess.run(["unshare", "-m", "sh", "-c", hidden + "true"], capture_output=True, check=False).returncode:
        pytest.skip("capability: no mount namespace can be made here")
    home = trap.folder / "read-only"
    home.mkdir(mode=0o500)
    for place in ("/dev/null", home):  # the home of a user who has none, and one on a medium that is read-only
        environ = {"PATH": os.environ["PATH"], "HOME": str(place)}
        prefix = ("unshare", "-m", "sh", "-c", hidden + 'exec "$@"', "sh", *unprivileged)
        status, out, err = trap.run(
            "s = begin(); served(s); say(s.journal_folder); os._exit(5)", prefix=prefix, env=environ
        )
        assert (status, err) == (5, "")
        assert out.startswith("/var/tmp/datacat-")
    assert list(home.iterdir()) == []
    assert [trap.ended(folder) for folder in trap.sessions] == [("crashed", "exit_code")] * 2


@pytest.mark.parametrize("umask", [0o000, 0o177, 0o777])
def test_no_umask_costs_a_session_or_opens_it_to_others(trap, unprivileged, umask):
    status, _, err = trap.run(
        "s = begin(); served(s); os._exit(5)", prefix=("sh", "-c", f'umask {umask:o}; exec "$@"', "sh", *unprivileged)
    )
    assert (status, err) == (5, "")
    assert trap.ended() == ("crashed", "exit_code")
    (folder,) = trap.sessions
    modes = {path.name: path.stat().st_mode & 0o777 for path in [folder, *folder.rglob("*")]}
    assert set(modes.values()) == {0o600, 0o700}, modes


def test_a_thousand_inherited_files_do_not_reach_the_daemon(trap):
    def many():
        resource.setrlimit(resource.RLIMIT_NOFILE, (2048, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        for _ in range(1000):
            os.set_inheritable(os.open("/dev/null", os.O_RDONLY), True)

    app = trap.app("s = begin()" + WAIT, preexec_fn=many, close_fds=False)
    app.stdout.readline()
    (folder,) = trap.sessions
    assert len(os.listdir(f"/proc/{app.pid}/fd")) > 1000
    assert len(os.listdir(f"/proc/{trap.shipper(folder).pid}/fd")) < 40
    app.kill()
    assert trap.ended() == ("crashed", "killed")


def test_sixteen_open_files_are_enough_for_a_session_to_reach_the_server(trap, server, unprivileged):
    code = f"""
s = datacat.create_session("{server.url}", product="trapped", version="1.0",
                           settings={{"linger_seconds": 5, "daemon_port": 0, "batch_interval_seconds": 0.2}})
s.log_event("few"); served(s); os._exit(5)
"""
    status, _, err = trap.run(code, prefix=("sh", "-c", 'ulimit -n 16; exec "$@"', "sh", *unprivileged))
    assert (status, err) == (5, "")
    (folder,) = trap.sessions
    found = eventually(lambda: server.records(folder.name, "verdict"), 20)
    assert (found[0]["reason"], found[0]["exit_code"]) == ("exit_code", 5)
    assert server.records(folder.name, "event")[0]["name"] == "few"


def test_in_a_container_the_end_is_seen_and_pids_are_those_of_the_container(trap):
    namespace = ("unshare", "--pid", "--fork", "--mount-proc", "sh", "-c")
    if not shutil.which("unshare") or subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode:
        pytest.skip("capability: no pid namespace can be made here")
    # Its first process stays, as the init of a container does; the app is another one.
    script = '"$@" & wait $!; code=$?; read line; exit $code'
    app = trap.app(
        "s = begin(); served(s); say(os.getpid()); os.kill(os.getpid(), 9)", prefix=(*namespace, script, "sh")
    )
    pid = int(app.stdout.readline())
    assert trap.ended() == ("crashed", "killed")
    (folder,) = trap.sessions
    meta = trap.meta(folder)
    assert meta.pid == pid
    assert meta.pid_namespace != os.stat("/proc/self/ns/pid").st_ino
    app.stdin.write(b"\n")
    app.stdin.flush()
    assert app.wait(30) == 128 + signal.SIGKILL
