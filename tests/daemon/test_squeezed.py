"""A segment that gave up records: offsets go on as before, and what went is counted exactly, wherever a reader begins."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datacat.daemon import squeezed
from datacat.daemon.streams import Source
from datacat.errors import JournalError
from datacat.wire.layout import segment_name, squeezed_name
from datacat.wire.lines import decode, encode
from datacat.wire.records import Close, Dropped, Event, Metric, Open, StatePatch, Verdict

SIZE = 16 * 1024
T = 1_800_000_000_000_000
KINDS = {
    "metric": lambda n: Metric(t=T + n, name="m", value=n),
    "info": lambda n: Event(t=T + n, name="e", data={"n": n}),
    "warning": lambda n: Event(t=T + n, name="w", level="warning"),
    "state": lambda n: StatePatch(t=T + n, patch={"n": n}),
    "verdict": lambda n: Verdict(t=T + n, status="hung"),
    "close": lambda n: Close(t=T + n),
    "open": lambda n: Open(t=T + n, product="p", version="1"),
}
STAGE = {"metric": 1, "info": 2, "warning": 3}


def write(folder, kinds, torn=b""):
    lines = [encode(KINDS[kind](n)) for n, kind in enumerate(kinds)]
    body = b"".join(lines) + torn
    (folder / segment_name(0)).write_bytes(body.ljust(SIZE, b"\0"))
    (folder / segment_name(1)).write_bytes(bytes(SIZE))
    return lines


def squeeze(folder, stage):
    source = Source("s", folder, SIZE)
    segment, went = squeezed.squeeze(source.segment(0), stage)
    (folder / squeezed_name(0)).write_bytes(squeezed.dump(segment))
    (folder / segment_name(0)).unlink(missing_ok=True)
    return source, went


def dropped(data):
    total = {}
    for line in data.split(b"\n")[:-1]:
        record = decode(line)
        if isinstance(record, Dropped):
            for reason, count in record.counts.items():
                total[reason] = total.get(reason, 0) + count
    return total


def test_metrics_go_first_then_events_below_warning_then_others_and_the_rest_never(tmp_path):
    kinds = ["open", "metric", "metric", "info", "state", "warning", "metric", "verdict", "close"]
    write(tmp_path, kinds)
    for stage, expected in (
        (1, {"spool_full_metrics": 3}),
        (2, {"spool_full_events": 1}),
        (3, {"spool_full_warnings": 1}),
    ):
        source, went = squeeze(tmp_path, stage)
        assert went == expected
    piece = source.read(0, SIZE)
    kept = [type(decode(line)).__name__ for line in piece.data.split(b"\n")[:-1]]
    assert kept == ["Open", "Dropped", "StatePatch", "Dropped", "Verdict", "Close"]
    assert dropped(piece.data) == {"spool_full_metrics": 3, "spool_full_events": 1, "spool_full_warnings": 1}
    assert piece.records == len(kinds)
    assert piece.end == SIZE


@given(
    kinds=st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=40),
    stages=st.lists(st.integers(1, 3), min_size=1, max_size=3),
    data=st.data(),
)
def test_a_reader_that_begins_or_stops_between_any_two_lines_counts_exactly_what_lies_there(
    tmp_path_factory, kinds, stages, data
):
    folder = tmp_path_factory.mktemp("s")
    lines = write(folder, kinds)
    whole = Source("s", folder, SIZE)
    crcs = (whole.crc(SIZE), whole.crc(SIZE + 0))
    for stage in stages:
        source, _ = squeeze(folder, stage)
    first = data.draw(st.integers(0, len(lines)))
    limit = data.draw(st.integers(1, 2000))
    max_lines = data.draw(st.integers(1, 5))
    at = sum(map(len, lines[:first]))
    got, records = b"", 0
    for _ in range(200):
        piece = source.read(at, limit, max_lines)
        if not piece.data and piece.end == at:
            break
        got, records, at = got + piece.data, records + piece.records, piece.end
    highest = max(stages)
    gone = [kind for kind in kinds[first:] if STAGE.get(kind, 9) <= highest]
    kept = [line for line, kind in zip(lines[first:], kinds[first:], strict=True) if STAGE.get(kind, 9) > highest]
    assert records == len(lines) - first
    assert sum(dropped(got).values()) == len(gone)
    assert [line + b"\n" for line in got.split(b"\n")[:-1] if not isinstance(decode(line), Dropped)] == kept
    assert at == SIZE
    assert (source.crc(SIZE), source.crc(SIZE)) == crcs
    assert source.crc(0) == 0


def test_a_torn_tail_and_an_unknown_crc_are_told(tmp_path):
    lines = write(tmp_path, ["metric"] * 80, torn=b'{"half')
    assert Source("s", tmp_path, SIZE).read(0, SIZE).torn
    source, _ = squeeze(tmp_path, 1)
    assert source.read(0, SIZE).torn
    assert source.crc(len(lines[0])) is None
    assert source.crc(SIZE) is not None


def test_while_a_segment_is_there_twice_the_whole_one_counts(tmp_path):
    lines = write(tmp_path, ["metric", "info"])
    body = (tmp_path / segment_name(0)).read_bytes()
    source, _ = squeeze(tmp_path, 2)
    (tmp_path / segment_name(0)).write_bytes(body)
    assert source.read(0, SIZE).data == b"".join(lines)
    assert source.segments() == [0, 1]


def test_it_takes_a_tenth_of_the_space_where_everything_goes(tmp_path):
    lines = write(tmp_path, ["info"] * 200)
    squeeze(tmp_path, 2)
    assert (tmp_path / squeezed_name(0)).stat().st_size - 4096 * 4 / 3 < len(b"".join(lines)) / 5


@pytest.mark.parametrize(
    "text", [b"", b"x\n", b"{}\n", b'{"end":1}\n', b'{"end":1,"torn":false,"tail":"*"}\n{"squeezed":\n']
)
def test_a_damaged_file_is_an_error_of_the_journal(text):
    with pytest.raises(JournalError):
        squeezed.load(text)
