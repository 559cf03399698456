"""Kills for memory are counted where the kernel counts them."""

import pytest

from datacat.host.oom import WITNESS_SCORE, be_spared, counter_of, kills


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
