"""What a person reads in Grafana for the made-up fleet: frames through Grafana's own data layer, in Node.

panels/golden has it as texts; they are written anew by PYTHONPATH=tests .venv/bin/python tests/grafana/test_panels.py
"""

import json
import re
import sys
from urllib.parse import parse_qs, urlsplit

import absent
import pytest

from grafana.harness import Chosen, dashboards, range_of, seeded, serving
from grafana.shown import HERE, lacks, shown, text_of

GOLDEN = HERE / "golden"
WEEK, FORTNIGHT = 7 * 24, 14 * 24
HOURS = {"datacat-fleet": WEEK, "datacat-stability": WEEK, "datacat-metrics": WEEK, "datacat-sessions": FORTNIGHT}
SESSION = "01890a5d-ac96-774b-bcce-000000001004"
ODD_TEXT = re.compile(r"NaN|undefined|null|\[object|\$\{|Invalid")


def whole(place, board):
    """Return what is chosen in a dashboard, and what is shown for the fleet."""
    chosen = Chosen(board, range_of(board, HOURS.get(board["uid"], 0)), place, {"session": SESSION})
    return chosen, shown(chosen)


@pytest.fixture(scope="module")
def fleet():
    if missing := lacks():
        absent.skip(missing)
    with serving(seeded(sessions=600)) as place:
        yield place


@pytest.fixture(scope="module")
def read(fleet):
    return {uid: whole(fleet, board) for uid, board in dashboards().items()}


@pytest.fixture(params=sorted(dashboards()))
def told(request, read):
    return read[request.param]


def panel_of(told, title):
    return next(answer for panel, answer in told[1] if panel["title"] == title)


def number(told, title):
    return {one["title"]: one for one in panel_of(told, title)["numbers"]}


def test_grafana_knows_every_transformation_unit_calculation_and_option(told):
    assert {panel["title"]: answer["problems"] for panel, answer in told[1] if answer["problems"]} == {}


@pytest.mark.parametrize("uid", sorted(dashboards()))
def test_what_is_read_is_what_was_agreed_on(read, uid):
    assert text_of(*read[uid]) == (GOLDEN / f"{uid}.txt").read_text(encoding="utf-8"), __doc__


def test_every_text_is_one_for_people(told):
    for panel, answer in told[1]:
        texts = [one["text"] for one in answer["numbers"]]
        texts += [text for one in answer["series"] if not one["hidden"] for text in [one["name"], *one["texts"]]]
        assert [text for text in texts if ODD_TEXT.search(text)] == [], panel["title"]
        if panel["type"] == "table":
            assert not [one["name"] for one in answer["series"] if not one["hidden"] and "_" in one["name"]]


def test_rates_are_read_as_the_server_says_them(fleet, read):
    now = fleet.json("/api/query/summary?from=-7d&compare=previous")["rows"][0]
    free = number(read["datacat-fleet"], "Crash-free sessions")
    assert free["This range"]["text"] == f"{now['crash_free_rate']:.2%}" == "78.51%"
    assert free["Range before"]["text"] == f"{now['prev_crash_free_rate']:.2%}"
    (rate,) = number(read["datacat-stability"], "Crash rate").values()
    assert rate["text"] == f"{now['crash_rate']:.2%}"
    (between,) = number(read["datacat-fleet"], "Time between crashes").values()
    assert between["text"] == f"{now['mtbf_seconds'] / 3600:.1f} hours"


def test_a_bad_number_looks_bad_and_a_good_one_good(read):
    bad = number(read["datacat-fleet"], "Crash-free sessions")["This range"]["color"]
    steps = next(panel for panel, _ in read["datacat-fleet"][1] if panel["title"] == "Crash-free sessions")
    colors = [step["color"] for step in steps["fieldConfig"]["defaults"]["thresholds"]["steps"]]
    assert bad.lower() == colors[0].lower() != colors[-1].lower()
    (fresh,) = number(read["datacat-service"], "Newest data").values()
    assert fresh["color"].lower() == colors[-1].lower()


def test_tables_have_their_columns_in_the_order_of_the_file(told):
    for panel, answer in told[1]:
        if panel["type"] == "table":
            (change,) = panel["transformations"]
            order = sorted(change["options"]["indexByName"], key=change["options"]["indexByName"].get)
            assert [one["raw"] for one in answer["series"]] == order, panel["title"]


def test_what_only_links_need_is_not_seen(read):
    columns = {one["raw"]: one["hidden"] for one in panel_of(read["datacat-fleet"], "Newest crashes")["series"]}
    assert columns["web_url"] is columns["example_session"] is True
    assert not any(hidden for name, hidden in columns.items() if name not in ("web_url", "example_session"))


def test_links_lead_to_dashboards_that_exist_or_to_pages_of_datacat(told):
    known = dashboards()
    for panel, answer in told[1]:
        for one in answer["series"]:
            for link in one["links"]:
                assert "$" not in link["href"], panel["title"]
                parts = urlsplit(link["href"])
                if parts.netloc:
                    assert parts.netloc == "datacat:8080"
                    assert parts.path.split("/")[1] in ("sessions", "crashes", "hangs")
                    continue
                board = known[parts.path.removeprefix("/d/")]
                variables = {variable["name"] for variable in board["templating"]["list"]}
                named = {name.removeprefix("var-") for name in parse_qs(parts.query) if name.startswith("var-")}
                assert named <= variables, panel["title"]


def test_a_link_of_a_row_names_that_row(read):
    sessions = {one["raw"]: one for one in panel_of(read["datacat-sessions"], "Sessions")["series"]}
    first = sessions["id"]["values"][0]
    assert [first in link["href"] for link in sessions["id"]["links"]] == [True, True]
    versions = {one["raw"]: one for one in panel_of(read["datacat-fleet"], "Release health")["series"]}
    query = parse_qs(urlsplit(versions["version"]["links"][0]["href"]).query)
    assert (query["var-product"], query["var-version"]) == (["editor"], ["2.4.0"])


def test_lines_are_named_by_what_they_are_grouped_by(read):
    names = {one["name"] for one in panel_of(read["datacat-fleet"], "Open sessions by version")["series"]}
    assert {"2.4.0", "1.10.0", "other"} <= names
    assert not [name for name in names if "{" in name]


def test_a_status_is_a_word_also_where_it_comes_as_a_number(read):
    rows = panel_of(read["datacat-sessions"], "Status of the newest 20")["series"]
    words = {text for one in rows if one["kind"] == "number" for text in one["texts"]}
    assert words - {"–"} <= {"active", "hung", "suspended", "crashed", "abnormal", "ended"}
    assert "crashed" in words


@pytest.mark.parametrize("uid", ["datacat-fleet", "datacat-stability", "datacat-sessions"])
def test_without_data_each_panel_says_so_in_its_own_words(fleet, nothing, uid):
    board = dashboards()[uid]
    for panel, answer in shown(Chosen(board, range_of(board), nothing)):
        assert not answer["problems"], panel["title"]
        if panel["type"] == "stat":
            for one in answer["numbers"]:
                assert one["text"] in ("0", panel["fieldConfig"]["defaults"]["noValue"]), panel["title"]
        else:
            values = [value for one in answer["series"] if one["kind"] == "number" for value in one["values"]]
            assert not any(values), panel["title"]


def test_the_lock_names_no_registry():
    lock = json.loads((HERE / "package-lock.json").read_text(encoding="utf-8"))
    assert lock["packages"]["node_modules/@grafana/data"]["version"] == "13.2.3"
    assert not [one for one in lock["packages"].values() if "resolved" in one]
    assert all("integrity" in one for name, one in lock["packages"].items() if name)


def main():
    GOLDEN.mkdir(exist_ok=True)
    with serving(seeded(sessions=600)) as place:
        for uid, board in dashboards().items():
            (GOLDEN / f"{uid}.txt").write_text(text_of(*whole(place, board)), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(lacks() or main())
