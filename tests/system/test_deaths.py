"""Every way to die gets the right words, from real processes; without the kernel's help the right ones or `unknown`."""

import os

import pytest
from system.deaths import DEATHS, die, tells_status_of_strangers
from system.test_kills import memory_cgroup

ON_AN_OLDER_KERNEL = [death for death in DEATHS if death.older is not None and death.way in ("app", "early")]


@pytest.fixture(scope="module")
def kernel_tells():
    if not tells_status_of_strangers():
        pytest.skip("capability: this kernel does not tell the exit status of a process that is no child")


def seen(death, folder, **options):
    if death.way != "cgroup":
        return die(death, folder, **options)
    if os.geteuid() != 0:
        pytest.skip("capability: no memory cgroup can be made here (needs root)")
    with memory_cgroup(150 << 20) as members:
        if members is None:
            pytest.skip("capability: no memory cgroup can be made here (needs a writable /sys/fs/cgroup)")
        return die(death, folder, cgroup=members, **options)


@pytest.mark.parametrize("death", DEATHS, ids=lambda death: death.cause)
@pytest.mark.usefixtures("kernel_tells")
def test_the_cause_of_a_death_is_told(tmp_path, death):
    found = seen(death, tmp_path)
    assert (found.verdict.status, found.verdict.reason) == (death.status, death.reason)
    assert death.detail in (found.verdict.detail or "")
    assert not death.event or death.event in found.events
    assert (found.crash is not None) == (death.status == "crashed")
    if found.crash is not None:
        assert found.crash.data["last_state"] == {"product": "deaths", "version": "1.0", "page": 3}
        assert found.crash.data["last_events"][0]["name"] == "working"


@pytest.mark.parametrize("death", ON_AN_OLDER_KERNEL, ids=lambda death: death.cause)
def test_a_kernel_that_does_not_tell_makes_it_unknown_and_never_wrong(tmp_path, death):
    found = die(death, tmp_path, older_kernel=True)
    # Reaping takes some microseconds, in which /proc may still be read: then the daemon knows after all.
    assert (found.verdict.status, found.verdict.reason) in {death.older, (death.status, death.reason)}
    if found.verdict.reason == "unknown":
        assert found.verdict.detail == "the process is gone; nobody saw how"
        assert (found.verdict.exit_code, found.verdict.exit_signal) == (None, None)
