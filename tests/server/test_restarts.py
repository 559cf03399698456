"""How long a server waits that starts again and again."""

import pytest

from datacat.server import restarts


def test_only_a_manager_that_cannot_back_off_is_helped():
    assert restarts.needed({"NOTIFY_SOCKET": "/run/systemd/notify"})
    assert not restarts.needed({"NOTIFY_SOCKET": "/run/systemd/notify", "FDSTORE": "4"})
    assert not restarts.needed({})


def test_the_first_failure_costs_no_pause_and_later_ones_grow_to_half_a_minute():
    pauses = [restarts.pause_s(failed) for failed in range(10)]
    assert pauses[:2] == [0, 0]
    assert pauses[1:] == sorted(pauses[1:])
    assert pauses[2] == pytest.approx(1.96, abs=0.01)
    assert pauses[6:] == pytest.approx([30, 30, 30, 30])


def test_starts_that_follow_each_other_within_a_minute_are_counted(tmp_path):
    for expected, now_s in enumerate((1000.0, 1010.0, 1069.9)):
        failed = restarts.failed_before(tmp_path, now_s)
        assert failed == expected
        restarts.begin(tmp_path, failed, now_s)
    assert restarts.failed_before(tmp_path, 1069.9 + restarts.STEADY_S) == 0


def test_a_stop_that_was_asked_for_and_a_clock_that_went_back_forget_the_failures(tmp_path):
    restarts.begin(tmp_path, 4, 1000.0)
    assert restarts.failed_before(tmp_path, 999.0) == 0
    assert restarts.failed_before(tmp_path, 1001.0) == 5
    restarts.end(tmp_path)
    restarts.end(tmp_path)
    assert restarts.failed_before(tmp_path, 1001.0) == 0


@pytest.mark.parametrize("text", ["", "3", "x y", "3 now", "\x00\x01 \xff"])
def test_a_note_that_cannot_be_read_is_none(tmp_path, text):
    (tmp_path / restarts.FILE).write_text(text, encoding="latin-1")
    assert restarts.failed_before(tmp_path, 1.0) == 0


def test_a_folder_that_cannot_be_written_stops_no_start(tmp_path):
    nowhere = tmp_path / "file" / "folder"
    nowhere.parent.touch()
    restarts.begin(nowhere, 0, 1.0)
    restarts.end(nowhere)
    assert restarts.failed_before(nowhere, 1.0) == 0
