"""/metrics: what a scrape says, that its counts only grow, and that its labels are bounded."""

import re
import subprocess
from shutil import which

import pytest
from fleet import seed
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from datacat.server import exposition
from datacat.server.exposition import Exposition
from datacat.server.pulse import Pulse
from datacat.server.router import Request
from datacat.store.memory import MemoryStore

NOW_US = 1_795_000_000_000_000
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


class Scraped:
    """A store, its exposition, and a clock that the test sets."""

    def __init__(self):
        self.now_us = NOW_US
        self.store = MemoryStore()
        self.pulse = Pulse(self.store, lambda: self.now_us, lambda: None, lambda: 3)
        self.exposition = Exposition(self.store, self.pulse, lambda: self.now_us)

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


def test_what_an_app_makes_up_makes_no_more_than_fifty_products(scraped, monkeypatch):
    monkeypatch.setattr(exposition, "MAX_PRODUCTS", 2)
    label = exposition.labels({"a": 5, "b": 1, "c": 9}, 2)
    assert [label(name) for name in "abc"] == ["a", "other", "c"]
    scraped.pulse.served.begin()
    scraped.pulse.served.end("BREW", "/x", 405, 0.1)
    assert ("405", "other", "/x") in scraped.values("datacat_http_requests_total")


def test_names_follow_the_rules_of_promtool(scraped):
    if which("promtool") is None:
        pytest.skip("capability: no promtool on this machine")
    seed(scraped.store, NOW_US, sessions=40, long_events=0)
    own = "\n".join(line for line in scraped.text().splitlines() if "datacat_" in line) + "\n"
    done = subprocess.run(["promtool", "check", "metrics"], input=own, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_requests_are_counted_by_route_and_never_by_path(server):
    session_id = server.session()
    server.get(f"/api/sessions/{session_id}")
    assert not re.search(session_id, str(server.get("/api/query/service/summary").body))
