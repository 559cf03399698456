"""The sums of the ledger."""

from datacat.store.fold import fold, new_head
from datacat.store.ledger import Stream, ledger
from datacat.wire.records import Gap, Open


def test_the_ledger_sums_the_streams_and_counts_the_gaps():
    opened = Open(t=1, product="p", version="1")
    lost = [Gap(t=2, reason="trimmed", lost_bytes=70), Gap(t=3, reason="diverged")]
    head = fold(new_head("x", opened), {}, [opened, *lost]).head
    streams = {"a": Stream(500, None, records=5, shipped=3, pending=2), "b": Stream(9, records=1, shipped=1)}
    assert ledger(streams, head.counts) == {
        "written": 8,
        "shipped": 4,
        "acknowledged": 6,
        "gaps": 2,
        "lost_bytes": 70,
    }
