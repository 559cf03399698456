"""The dashboards as files: made from the server's table, valid for Grafana, and nothing in them leads nowhere."""

import json
import re
import sys
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models import units

from datacat.server.query import asked
from datacat.server.query.serve import PREFIX
from datacat.server.query.table import TABLE

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "packaging/grafana"
sys.path.append(str(ROOT / "scripts"))

from boards import board, files, looks, targets  # noqa: E402 scripts are no package

PATHS = sorted((FOLDER / "dashboards").glob("*.json"))
UIDS = {f"datacat-{name}" for name in ("fleet", "stability", "sessions", "metrics", "service")}
UNITS = {value for name, value in vars(units).items() if isinstance(value, str) and not name.startswith("_")}
SHARED = "-- Dashboard --"
TYPES = {"string", "number", "boolean", "timestamp", "timestamp_epoch"}
PLAIN = {"__from", "__to", "__url_time_range"}
MACROS = {"__timeFrom": "1784000000000", "__timeTo": "1784086400000", "__interval_ms": "60000"}


def loaded(path):
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(params=PATHS, ids=lambda path: path.stem)
def dashboard(request):
    return loaded(request.param)


def queries(dashboard):
    """Yield (where, target) of panels, variables and annotations, without those that use another panel's."""
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            if target["datasource"].get("uid") != SHARED:
                yield panel["title"], target
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], variable["query"]["infinityQuery"]
    for mark in dashboard["annotations"]["list"]:
        yield mark["name"], mark["target"]


def variables(dashboard):
    return {one["name"]: one for one in dashboard["templating"]["list"]}


def strings(value):
    if isinstance(value, dict):
        for inner in value.values():
            yield from strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner)
    elif isinstance(value, str):
        yield value


def links(dashboard):
    """Yield every address that a field leads to."""
    for panel in dashboard["panels"]:
        config = panel["fieldConfig"]
        for one in config["defaults"].get("links") or []:
            yield panel, one["url"]
        for override in config["overrides"]:
            for prop in override["properties"]:
                if prop["id"] == "links":
                    for one in prop["value"]:
                        yield panel, one["url"]


def test_the_files_are_what_the_script_makes():
    made = files.made()
    differ = [name for name, text in made.items() if (ROOT / name).read_text(encoding="utf-8") != text]
    assert differ == [], "scripts/grafana_dashboards writes them anew"
    assert {path.relative_to(ROOT).as_posix() for path in PATHS} == {name for name in made if name.endswith(".json")}


def test_there_are_the_five_dashboards():
    assert {loaded(path)["uid"] for path in PATHS} == UIDS
    assert {path.stem for path in PATHS} == UIDS


def test_grafanas_own_model_reads_a_file_and_writes_it_the_same(dashboard):
    register_default_plugins()
    again = board.plain(model.Dashboard.from_json(json.loads(json.dumps(dashboard))))
    again["schemaVersion"] = dashboard["schemaVersion"]  # the model always writes its own
    assert again == dashboard


def test_a_dashboard_is_for_reading_and_can_be_found(dashboard):
    assert dashboard["editable"] is False
    assert dashboard["schemaVersion"] == 42
    assert dashboard["tags"] == ["datacat"]
    assert dashboard["graphTooltip"] == 1
    assert dashboard["timezone"] == "browser"
    assert dashboard["refresh"] == "1m"
    assert dashboard["description"]
    assert 8 <= len(dashboard["uid"]) <= 40
    (link,) = dashboard["links"]
    assert (link["type"], link["tags"], link["keepTime"], link["includeVars"]) == (
        "dashboards",
        ["datacat"],
        True,
        True,
    )
    assert "__inputs" not in dashboard


def test_the_data_source_is_chosen_by_a_variable_and_nothing_else(dashboard):
    variable = dashboard["templating"]["list"][0]
    assert (variable["type"], variable["name"], variable["query"], variable["regex"]) == (
        "datasource", "datasource", targets.PLUGIN, "/datacat/i",
    )  # fmt: skip
    wanted = {"type": targets.PLUGIN, "uid": "${datasource}"}
    shared = {"type": "datasource", "uid": SHARED}
    for panel in dashboard["panels"]:
        assert panel["datasource"] in (wanted, shared), panel["title"]
        assert [target["datasource"] for target in panel["targets"]] == [panel["datasource"]], panel["title"]
    for one in dashboard["templating"]["list"]:
        assert one["type"] != "query" or one["datasource"] == wanted
    assert [mark["datasource"] for mark in dashboard["annotations"]["list"]] == [wanted] * 2


def test_a_panel_says_what_it_shows_and_in_which_unit(dashboard):
    titles = [panel["title"] for panel in dashboard["panels"]]
    assert len(set(titles)) == len(titles)
    for panel in dashboard["panels"]:
        assert panel["title"].strip()
        assert panel["description"].endswith((".", "?")), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, panel["title"]
        assert panel["fieldConfig"]["defaults"]["noValue"], panel["title"]
        for override in panel["fieldConfig"]["overrides"]:
            for prop in override["properties"]:
                assert prop["id"] != "unit" or prop["value"] in UNITS, panel["title"]


def test_a_panel_asks_one_question_or_shares_that_of_the_first(dashboard):
    first = dashboard["panels"][0]
    assert first["id"] == 1
    for panel in dashboard["panels"]:
        (target,) = panel["targets"]
        if target["datasource"]["uid"] == SHARED:
            assert (target["panelId"], target["withTransforms"]) == (1, False)
            names = {column["text"] for column in first["targets"][0]["columns"]}
            fields = panel["options"]["reduceOptions"]["fields"]
            shown = [fields.strip("/^$")] if fields else panel["transformations"][0]["options"]["include"]["names"]
            assert set(shown) <= names, panel["title"]


def test_panels_lie_side_by_side_in_the_grid(dashboard):
    taken = {}
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert ids == list(range(1, len(ids) + 1))
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        assert at["x"] >= 0
        assert at["x"] + at["w"] <= 24, panel["title"]
        for x in range(at["x"], at["x"] + at["w"]):
            for y in range(at["y"], at["y"] + at["h"]):
                assert (x, y) not in taken, (panel["title"], taken[x, y])
                taken[x, y] = panel["title"]
    height = max(y for _, y in taken) + 1
    assert len(taken) == 24 * height, "there are holes in the grid"


def test_variables_are_asked_for_again_when_the_range_changes(dashboard):
    for variable in dashboard["templating"]["list"]:
        assert variable["label"]
        assert variable["description"]
        if variable["type"] == "query":
            assert variable["refresh"] == 2
            params = {one["key"]: one["value"] for one in variable["query"]["infinityQuery"]["url_options"]["params"]}
            assert params["placeholder"] == "(none)"
            columns = variable["query"]["infinityQuery"]["columns"]
            assert {column["text"] for column in columns} == {"__value", "__text"}
        if variable.get("includeAll"):
            assert variable["allValue"] == "*"
            assert variable["current"]["value"] == ["$__all"]


def test_every_variable_that_is_named_exists_and_lists_are_written_with_quotes(dashboard):
    known = variables(dashboard)
    for text in strings(dashboard):
        for name, form in re.findall(r"\$\{(\w+)(?::(\w+))?\}", text):
            if name in MACROS or name in PLAIN:
                continue
            assert name in known, text
            assert not known[name].get("multi") or form in ("doublequote", "queryparam"), text
        for name in re.findall(r"\$([A-Za-z]\w*)", text):
            assert name in known, text


def test_every_query_is_for_the_backend_parser_with_typed_columns(dashboard):
    for where, target in queries(dashboard):
        assert (target["type"], target["source"], target["parser"]) == ("json", "url", "backend"), where
        assert target["root_selector"] == "rows", where
        assert target["url"].startswith(PREFIX), where
        assert "$" not in target["url"], where
        assert target["url_options"]["method"] == "GET", where
        assert target["columns"], where
        texts = [column["text"] for column in target["columns"]]
        assert len(set(texts)) == len(texts), where
        assert {column["type"] for column in target["columns"]} <= TYPES, where
        keys = [param["key"] for param in target["url_options"]["params"]]
        assert len(set(keys)) == len(keys), where


def test_the_server_knows_every_parameter_and_column(dashboard):
    for where, target in queries(dashboard):
        endpoint = targets.endpoint_of(target["url"].removeprefix(PREFIX))
        kinds = {column.name: column.kind for column in endpoint.columns}
        for column in target["columns"]:
            assert targets.TYPES[kinds[column["selector"]]] == column["type"], (where, column)
        query = {one["key"]: [value_of(one["value"], dashboard)] for one in target["url_options"]["params"]}
        assert query.keys() <= {one.name for one in endpoint.parameters}, where
        if "{dim}" in endpoint.path:
            query["dim"] = [target["url"].rpartition("/")[2]]
        asked.read(endpoint, query, 1_784_086_400_000_000)


def value_of(text, dashboard):
    """Return a parameter's value as Grafana sends it for the choices that the file has."""

    def chosen(found):
        if found[1] in MACROS:
            return MACROS[found[1]]
        variable = variables(dashboard)[found[1]]
        if variable.get("includeAll"):
            return variable["allValue"]
        return variable["current"]["value"] if variable.get("current") else "x"

    return re.sub(r"\$\{(\w+)(?::\w+)?\}", chosen, text)


def test_every_column_of_a_time_series_can_be_turned_wide(dashboard):
    for where, target in queries(dashboard):
        if target["format"] == "timeseries":
            times = [column for column in target["columns"] if column["type"].startswith("timestamp")]
            assert [column["text"] for column in times] == ["time"], where
            assert any(column["type"] == "number" for column in target["columns"]), where


def test_a_query_asks_only_for_what_is_a_column_of_its_answer(dashboard):
    """Measures, aggregates and dimensions that are asked for are shown, and the other way round."""
    for where, target in queries(dashboard):
        shown = {column["selector"] for column in target["columns"]}
        params = {one["key"]: one["value"] for one in target["url_options"]["params"]}
        for key in ("measures", "by"):
            if key in params and "$" not in params[key]:
                wanted = set(params[key].split(",")) - ({"signature"} if "crashes" in target["url"] else set())
                assert wanted <= shown, (where, key)
        if params.get("compare") == "previous":
            assert any(name.startswith("prev_") for name in shown), where


def test_links_lead_to_dashboards_and_pages_that_exist(dashboard):
    boards = {one["uid"]: variables(one) for one in map(loaded, PATHS)}
    for panel, url in links(dashboard):
        (target,) = panel["targets"]
        if target["datasource"]["uid"] == SHARED:
            (target,) = dashboard["panels"][0]["targets"]
        fields = {column["text"] for column in target["columns"]}
        for name, form in re.findall(r"\$\{__data\.fields\.(\w+):(\w+)\}", url):
            assert name in fields, (panel["title"], url)
            assert form == ("raw" if name == "web_url" else "percentencode"), url
        if url == "${__data.fields.web_url:raw}":
            continue
        path, query = urlsplit(url).path, urlsplit(url).query
        uid = path.removeprefix("/d/")
        assert uid in boards, url
        assert "${__url_time_range}" in query
        assert "${datasource:queryparam}" in query
        for name, _ in parse_qsl(query.replace("${", "").replace("}", ""), keep_blank_values=True):
            if name.startswith("var-"):
                assert name.removeprefix("var-") in boards[uid], url
        for name in re.findall(r"\$\{(\w+):queryparam\}", query):
            assert name in boards[uid], url


def test_tables_are_put_in_order_and_show_every_column_that_is_not_for_links(dashboard):
    for panel in dashboard["panels"]:
        if panel["type"] != "table":
            continue
        texts = {column["text"] for column in panel["targets"][0]["columns"]}
        (organize,) = [one for one in panel["transformations"] if one["id"] == "organize"]
        assert set(organize["options"]["indexByName"]) == texts, panel["title"]
        named = {
            override["matcher"]["options"]
            for override in panel["fieldConfig"]["overrides"]
            if override["matcher"]["id"] == "byName"
        }
        assert named == texts, panel["title"]


def test_overrides_name_fields_that_the_query_has(dashboard):
    for panel in dashboard["panels"]:
        (target,) = panel["targets"]
        if target["datasource"]["uid"] == SHARED:
            (target,) = dashboard["panels"][0]["targets"]
        texts = {column["text"] for column in target["columns"]}
        for override in panel["fieldConfig"]["overrides"]:
            if override["matcher"]["id"] == "byName":
                assert override["matcher"]["options"] in texts, panel["title"]


def test_statuses_have_the_colours_of_the_web_ui(dashboard):
    css = (ROOT / "datacat/server/static/app.css").read_text(encoding="utf-8")
    assert all(f"--{name}: {looks.COLORS[name]};" in css for name in looks.STATUSES)
    for panel in dashboard["panels"]:
        if panel["type"] in ("state-timeline", "status-history"):
            found = re.findall(r'"color": "(#\w+)"', json.dumps(panel["fieldConfig"]))
            assert set(found) == {looks.COLORS[name] for name in looks.STATUSES}


@pytest.mark.parametrize(
    ("path", "columns", "params", "said"),
    [
        ("nothing", "time", {}, "no nothing"),
        ("summary", "open", {"frm": "x"}, "does not take frm"),
        ("summary", "open", {"by": "colour"}, "by may not be colour"),
        ("values/colour", "value", {}, "no values/colour"),
    ],
)
def test_what_the_server_does_not_have_cannot_be_made_a_query(path, columns, params, said):
    with pytest.raises(ValueError, match=said):
        targets.target(path, columns, params)


def test_a_column_that_the_server_does_not_have_cannot_be_made_a_query():
    with pytest.raises(KeyError):
        targets.target("summary", "colour", {})


def test_every_endpoint_for_many_sessions_is_used_by_some_dashboard():
    used = {target["url"] for path in PATHS for _, target in queries(loaded(path))}
    used = {targets.endpoint_of(url.removeprefix(PREFIX)).path for url in used}
    # What suspects and groups of hangs are for is a page of one group, which Grafana links to.
    assert {endpoint.path for endpoint in TABLE} - used == {"suspects", "hangs/groups"}
