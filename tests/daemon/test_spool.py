"""The spool: whose a session is, what is left of one that is done, and what is cleared."""

import json
import os
import time

import pytest
from daemon_helpers import Journal, now_us

from datacat import host
from datacat.daemon import spool as spools
from datacat.daemon.facts import Facts
from datacat.daemon.spool import Found, clear, retire, sessions, size_bytes, whose
from datacat.daemon.view import View
from datacat.errors import Busy
from datacat.host.process import Target
from datacat.wire.layout import Meta
from datacat.wire.records import Close, Closing, Event, Metric, StatePatch, Verdict

GONE = {"pid": 2**22 + 1, "start": 1}
NOW_S = 2_000_000_000.0


def me():
    return {"pid": os.getpid(), "start": host.process_start(os.getpid())}


def judge(journal, owner=None, now_s=NOW_S):
    return whose(Found(journal.folder, journal.meta), owner, host.boot_id(), host.pid_namespace(), now_s)


def test_a_session_belongs_to_the_daemon_of_its_process(spool):
    journal = Journal(spool, **me())
    assert judge(journal, Target(journal.meta.pid, journal.meta.process_start)) == "own"
    assert judge(journal, Target(journal.meta.pid, 1)) == ""
    assert judge(journal) == ""


def test_an_orphan_is_one_whose_process_is_gone_and_whose_lock_is_free(spool):
    journal = Journal(spool, **GONE)
    assert judge(journal) == "orphan"
    with host.lock(journal.folder / "lock"):
        assert judge(journal) == ""
    reused = Journal(spool, pid=os.getpid(), start=1)
    assert judge(reused) == "orphan"


def test_another_boot_makes_an_orphan_even_when_the_pid_lives(spool):
    assert judge(Journal(spool, **me(), boot_id="before")) == "orphan"


def test_a_pid_of_another_namespace_proves_nothing_until_it_was_silent_for_a_day(spool):
    journal = Journal(spool, **GONE, pid_namespace=12345)
    assert judge(journal, now_s=time.time()) == ""
    assert judge(journal, now_s=time.time() + 2 * 24 * 3600) == "orphan"


def test_sessions_of_local_http_clients_are_served_on_by_a_daemon_started_by_hand(spool):
    alone = Journal(spool, source="http")
    watched = Journal(spool, **me(), source="http")
    dead = Journal(spool, **GONE, source="http")
    assert [judge(one) for one in (alone, watched, dead)] == ["http", "http", "orphan"]
    other = Target(2**22 + 9, 1)
    assert [judge(one, other) for one in (alone, watched, dead)] == ["", "", "orphan"]


def test_only_whole_sessions_that_are_not_done_are_found_oldest_first(spool):
    second = Journal(spool, created_us=2000)
    first = Journal(spool, created_us=1000)
    done = Journal(spool)
    (done.folder / "summary.json").write_text("{}")
    (spool / "not-yet").mkdir()
    (spool / "broken").mkdir()
    (spool / "broken" / "session.json").write_text("{")
    moved = Journal(spool)
    moved.folder.rename(spool / "elsewhere")
    assert [found.meta.id for found in sessions(spool)] == [first.id, second.id]
    assert [found.meta.id for found in sessions(spool, {first.id})] == [second.id]
    assert sessions(spool / "gone") == []


def write_session(spool, *, product="shop", created_us=None):
    journal = Journal(spool, **GONE)
    journal.meta.product = product
    journal.append(StatePatch(t=now_us(), patch={"step": 2}), Event(t=now_us(), name="last", level="error"))
    journal.append(Verdict(t=now_us(), status="hung"), Verdict(t=now_us(), status="active", hang_s=4.5))
    journal.append(Verdict(t=now_us(), status="crashed", reason="killed", exit_signal=9, detail="SIGKILL"))
    return journal


def test_what_is_left_of_a_session_says_how_it_went(spool):
    journal = write_session(spool)
    retire(journal.folder, journal.meta)
    summary = json.loads((journal.folder / "summary.json").read_text())
    assert {name: summary[name] for name in ("id", "status", "end_reason", "exit_signal", "hung", "hang_seconds")} == {
        "id": journal.id,
        "status": "crashed",
        "end_reason": "killed",
        "exit_signal": 9,
        "hung": True,
        "hang_seconds": 4.5,
    }
    assert summary["state"] == {"product": "shop", "version": "1.0", "step": 2}
    assert not (journal.folder / "wake").exists()
    assert (journal.folder / "app" / "00000000.ndjson").exists()


def test_segments_go_after_a_day_and_the_newest_five_summaries_of_a_product_stay(spool):
    journals = [write_session(spool) for _ in range(7)]
    for journal in journals:
        retire(journal.folder, journal.meta)
    living = Journal(spool)
    clear(spool, time.time())
    left = {path.name for path in spool.iterdir()} - {"owners"}
    assert living.id in left
    assert left - {living.id} == {journal.id for journal in journals[2:]}
    assert (journals[-1].folder / "app").exists()
    clear(spool, time.time() + 2 * 24 * 3600)
    assert [path.name for path in journals[-1].folder.iterdir()] == ["summary.json"]


def test_locks_of_processes_that_are_gone_are_cleared_unless_they_are_held(spool):
    mine = spools.owner_lock(spool, Target(**me()))
    gone = spools.owner_lock(spool, Target(**GONE))
    held = spools.owner_lock(spool, Target(2**22 + 5, 1))
    for path in (mine, gone):
        path.write_text("")
    with host.lock(held):
        clear(spool, time.time())
        assert {path.name for path in (spool / "owners").iterdir()} == {mine.name, held.name}


def test_a_session_is_made_once(spool):
    meta = Meta("0198c0de-0000-7000-8000-000000000001", "p", "1", "s", 1)
    folder = spools.make(spool, meta)
    assert (folder.stat().st_mode & 0o777, (folder / "session.json").stat().st_mode & 0o777) == (0o700, 0o600)
    with pytest.raises(Busy):
        spools.make(spool, meta)


def test_the_size_of_a_session_is_what_it_takes_on_disk(spool):
    journal = Journal(spool)
    assert size_bytes(journal.folder) > 0
    assert size_bytes(spool / "gone") == 0


def test_the_view_of_a_session_has_the_servers_fields(spool):
    journal = write_session(spool)
    journal.append(Metric(t=now_us(), name="sold", value=2, type="counter"))
    seen = View(journal.folder, journal.meta).session()
    assert (seen["status"], seen["crashed"], seen["ever_hung"], seen["counts"]["errors"]) == ("crashed", True, True, 1)
    assert seen["events"][0]["name"] == "last"
    assert seen["metrics"][0]["delta"] == 2
    assert seen["state_history"][0]["patch"] == {"step": 2}


def test_facts_are_read_as_the_journal_grows(spool):
    journal = Journal(spool, segment_bytes=1024)
    facts = Facts(journal.folder, journal.meta)
    assert facts.scan(all_streams=False)
    assert (facts.opened, facts.ended) == (True, False)
    journal.append(*(Event(t=5_000_000_000_000_000, name=f"close {number}") for number in range(100)))
    assert facts.scan(all_streams=False)
    assert facts.last_t == 5_000_000_000_000_000
    assert not facts.scan(all_streams=False)
    assert not facts.ended
    journal.append(Closing(t=1, exception_type="KeyError"), Closing(t=2, exit_code=1))
    facts.scan(all_streams=False)
    assert facts.closing.exception_type == "KeyError"
    journal.append(b'{"t":3,"k":"close","exit_code":4}\n')
    facts.scan(all_streams=False)
    assert facts.ended
    assert facts.close == Close(t=3, exit_code=4)
