import os
import subprocess
import sys

import pytest
from helpers import eventually

from datacat import host
from datacat.errors import Busy, HostError
from datacat.host import locks

HOLDER = """
import sys
from pathlib import Path
from datacat import host
lock = host.lock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "lock"


@pytest.fixture
def holder(path):
    """Another process that holds the lock until it is killed or its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_lock_is_held_by_one_and_names_its_holder(path):
    with host.lock(path):
        assert host.held(path)
        with pytest.raises(Busy) as caught:
            host.lock(path)
        assert caught.value.holder == str(os.getpid())
    assert not host.held(path)
    host.lock(path).release()


def test_release_can_be_repeated_and_leaves_the_file(path):
    lock = host.lock(path)
    assert lock.fd is not None
    lock.release()
    lock.release()
    assert lock.fd is None
    assert path.exists()


def test_another_process_has_it_until_it_dies(path, holder):
    assert host.held(path)
    with pytest.raises(Busy) as caught:
        host.lock(path)
    assert caught.value.holder == str(holder.pid)
    holder.kill()
    holder.wait()
    host.lock(path).release()


def test_asking_whether_it_is_held_never_takes_it_from_who_wants_it(path):
    code = """
import sys
from pathlib import Path
from datacat import host
print("asking", flush=True)
while True:
    host.held(Path(sys.argv[1]))
"""
    asker = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        path.touch()
        assert asker.stdout.readline() == "asking\n"
        for _ in range(300):
            host.lock(path).release()
    finally:
        asker.kill()
        asker.communicate()


def test_a_lock_whose_file_was_removed_meanwhile_is_not_taken_for_one(path, monkeypatch):
    real = locks._is_at
    removed = []

    def removed_once(fd, at):
        if not removed:
            removed.append(1)
            path.unlink()
        return real(fd, at)

    monkeypatch.setattr(locks, "_is_at", removed_once)
    with host.lock(path):
        assert host.held(path)


def test_a_lock_that_was_never_made_is_not_held(path):
    assert not host.held(path)
    assert not path.exists()


def test_a_folder_that_is_missing_is_said(tmp_path):
    with pytest.raises(HostError, match="folder does not exist"):
        host.lock(tmp_path / "no" / "lock")
    with pytest.raises(HostError):
        host.lock(tmp_path)


def test_a_child_that_was_started_does_not_keep_the_lock(path):
    lock = host.lock(path)
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False)
    lock.release()
    assert eventually(lambda: not host.held(path))
    child.communicate(b"\n")
