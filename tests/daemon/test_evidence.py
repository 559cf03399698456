"""What faulthandler wrote: real dumps of real crashes and hangs, cut tails, files of strangers."""

import signal
import subprocess
import sys

import pytest

from datacat.daemon.evidence import crash

CRASH = """
import faulthandler, sys, threading, time
faulthandler.enable(open(sys.argv[1], "wb", buffering=0))
threading.Thread(target=time.sleep, args=(30,), daemon=True).start()
def pay(): faulthandler._sigsegv() if sys.argv[2] == "segv" else faulthandler._sigabrt()
pay()
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


@pytest.mark.parametrize(
    "body", [b"", b"\0" * 100, b"\xff\xfe\x00", b"nothing of ours\n" * 10, b"Fatal Python error: "]
)
def test_other_texts_are_no_evidence(tmp_path, body):
    (tmp_path / "fault").write_bytes(body)
    found = crash(tmp_path)
    assert found is None or found.frames == ()


def test_no_file_is_no_evidence(tmp_path):
    assert crash(tmp_path) is None
