"""datacat show tells everything about one session."""

import json
import re

import pytest

from datacat.cli.show import metric_lines, sections


@pytest.fixture(scope="module")
def crashed(cli):
    """A session with state, events, metrics, and a bad end; its id."""
    made = cli.session("shower", "3.1", hostname="gamma", pid=4711, state={"window": {"open": ["w1"]}})
    cli.post(f"/api/sessions/{made}/state", {"window": {"active": "w1"}})
    cli.post(
        f"/api/sessions/{made}/events",
        [
            {"name": "started", "data": {"n": 1}},
            {"name": "failed", "exception_type": "ValueError", "exception_msg": "no", "stacktrace": ["app.py:1 in f"]},
        ],
    )
    cli.post(f"/api/sessions/{made}/metrics", [{"name": "jobs", "type": "counter", "value": 2}] * 3)
    cli.post(f"/api/sessions/{made}/crash", {"reason": "the fuse blew"})
    return made


def test_it_tells_why_facts_status_state_events_and_metrics(cli, crashed):
    done = cli("show", crashed)
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    for part in (
        "shower 3.1  crashed",
        "the fuse blew",
        crashed,
        "gamma",
        "4711",
        "window.active = w1",
        'window.open = ["w1"]',
        "failed  ValueError: no",
        "app.py:1 in f",
        "started  n=1",
    ):
        assert part in done.stdout
    assert [line.split() for line in done.stdout.splitlines() if line.startswith("  jobs")] == [
        ["jobs", "counter", "6"]
    ]


def test_the_beginning_of_an_id_is_enough(cli, crashed):
    assert cli("show", crashed[:20]).stdout.splitlines()[0] == "shower 3.1  crashed"
    assert cli("show", crashed[:20].upper()).returncode == 0


def test_a_beginning_of_several_ids_names_them(cli, crashed):
    other = cli.session("shower")
    shared = next(crashed[:size] for size in range(len(crashed), 0, -1) if other.startswith(crashed[:size]))
    done = cli("show", shared)
    assert done.returncode == 2
    assert other in done.stderr or "more" in done.stderr


@pytest.mark.parametrize("unknown", ["ffffffff-ffff-7fff-bfff-ffffffffffff", "fffff"])
def test_an_id_that_is_not_there_is_1(cli, unknown):
    done = cli("show", unknown)
    assert (done.returncode, done.stdout) == (1, "")
    assert unknown in done.stderr


def test_what_cannot_be_an_id_is_2(cli):
    done = cli("show", "not-an-id!")
    assert done.returncode == 2
    assert "datacat sessions" in done.stderr


def test_json_is_the_session_object_with_its_transitions(cli, crashed):
    session = json.loads(cli("show", crashed, "--json", "--events", "1").stdout)
    assert session["id"] == crashed
    assert session["state"]["window"] == {"open": ["w1"], "active": "w1"}
    assert len(session["events"]) == 1
    assert [row["status"] for row in session["transitions"]] == ["active", "crashed"]


def test_a_series_is_summed_up_by_its_type():
    points = [
        {"name": "fps", "type": "gauge", "value": 60, "unit": "1/s"},
        {"name": "fps", "type": "gauge", "value": 30, "unit": "1/s"},
        {"name": "rss", "type": "gauge", "value": 3 * 1024**3, "unit": "By"},
        {"name": "load", "type": "timer", "value": 3.0, "unit": "s", "metadata": {"count": 3, "min": 0.5, "max": 2.0}},
        {"name": "hits", "type": "counter", "value": 2, "tags": ["eu"]},
        {"name": "hits", "type": "counter", "value": 3, "tags": ["us"]},
    ]
    lines = [line.split() for line in metric_lines(points)[1:]]
    assert lines == [
        ["fps", "gauge", "30", "1/s", "(30", "1/s", "to", "60", "1/s)"],
        ["rss", "gauge", "3.0", "GiB"],
        ["load", "timer", "3", "times,", "mean", "1", "s", "(0.5", "s", "to", "2", "s)"],
        ["hits", "counter", "eu", "2"],
        ["hits", "counter", "us", "3"],
    ]


def test_metadata_of_any_kind_and_values_of_any_size_are_shown():
    odd = {"sum": "x", "count": "a", "min": "q", "max": []}
    points = [
        {"name": "load", "type": "timer", "value": 1, "metadata": odd},
        {"name": "load", "type": "timer", "value": 3, "metadata": {"min": None, "count": True}},
        {"name": "fps", "type": "gauge", "value": 30, "metadata": odd},
        {"name": "huge", "type": "counter", "value": 1e308, "metadata": {}},
        {"name": "huge", "type": "counter", "value": 1e308, "metadata": {}},
        {"name": "vast", "type": "timer", "value": 10**400, "metadata": {}},
    ]
    lines = [line.split() for line in metric_lines(points)[1:]]
    assert lines[0] == ["load", "timer", "2", "times,", "mean", "2", "(1", "to", "3)"]
    assert lines[1] == ["fps", "gauge", "30"]
    assert [line[0] for line in lines[2:]] == ["huge", "vast"]


def test_a_sum_over_a_part_of_the_metrics_says_so():
    session = {
        "product": "p", "version": "1", "status": "active", "id": "i", "created_at": "2026-01-31T12:00:00.000000Z",
        "counts": {"metrics": 5000}, "metrics": [{"name": "hits", "type": "counter", "value": 1}],
    }  # fmt: skip
    titles = [title for title, _ in sections(session, [], 0, 1_769_860_801_000_000)]
    assert titles[-1] == "Metrics, the last 1 of 5000"


def test_what_an_app_wrote_does_not_command_the_terminal(cli):
    product = "bad\x1b[2J\x07"
    made = cli.session(product, "1\x9b2J", hostname="h\x1b]0;t\x07", state={"a\x1b[2J": 1})
    cli.post(f"/api/sessions/{made}/events", {"name": "e\x1b[31m\u202e", "stacktrace": ["\x1b[31m"]})
    cli.post(f"/api/sessions/{made}/metrics", {"name": "m\x1b[2J", "value": 1, "unit": "\x1b[2J", "tags": ["\x1b["]})
    cli.post(f"/api/sessions/{made}/end", {})
    for arguments in (("show", made), ("sessions", "-q", "bad"), ("tail", made)):
        for environment in ({"NO_COLOR": "1", "TTY_COMPATIBLE": "1", "FORCE_COLOR": "1"}, {}):
            done = cli(*arguments, env=environment)
            assert done.returncode == 0
            told = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)  # rich's own: bold and dim
            assert "bad" in told
            assert not set(told) & set("\x1b\x07\x9b\u202e"), (arguments, environment)
