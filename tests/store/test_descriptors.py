"""However many files there are, few are open; none is closed while it is used or written."""

import os

import pytest

from datacat.errors import StoreError
from datacat.store.descriptors import Descriptors


@pytest.fixture
def paths(tmp_path):
    made = [str(tmp_path / str(number)) for number in range(10)]
    for number, path in enumerate(made):
        with open(path, "wb") as file:
            file.write(bytes([number]))
    return made


def read(files, path):
    with files.use(path) as fd:
        return os.pread(fd, 1, 0)[0]


def test_many_files_are_read_with_few_descriptors(paths):
    files = Descriptors(3)
    for _ in range(3):
        assert [read(files, path) for path in paths] == list(range(10))
        assert files.count() == 3


def test_a_file_that_is_used_or_kept_stays_open(paths, monkeypatch):
    files = Descriptors(2)
    files.keep(paths[9], keep=True)
    with files.use(paths[9]) as kept:
        pass
    with files.use(paths[0]) as used:
        for path in paths[1:9]:
            read(files, path)
        assert os.pread(used, 1, 0) == b"\0"
        assert os.pread(kept, 1, 0) == b"\t"
    files.keep(paths[9], keep=False)
    opened = []
    monkeypatch.setattr(os, "open", lambda path, flags, real=os.open: opened.append(path) or real(path, flags))
    for path in (paths[1], paths[2], paths[9]):
        read(files, path)
    assert paths[9] in opened
    assert files.count() == 2


def test_a_retired_file_is_closed_when_its_last_user_is_done_and_never_opened_again(paths):
    files = Descriptors(2)
    with files.use(paths[0]) as one, files.use(paths[0]) as other:
        assert one == other
        files.retire(paths[0])
        os.fstat(one)
        with pytest.raises(KeyError), files.use(paths[0]):
            pass
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(one)
    files.retire(paths[0])
    files.keep(paths[0], keep=True)
    assert files.count() == 0


def test_a_file_that_cannot_be_opened_is_a_store_error_and_leaves_nothing(tmp_path):
    files = Descriptors(2)
    with pytest.raises(StoreError, match="cannot open"), files.use(str(tmp_path / "none")):
        pass
    assert files.count() == 0
