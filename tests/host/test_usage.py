"""What a process uses: real processes, and canned trees of /proc and of control groups."""

import subprocess
import sys

import psutil
import pytest

from datacat.errors import ProcessGone
from datacat.host.usage import usage


@pytest.fixture
def child():
    code = "import sys; print('up', flush=True); sys.stdin.read()"
    started = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    started.stdout.readline()
    yield started
    started.kill()
    started.communicate()


def test_of_a_process_that_is_gone_nothing_is_known():
    gone = 2**22 + 1
    with pytest.raises(ProcessGone):
        usage(gone)


def test_what_a_process_uses_is_told(child):
    found = usage(child.pid)
    assert found.rss_bytes > 1_000_000
    assert found.threads >= 1
    assert found.fds >= 3
    assert found.cpu_s >= 0


def test_the_usage_agrees_with_psutil(child):
    found, theirs = usage(child.pid), psutil.Process(child.pid)
    assert found.rss_bytes == pytest.approx(theirs.memory_info().rss, rel=0.2)
    assert found.threads == theirs.num_threads()
    assert found.fds == theirs.num_fds()
    assert found.user_s == pytest.approx(theirs.cpu_times().user, abs=0.1)
    assert (found.read_bytes, found.written_bytes) == theirs.io_counters()[2:4]


def test_a_kernel_that_does_not_count_disk_bytes_leaves_them_out(child, tmp_path):
    folder = tmp_path / "proc" / "7"
    (folder / "fd").mkdir(parents=True)
    (folder / "stat").write_text("7 (a) b) S " + " ".join(["1"] * 49))
    assert usage(7, root=str(tmp_path)).read_bytes is None
    (folder / "io").write_text("rchar: 5\nread_bytes: 4096\nwrite_bytes: 8192\n")
    found = usage(7, root=str(tmp_path))
    assert (found.read_bytes, found.written_bytes, found.threads) == (4096, 8192, 1)
