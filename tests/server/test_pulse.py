"""What the server tells about itself."""

from querying import US, ask, rows

from datacat.host.usage import Usage
from datacat.server.pulse import STEP_S, STEPS, Pulse, latency
from datacat.store.memory import MemoryStore


def test_requests_are_counted_by_route_and_refusals_by_reason(server):
    session = server.session()
    server.get(f"/api/sessions/{session}")
    server.get("/api/sessions/01890a5d-ac96-774b-bcce-000000000001")
    server.get("/nothing")
    server.now_us += STEP_S * US
    found = rows(server, "service/timeseries", by="route", fill="none", **{"from": "-1m"})
    counted = {row["route"]: round(row["requests_per_second"] * 10) for row in found}
    assert counted == {"/api/sessions": 1, "/api/sessions/{id}": 2, "other": 1}
    refused = rows(
        server, "service/timeseries", by="reason", measures="rejected_per_second", fill="none", **{"from": "-1m"}
    )
    assert {row["reason"] for row in refused} == {"unknown"}


def test_what_was_stored_is_counted_by_kind(server):
    session = server.session()
    server.post(f"/api/sessions/{session}/events", json=[{"name": "a"}, {"name": "b"}])
    server.pulse.sample(server.now_us)
    server.now_us += STEP_S * US
    found = rows(server, "service/timeseries", by="kind", measures="ingest_per_second", fill="none", **{"from": "-1m"})
    assert {row["kind"]: round(row["ingest_per_second"] * 10) for row in found} == {"session": 1, "event": 2}


def test_the_summary_tells_sizes_and_ages(server):
    server.session()
    server.pulse.sample(server.now_us)
    server.now_us += 60 * US
    (row,) = rows(server, "service/summary", **{"from": "-5m"})
    assert (row["store_sessions"], row["uptime_seconds"], row["ingest_age_seconds"]) == (1, 60, 60)
    assert row["latency_p95"] > 0
    assert row["rss_bytes"] is None
    assert ask(server, "service/timeseries", **{"from": "-1m"})["meta"]["interval_ms"] == 10_000


def test_cpu_is_measured_between_two_samples():
    now, used = [0], [Usage(1.0, 0.0, 5_000, 1, 7)]
    pulse = Pulse(MemoryStore(), lambda: now[0], lambda: used[0], lambda: 3)
    pulse.sample(now[0])
    now[0], used[0] = 10 * US, Usage(2.0, 1.0, 6_000, 1, 8)
    pulse.sample(now[0])
    assert pulse.gauges() == {
        "store_bytes": 0, "store_sessions": 0, "daemons": 3, "rss_bytes": 6_000, "open_files": 8, "cpu": 0.2,
    }  # fmt: skip


def test_a_day_is_kept_and_no_more():
    now = [0]
    pulse = Pulse(MemoryStore(), lambda: now[0], lambda: None, lambda: 0)
    for number in range(STEPS + 50):
        now[0] = number * STEP_S * US
        pulse.request("/x", 200, 0.01)
    found = pulse.steps(0, now[0] + 1)
    assert len(found) == STEPS + 1
    assert found[-1].number == STEPS + 49


def test_latencies_are_right_within_a_few_percent():
    pulse = Pulse(MemoryStore(), lambda: 0, lambda: None, lambda: 0)
    for ms in range(1, 1001):
        pulse.request("/x", 200, ms / 1000)
    bins = pulse.steps(0, 1)[0].latencies["/x"]
    for share, seconds in ((0.5, 0.5), (0.95, 0.95), (0.99, 0.99)):
        assert abs(latency(bins, share) / seconds - 1) < 0.03
    assert latency({}, 0.5) is None
