"""Counts of what happened, which only grow."""

from datacat.store.shelf import Facts, HangRow
from datacat.store.tally import Distribution, Tally

S = 1_000_000


def facts(status="active", end=0, hangs=()):
    return Facts(100 * S, "id", "m", end, status, False, 0, bool(hangs), tuple(hangs), ())


def test_a_session_is_counted_once_from_its_start_to_its_corrected_end():
    tally = Tally()
    first, lost, crashed = facts(), facts("abnormal", 400 * S), facts("crashed", 390 * S)
    for old, new in ((None, first), (first, first), (first, lost), (lost, crashed)):
        tally.note(old, new)
    assert (tally.started, tally.crashes, dict(tally.ended)) == (1, 1, {"lost": 1})
    assert (sum(tally.durations.counts), tally.durations.sum) == (1, 300.0)


def test_hangs_and_recoveries_are_counted_as_they_happen():
    tally = Tally()
    hung = facts("hung", hangs=[HangRow(110 * S, "id", 0, "ongoing")])
    back = facts(hangs=[HangRow(110 * S, "id", 113 * S, "recovered")])
    again = facts("hung", hangs=[*back.hangs, HangRow(120 * S, "id", 0, "ongoing")])
    for old, new in ((None, facts()), (facts(), hung), (hung, back), (back, again)):
        tally.note(old, new)
    assert (tally.hangs, tally.recoveries, tally.recovered.sum) == (2, 1, 3.0)


def test_a_value_on_a_bound_belongs_below_it():
    distribution = Distribution((1, 5))
    for value in (0, 1, 1.5, 5, 6):
        distribution.add(value)
    assert distribution.counts == [2, 2, 1]
