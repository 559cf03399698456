"""Messages: priorities for the journal, times elsewhere, files that rotate."""

import logging
import os

import pytest

from datacat.errors import HostError
from datacat.server import logs


@pytest.fixture(autouse=True)
def restored():
    """Give the root logger back as it was."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    root.handlers[:] = []
    yield
    for handler in root.handlers:
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)


def test_a_file_is_written_with_times_and_rotates(tmp_path, monkeypatch):
    monkeypatch.setattr(logs, "FILE_BYTES", 1000)
    path = tmp_path / "server.log"
    logs.set_up("info", str(path), {})
    for number in range(500):
        logging.getLogger("datacat.server.x").info("message %d", number)
    files = sorted(file.name for file in tmp_path.iterdir())
    assert files == ["server.log", *(f"server.log.{number}" for number in range(1, logs.FILES + 1))]
    assert all(file.stat().st_size <= 1000 for file in tmp_path.iterdir())
    assert path.read_text().splitlines()[-1].endswith(" INFO datacat.server.x: message 499")


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(
        HostError, match=r"cannot write the log file .*No such file or directory; use another --log-file"
    ):
        logs.set_up("info", str(tmp_path / "no" / "server.log"), {})


def test_the_level_can_change(tmp_path):
    path = tmp_path / "server.log"
    logs.set_up("warning", str(path), {})
    logging.getLogger("x").info("no")
    logs.set_level("debug")
    logging.getLogger("x").debug("yes")
    assert "no" not in path.read_text()
    assert "yes" in path.read_text()


def test_only_the_very_stream_is_the_journal():
    reader, writer = os.pipe()
    try:
        found = os.fstat(writer)
        assert logs.is_journal({"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}, writer)
        assert not logs.is_journal({"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino + 1}"}, writer)
        for text in ("", "x", ":", "1:", "1:x"):
            assert not logs.is_journal({"JOURNAL_STREAM": text}, writer)
        assert not logs.is_journal({}, writer)
    finally:
        os.close(reader)
        os.close(writer)


def test_every_line_of_a_traceback_carries_its_priority():
    formatter = logs._Priorities()
    try:
        raise ValueError("two\nlines")
    except ValueError as error:
        info = (type(error), error, error.__traceback__)
    record = logging.LogRecord("datacat.x", logging.ERROR, __file__, 1, "it %s", ("failed",), info)
    text = formatter.format(record).splitlines()
    assert text[0] == "<3>datacat.x: it failed"
    assert len(text) > 4
    assert all(line.startswith("<3>") for line in text)
    levels = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.CRITICAL: 2}
    for level, priority in levels.items():
        record = logging.LogRecord("x", level, __file__, 1, "m", None, None)
        assert formatter.format(record) == f"<{priority}>x: m"
