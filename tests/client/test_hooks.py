import signal
import sys

import pytest
from client_helpers import run_app, sessions, written

from datacat.wire.records import Close, Closing, Event

START = """
import os, sys, threading
import datacat
session = datacat.create_session(product="p", version="1", state_dir=os.environ["STATE"])
"""


def ended(tmp_path, code, **options):
    """Run an app that has a session; return (the finished process, the records behind Open)."""
    app = run_app(START + code, tmp_path / "state", **options)
    (folder,) = sessions(tmp_path / "state")
    return app, written(folder)[1:]


def test_a_normal_exit_is_a_closing_without_exception(tmp_path):
    app, found = ended(tmp_path, "session.log_event('x')\n")
    assert app.returncode == 0, app.stderr
    assert [type(record) for record in found] == [Event, Closing]
    assert found[-1].exception_type is None
    assert found[-1].exit_code is None


def test_an_exception_that_ends_the_app_is_an_event_and_told_by_the_closing(tmp_path):
    app, found = ended(tmp_path, "def f():\n    raise ValueError('boom')\nf()\n")
    assert app.returncode == 1
    assert app.stderr.rstrip().endswith("ValueError: boom")
    event, closing = found
    assert (event.name, event.level, event.exception_type) == ("unhandled_exception", "critical", "ValueError")
    assert event.source_function == "f"
    assert event.stacktrace[-1] == "ValueError: boom"
    assert (closing.exception_type, closing.exception_msg, closing.exit_code) == ("ValueError", "boom", 1)


USED_UP = """
import resource
with open("/proc/self/statm") as file:
    taken = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + (16 << 20),) * 2)
hog, size = [], 1 << 20
while size >= 16:
    try:
        hog.append(bytearray(size))
    except MemoryError:
        size //= 2
"""


@pytest.mark.skipif(sys.platform != "linux", reason="capability: only here the address space can be limited")
@pytest.mark.parametrize("error", ["MemoryError", "ValueError"])
def test_an_exception_is_told_of_an_app_that_has_not_a_byte_left(tmp_path, error):
    app, found = ended(tmp_path, USED_UP + f"raise {error}\n")
    assert app.returncode == 1
    event, closing = found
    assert (event.name, event.exception_type) == ("unhandled_exception", error)
    assert (closing.exception_type, closing.exit_code) == (error, 1)


@pytest.mark.parametrize("way", ["raise KeyboardInterrupt", "sys.exit(3)", "sys.exit('words')", "raise SystemExit"])
def test_being_asked_to_stop_is_no_exception_that_ended_the_app(tmp_path, way):
    _, found = ended(tmp_path, way + "\n")
    assert [type(record) for record in found] == [Closing]
    assert found[-1].exception_type is None


def test_a_real_interrupt_is_no_exception_either(tmp_path):
    app, found = ended(tmp_path, "import signal\nsignal.raise_signal(signal.SIGINT)\n")
    assert app.returncode == -signal.SIGINT
    assert [type(record) for record in found] == [Closing]


def test_an_exception_in_a_thread_is_an_error_and_does_not_end_the_app(tmp_path):
    app, found = ended(
        tmp_path,
        """
def work():
    raise RuntimeError("in thread")
t = threading.Thread(target=work, name="loader"); t.start(); t.join()
t = threading.Thread(target=sys.exit); t.start(); t.join()
""",
    )
    assert app.returncode == 0
    assert "RuntimeError: in thread" in app.stderr
    event, closing = found
    assert (event.level, event.exception_type, event.data) == ("error", "RuntimeError", {"thread": "loader"})
    assert closing.exception_type is None


def test_hooks_that_were_there_still_run(tmp_path):
    code = """
import os, sys, threading
sys.excepthook = lambda *args: print("app hook", args[1])
threading.excepthook = lambda args: print("app thread hook", args.exc_value)
import datacat
session = datacat.create_session(product="p", version="1", state_dir=os.environ["STATE"])
t = threading.Thread(target=lambda: 1 / 0); t.start(); t.join()
raise ValueError("boom")
"""
    app = run_app(code, tmp_path)
    assert app.stdout.splitlines() == ["app thread hook division by zero", "app hook boom"]
    assert app.returncode == 1


def test_an_exception_in_a_callback_of_a_toolkit_that_goes_on_did_not_end_the_app(tmp_path):
    app, found = ended(
        tmp_path,
        """
def toolkit(callback):              # as PyQt does with slots
    try:
        callback()
    except Exception:
        sys.excepthook(*sys.exc_info())
toolkit(lambda: 1 / 0)
""",
    )
    assert app.returncode == 0
    event, closing = found
    assert (event.level, event.exception_type) == ("error", "ZeroDivisionError")
    assert closing.exception_type is None


def test_an_exception_nobody_awaits_in_asyncio_is_recorded_and_handlers_still_run(tmp_path):
    code = """
import asyncio, os
import datacat
session = datacat.create_session(product="p", version="1", state_dir=os.environ["STATE"])

async def main():
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: print("app handler", context["exception"]))
    loop.call_soon(lambda: 1 / 0)
    await asyncio.sleep(0)
    await asyncio.sleep(0)

asyncio.run(main())
"""
    app = run_app(code, tmp_path)
    assert app.stdout == "app handler division by zero\n"
    (folder,) = sessions(tmp_path)
    event, closing = written(folder)[1:]
    assert (event.level, event.exception_type) == ("error", "ZeroDivisionError")
    assert "callback" in event.data["message"]
    assert isinstance(closing, Closing)


def test_asyncio_is_not_imported_by_us(tmp_path):
    app, _ = ended(tmp_path, "session.start_heartbeat_monitor()\nprint('asyncio' in sys.modules)\n")
    assert app.stdout == "False\n"


def test_end_takes_every_hook_back(tmp_path):
    app, found = ended(
        tmp_path,
        """
import faulthandler
assert faulthandler.is_enabled()
assert sys.excepthook is not sys.__excepthook__
session.end(0)
print(sys.excepthook is sys.__excepthook__, threading.excepthook is threading.__excepthook__, faulthandler.is_enabled())
raise ValueError("after the end")
""",
    )
    assert app.stdout == "True True False\n"
    assert [type(record) for record in found] == [Close]


def test_a_faulthandler_that_the_app_uses_is_left_alone(tmp_path):
    code = """
import faulthandler, os
faulthandler.enable()
import datacat
session = datacat.create_session(product="p", version="1", state_dir=os.environ["STATE"])
session.end()
print(faulthandler.is_enabled())
"""
    app = run_app(code, tmp_path)
    assert app.stdout == "True\n"


def test_the_next_session_takes_the_crashes_over(tmp_path):
    app, _ = ended(
        tmp_path,
        """
import faulthandler
first = session
session = datacat.create_session(product="q", version="1", state_dir=os.environ["STATE"] + "/more")
first.end()
assert faulthandler.is_enabled()
assert (session.journal_folder / "fault").exists()
session.end()
assert not faulthandler.is_enabled()
""",
    )
    assert app.returncode == 0, app.stderr


def test_a_crash_after_the_app_closed_all_descriptors_does_not_write_into_its_files(tmp_path):
    app, _ = ended(
        tmp_path,
        """
os.closerange(3, 256)
fd = os.open(os.environ["STATE"] + "/precious", os.O_RDWR | os.O_CREAT)
os.write(fd, b"PRECIOUS")
import ctypes
ctypes.string_at(0)
""",
    )
    assert app.returncode == -signal.SIGSEGV
    assert (tmp_path / "state" / "precious").read_bytes() == b"PRECIOUS"


def test_sessions_can_be_told_to_keep_out_of_exceptions_and_crashes(tmp_path):
    code = """
import faulthandler, os, sys
import datacat
session = datacat.create_session(
    product="p", version="1", state_dir=os.environ["STATE"], capture_exceptions=False, capture_crashes=False
)
print(faulthandler.is_enabled(), sys.excepthook is sys.__excepthook__)
"""
    assert run_app(code, tmp_path).stdout == "False True\n"


def test_an_exception_whose_text_cannot_be_made_is_recorded_all_the_same(tmp_path):
    _, found = ended(
        tmp_path,
        """
class Bad(Exception):
    def __str__(self):
        raise RuntimeError("no text")
raise Bad()
""",
    )
    assert found[0].exception_type == "Bad"
    assert found[1].exception_type == "Bad"


def test_an_exception_that_cannot_be_raised_to_anybody_is_recorded_and_the_apps_hook_runs(tmp_path):
    app, found = ended(
        tmp_path,
        """
import atexit
ours = sys.unraisablehook
sys.unraisablehook = lambda args: (print("app hook"), ours(args))
class Broken:
    def __del__(self):
        raise OSError("in del")
Broken()
def leave():
    raise ValueError("too late")
atexit.register(leave)
""",
    )
    assert app.returncode == 0
    assert "ValueError: too late" in app.stderr
    assert app.stdout == "app hook\n" * 2
    in_del, at_exit, _ = found
    assert (in_del.level, in_del.exception_type) == ("error", "OSError")
    assert in_del.data["object"].endswith("Broken.__del__")
    assert (at_exit.exception_msg, at_exit.level) == ("too late", "error")


def test_asyncio_that_is_imported_later_is_seen_from_the_next_look_on(tmp_path):
    app, found = ended(
        tmp_path,
        """
import asyncio
session._look_at_us = 0
session.log_event("looks")
async def fails():
    raise ValueError("in a task")
async def main():
    asyncio.ensure_future(fails())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
asyncio.run(main())
""",
    )
    assert app.returncode == 0
    assert [record.exception_msg for record in found if isinstance(record, Event)] == [None, "in a task"]
