import sys
from pathlib import Path

import pytest

from datacat.client import reserve

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="capability: only Linux tells what a process has mapped"
)


@pytest.fixture(autouse=True)
def given_back():
    yield
    reserve.give()


def told(what):
    """What the kernel says of this process, in bytes: VmSize is its address space, VmRSS its memory."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{what}:")[1].split()[0]) * 1024


def test_it_is_there_once_and_gone_when_it_was_given_back():
    reserve.give()
    before = told("VmSize")
    reserve.take()
    reserve.take()
    assert told("VmSize") - before == reserve.BYTES
    reserve.give()
    reserve.give()
    assert told("VmSize") == before


def test_it_takes_no_memory():
    reserve.give()
    before = told("VmRSS")
    reserve.take()
    assert told("VmRSS") - before < reserve.BYTES / 4


def test_where_it_cannot_be_had_the_app_goes_on_without(monkeypatch):
    def refused(*args, **options):
        raise OSError("no room")

    reserve.give()
    monkeypatch.setattr("mmap.mmap", refused)
    reserve.take()
    assert reserve._kept is None
