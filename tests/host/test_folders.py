import os
import subprocess
import sys
from pathlib import Path

from datacat import host
from datacat.host import folders


def test_journals_go_to_the_user_s_state_folder(monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", "/somewhere/state")
    assert host.state_dir() == Path("/somewhere/state/datacat")


def test_systemd_says_where_the_server_s_data_go():
    assert folders.data_dir({"STATE_DIRECTORY": "/var/lib/datacat"}) == Path("/var/lib/datacat")
    assert folders.data_dir({"STATE_DIRECTORY": "/var/lib/datacat:/var/lib/more"}) == Path("/var/lib/datacat")


def test_else_they_are_the_user_s_and_never_mixed_with_the_journals(monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", "/somewhere/data")
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    assert host.data_dir() == Path("/somewhere/data/datacat/server")
    assert host.state_dir() not in (host.data_dir(), *host.data_dir().parents)


def test_there_are_folders_to_go_to_when_the_first_cannot_be_written(tmp_path):
    found = folders.state_dirs((str(tmp_path), "/no/such/root"))
    assert found[0] == host.state_dir()
    assert found[1] == tmp_path / f"datacat-{os.getuid()}"
    assert len(found) == len(set(found)) == 2


def test_a_user_without_a_home_has_only_the_shared_ones():
    code = "from datacat import host; print(*host.state_dirs(), sep='\\n')"
    script = (
        f"import os\nos.environ.pop('HOME', None); os.environ.pop('XDG_STATE_HOME', None)\nos.setuid(54321)\n{code}"
    )
    if os.geteuid() != 0:
        script = f"import os\nos.environ['HOME'] = 'relative'\n{code}"
    run = subprocess.run(
        [sys.executable, "-c", "from datacat import host\n" + script], capture_output=True, text=True, check=True
    )
    listed = [Path(line) for line in run.stdout.splitlines()]
    assert listed
    assert all(each.is_absolute() for each in listed)
    assert all("datacat-" in each.name for each in listed)
