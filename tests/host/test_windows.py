import pytest

from datacat.errors import HostError
from datacat.host import windows


def test_blocks_come_with_the_size(tmp_path):
    with (tmp_path / "x").open("wb") as file:
        windows.preallocate(file.fileno(), 5000)
        assert (tmp_path / "x").stat().st_size == 5000


def test_a_descriptor_that_is_closed_is_an_error_of_the_host(tmp_path):
    with (tmp_path / "x").open("wb") as file:
        fd = file.fileno()
    with pytest.raises(HostError):
        windows.preallocate(fd, 10)


def test_the_name_of_the_machine_is_in_the_environment(monkeypatch):
    monkeypatch.setenv("COMPUTERNAME", "BOX")
    assert windows.hostname() == "BOX"


def test_what_only_windows_knows_is_refused_or_empty_elsewhere():
    if windows.platform():
        pytest.skip("capability: this is Windows")
    assert windows.machine_id() == ""
    assert windows.boot_id() == ""
    assert windows.asleep_s() == 0.0
    for call in (windows.awake_ns, lambda: windows.process_start(1), lambda: windows.grab(0)):
        with pytest.raises(HostError):
            call()
