"""The pictures of what dashboards answer: every panel is in them, and their axes are round."""

import re
import sys
from html import unescape
from pathlib import Path

import absent
import pytest

from grafana.harness import Chosen, dashboards, range_of, seeded, serving
from grafana.shown import lacks, shown

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "scripts"))

from drawing import charts  # noqa: E402 scripts are no package
from drawing.charts import Box  # noqa: E402
from drawing.page import page  # noqa: E402

BOX = Box(452, 126, 0, 4 * 3_600_000)


@pytest.mark.parametrize(
    ("low", "high", "unit", "ticks"),
    [
        (0, 98, "short", ["0", "25", "50", "75", "100"]),
        (0, 0.29, "short", ["0", "0.1", "0.2", "0.3"]),
        (0, 1, "percentunit", ["0%", "25%", "50%", "75%", "100%"]),
        (0, 200, "s", ["0 s", "1 min", "2 min", "3 min", "4 min"]),
        (0, 50_000, "dtdurations", ["0 s", "5 h", "10 h", "15 h"]),
        (0, 0.031, "s", ["0 s", "10 ms", "20 ms", "30 ms", "40 ms"]),
        (0, 88_000_000, "bytes", ["0 MiB", "25 MiB", "50 MiB", "75 MiB", "100 MiB"]),
    ],
)
def test_ticks_are_round_in_their_unit(low, high, unit, ticks):
    first, last, found = charts.scale(low, high, unit)
    assert first <= low
    assert last >= high
    assert [charts.tick(value, unit) for value in found] == ticks


def test_an_axis_that_ends_somewhere_ends_there():
    assert charts.scale(0.42, 1, "percentunit", fixed=True)[1] == 1


def panel(stacking, style="line"):
    custom = {"stacking": {"mode": stacking}, "drawStyle": style, "fillOpacity": 70}
    return {"fieldConfig": {"defaults": {"custom": custom, "unit": "short"}}}


def series(*columns):
    times = {"kind": "time", "values": [at * 3_600_000 for at in range(len(columns[0]))]}
    return [times, *({"kind": "number", "color": f"#00000{at}", "values": list(one)} for at, one in enumerate(columns))]


def test_null_is_a_gap():
    drawn = charts.over_time(panel("none"), series([1, None, 2, 3]), BOX)
    assert len(re.findall('fill="none"', drawn)) == 1
    assert len(re.findall("<circle", drawn)) == 1


def test_stacks_stand_on_each_other():
    layers = charts._layers([[1, 2], [3, None]], "normal")
    assert layers == [[(0, 1), (0, 2)], [(1, 4), (2, None)]]
    assert charts._layers([[1, 0], [3, 0]], "percent")[1] == [(0.25, 1), (0, None)]


def test_what_is_nothing_has_no_bar():
    assert len(re.findall("<rect", charts.over_time(panel("normal", "bars"), series([1, 0, None, 2]), BOX))) == 2


@pytest.fixture(scope="module")
def fleet():
    if missing := lacks():
        absent.skip(missing)
    with serving(seeded(sessions=40, long_events=0)) as place:
        yield place


@pytest.mark.parametrize("uid", sorted(dashboards()))
def test_every_panel_is_in_the_picture_and_it_says_what_it_is(fleet, uid):
    board = dashboards()[uid]
    chosen = Chosen(board, range_of(board), fleet, {"session": "01890a5d-ac96-774b-bcce-000000001004"})
    html = page(board, {"Session": "01890a5d"}, chosen.span, shown(chosen))
    titles = [unescape(title) for title in re.findall("<h2>(.*?)</h2>", html)]
    assert len(titles) == len(board["panels"])
    assert {one["title"] for one in board["panels"] if "$" not in one["title"]} <= set(titles)
    assert "no screenshot of Grafana" in html
    assert "$" not in re.sub("<h2>.*?</h2>", "", html)


def test_a_text_of_an_app_is_no_markup():
    row = {"kind": "string", "texts": ["<b>x</b>"], "values": ["<b>x</b>"]}
    bar = {"kind": "number", "texts": ["1"], "values": [1], "color": "#000000"}
    options = {"options": {"stacking": "none", "orientation": "horizontal"}}
    assert "<b>" not in charts.bars(options, [row, bar], 300, 100)


def test_the_pictures_are_there_and_small():
    sizes = [(ROOT / f"docs/images/{uid.replace('datacat', 'grafana')}.png").stat().st_size for uid in dashboards()]
    assert sum(sizes) < 1_000_000
