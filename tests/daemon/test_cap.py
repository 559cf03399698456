"""The cap of the spool: the least useful goes first, oldest first, counted by session and reason, and the rest arrives."""

import os

import pytest
from daemon_helpers import Journal, now_us

from datacat import host
from datacat.daemon import spool as spools
from datacat.daemon.cap import LOCK_FILE, Cap
from datacat.daemon.delivery import Delivery
from datacat.daemon.uplink import Uplink
from datacat.wire import layout
from datacat.wire.records import Close, Event, Metric, StatePatch, Verdict

SEGMENT = 64 * 1024


@pytest.fixture
def uplink(server):
    made = Uplink(server.url)
    yield made
    made.close()


def fill(journal, segments, kinds=("metric", "info", "warning", "state"), text="x" * 300):
    n = 0
    while journal.number < segments:
        t = now_us()
        journal.append(
            *{
                "metric": [Metric(t=t, name=f"m{n}", value=n, tags=[text])],
                "info": [Event(t=t, name="info", message=text, data={"n": n})],
                "warning": [Event(t=t, name="warning", level="warning", message=text, data={"n": n})],
                "state": [StatePatch(t=t, patch={"n": n})],
            }[kinds[n % len(kinds)]]
        )
        n += 1
    journal.append(Verdict(t=now_us(), status="hung"), Close(t=now_us()))
    return n


def age(journal, seconds):
    for path in (journal.folder / journal.stream).iterdir():
        os.utime(path, (path.stat().st_atime, path.stat().st_mtime - seconds))


def delivery_of(journal, uplink):
    return Delivery(journal.folder, journal.meta, uplink, daemon_id="d", max_records=100_000)


def test_a_spool_below_its_cap_is_left_alone(spool, uplink):
    journal = Journal(spool)
    fill(journal, 2)
    assert Cap(spool, 10 * SEGMENT).enforce([delivery_of(journal, uplink)]) == 0


def test_metrics_of_the_oldest_session_go_first_and_what_stays_arrives_with_the_count(spool, uplink, server):
    old, young = Journal(spool), Journal(spool)
    for journal in (old, young):
        fill(journal, 8, kinds=("metric", "info"))
    age(old, 1000)
    both = [delivery_of(young, uplink), delivery_of(old, uplink)]
    total = spools.total_bytes(spool)
    cap = Cap(spool, round(total * 0.98))
    assert cap.enforce(both) > 0
    assert both[0].given_up == {}
    assert set(both[1].given_up) == {"spool_full_metrics"}
    assert spools.total_bytes(spool) <= total * 0.98

    both[1].ship()
    told = server.records(old.id)
    counts = sum(row["counts"].get("spool_full_metrics", 0) for row in told if row["k"] == "dropped")
    assert counts == both[1].given_up["spool_full_metrics"]
    numbers = [row["data"]["n"] for row in told if row["k"] == "event"]
    assert numbers == sorted(numbers)
    assert [row["k"] for row in told][-2:] == ["verdict", "close"]
    assert both[1].unacked_bytes() == 0


def test_events_below_warning_go_next_then_the_others_and_state_and_verdicts_never(spool, uplink, server):
    journal = Journal(spool)
    n = fill(journal, 12)
    one = delivery_of(journal, uplink)
    cap = Cap(spool, 4 * 1024)  # less than what may never go
    cap.enforce([one])
    assert set(one.given_up) == {"spool_full_metrics", "spool_full_events", "spool_full_warnings"}
    one.ship()
    told = server.records(journal.id)
    states = [row["patch"]["n"] for row in told if row["k"] == "state"]
    assert states[-1] == max(range(3, n, 4))
    assert [row["k"] for row in told][-2:] == ["verdict", "close"]
    # The ledger adds up: everything that was written is there, or counted.
    written = server.ledgers[journal.id]["app"]["records"]
    assert written == n + 3


def test_what_was_acknowledged_goes_before_anything_else(spool, uplink, server):
    done, open_one = Journal(spool), Journal(spool)
    fill(done, 4)
    fill(open_one, 4)
    first = delivery_of(done, uplink)
    first.ship()
    spools.retire(done.folder, done.meta)
    other = delivery_of(open_one, uplink)
    other.ship()
    open_one.append(Event(t=now_us(), name="later"))
    total = spools.total_bytes(spool)
    assert Cap(spool, round(total * 0.5)).enforce([other]) > 0
    assert other.given_up == {}
    assert not (done.folder / "app").exists()
    assert (done.folder / layout.SUMMARY_FILE).exists()
    other.ship()
    assert server.records(open_one.id, "event")[-1]["name"] == "later"


def test_a_batch_whose_answer_was_lost_before_the_squeeze_is_counted_once(spool, uplink, server):
    journal = Journal(spool)
    n = fill(journal, 3, kinds=("metric", "info"))
    one = delivery_of(journal, uplink)
    one._max_records = 100
    server.plan("/batches", "drop")  # the server has the first 100 records, and nobody knows
    with pytest.raises(Exception, match="no answer"):
        one.ship()
    Cap(spool, 1024).enforce([one])
    again = delivery_of(journal, uplink)
    again.ship()
    told = server.records(journal.id)
    counted = sum(sum(row["counts"].values()) for row in told if row["k"] == "dropped")
    numbers = [row["data"]["n"] for row in told if row["k"] == "event"]
    assert len(numbers) == len(set(numbers))
    assert server.ledgers[journal.id]["app"]["records"] == n + 3
    events_gone = sum(row["counts"].get("spool_full_events", 0) for row in told if row["k"] == "dropped")
    assert len(numbers) + events_gone == n // 2
    assert counted > events_gone > 0


def test_one_daemon_at_a_time_makes_room(spool, uplink):
    journal = Journal(spool)
    fill(journal, 4)
    one = delivery_of(journal, uplink)
    with host.lock(spool / layout.OWNERS_DIR / LOCK_FILE):
        assert Cap(spool, 1024).enforce([one]) == 0
    assert Cap(spool, 1024).enforce([one]) > 0
