"""The bytes of a segment: what is sound is found, whatever else is in the file."""

import pytest

from datacat.store.sealed import HEADER, MOST_AHEAD, examine, lengths_of, record, record_bytes, unseal_record

SALT = 0x9F3A0C11
ENTRIES = [(b"k/1", b""), (b"k/2", b"two" * 20), (b"other/1", b"\0" * 40), (b"k/3", b"\xff" * 30)]


def file(entries=ENTRIES, salt=SALT):
    return HEADER + b"".join(record(salt, seq, key, payload) for seq, (key, payload) in enumerate(entries, 1))


def read(data, salt=SALT):
    sound, bad = examine(data, salt)
    return [(one.key, data[one.payload : one.end - 4]) for one in sound], bad


def ends():
    return [len(file(ENTRIES[:count])) for count in range(len(ENTRIES) + 1)]


def test_a_whole_file_is_sound():
    assert read(file()) == (ENTRIES, [])
    assert read(HEADER) == ([], [])


@pytest.mark.parametrize("tail", [b"", b"\0" * 12, b"\0" * 100, b"\xff" * 9, b"\xff" * 4096], ids=len)
def test_cut_at_every_byte_the_whole_records_before_the_cut_are_there(tail):
    data = file()
    for cut in range(len(HEADER), len(data)):
        whole = sum(end <= cut for end in ends()) - 1
        got, bad = read(data[:cut] + tail)
        # A tail that happens to be what was cut away completes the record.
        assert got[:whole] == ENTRIES[:whole]
        assert got == ENTRIES[: len(got)]
        if len(got) == whole and (tail or cut not in ends()):
            assert len(bad) == 1
            assert bad[0].offset == ends()[whole]
            assert bad[0].end == cut + len(tail)


def test_a_cut_record_is_torn_and_not_damaged():
    data = file()
    for cut in range(ends()[-2] + 1, len(data)):
        assert read(data[:cut])[1][0].reason == "torn"
    assert read(data + b"\0" * 4096)[1][0].reason == "torn"


def grouped(entries, durable):
    """A file whose records were written when those up to durable were durable."""
    return HEADER + b"".join(
        record(SALT, seq, key, payload, max(0, seq - 1 - durable)) for seq, (key, payload) in enumerate(entries, 1)
    )


LONG = [(b"k/%d" % n, bytes(range(1, 256)) * 4) for n in range(1, 7)]


def without(data, first, last):
    """Return data with the sectors first to last as they are when they were never written."""
    return data[: first * 512] + b"\0" * 512 * (last - first + 1) + data[(last + 1) * 512 :]


def test_sound_records_behind_a_page_that_was_never_written_were_acknowledged_to_nobody():
    data = grouped(LONG, durable=2)
    for sector in range(5, len(data) // 512):  # behind the second record
        got, bad = read(without(data, sector, sector))
        assert got == LONG[: len(got)]
        assert len(got) >= 2
        assert [(one.end, one.reason) for one in bad] == [(len(data), "torn")]


def test_a_hole_before_a_record_that_was_written_after_a_sync_is_damage_and_costs_its_own_records():
    data = grouped(LONG, durable=2) + record(SALT, 7, b"k/7", b"later", 0)
    got, bad = read(without(data, 6, 6))
    assert [one.reason for one in bad] == ["damaged"]
    assert len(got) >= 5
    assert got[-1] == (b"k/7", b"later")


def test_nothing_is_known_of_what_was_durable_before_a_record_that_was_written_far_ahead():
    many = [(b"k", b"x" * 90)] * 3
    far = HEADER + b"".join(record(SALT, seq, *one, MOST_AHEAD + 9) for seq, one in enumerate(many, 1))
    assert [one.durable for one in examine(far, SALT)[0]] == [0, 0, 0]


def test_flipped_bits_in_records_that_no_later_one_tells_of_cost_at_most_their_own():
    data = grouped(LONG, durable=0)
    for position in range(len(HEADER), len(data), 7):
        flipped = bytearray(data)
        flipped[position] ^= 1 << position % 8
        got, bad = read(bytes(flipped))
        assert bad
        assert len(got) >= len(LONG) - 1


def test_every_flipped_bit_is_noticed_and_costs_at_most_its_own_record():
    data = file()
    for position in range(len(data)):
        for bit in range(8):
            flipped = bytearray(data)
            flipped[position] ^= 1 << bit
            got, bad = read(bytes(flipped))
            assert bad
            assert all(entry in ENTRIES for entry in got)
            assert len(got) >= len(ENTRIES) - 1


def test_a_record_from_another_file_is_not_sound():
    foreign = record(SALT + 1, 3, b"k/3", b"foreign")
    data = file(ENTRIES[:2]) + foreign
    got, bad = read(data)
    assert got == ENTRIES[:2]
    assert [region.reason for region in bad] == ["damaged"]


def test_a_stale_record_of_the_same_file_is_not_sound():
    got, bad = read(file() + record(SALT, 2, *ENTRIES[1]))
    assert got == ENTRIES
    assert [region.reason for region in bad] == ["damaged"]


def test_records_that_vanished_between_two_others_are_missed():
    data = HEADER + record(SALT, 1, b"k/1", b"a") + record(SALT, 3, b"k/3", b"c")
    got, bad = read(data)
    assert got == [(b"k/1", b"a"), (b"k/3", b"c")]
    assert [(region.reason, region.offset == region.end) for region in bad] == [("missing", True)]


def test_a_length_that_makes_stock_semidbm_loop_for_ever_is_refused():
    data = bytearray(file())
    data[len(HEADER) + 4 : len(HEADER) + 8] = (-(8 + 3 + 4)).to_bytes(4, "big", signed=True)
    got, _ = read(bytes(data))
    assert got == ENTRIES[1:]


def test_a_record_is_unsealed_only_with_its_own_key_and_salt_and_whole():
    whole = record(SALT, 3, b"k/1", b"payload")
    assert unseal_record(SALT, b"k/1", whole) == b"payload"
    assert unseal_record(SALT, b"k/2", whole) is None
    assert unseal_record(SALT + 1, b"k/1", whole) is None
    for cut in range(len(whole)):
        assert unseal_record(SALT, b"k/1", whole[:cut]) is None
    assert record_bytes(*lengths_of(whole)) == len(whole)
    assert lengths_of(b"\0" * 8) is None
    assert lengths_of(whole[:7]) is None
