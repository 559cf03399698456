"""The quick count of a batch and the loop over its records agree."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datacat.store import fold as folding
from datacat.store.columns import columns_of
from datacat.store.fold import fold, new_head
from datacat.store.plain import counted
from datacat.wire.records import HUNG_EVENT, Beat, Event, Metric, Open, StatePatch, Verdict

FIRST = fold(new_head("s", Open(5, "editor", "1")), {}, [Open(5, "editor", "1")]).head

events = st.builds(
    Event, st.integers(0, 99), st.sampled_from(["a", "b"]), st.sampled_from(["info", "error", "critical"])
)
metrics = st.builds(Metric, st.integers(0, 99), st.just("m"), st.just(1))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.lists(events | metrics, min_size=1, max_size=8), st.sampled_from(["active", "suspended", "abnormal", "ended"])
)
def test_a_plain_batch_folds_as_record_by_record(records, status):
    head = msgspec.structs.replace(
        FIRST, status=status, by="server", ended_at=7 if status in ("abnormal", "ended") else 0
    )
    assert counted(columns_of(records))
    quick = fold(head, {}, records)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folding, "counted", lambda _columns: None)
        assert fold(head, {}, records) == quick


@pytest.mark.parametrize(
    "record",
    [
        Event(1, HUNG_EVENT),
        Event(1, "e", exception_type="ValueError"),
        StatePatch(1, {"a": 1}),
        Beat(1),
        Verdict(1, "hung"),
        Open(1, "editor", "1"),
    ],
)
def test_what_tells_more_than_that_it_happened_is_not_plain(record):
    assert counted(columns_of([Event(1, "a"), record, Metric(1, "m", 1)])) is None
    assert counted(columns_of([])) is None
