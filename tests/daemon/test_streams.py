"""Streams on disk: every torn, filled and rotated form is read as the layout says."""

import zlib

import pytest

from datacat.daemon.streams import Source, Writer, read_whole, write_whole
from datacat.errors import JournalError
from datacat.wire.layout import segment_name

SIZE = 64


def segment(folder, number, body, *, size=SIZE):
    folder.mkdir(exist_ok=True)
    (folder / segment_name(number)).write_bytes(body.ljust(size, b"\0"))


@pytest.fixture
def source(tmp_path):
    return Source("s", tmp_path / "s", SIZE)


def test_what_lies_before_the_first_zero_is_read_up_to_the_last_newline(source):
    segment(source.folder, 0, b"one\ntwo\nthr")
    assert source.read(0, 1000) == (b"one\ntwo\n", 8, False, 2)
    assert source.read(4, 1000) == (b"two\n", 8, False, 1)
    assert source.read(8, 1000) == (b"", 8, False, 0)
    assert source.end() == 8
    assert source.torn_tail()


@pytest.mark.parametrize("length", range(len(b"one\ntwo\nthree\n") + 1))
def test_a_tail_torn_at_each_byte_gives_the_whole_lines(source, length):
    body = b"one\ntwo\nthree\n"[:length]
    segment(source.folder, 0, body)
    whole = body[: body.rfind(b"\n") + 1]
    assert source.read(0, 1000) == (whole, len(whole), False, whole.count(b"\n"))
    assert source.torn_tail() == (len(whole) != length)


def test_the_filler_of_a_sealed_segment_counts_as_bytes(source):
    segment(source.folder, 0, b"one\n")
    segment(source.folder, 1, b"two\n")
    assert source.read(0, 1000) == (b"one\ntwo\n", SIZE + 4, False, 2)
    assert source.read(0, 4) == (b"one\n", SIZE, False, 1)
    assert source.read(SIZE, 1000) == (b"two\n", SIZE + 4, False, 1)
    assert source.end() == SIZE + 4


def test_a_segment_shorter_than_its_size_is_filled_up_with_zeros(source):
    segment(source.folder, 0, b"one\n", size=4)
    segment(source.folder, 1, b"two\n", size=4)
    assert source.read(0, 1000) == (b"one\ntwo\n", SIZE + 4, False, 2)
    assert source.crc(SIZE + 4) == zlib.crc32(b"one\n" + bytes(SIZE - 4) + b"two\n")


def test_a_record_torn_in_a_sealed_segment_is_told(source):
    segment(source.folder, 0, b"one\ntw")
    segment(source.folder, 1, b"two\n")
    assert source.read(0, 1000) == (b"one\ntwo\n", SIZE + 4, True, 2)


def test_a_limit_cuts_between_lines_and_gives_at_least_one(source):
    segment(source.folder, 0, b"one\ntwo\nthree\n")
    assert source.read(0, 9) == (b"one\ntwo\n", 8, False, 2)
    assert source.read(0, 1) == (b"one\n", 4, False, 1)
    assert source.read(0, 1000, max_lines=2) == (b"one\ntwo\n", 8, False, 2)
    segment(source.folder, 1, b"four\n")
    assert source.read(0, 16) == (b"one\ntwo\nthree\n", SIZE, False, 3)
    assert source.read(4, 1000, max_lines=3) == (b"two\nthree\nfour\n", SIZE + 5, False, 3)


def test_a_stop_at_a_line_or_a_segment_is_not_passed(source):
    segment(source.folder, 0, b"one\ntwo\n")
    segment(source.folder, 1, b"three\nfour\n")
    assert source.read(0, 1000, stop=4) == (b"one\n", 4, False, 1)
    assert source.read(0, 1000, stop=8) == (b"one\ntwo\n", SIZE, False, 2)
    assert source.read(0, 1000, stop=SIZE) == (b"one\ntwo\n", SIZE, False, 2)
    assert source.read(0, 1000, stop=SIZE + 6) == (b"one\ntwo\nthree\n", SIZE + 6, False, 3)


def test_the_crc_covers_the_physical_bytes_before(source):
    size = 8192
    source.segment_bytes = size
    body = b"x" * 5000 + b"\n"
    segment(source.folder, 0, body, size=size)
    segment(source.folder, 1, b"two\n", size=size)
    physical = body.ljust(size, b"\0") + b"two\n"
    assert source.crc(0) == 0
    for offset in (1, 100, 4096, 5001, size, size + 4):
        assert source.crc(offset) == zlib.crc32(physical[max(0, offset - 4096) : offset])


def test_a_stand_in_begins_with_its_prefix_and_goes_on_from_its_base(tmp_path):
    segment(tmp_path / "s", 0, b"one\ntwo\n")
    segment(tmp_path / "s", 1, b"three\n")
    source = Source("new", tmp_path / "s", SIZE, prefix=b"gap\n", base=4)
    assert source.read(0, 1000) == (b"gap\n", 4, False, 1)
    assert source.read(4, 4) == (b"two\n", 4 + SIZE - 4, False, 1)
    assert source.read(SIZE, 1000) == (b"three\n", SIZE + 6, False, 1)
    assert source.end() == SIZE + 6
    assert source.first() == 0
    assert source.crc(0) == 0
    assert source.crc(8) == zlib.crc32(b"gap\ntwo\n")
    (tmp_path / "s" / segment_name(0)).unlink()
    assert source.first() == SIZE


def test_a_stream_without_segments_is_empty(source):
    assert source.read(0, 1000) == (b"", 0, False, 0)
    assert (source.first(), source.end(), source.torn_tail()) == (0, 0, False)


def test_what_is_written_is_read_over_rotations(tmp_path):
    writer = Writer(tmp_path, stream="w", segment_bytes=SIZE)
    written = [f"line {number}\n".encode() for number in range(50)]
    source = Source("w", tmp_path / "w", SIZE)
    for number, line in enumerate(written):
        writer.append(line)
        assert source.rest(0) == b"".join(written[: number + 1])
        assert source.end() == writer.offset
    writer.close()
    assert len(source.segments()) > 1


def test_a_line_larger_than_a_segment_is_refused_and_leaves_nothing(tmp_path):
    writer = Writer(tmp_path, stream="w", segment_bytes=SIZE)
    with pytest.raises(JournalError):
        writer.append(b"x" * SIZE + b"\n")
    writer.append(b"fits\n")
    writer.close()
    assert Source("w", tmp_path / "w", SIZE).rest(0) == b"fits\n"


def test_a_writer_in_a_folder_that_is_gone_says_so(tmp_path):
    writer = Writer(tmp_path / "gone", stream="w")
    with pytest.raises(JournalError):
        writer.append(b"x\n")


def test_small_files_are_replaced_whole(tmp_path):
    path = tmp_path / "file"
    assert read_whole(path) == b""
    write_whole(path, b"one")
    write_whole(path, b"two")
    assert read_whole(path) == b"two"
    assert [found.name for found in tmp_path.iterdir()] == ["file"]
    with pytest.raises(JournalError):
        write_whole(tmp_path / "gone" / "file", b"x")
