"""Kills for memory are counted where the kernel counts them."""

import os

import pytest

from datacat.host import oom
from datacat.host.oom import WITNESS_SCORE, above, be_spared, counter_of, evidence, kills, logged_kills


@pytest.mark.parametrize(
    ("cgroup", "file"),
    [
        ("0::/user.slice/app.scope\n", "sys/fs/cgroup/user.slice/app.scope/memory.events"),
        ("9:cpu:/x\n4:memory:/docker/abc\n", "sys/fs/cgroup/memory/docker/abc/memory.oom_control"),
    ],
)
def test_kills_for_memory_are_counted_in_both_kinds_of_groups(tmp_path, cgroup, file):
    (tmp_path / "proc/7").mkdir(parents=True)
    (tmp_path / "proc/7/cgroup").write_text(cgroup)
    assert counter_of(7, root=str(tmp_path)) is None
    counter = tmp_path / file
    counter.parent.mkdir(parents=True)
    counter.write_text("oom_kill_disable 0\noom 4\noom_kill 3\n")
    assert counter_of(7, root=str(tmp_path)) == counter
    assert kills(counter) == 3
    counter.unlink()
    assert kills(counter) == 0
    assert kills(None) == 0


def test_a_process_that_is_gone_has_no_counter():
    assert counter_of(2**22 + 1) is None


def test_the_kernel_is_asked_to_spare_the_witness_where_that_is_allowed(tmp_path):
    assert not be_spared(root=str(tmp_path))
    (tmp_path / "proc/self").mkdir(parents=True)
    assert be_spared(root=str(tmp_path))
    assert (tmp_path / "proc/self/oom_score_adj").read_text() == str(WITNESS_SCORE)


@pytest.fixture
def group(tmp_path, monkeypatch):
    """Two groups of cgroup v2, one in the other, and a log of the kernel that says nothing."""
    inner = tmp_path / "cgroup" / "app.slice" / "shop.scope"
    inner.mkdir(parents=True)
    for folder in (inner, inner.parent):
        (folder / "memory.events").write_text("oom 0\noom_kill 3\n")
    monkeypatch.setattr(oom, "logged_kills", lambda since_s: set())
    return inner / "memory.events"


def test_a_kill_in_the_own_group_is_seen_there(group):
    before = above(group)
    assert before == {group.parents[1] / "memory.events": 3}
    assert evidence(group, 3, before, 7, 0.0) == ""
    group.write_text("oom_kill 4\n")
    assert evidence(group, 3, before, 7, 0.0) == "the kernel killed for memory in its group"


def test_a_group_that_went_with_its_last_process_is_known_by_the_one_above_it(group):
    before = above(group)
    group.unlink()
    assert evidence(group, 3, before, 7, 0.0) == ""
    (group.parents[1] / "memory.events").write_text("oom_kill 4\n")
    assert "its group is gone" in evidence(group, 3, before, 7, 0.0)


def test_a_log_that_names_it_decides_and_one_that_names_only_others_too(group, monkeypatch):
    group.write_text("oom_kill 4\n")
    monkeypatch.setattr(oom, "logged_kills", lambda since_s: {7})
    assert evidence(group, 3, {}, 7, 0.0) == "the kernel's log names it"
    assert evidence(group, 3, {}, 8, 0.0) == ""


def test_the_kernels_log_is_read_from_a_time_on_and_only_where_pids_are_ours(tmp_path, monkeypatch):
    # A pipe gives one record a read only when it is written so; a canned log of one record is enough.
    log = tmp_path / "kmsg"
    log.write_text("3,99,5000000,-;Out of memory: Killed process 71 (hog) total-vm:1kB\n")
    own = str(tmp_path)
    monkeypatch.setattr(oom, "_INITIAL_PID_NAMESPACE", os.stat(own).st_ino)
    assert logged_kills(4.0, str(log), own) == {71}
    assert logged_kills(6.0, str(log), own) == set()
    assert logged_kills(4.0, str(tmp_path / "none"), own) == set()
    monkeypatch.setattr(oom, "_INITIAL_PID_NAMESPACE", 0)
    assert logged_kills(4.0, str(log), own) == set()
