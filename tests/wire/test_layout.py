"""The journal's format: what a reader takes from a segment, and the beat slot."""

from datacat.wire.layout import BEAT, Beat, pack_beat, segment_name, tail_crc, unpack_beat, whole_lines


def test_a_reader_takes_whole_lines_before_the_first_zero():
    segment = b"one\ntwo\nthr" + bytes(20)

    assert whole_lines(segment, 0) == b"one\ntwo\n"
    assert whole_lines(segment, 4) == b"two\n"
    assert whole_lines(segment, 8) == b""
    assert whole_lines(segment, len(segment)) == b""
    assert whole_lines(b"full\n", 0) == b"full\n"
    assert whole_lines(bytes(64), 0) == b""


def test_a_segment_cut_at_any_byte_gives_the_lines_that_are_whole():
    text = b"one\ntwo\nthree\n"
    for cut in range(len(text) + 1):
        lines = whole_lines(text[:cut] + bytes(8), 0)

        assert lines == text[: text.rfind(b"\n", 0, cut) + 1]


def test_a_beat_is_read_back_and_a_torn_slot_is_no_beat():
    beat = Beat(1, 2, 60.0, on=True, paused=True)

    assert unpack_beat(pack_beat(beat)) == beat
    assert unpack_beat(pack_beat(beat)[: BEAT.size - 1]) == Beat(0, 0, 0.0, on=False, paused=False)


def test_the_tail_crc_covers_at_most_the_last_4096_bytes():
    assert tail_crc(b"") == 0
    assert tail_crc(b"a" + b"x" * 4096) == tail_crc(b"b" + b"x" * 4096)
    assert tail_crc(b"ax") != tail_crc(b"bx")


def test_segments_sort_by_their_number():
    assert segment_name(0) == "00000000.ndjson"
    assert segment_name(9) < segment_name(10)
