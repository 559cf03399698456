import errno
import sys
import threading
from pathlib import Path

import pytest

from datacat import host
from datacat.client.journal import Journal
from datacat.errors import HostError, JournalError
from datacat.wire import layout

SIZE = 4096
LINE = b'{"t":1,"k":"x"}\n'


@pytest.fixture
def dropped():
    return []


@pytest.fixture
def journal(tmp_path, dropped):
    made = Journal(tmp_path, dropped.append, segment_bytes=SIZE)
    yield made
    made.close()


def lines_in(folder):
    found = []
    for segment in sorted(folder.glob("*.ndjson")):
        found += layout.whole_lines(segment.read_bytes(), 0).splitlines(keepends=True)
    return found


def no_allocation(number):
    """A preallocate that fails the way the given error number says."""

    def preallocate(_fd, _size_bytes):
        raise HostError("no") from OSError(number, "no")

    return preallocate


def test_a_segment_has_its_full_size_before_anything_is_written(journal, tmp_path):
    assert (tmp_path / "00000000.ndjson").stat().st_size == SIZE
    assert list(tmp_path.glob("*.new")) == []
    assert journal.offset() == 0


def test_what_was_written_can_be_read_at_once(journal, tmp_path):
    journal.write(LINE)
    assert lines_in(tmp_path) == [LINE]
    assert journal.offset() == len(LINE)


def test_a_full_segment_refuses_and_append_goes_on_in_the_next(journal, tmp_path):
    line = b"x" * 999 + b"\n"
    for _ in range(4):
        journal.write(line)
    with pytest.raises(ValueError):
        journal.write(line)
    assert journal.append(line)
    assert journal.offset() == SIZE + 1000
    assert lines_in(tmp_path) == [line] * 5


def test_a_sealed_segment_takes_nothing_from_a_thread_that_still_has_it(journal, tmp_path):
    old = journal.write
    journal.append(b"a" * (SIZE - 10) + b"\n")
    journal.append(b"b" * 100 + b"\n")
    with pytest.raises(ValueError):
        old(b"c\n")
    assert b"c" not in (tmp_path / "00000000.ndjson").read_bytes()


def test_offsets_count_the_filler(journal, tmp_path):
    journal.append(b"a" * 4000 + b"\n")
    journal.append(b"b" * 4000 + b"\n")
    journal.append(b"c\n")
    assert journal.offset() == SIZE + 4001 + 2
    assert [path.stat().st_size for path in sorted(tmp_path.iterdir())] == [SIZE, SIZE]


def test_a_line_that_no_segment_can_hold_is_dropped_and_counted(journal, dropped):
    assert not journal.append(b"x" * (SIZE + 1))
    assert dropped == ["too_large"]
    assert journal.append(LINE)


def test_after_close_lines_are_dropped_for_its_reason(journal, dropped):
    journal.close("ended")
    journal.close("again")
    assert not journal.append(LINE)
    assert dropped == ["ended"]


def test_a_full_disk_is_a_counted_drop_and_it_is_asked_again_after_a_second(tmp_path, dropped):
    now = [0]
    full = [False]

    def preallocate(fd, size_bytes):
        asked.append(now[0])
        if full[0]:
            raise HostError("full") from OSError(errno.ENOSPC, "full")
        host.preallocate(fd, size_bytes)

    asked = []
    journal = Journal(tmp_path, dropped.append, segment_bytes=SIZE, preallocate=preallocate, clock_ns=lambda: now[0])
    journal.append(b"a" * 4000 + b"\n")
    full[0] = True
    now[0] = 5_000_000_000
    for _ in range(10):
        assert not journal.append(b"b" * 4000 + b"\n")
    assert asked == [0, 5_000_000_000]
    assert dropped == ["disk_full"] * 10
    full[0] = False
    now[0] += 1_000_000_000
    assert journal.append(b"c" * 4000 + b"\n")
    assert [line[:1] for line in lines_in(tmp_path)] == [b"a", b"c"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000000.ndjson", "00000001.ndjson"]
    journal.close()


def test_a_file_system_that_cannot_allocate_gets_plain_appends_with_the_same_offsets(tmp_path, dropped):
    journal = Journal(tmp_path, dropped.append, segment_bytes=SIZE, preallocate=no_allocation(errno.EOPNOTSUPP))
    journal.write(LINE)
    assert lines_in(tmp_path) == [LINE]
    journal.append(b"a" * 4090 + b"\n")
    journal.append(b"b\n")
    assert journal.offset() == SIZE + 4091 + 2
    journal.close()
    assert [path.stat().st_size for path in sorted(tmp_path.iterdir())] == [SIZE, SIZE]
    assert not journal.append(LINE)
    assert dropped == ["ended"]


def test_a_folder_that_is_not_there_is_said_at_once(tmp_path, dropped):
    with pytest.raises(JournalError):
        Journal(tmp_path / "missing", dropped.append)
    with pytest.raises(JournalError):
        Journal(tmp_path, dropped.append, preallocate=no_allocation(errno.ENOSPC))
    assert list(tmp_path.iterdir()) == []


def test_a_journal_in_memory_marks_every_record(tmp_path, dropped):
    journal = Journal(tmp_path, dropped.append, segment_bytes=SIZE, volatile=True)
    journal.write(LINE)
    journal.append(b'{"t":2,"k":"x"}\n')
    assert lines_in(tmp_path) == [b'{"t":1,"k":"x","volatile":true}\n', b'{"t":2,"k":"x","volatile":true}\n']
    journal.close()


def test_threads_that_meet_at_the_end_of_a_segment_lose_and_double_nothing(tmp_path, dropped):
    journal = Journal(tmp_path, dropped.append, segment_bytes=SIZE)
    start = threading.Barrier(4)

    def work(name):
        start.wait()
        for i in range(500):
            journal.append(f"{name}{i:04d}".encode() + b"x" * 95 + b"\n")

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    journal.close()
    found = [line[:5].decode() for line in lines_in(tmp_path)]
    for name in "abcd":
        assert [each for each in found if each[0] == name] == [f"{name}{i:04d}" for i in range(500)]
    assert len(found) == 2000


def test_without_a_gil_each_write_takes_a_lock(tmp_path, dropped, monkeypatch):
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    journal = Journal(tmp_path, dropped.append, segment_bytes=SIZE)
    journal.append(LINE)
    journal.append(b"a" * 4090 + b"\n")
    journal.append(LINE)
    assert journal.write.__name__ == "locked"
    assert lines_in(tmp_path) == [LINE, b"a" * 4090 + b"\n", LINE]
    journal.close()


def test_a_forked_child_s_journal_writes_nowhere(journal, tmp_path, dropped):
    journal.write(LINE)
    journal.forget()
    assert not journal.append(LINE)
    assert dropped == ["forked"]
    assert lines_in(tmp_path) == [LINE]


def test_segments_have_the_names_that_readers_expect(journal, tmp_path):
    assert [path.name for path in Path(tmp_path).iterdir()] == [layout.segment_name(0)]


def test_a_closed_journal_ends_where_its_last_record_does(tmp_path):
    (tmp_path / "s").mkdir()
    journal = Journal(tmp_path / "s", lambda reason: None)
    journal.append(b"{}\n")
    journal.close()
    assert journal.offset() == 3
