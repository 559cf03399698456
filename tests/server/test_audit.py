"""The audit log: every act is one line, in the file and in the log, and the file stays small."""

import json
import logging

from datacat.server import audit
from datacat.server.audit import Audit


def test_an_act_is_one_line_in_the_file_and_in_the_log(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    Audit(tmp_path, lambda: 1_800_000_000_000_000).write(
        "session_deleted", "s1", who="ops", key_id="k1", address="192.0.2.1", product="editor"
    )
    line = (tmp_path / audit.FILE).read_text()
    assert json.loads(line) == {
        "timestamp": "2027-01-15T08:00:00.000000Z",
        "act": "session_deleted",
        "on": "s1",
        "who": "ops",
        "key_id": "k1",
        "address": "192.0.2.1",
        "product": "editor",
    }
    assert [(record.name, record.getMessage()) for record in caplog.records] == [("datacat.audit", line.rstrip("\n"))]


def test_the_newest_act_is_read_first_over_all_files(tmp_path, monkeypatch):
    monkeypatch.setattr(audit, "FILE_BYTES", 300)
    log = Audit(tmp_path, lambda: 0)
    for number in range(9):
        log.write("act", str(number), who="me")
    assert [row["on"] for row in log.newest_first()] == [str(number) for number in range(8, -1, -1)]


def test_the_files_take_a_bounded_space(tmp_path, monkeypatch):
    monkeypatch.setattr(audit, "FILE_BYTES", 300)
    log = Audit(tmp_path, lambda: 0)
    for number in range(100):
        log.write("act", str(number), who="me")
    assert len(list(tmp_path.iterdir())) == 1 + audit.OLD_FILES
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 500 * (1 + audit.OLD_FILES)


def test_a_torn_line_hides_no_other(tmp_path):
    log = Audit(tmp_path, lambda: 0)
    log.write("act", "1", who="me")
    with (tmp_path / audit.FILE).open("ab") as file:
        file.write(b'{"act": "to\n\xff\n')
    log.write("act", "2", who="me")
    assert [row["on"] for row in log.newest_first()] == ["2", "1"]


def test_what_cannot_be_written_is_logged_and_stops_nothing(tmp_path, caplog):
    (tmp_path / audit.FILE).mkdir()
    Audit(tmp_path, lambda: 0).write("act", "1", who="me")
    assert "cannot write the audit log" in caplog.text


def test_without_a_folder_the_log_alone_has_it(caplog):
    caplog.set_level(logging.INFO)
    log = Audit(None, lambda: 0)
    log.write("act", "1", who="me")
    assert list(log.newest_first()) == []
    assert '"act":"act"' in caplog.text
