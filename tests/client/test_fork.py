import os

import pytest
from client_helpers import meta, run_app, sessions, written

from datacat.wire.records import Closing

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="capability: no fork here")

START = """
import os, sys, threading
import datacat
session = datacat.create_session(product="p", version="1", state_dir=os.environ["STATE"])
session.start_heartbeat_monitor(timeout=5)
session.log_event("before")
slot = session.journal_folder / "beat"
def forked(work):
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        work()
        sys.exit(0)        # the parent's atexit functions run in the child too
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""


def test_a_forked_child_is_inert_and_harmless(tmp_path):
    app = run_app(
        START
        + """
def work():
    session.log_event("child"); session.update_state({"child": 1}); session.log_exception(ValueError("child"))
    session.heartbeat(); session.pause_heartbeat_monitoring(); session.flush(0); session.stop_heartbeat_monitor()
    print(session.stats()["dropped"], threading.active_count())
    session.end()
code = forked(work)
session.log_event("after", data={"child": code})
session.end()
""",
        tmp_path,
    )
    assert app.returncode == 0, app.stderr
    assert app.stdout == "{'forked': 3} 1\n"
    (folder,) = sessions(tmp_path)
    names = [getattr(record, "name", record.__struct_config__.tag) for record in written(folder)]
    assert names == ["open", "before", "after", "close"]


def test_a_crash_and_an_exception_in_the_child_are_not_the_parent_s(tmp_path):
    app = run_app(
        START
        + """
def crash():
    import ctypes
    ctypes.string_at(0)
def fail():
    raise ValueError("in the child")
print(forked(crash), forked(fail))
""",
        tmp_path,
    )
    assert app.stdout == "-11 1\n", app.stderr
    (folder,) = sessions(tmp_path)
    assert (folder / "fault").read_bytes() == b""
    assert [getattr(record, "name", record.__struct_config__.tag) for record in written(folder)] == [
        "open",
        "before",
        "closing",
    ]


def test_a_child_can_have_a_session_of_its_own(tmp_path):
    app = run_app(
        START
        + """
def work():
    own = datacat.create_session(product="child", version="1", state_dir=os.environ["STATE"])
    own.log_event("mine")
forked(work)
""",
        tmp_path,
    )
    assert app.returncode == 0, app.stderr
    found = {written(folder)[0].product: written(folder) for folder in sessions(tmp_path)}
    assert [record.__struct_config__.tag for record in found["child"]] == ["open", "event", "closing"]
    assert [record.__struct_config__.tag for record in found["p"]] == ["open", "event", "closing"]
    assert found["child"][0].pid != found["p"][0].pid


def test_a_fork_while_another_thread_logs_never_blocks_the_child(tmp_path):
    app = run_app(
        START
        + """
stop = threading.Event()
def flood():
    while not stop.is_set():
        session.log_event("flood", data={"pad": "x" * 20000})       # rotates all the time
threads = [threading.Thread(target=flood) for _ in range(3)]
for thread in threads: thread.start()
codes = [forked(lambda: session.log_event("child")) for _ in range(30)]
stop.set()
for thread in threads: thread.join()
print(set(codes))
""",
        tmp_path,
    )
    assert app.stdout == "{0}\n", app.stderr
    (folder,) = sessions(tmp_path)
    assert not any(getattr(record, "name", "") == "child" for record in written(folder))


def test_multiprocessing_with_fork_works_as_without_us(tmp_path):
    app = run_app(
        START
        + """
import multiprocessing
context = multiprocessing.get_context("fork")
with context.Pool(2) as pool:
    print(sum(pool.map(abs, range(-10, 0))))
""",
        tmp_path,
    )
    assert app.stdout == "55\n", app.stderr


def test_a_child_of_multiprocessing_with_a_session_of_its_own_tells_its_end(tmp_path):
    app = run_app(
        """
        import atexit, multiprocessing, os, datacat
        def work():
            atexit._clear()  # as a child of Python 3.13 begins, and ends
            datacat.create_session(product="worker", version="1", state_dir=os.environ["STATE"])
            atexit._run_exitfuncs()
        session = datacat.create_session(product="master", version="1", state_dir=os.environ["STATE"])
        worker = multiprocessing.get_context("fork").Process(target=work)
        worker.start(); worker.join()
        print(worker.exitcode)
        """,
        tmp_path,
    )
    assert app.stdout == "0\n", app.stderr
    ends = {meta(folder).product: type(written(folder)[-1]) for folder in sessions(tmp_path)}
    assert ends == {"master": Closing, "worker": Closing}
