"""Every query of the committed dashboards and rules, as Infinity asks it, against a server over HTTP."""

from urllib.parse import urlsplit

import pytest

from datacat.store import Query
from grafana import asking, infinity
from grafana.framing import KINDS
from grafana.harness import FOLDER, MAX_BYTES, ODD, SHARED, Chosen, dashboards, range_of, rules

FORTNIGHT = 14 * 24
SESSION = "01890a5d-ac96-774b-bcce-000000001004"
"""A session of the fleet that ended with an exception."""
CHOICES = {
    "as it opens": {},
    "one of each": {
        "product": ["editor"], "version": ["2.4.0"], "status": ["ended"], "hostname": ["desk-01"], "session": SESSION,
    },
    "several of each": {
        "product": ["editor", "viewer", "sync"], "version": ["2.4.0", "2.3.1", "1.10.0"], "hostname": ["desk-01", "ws-02"],
        "status": ["ended", "crashed", "hung"], "metric": ["frames.rendered", "export.duration"], "session": SESSION,
    },
    "nothing of that name": {
        "product": ["nothing"], "version": ["0"], "hostname": ["nowhere"], "session": "nobody", "metric": "(none)",
    },
    "a name that is hard to write": {"product": [ODD[0]], "version": [ODD[3]], "hostname": [ODD[2]], "session": ODD[1]},
    "all names that are hard to write": {"product": list(ODD), "version": list(ODD), "hostname": list(ODD)},
}  # fmt: skip
MAY_BE_EMPTY = {
    ("Release health", "prev_crash_free_rate"): "no session is older than the range",
    ("Crash-free sessions", "prev_crash_free_rate"): "no session is older than the range",
    ("Crash-free sessions", "prev_hang_free_rate"): "no session is older than the range",
    ("Events", "group"): "the fleet's events have none",
    ("Session", "end_detail"): "its end is told in one word",
}


def declared(target):
    return {column["text"]: KINDS[column["type"]] for column in target["columns"]}


def check(target, frame):
    """Check that a frame has what the target declares, and that a time series is one."""
    wanted = declared(target)
    if not frame.fields:
        return
    assert {(one.name, one.kind) for one in frame.fields} >= {
        item for item in wanted.items() if frame.meta.get("type") != "timeseries-wide" or item[1] in ("time", "number")
    }
    assert {one.name for one in frame.fields} <= set(wanted)
    assert len({len(one.values) for one in frame.fields}) == 1
    if target["format"] == "timeseries":
        assert "string" not in {one.kind for one in frame.fields}, "the plugin left it long"
        times = frame.named("time").values
        assert times == sorted(set(times))
        assert None not in times
        if "string" in wanted.values():
            assert frame.meta == {"type": "timeseries-wide"}
            labels = {name for name, kind in wanted.items() if kind == "string"}
            assert all(set(one.labels) == labels for one in frame.fields if one.kind == "number")
    if target["format"] == "logs":
        assert frame.meta["type"] == "log-lines"


@pytest.mark.parametrize("choice", CHOICES)
def test_every_panel_gets_what_it_declares(board, fleet, choice):
    chosen = Chosen(board, range_of(board), fleet, CHOICES[choice])
    panels = list(chosen.panels())
    assert len(panels) == len(board["panels"])
    for panel, frame in panels:
        if panel["targets"][0].get("datasource", {}).get("uid") != SHARED:
            check(panel["targets"][0], frame)


@pytest.mark.parametrize("choice", CHOICES)
def test_odd_names_of_products_versions_and_hosts_break_nothing(board, odd, choice):
    for panel, frame in Chosen(board, range_of(board), odd, CHOICES[choice]).panels():
        if panel["targets"][0].get("datasource", {}).get("uid") != SHARED:
            check(panel["targets"][0], frame)


def test_every_panel_has_a_value_in_every_column_of_a_fleet(board, fleet):
    chosen = Chosen(board, range_of(board, FORTNIGHT), fleet, {"session": SESSION})
    assert fleet.store.head(SESSION).end_reason == "exception"
    empty = []
    for panel, frame in chosen.panels():
        assert len(frame), panel["title"]
        title = panel["title"].partition(" $")[0]
        for name in {one.name for one in frame.fields}:
            several = [one.values for one in frame.fields if one.name == name]
            if all(value is None for values in several for value in values):
                empty.append((title, name))
    shared = {panel["title"] for panel in board["panels"] if panel["datasource"]["uid"] == SHARED}
    assert {one for one in empty if one[0] not in shared} <= set(MAY_BE_EMPTY)


def test_an_empty_store_is_no_error_anywhere(board, nothing):
    for panel, frame in Chosen(board, range_of(board), nothing).panels():
        if panel["targets"][0].get("datasource", {}).get("uid") != SHARED:
            check(panel["targets"][0], frame)


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("where", ["fleet", "odd", "nothing"])
def test_a_variable_always_has_a_value(board, request, where, choice):
    place = request.getfixturevalue(where)
    chosen = Chosen(board, range_of(board), place, CHOICES[choice])
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            options = chosen.options(variable)
            assert all(isinstance(text, str) and text for option in options for text in option)
            if where == "nothing":
                assert options == [("(none)", "(none)")]


def test_variables_offer_what_the_store_has(fleet):
    board = dashboards()["datacat-sessions"]
    chosen = Chosen(board, range_of(board, FORTNIGHT), fleet, {"session": SESSION})
    known = {one["name"]: one for one in board["templating"]["list"]}
    heads = fleet.store.heads(Query(limit=1000)).heads
    assert {one.value for one in chosen.options(known["product"])} == {head.product for head in heads}
    assert {one.value for one in chosen.options(known["hostname"])} == {head.hostname for head in heads}
    assert "frames.rendered" in {one.value for one in chosen.options(known["metric"])}
    versions = [one.value for one in chosen.options(known["version"])]
    assert versions.index("1.10.0") < versions.index("1.9.2")


@pytest.mark.parametrize("name", ODD)
def test_a_product_is_chosen_by_its_name_however_odd(odd, name):
    board = dashboards()["datacat-fleet"]
    for choice in ([name], [name, "nothing"]):
        chosen = Chosen(board, range_of(board), odd, {"product": choice})
        assert next(chosen.panels())[1].named("open").values == [1.0]
        (variable,) = (one for one in board["templating"]["list"] if one["name"] == "version")
        assert [one.value for one in chosen.options(variable)] == [f"1.0 {name}"]
    sessions = dashboards()["datacat-sessions"]
    chosen = Chosen(sessions, range_of(sessions), odd, {"version": [f"1.0 {name}"], "hostname": [f"host {name}"]})
    assert next(chosen.panels())[1].named("product").values == [name]


def test_several_odd_products_are_chosen_together(odd):
    board = dashboards()["datacat-fleet"]
    chosen = Chosen(board, range_of(board), odd, {"product": list(ODD)})
    assert next(chosen.panels())[1].named("open").values == [float(len(ODD))]


def test_marks_are_shown_in_every_dashboard(board, fleet):
    chosen = Chosen(board, range_of(board, FORTNIGHT), fleet)
    for mark in board["annotations"]["list"]:
        frame = chosen.ask(mark["target"])
        check(mark["target"], frame)
        assert {one.name for one in frame.fields} == {"time", "timeEnd", "title", "text", "tags", "id"}
        assert None not in frame.named("time").values
        assert None not in frame.named("title").values


def test_releases_are_marked_where_their_first_session_began(fleet):
    board = dashboards()["datacat-fleet"]
    frame = Chosen(board, range_of(board, FORTNIGHT), fleet).ask(board["annotations"]["list"][0]["target"])
    first = min(head.created_at for head in fleet.store.heads(Query(version=("2.4.0",), limit=1000)).heads)
    times = dict(zip(frame.named("title").values, frame.named("time").values, strict=True))
    assert [time for title, time in times.items() if "2.4.0" in title] == [first // 1000]


def test_the_table_of_sessions_reads_all_pages_and_ends(fleet):
    board = dashboards()["datacat-sessions"]
    chosen = Chosen(board, range_of(board, FORTNIGHT), fleet)
    (target,) = board["panels"][0]["targets"]
    small = {**target, "url_options": {"params": [
        {**one, "value": "50"} if one["key"] == "limit" else one for one in target["url_options"]["params"]
    ]}}  # fmt: skip
    frame = chosen.ask(small)
    check(small, frame)
    ids = frame.named("id").values
    assert len(ids) == len(set(ids)) == len(fleet.store.heads(Query(limit=1000)).heads) == 201


def test_pages_end_also_where_only_five_are_allowed(fleet):
    board = dashboards()["datacat-sessions"]
    chosen = Chosen(board, range_of(board, FORTNIGHT), fleet)
    (target,) = board["panels"][0]["targets"]
    tiny = {**target, "url_options": {"params": [
        {**one, "value": "7"} if one["key"] == "limit" else one for one in target["url_options"]["params"]
    ]}}  # fmt: skip
    assert target["pagination_max_pages"] <= infinity.MAX_PAGES
    frame = chosen.ask(tiny)
    check(tiny, frame)
    assert len(frame) == 6 * 7


@pytest.mark.parametrize("rows", [1, 7, 50, 67, 200, 201])
def test_a_last_page_is_never_empty(fleet, rows):
    path = f"/api/query/sessions?from=-14d&limit={rows}"
    seen, cursor, pages = 0, "", 0
    while cursor is not None:
        page = fleet.json(path + (f"&cursor={cursor}" if cursor else ""))
        assert page["rows"]
        seen, cursor, pages = seen + len(page["rows"]), page["next_cursor"], pages + 1
    assert (seen, pages) == (201, -(-201 // rows))


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["uid"])
@pytest.mark.parametrize("where", ["fleet", "odd", "nothing"])
def test_a_rule_gets_one_number_for_each_product(request, where, rule):
    place = request.getfixturevalue(where)
    query = rule["data"][0]
    target, span = query["model"], query["relativeTimeRange"]
    assert query["datasourceUid"] == target["datasource"]["uid"] == "datacat"
    stop = range_of({"time": {"from": "now-1h"}}).stop_ms
    # Neither the variables of a dashboard nor an interval exist there.
    asked = asking.Range(stop - span["from"] * 1000, stop - span["to"] * 1000)
    frame = infinity.ask(target, {}, asked, place.url, place.get)
    check(target, frame)
    params = {one["key"]: one["value"] for one in target["url_options"]["params"]}
    if len(frame):
        assert frame.meta == {"type": "numeric-long"}
        assert [one.kind for one in frame.fields].count("number") == 1
    if params.get("by") == "product":
        heads = place.store.heads(Query(limit=1000)).heads
        assert frame.meta == ({"type": "numeric-long"} if heads else {})
        assert sorted(frame.named("product").values if heads else []) == sorted({head.product for head in heads})
        if "hung_now" in declared(target) and heads:
            assert None not in frame.named("hung_now").values
            assert 0.0 in frame.named("hung_now").values


def test_a_rule_fires_for_the_product_that_it_is_about(fleet):
    (rule,) = (one for one in rules() if one["uid"] == "datacat-hung-now")
    target = rule["data"][0]["model"]
    span = range_of({"time": {"from": "now-24h"}})
    frame = infinity.ask(target, {}, span, fleet.url, fleet.get)
    hung = dict(zip(frame.named("product").values, frame.named("hung_now").values, strict=True))
    told = {row["product"]: row["hung_now"] for row in fleet.json("/api/query/summary?by=product&zero=1")["rows"]}
    assert hung == told
    assert sum(hung.values()) == len(fleet.store.heads(Query(status=("hung",))).heads) > 0


def test_a_macro_that_is_not_replaced_is_no_interval(fleet):
    assert fleet.json("/api/query/sessions/timeseries?interval=$__interval_ms&from=-1h")["rows"]


def test_no_answer_is_larger_than_a_browser_should_get(board, fleet):
    fleet.sizes.clear()
    for hours in (0, FORTNIGHT, 90 * 24):
        list(Chosen(board, range_of(board, hours), fleet, {"session": SESSION}).panels())
    assert fleet.sizes
    assert max(fleet.sizes.values()) < MAX_BYTES, fleet.sizes


def test_the_health_check_of_the_data_source_answers_with_something(fleet, nothing):
    text = (FOLDER / "provisioning/datasources/datacat.yaml").read_text(encoding="utf-8")
    (path,) = (line.split()[1] for line in text.splitlines() if "customHealthCheckUrl" in line)
    for place in (fleet, nothing):
        status, body = place.get(place.url + urlsplit(path).path, {})
        assert status == 200
        assert body
