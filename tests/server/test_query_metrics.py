"""Metrics and events over time, as the query layer gives them."""

import pytest
from querying import HOUR, MINUTE, US, ask, rows


@pytest.fixture
def measured(server):
    """Two sessions of two versions; in each of five minutes ten samples, and one event."""
    server.ids = [server.session(version=f"1.{number}", hostname=f"h{number}") for number in range(2)]
    for minute in range(5):
        for number, session in enumerate(server.ids):
            values = [100 * number + 10 * minute + sample for sample in range(10)]
            samples = [
                {"name": "frame_ms", "value": value, "unit": "ms", "tags": [f"room:{value % 2}"]} for value in values
            ]
            server.post(f"/api/sessions/{session}/metrics", json=[*samples, {"name": "saves", "delta": 2}])
            event = {"name": "saved", "level": ("info", "error")[number], "category": "db" if number else None}
            server.post(f"/api/sessions/{session}/events", json={k: v for k, v in event.items() if v})
        server.now_us += MINUTE
    return server


def test_metrics_over_time(measured):
    told = ask(
        measured,
        "metrics/timeseries",
        **{"from": "-5m", "interval": "1m", "name": "frame_ms", "agg": "avg,count,max,p50"},
    )
    assert [row["count"] for row in told["rows"]] == [20] * 5
    assert [row["avg"] for row in told["rows"]] == [10 * minute + 54.5 for minute in range(5)]
    assert all(row["value"] == row["avg"] for row in told["rows"])
    assert told["meta"]["interval_ms"] == 60_000


@pytest.mark.parametrize(
    ("by", "names"),
    [("version", {"1.0", "1.1"}), ("hostname", {"h0", "h1"}), ("tag:room", {"0", "1"}), ("product", {"editor"})],
)
def test_metrics_by_a_dimension(measured, by, names):
    found = rows(
        measured,
        "metrics/timeseries",
        **{"from": "-5m", "interval": "5m", "name": "frame_ms", "agg": "count", "by": by},
    )
    counts = {}
    for row in found:
        counts[row[by]] = counts.get(row[by], 0) + row["count"]
    assert set(counts) == names
    assert sum(counts.values()) == 100


@pytest.mark.parametrize(
    ("by", "series"),
    [("", {"frame_ms"}), ("version", {"1.0", "1.1"}), ("version,hostname", {"1.0 h0", "1.1 h1"})],
)
def test_one_column_names_the_group_whatever_it_is_grouped_by(measured, by, series):
    found = rows(measured, "metrics/timeseries", **{"from": "-5m", "name": "frame_ms", "by": by})
    assert {row["series"] for row in found} == series


def test_records_and_roll_ups_give_the_same(measured):
    query = {
        "from": "-5m",
        "interval": "1m",
        "name": "frame_ms,saves",
        "agg": "avg,min,max,sum,count,last,rate,p90",
        "version": "1.1",
    }
    rolled = rows(measured, "metrics/timeseries", **query)
    read = rows(measured, "metrics/timeseries", **query, session=measured.ids[1])
    assert rolled == read
    assert {row["rate"] for row in rolled if row["name"] == "saves"} == {2 / 60}


def test_metrics_of_one_session_are_seen_by_the_second(measured):
    query = {"from": "-5m", "interval": "10s", "name": "frame_ms", "agg": "count", "session": measured.ids[0]}
    assert sorted({row["count"] for row in rows(measured, "metrics/timeseries", **query)}) == [0, 10]


def test_the_summary_and_the_distribution_of_a_metric(measured):
    found = rows(measured, "metrics/summary", name="frame_ms", by="version", agg="count,max", **{"from": "-5m"})
    assert [(row["version"], row["count"], row["max"], row["unit"]) for row in found] == [
        ("1.0", 50, 49, "ms"),
        ("1.1", 50, 149, "ms"),
    ]
    bars = rows(measured, "metrics/distribution", name="frame_ms", **{"from": "-5m"})
    assert sum(row["count"] for row in bars) == 100
    assert sum(row["share"] for row in bars) == pytest.approx(1)
    assert [row["order"] for row in bars] == list(range(len(bars)))


def test_a_histogram_keeps_its_own_buckets(server):
    session = server.session()
    for value in (0.5, 3, 3, 30):
        metric = {"name": "load", "type": "histogram", "value": value, "metadata": {"buckets": [1, 5, 10]}}
        server.post(f"/api/sessions/{session}/metrics", json=metric)
    server.now_us += MINUTE
    bars = rows(server, "metrics/distribution", name="load")
    assert [(row["bucket"], row["le"], row["count"]) for row in bars] == [
        ("00-01", 1, 1), ("01-05", 5, 2), ("05-10", 10, 0), ("10+", None, 1),
    ]  # fmt: skip


def test_the_catalogue_of_metrics(measured):
    found = {row["name"]: row for row in rows(measured, "metrics")}
    assert (found["frame_ms"]["sessions"], found["frame_ms"]["points"], found["frame_ms"]["max"]) == (2, 100, 149)
    assert found["saves"]["type"] == "counter"
    assert [row["name"] for row in rows(measured, "metrics", name="fr*")] == ["frame_ms"]
    assert [row["name"] for row in rows(measured, "metrics", type="counter")] == ["saves"]


def test_events_over_time(measured):
    query = {"from": "-5m", "interval": "1m"}
    assert [row["count"] for row in rows(measured, "events/timeseries", **query)] == [2] * 5
    by = rows(measured, "events/timeseries", by="severity", **query)
    assert {(row["severity"], row["count"]) for row in by} == {("info", 1), ("error", 1)}
    assert [row["count"] for row in rows(measured, "events/timeseries", category="db", **query)] == [1] * 5
    assert [row["count"] for row in rows(measured, "events/timeseries", severity="info", category="db", **query)] == [
        0
    ] * 5
    own = rows(measured, "events/timeseries", session=measured.ids[0], **query)
    assert [(row["count"], row["sessions"]) for row in own] == [(1, 1)] * 5


def test_what_is_older_is_told_by_the_hour_and_by_the_day(server):
    query = {"interval": "1m", "name": "frame_ms"}
    intervals = [
        ask(server, "metrics/timeseries", **{"from": since, "to": to, **query})["meta"]["interval_ms"]
        for since, to in (("-1h", "now"), ("-3d", "-71h"), ("-100d", "-95d"))
    ]
    assert intervals == [60_000, 3_600_000, 86_400_000]


def test_a_metric_has_to_be_named(server):
    assert server.get("/api/query/metrics/timeseries").status == 400
    assert server.get("/api/query/metrics/timeseries?name=x&by=nonsense").status == 400
    assert rows(server, "metrics/timeseries", name="x") == []


def test_marks_for_charts(server):
    server.now_us += HOUR
    for version in ("1.0", "1.1"):
        session = server.session(version=version)
        server.now_us += MINUTE
    server.post(f"/api/sessions/{session}/events", json={"name": "deploy"})
    for _ in range(6):
        server.post(f"/api/sessions/{server.session(version='1.1')}/crash")
    server.now_us += US
    kinds = "release,crash_spike,deploy,hang,server"
    found = rows(server, "annotations", kinds=kinds, **{"from": "-1h"})
    assert [row["tags"] for row in found if row["tags"].startswith("release")] == [
        "release,editor,1.0",
        "release,editor,1.1",
    ]
    assert [row["title"] for row in found if row["tags"] == "crash_spike"] == ["6 crashes"]
    assert [row["text"] for row in found if row["tags"].startswith("deploy")] == ["1 x deploy"]
