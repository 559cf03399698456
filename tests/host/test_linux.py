import os
import subprocess
import sys

import pytest

from datacat import host
from datacat.errors import HostError, ProcessGone
from datacat.host import linux


@pytest.fixture
def tree(tmp_path):
    """A root with files of the forms that the kernel and systemd write."""

    def put(path, text):
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return str(tmp_path)

    return put


def test_the_machine_s_id_is_hashed_and_the_first_file_that_has_one_counts(tree):
    root = tree("var/lib/dbus/machine-id", "b" * 32 + "\n")
    second = linux.machine_id(root)
    tree("etc/machine-id", "a" * 32 + "\n")
    first = linux.machine_id(root)
    assert first != second
    assert len(first) == 32
    assert "a" * 32 not in first
    assert first == linux.machine_id(root)


def test_a_machine_without_an_id_has_none(tmp_path):
    assert linux.machine_id(str(tmp_path)) == ""
    assert linux.boot_id(str(tmp_path)) == ""
    assert linux.pid_namespace(str(tmp_path)) == 0


def test_the_boot_id_is_the_kernel_s(tree):
    assert linux.boot_id(tree("proc/sys/kernel/random/boot_id", "f3a1-x\n")) == "f3a1-x"


def test_a_process_whose_name_holds_parentheses_and_spaces_has_its_start_read_rightly(tree):
    fields = ["S"] + [str(number) for number in range(1, 19)] + ["4711"] + ["0"] * 30
    root = tree("proc/42/stat", f"42 (a) b) (c) {' '.join(fields)}\n")
    assert linux.process_start(42, root) == 4711
    with pytest.raises(ProcessGone):
        linux.process_start(43, root)


@pytest.mark.skipif(sys.platform != "linux", reason="capability: this is not Linux")
class TestHere:
    def test_this_process_keeps_its_start_and_a_dead_one_has_none(self):
        assert host.process_start(os.getpid()) == host.process_start(os.getpid())
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        assert host.process_start(child.pid) >= host.process_start(os.getpid())
        child.communicate(b"\n")
        with pytest.raises(ProcessGone):
            host.process_start(child.pid)

    def test_clocks_go_forward_and_tell_sleep_as_seconds(self):
        assert host.awake_ns() < host.awake_ns() + 1
        assert host.asleep_s() >= 0.0

    def test_a_machine_that_slept_is_seen_by_the_difference_of_its_clocks(self):
        code = "from datacat import host; print(host.asleep_s())"
        command = ["unshare", "--time", "--boottime", "5000", "--monotonic", "0", "--fork", sys.executable, "-c", code]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode:
            pytest.skip(f"capability: no time namespaces here: {run.stderr.strip()}")
        assert 4999 < float(run.stdout) - host.asleep_s() < 5001

    def test_names_are_there(self):
        assert host.hostname() == os.uname().nodename
        assert host.platform().startswith("Linux ")
        assert host.pid_namespace() > 0

    def test_blocks_are_really_allocated(self, tmp_path):
        with (tmp_path / "x").open("wb") as file:
            host.preallocate(file.fileno(), 100_000)
            assert os.fstat(file.fileno()).st_size == 100_000
            assert os.fstat(file.fileno()).st_blocks * 512 >= 100_000

    def test_a_limit_that_is_reached_is_an_error_of_the_host(self, tmp_path):
        code = f"""
import resource
from datacat import host
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
with open({str(tmp_path / "x")!r}, "wb") as file:
    try:
        host.preallocate(file.fileno(), 100_000)
    except Exception as error:
        print(type(error).__name__, error.__cause__.errno)
"""
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert run.stdout == "HostError 27\n"

    def test_allocation_of_something_that_is_no_file_is_an_error_of_the_host(self):
        reader, writer = os.pipe()
        with pytest.raises(HostError):
            host.preallocate(writer, 100)
        os.close(reader)
        os.close(writer)
