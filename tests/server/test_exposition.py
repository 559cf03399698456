"""/metrics: what a scrape says, that its counts only grow, and that its labels are bounded."""

import re
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
from fleet import seed
from prometheus import tool
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse
from storing import opened, put, sid

from datacat.errors import StoreError
from datacat.server.config import Config, Live
from datacat.server.exposition import Exposition
from datacat.server.pulse import Disk, Pulse
from datacat.server.router import Request
from datacat.server.series import Labels
from datacat.store import RecordQuery, timed
from datacat.store.memory import MemoryStore
from datacat.store.semi import SemiStore
from datacat.store.timed import Timed
from datacat.wire.records import Close, Verdict

NOW_US = 1_795_000_000_000_000
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


class Scraped:
    """A store, its exposition, and a clock that the test sets."""

    def __init__(self):
        self.now_us = NOW_US
        self.live = Live(Config(max_store_bytes=5000))
        memory = MemoryStore()
        self.pulse = Pulse(memory, lambda: self.now_us, lambda: None, lambda: 3, lambda: Disk(100, 40))
        self.store = Timed(memory, self.pulse.timings)
        self.exposition = Exposition(self.store, self.pulse, lambda: self.now_us, self.live)

    def text(self, accept=""):
        return self.exposition.metrics(Request({"HTTP_ACCEPT": accept})).body.decode()

    def values(self, name):
        """Return the samples of that name by their labels' values."""
        return {
            tuple(sample.labels[name] for name in sorted(sample.labels)): sample.value
            for family in parse(self.text())
            for sample in family.samples
            if sample.name == name
        }


@pytest.fixture
def scraped():
    return Scraped()


def test_both_formats_are_read_by_the_parsers_of_prometheus(scraped):
    seed(scraped.store, NOW_US, sessions=40, long_events=0)
    plain = {family.name for family in parse(scraped.text())}
    answer = scraped.exposition.metrics(Request({"HTTP_ACCEPT": OPENMETRICS}))
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
    families = {family.name: family for family in parse_openmetrics(answer.body.decode())}
    assert {"datacat_sessions", "datacat_http_requests", "datacat_session_duration_seconds"} <= families.keys()
    assert {"datacat_sessions", "process_resident_memory_bytes"} <= plain
    assert families["datacat_build"].samples[0].labels["version"]


def test_sessions_are_told_by_product_and_status(scraped):
    fleet = seed(scraped.store, NOW_US, long_events=0)
    told = scraped.values("datacat_sessions")
    assert sum(told.values()) == len(fleet.ends)
    crashed = sum(count for (_, status), count in told.items() if status == "crashed")
    assert crashed == sum(scraped.store.head(session_id).status == "crashed" for session_id in fleet.ends)
    ended = scraped.values("datacat_sessions_ended_total")
    assert sum(ended.values()) == sum(scraped.store.head(one).ended_at > 0 for one in fleet.ends)
    assert scraped.values("datacat_daemons_connected") == {(): 3}
    durations = scraped.values("datacat_session_duration_seconds_count")
    assert sum(durations.values()) == sum(ended.values())


def test_counts_only_grow_also_when_sessions_are_deleted(scraped):
    fleet = seed(scraped.store, NOW_US, sessions=40, long_events=0)
    before = scraped.values("datacat_sessions_started_total")
    for session_id in list(fleet.ends)[:20]:
        scraped.store.drop(session_id)
    scraped.now_us += 11_000_000
    assert scraped.values("datacat_sessions_started_total") == before
    assert sum(scraped.values("datacat_sessions").values()) == len(fleet.ends) - 20


def test_a_scrape_does_not_look_at_the_fleet_more_often_than_every_ten_seconds(scraped):
    scraped.text()
    seed(scraped.store, NOW_US, sessions=5, long_events=0)
    assert sum(scraped.values("datacat_sessions").values()) == 0
    scraped.now_us += 10_000_000
    assert sum(scraped.values("datacat_sessions").values()) > 0


def test_the_biggest_have_a_label_and_keep_it():
    labels = Labels(3)
    labels.see({"a": 5, "b": 9})
    labels.see({"a": 1, "c": 2, "d": 7})
    labels.see({"c": 1000})
    assert [labels.of(name) for name in "abcd"] == ["a", "b", "other", "d"]


def test_no_counter_shrinks_when_more_than_fifty_products_come_and_go(scraped):
    sessions = [sid(number) for number in range(130)]

    def come(numbers):
        for number in numbers:
            put(scraped.store, sessions[number], opened(product=f"p{number % 60}"), Close(t=200))

    def counted():
        scraped.now_us += 11_000_000
        return scraped.values("datacat_sessions_started_total"), scraped.values("datacat_sessions_ended_total")

    come(range(55))
    seen = [counted()]
    come(range(55, 115))
    seen.append(counted())
    for session_id in sessions[:30]:
        scraped.store.drop(session_id)
    seen.append(counted())
    come(range(115, 130))
    seen.append(counted())
    assert all(len(started) == 51 for started, _ in seen)
    assert [sum(started.values()) for started, _ in seen] == [55, 115, 115, 130]
    for before, after in pairwise(seen):
        for old, new in zip(before, after, strict=True):
            assert {labels: value for labels, value in old.items() if new[labels] < value} == {}


def test_what_happens_first_is_an_increase_from_zero(scraped):
    put(scraped.store, sid(1), opened(product="editor"))
    assert scraped.values("datacat_session_crashes_total") == {("editor",): 0}
    assert scraped.values("datacat_sessions_ended_total") == {
        (outcome, "editor"): 0 for outcome in ("normal", "crashed", "lost")
    }
    assert set(scraped.values("datacat_ingest_rejected_total").values()) == {0}


def test_after_a_restart_every_counter_of_a_known_product_begins_at_zero(scraped, tmp_path):
    def started():
        return scraped.values("datacat_sessions_started_total"), scraped.values("datacat_session_crashes_total")

    for expected in (2, 0):
        store = SemiStore(tmp_path / "store")
        scraped.exposition = Exposition(store, scraped.pulse, lambda: scraped.now_us, scraped.live)
        if expected:
            put(store, sid(1), opened(product="editor"), Verdict(t=150, status="crashed", reason="signal"))
            put(store, sid(2), opened(product="editor"))
        assert started() == ({("editor",): expected}, {("editor",): expected // 2})
        store.close()


def test_active_sessions_by_version_are_told_when_asked_for(scraped):
    for number in range(14):
        put(scraped.store, sid(number), opened(product="editor", version=f"{max(number, 2)}"))
    put(scraped.store, sid(20), opened(product="editor", version="0"), Close(t=200))
    assert scraped.values("datacat_sessions_active_by_version") == {}
    scraped.live.reload(Config(max_store_bytes=5000, metrics_by_version=True))
    scraped.now_us += 11_000_000
    told = scraped.values("datacat_sessions_active_by_version")
    assert told["editor", "2"] == 3
    assert told["editor", "other"] == 2
    assert (len(told), sum(told.values())) == (11, 14)


def test_batches_are_told_with_their_bytes_heartbeats_and_refusals(server):
    session_id = server.session()
    server.post(f"/api/sessions/{session_id}/heartbeat")
    body = b'{"k":"beat","t":1800000000000000}\n{"k":"metric","t":1800000000000000,"name":"n","value":1}\n'
    path = f"/api/sessions/{session_id}/batches?stream=0011223344556677&from=0&to=90"
    assert server.request("POST", path, body=body).status == 200
    assert server.request("POST", path.replace("from=0", "from=70"), body=body).status == 200  # known: not read again
    assert server.request("POST", f"/api/sessions/{sid(9)}/batches?stream=aa&from=0&to=90", body=b"{}").status >= 400
    told = {sample.name + str(sorted(sample.labels.values())): sample.value
            for family in parse(server.get("/metrics").body.decode()) for sample in family.samples}  # fmt: skip
    assert told["datacat_ingest_bytes_total[]"] == len(body) + len('{"product": "editor", "version": "1.2"}')
    assert told["datacat_ingest_items_total['metric']"] == 1
    assert told["datacat_ingest_items_total['heartbeat']"] >= 1
    assert sum(value for name, value in told.items() if name.startswith("datacat_ingest_rejected_total")) == 1


def test_a_refused_question_is_no_rejected_ingest(scraped):
    for method, status in (("GET", 401), ("POST", 401), ("POST", 503), ("POST", 500), ("PATCH", 409)):
        scraped.pulse.served.begin()
        scraped.pulse.served.end(method, "/x", status, 0.1)
    told = {reason: count for (reason,), count in scraped.values("datacat_ingest_rejected_total").items() if count}
    assert told == {"auth": 1, "busy": 1, "conflict": 1}


def test_the_room_on_the_disk_and_whether_the_store_takes_writes_are_told(scraped, monkeypatch):
    names = ("store_limit_bytes", "disk_size_bytes", "disk_free_bytes", "store_writable")
    assert [scraped.values(f"datacat_{name}")[()] for name in names] == [5000, 100, 40, 1]

    def refuse():
        raise StoreError("cannot write")

    monkeypatch.setattr(scraped.store, "check", refuse)
    scraped.now_us += 11_000_000
    assert scraped.values("datacat_store_writable") == {(): 0}


def test_retention_tells_when_it_ran_and_what_it_deleted(scraped):
    name = "datacat_retention_last_success_timestamp_seconds"
    assert scraped.values(name) == {(): 0}
    scraped.pulse.ran("retain")
    scraped.pulse.deleted["size"] += 2
    assert scraped.values(name) == {(): NOW_US / 1e6}
    assert scraped.values("datacat_retention_deleted_total") == {("age",): 0, ("size",): 2}


def test_what_the_store_does_is_timed_by_operation(scraped):
    put(scraped.store, sid(1), opened(), Close(t=200))
    list(scraped.store.records(sid(1), RecordQuery()))
    assert scraped.values("datacat_store_write_seconds_count") == {("append",): 1}
    assert scraped.values("datacat_store_query_seconds_count")[("records",)] == 1
    assert max(len(timed.WRITES), len(timed.QUERIES)) <= 10


def test_a_key_for_some_products_may_not_read_what_is_told_of_all(make_server, tmp_path):
    server = make_server(folder=tmp_path)
    assert server.with_key(server.key("read")).get("/metrics").status == 200
    assert server.with_key(server.key("read", "editor")).get("/metrics").status == 403
    assert server.with_key(server.key("ingest")).get("/metrics").status == 403
    assert server.get("/metrics").status == 401


def test_methods_that_clients_make_up_are_one(scraped):
    scraped.pulse.served.begin()
    scraped.pulse.served.end("BREW", "/x", 405, 0.1)
    assert ("405", "other", "/x") in scraped.values("datacat_http_requests_total")


def test_names_follow_the_rules_of_promtool(scraped):
    seed(scraped.store, NOW_US, sessions=40, long_events=0)
    own = "\n".join(line for line in scraped.text().splitlines() if "datacat_" in line) + "\n"
    done = subprocess.run(
        [tool("promtool"), "check", "metrics"], input=own, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_requests_are_counted_by_route_and_never_by_path(server):
    session_id = server.session()
    server.get(f"/api/sessions/{session_id}")
    assert not re.search(session_id, str(server.get("/api/query/service/summary").body))


def test_the_table_of_the_docs_has_every_metric_as_it_is(scraped):
    scraped.live.reload(Config(metrics_by_version=True))
    found = sorted(
        (family for source in scraped.exposition.sources for family in source.collect()), key=lambda family: family.name
    )
    suffixes = {"counter": "_total", "info": "_info"}
    made = [
        f"| `{one.name}{suffixes.get(one.type, '')}` | {one.type} | {', '.join(one._labelnames or one.samples[0].labels) or '-'} | {one.documentation} |"
        for one in found
    ]
    page = (Path(__file__).parents[2] / "docs/operations.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `datacat_.*\|$", page, re.MULTILINE) == made
