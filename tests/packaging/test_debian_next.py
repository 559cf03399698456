"""The same package on Debian's next release: another Python, another systemd. A campaign: it makes a root of its own."""

import itertools
import shutil

import booting
import pytest
from booting import USER, Load, restart_times, say
from helpers import eventually

pytestmark = [pytest.mark.timeout(400), pytest.mark.long]


@pytest.fixture
def next_debian(boots, make_machine, tmp_path):
    """Return a booted Debian 13, or skip when that is what this machine has itself."""
    if booting.suite() != "bookworm":
        pytest.skip("capability: the sources of this machine are not those of Debian 12")
    return make_machine([booting.unpack(booting.bare_root("trixie"), tmp_path / "trixie")])


def test_the_package_lives_on_the_next_debian_and_a_crash_loop_backs_off(next_debian, deb, newer_deb):
    machine = next_debian
    shutil.copy(deb, machine.root / "srv/datacat.deb")
    shutil.copy(newer_deb, machine.root / "srv/newer.deb")
    machine.apt("install", "/srv/datacat.deb")
    done = machine.run("datacat", "run", "--", "sh", "-c", "exit 3", user=USER, check=False)
    assert done.returncode == 3, done.stderr
    eventually(lambda: [head for head in machine.get("/api/sessions")["sessions"] if not head["active"]], 30)
    verified = machine.run("systemd-analyze", "verify", "--man=no", "datacat-server.service")
    assert verified.stderr == ""
    told = machine.run("systemd-analyze", "security", "datacat-server", "--no-pager").stdout.splitlines()[-1]
    say(f"{machine.run('systemctl', '--version').stdout.split()[1]}: {told}")
    assert float(told.split(":")[1].split()[0]) <= 1.1
    with Load(machine) as kept, Load(machine, fresh=True) as fresh:
        machine.apt("install", "/srv/newer.deb")
        kept.more()
        fresh.more()
    assert kept.failures + fresh.failures == []
    machine.drop_in("[Service]\nExecStart=\nExecStart=/bin/false\n")
    machine.run("systemctl", "restart", "datacat-server", check=False)
    times = eventually(lambda: len(found := restart_times(machine)) >= 5 and found, 60, 0.5)
    pauses = [after - before for before, after in itertools.pairwise(times)]
    say(f"pauses of a crash loop: {', '.join(f'{pause:.1f}' for pause in pauses)} s")
    assert pauses[-1] > 2 * pauses[0]
    machine.apt("purge", "datacat")
    assert not (machine.root / "var/lib/datacat").exists()
