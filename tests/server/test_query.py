"""The query layer over HTTP: parameters, the envelope, definitions on small fleets that one can count by hand."""

import csv
import io

import pytest
from querying import MINUTE, ask, rows

from datacat.server.query import asked


@pytest.fixture
def fleet(server):
    """Two versions within two hours: 1.0 with a crash and a hang that was recovered from, 1.1 with an open session."""
    one = server.session(version="1.0", machine_id="m1")
    two = server.session(version="1.0", machine_id="m2", hostname="host2")
    server.now_us += 10 * MINUTE
    server.post(f"/api/sessions/{one}/crash", json={"reason": "signal"})
    hung = server.session(version="1.1", machine_id="m2", hostname="host2")
    server.post(f"/api/sessions/{hung}/heartbeat")
    server.now_us += 50 * MINUTE
    server.post(f"/api/sessions/{two}/end", json={"exit_code": 0})
    server.now_us += 60 * MINUTE
    return server


def test_the_summary_counts_and_rates(fleet):
    (row,) = rows(fleet, "summary", **{"from": "-3h"})
    assert (row["sessions"], row["started"], row["open"], row["crashed"], row["ended"]) == (3, 3, 1, 1, 1)
    assert row["crash_free_rate"] == pytest.approx(2 / 3)
    assert row["crash_free_machines"] == 0.5
    assert row["machines"] == 2
    assert row["mtbf_seconds"] == row["runtime_seconds"] == (10 + 60 + 110) * 60
    assert row["duration_p50"] == 35 * 60


def test_the_summary_by_version_compares_with_the_span_before(fleet):
    found = {
        row["version"]: row for row in rows(fleet, "summary", **{"from": "-1h", "by": "version", "compare": "previous"})
    }
    assert set(found) == {"1.1"}
    assert (found["1.1"]["started"], found["1.1"]["prev_started"]) == (0, 1)
    assert found["1.1"]["crash_free_rate"] is None


def test_an_empty_store_has_one_row_without_rates(server):
    (row,) = rows(server, "summary")
    assert row["sessions"] == 0
    assert row["crash_free_rate"] is None
    assert rows(server, "summary", by="version") == []


def test_rates_of_few_sessions_are_null_when_asked_for(fleet):
    names = ("crash_rate", "crash_free_rate", "hang_free_rate", "unknown_share")
    (row,) = rows(fleet, "summary")
    assert None not in [row[name] for name in names]
    for enough, none in ((row["started"], False), (row["started"] + 1, True)):
        (one,) = rows(fleet, "summary", min_sessions=enough)
        assert [one[name] is None for name in names] == [none] * 4
        assert one["crashed"] == row["crashed"]


def test_zero_keeps_the_groups_without_a_session_in_the_span(fleet):
    assert [row["version"] for row in rows(fleet, "summary", **{"from": "-1m", "by": "version"})] == ["1.1"]
    found = rows(fleet, "summary", **{"from": "-1m", "by": "version", "zero": "1", "sort": "version"})
    assert [row["version"] for row in found] == ["1.0", "1.1"]


def test_time_series_are_sorted_and_whole(fleet):
    told = ask(
        fleet,
        "sessions/timeseries",
        **{"from": "-3h", "interval": "1h", "by": "version", "measures": "started,active_max"},
    )
    times = [row["time"] for row in told["rows"]]
    assert times == sorted(times)
    assert len(told["rows"]) == 2 * 3
    assert told["meta"]["interval_ms"] == 3_600_000
    assert sum(row["started"] for row in told["rows"]) == 3
    assert max(row["active_max"] for row in told["rows"] if row["version"] == "1.0") == 2


def test_a_crash_counts_where_its_session_began_or_when_it_happened(fleet):
    at = {}
    for attribute in ("start", "event"):
        found = rows(fleet, "sessions/timeseries", **{"from": "-2h", "interval": "5m", "attribute": attribute})
        at[attribute] = [index for index, row in enumerate(found) if row["crashed"]]
    assert at == {"start": [0], "event": [2]}


def test_shares_of_a_bucket_sum_to_one(fleet):
    found = rows(
        fleet, "sessions/timeseries",
        **{"from": "-2h", "interval": "1h", "by": "version", "measures": "share_sessions,share_machines,share_runtime"},
    )  # fmt: skip
    for name in ("share_sessions", "share_machines", "share_runtime"):
        first = [row[name] for row in found if row["time"] == found[0]["time"]]
        assert sum(first) == pytest.approx(1)


def test_the_biggest_groups_stay_and_the_rest_is_other(fleet):
    found = rows(fleet, "sessions/timeseries", **{"from": "-3h", "interval": "3h", "by": "version", "top": 1})
    counted = {}
    for row in found:
        counted[row["version"]] = counted.get(row["version"], 0) + row["started"]
    assert counted == {"1.0": 2, "other": 1}


@pytest.mark.parametrize(
    ("query", "started"),
    [
        ("version=1.0", 2),
        ("version=!1.0", 1),
        ("version=1.0,1.1", 3),
        ("version=1.0&version=1.1", 3),
        ("version=*", 3),
        ("version=", 3),
        ("version=$__all", 3),
        ("version=nothing", 0),
        ("version=1\\,0", 0),
        ('version="1.0"', 2),
        ('version="1.0","1.1"', 3),
        ('version="1.0,1.1"', 0),
        ('version="1.0","1.1', 2),
        ("hostname=host2", 2),
        ("machine=m1", 1),
        ("status=crashed", 1),
        ("has=crash", 1),
        ("q=HOST2", 2),
        ("product=editor&hostname=!host2", 1),
    ],
)
def test_filters_of_every_kind(fleet, query, started):
    (row,) = fleet.get(f"/api/query/summary?from=-3h&{query}").json["rows"]
    assert row["started"] == started


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("", [""]), ("a", ["a"]), ("a,b", ["a", "b"]), (",a", ["", "a"]), ("a\\,b,c\\\\", ["a,b", "c\\"]), ("a\\", ["a\\"]),
        ('"a, b","c"', ["a, b", "c"]), ('"say \\"a, b\\"",c', ['say "a, b"', "c"]), ('""', [""]), ('"back\\slash"', ["back\\slash"]),
        ('"', ['"']), ('"a', ['"a']), ('"a,b', ['"a', "b"]), ('a "b"', ['a "b"']), ('"a" b,c', ['"a" b', "c"]),
    ],
)  # fmt: skip
def test_a_list_is_split_at_commas_that_are_neither_escaped_nor_in_quotes(text, items):
    assert asked.split(text) == items


def test_a_list_of_nothing_but_quotes_is_split_in_no_time():
    assert len(asked.split(',"x' * 50_000)) == 50_001


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("nonsense=1", "nonsense"),
        ("by=nonsense", "nonsense"),
        ("from=tomorrow", "from"),
        ("from=now&to=-1h", "from"),
        ("limit=0", "limit"),
        ("limit=2000", "limit"),
        ("limit=1&limit=2", "limit"),
        ("sort=nonsense", "sort"),
        ("status=nonsense", "status"),
        ("zero=yes", "zero"),
    ],
)
def test_what_cannot_be_understood_is_named(server, query, said):
    answer = server.get(f"/api/query/summary?{query}")
    assert answer.status == 400
    assert said in answer.json["detail"]
    assert answer.header("content-type") == "application/problem+json"


@pytest.mark.parametrize("query", ["measures=nonsense", "interval=never", "top=51", "max_points=2001", "attribute=x"])
def test_what_cannot_be_understood_of_a_series_is_named(server, query):
    answer = server.get(f"/api/query/sessions/timeseries?{query}")
    assert answer.status == 400
    assert query.partition("=")[0] in answer.json["detail"]


def test_the_interval_is_rounded_up_so_that_there_are_not_too_many_buckets(server):
    def interval(**query):
        return ask(server, "sessions/timeseries", **query)["meta"]["interval_ms"]

    assert interval(**{"from": "-1h"}) == 15_000
    assert interval(**{"from": "-1h", "interval": "$__interval_ms"}) == 15_000
    assert interval(**{"from": "-1h", "interval": "20000"}) == 30_000
    assert interval(**{"from": "-1h", "interval": "2m", "max_points": 5}) == 900_000
    assert interval(**{"from": "-900d", "interval": "1s"}) == 7 * 86_400_000
    assert interval(**{"from": "0", "interval": "1s"}) > 7 * 86_400_000


def test_rows_as_csv_and_ndjson(fleet):
    plain = rows(fleet, "summary", **{"from": "-3h", "by": "version"})
    told = fleet.get("/api/query/summary?from=-3h&by=version&format=csv")
    assert told.header("content-type").startswith("text/csv")
    table = list(csv.DictReader(io.StringIO(told.body.decode())))
    assert [row["started"] for row in table] == [str(row["started"]) for row in plain]
    lines = fleet.get("/api/query/summary?from=-3h&by=version&format=ndjson").body.splitlines()
    assert len(lines) == len(plain)


def test_the_same_rows_are_not_sent_twice(fleet):
    first = fleet.get("/api/query/sessions/timeseries?from=0&to=1800000000&interval=1d&max_points=10")
    again = fleet.get(
        "/api/query/sessions/timeseries?from=0&to=1800000000&interval=1d&max_points=10",
        headers={"If-None-Match": first.header("etag")},
    )
    assert (again.status, again.body) == (304, b"")
    assert first.header("cache-control") == "private, max-age=5"


def test_fill_says_what_stands_where_nothing_happened(fleet):
    query = {"from": "-3h", "interval": "5m", "measures": "started"}
    assert all(row["started"] is not None for row in rows(fleet, "sessions/timeseries", **query))
    assert None in [row["started"] for row in rows(fleet, "sessions/timeseries", fill="null", **query)]
    assert len(rows(fleet, "sessions/timeseries", fill="none", **query)) == 2
