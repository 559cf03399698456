"""What faulthandler wrote: real dumps of real crashes and hangs, cut tails, files of strangers."""

import signal
import subprocess
import sys

import pytest

from datacat.daemon.evidence import crash, size, stacks

CRASH = """
import faulthandler, sys, threading, time
faulthandler.enable(open(sys.argv[1], "wb", buffering=0))
threading.Thread(target=time.sleep, args=(30,), daemon=True).start()
def pay(): faulthandler._sigsegv() if sys.argv[2] == "segv" else faulthandler._sigabrt()
pay()
"""
DUMP = """
import faulthandler, sys, threading
file = open(sys.argv[1], "ab", buffering=0)
ready = threading.Event()
def work(): ready.set(); threading.Event().wait()
threading.Thread(target=work, daemon=True).start()
ready.wait()
def stuck(): faulthandler.dump_traceback(file, all_threads=True)
stuck()
"""


def run(code, *arguments):
    return subprocess.run([sys.executable, "-c", code, *arguments], stderr=subprocess.DEVNULL, check=False).returncode


@pytest.mark.parametrize(
    ("how", "fatal", "number"), [("segv", "Segmentation fault", signal.SIGSEGV), ("abrt", "Aborted", signal.SIGABRT)]
)
def test_a_real_crash_tells_its_signal_and_its_frames(tmp_path, how, fatal, number):
    assert run(CRASH, str(tmp_path / "fault"), how) == -number
    dump = crash(tmp_path)
    assert (dump.fatal, dump.signal) == (fatal, number)
    assert [frame.function for frame in dump.frames] == ["<module>", "pay"]
    assert len(dump.threads) == 2
    (current,) = [thread for thread in dump.threads if thread.current]
    assert current.frames == dump.frames


def test_the_stacks_of_a_hang_are_those_written_since(tmp_path):
    run(DUMP.replace("stuck", "earlier"), str(tmp_path / "stacks"))
    start = size(tmp_path)
    assert start > 0
    assert stacks(tmp_path, start) is None
    run(DUMP, str(tmp_path / "stacks"))
    dump = stacks(tmp_path, start)
    assert dump.fatal == ""
    assert [frame.function for frame in dump.frames] == ["<module>", "stuck"]


@pytest.mark.parametrize(
    "body", [b"", b"\0" * 100, b"\xff\xfe\x00", b"nothing of ours\n" * 10, b"Fatal Python error: "]
)
def test_other_texts_are_no_evidence(tmp_path, body):
    (tmp_path / "fault").write_bytes(body)
    (tmp_path / "stacks").write_bytes(body)
    found = crash(tmp_path)
    assert found is None or found.frames == ()
    assert stacks(tmp_path) is None


def test_no_file_is_no_evidence(tmp_path):
    assert crash(tmp_path) is None
    assert stacks(tmp_path) is None
    assert size(tmp_path) == 0
