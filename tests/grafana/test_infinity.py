"""The stand-in for the Infinity data source keeps the habits of the real one that datacat's answers have to fit.

fixtures/answers.json has answers and the frames that come of them. The rules were compared with those of the plugin's
own Go code; what is here is our own.
"""

import json
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest

from grafana import asking, infinity, wide
from grafana.asking import Everything, Range
from grafana.framing import Field, Frame, InfinityError, frame_of, go_json, go_text, time_ms

ANSWERS = json.loads((Path(__file__).parent / "fixtures/answers.json").read_text(encoding="utf-8"))
SPAN = Range(1_785_000_000_000, 1_785_086_400_123)
BASE = "http://datacat:8080"


def target(**more):
    return {
        "refId": "A", "type": "json", "source": "url", "parser": "backend", "format": "table", "url": "/api/x",
        "url_options": {"params": []}, "root_selector": "rows",
        "columns": [{"selector": "a", "text": "a", "type": "number"}], **more,
    }  # fmt: skip


def params(*pairs):
    return {"params": [{"key": key, "value": value} for key, value in pairs]}


class Server:
    """Answers one body after the other and remembers what was asked."""

    def __init__(self, *bodies, status=200):
        self.bodies, self.status, self.urls, self.headers = list(bodies), status, [], []

    def __call__(self, url, headers):
        self.urls.append(url)
        self.headers.append(headers)
        return self.status, json.dumps(self.bodies.pop(0)).encode()

    def query(self, at=-1):
        return dict(parse_qsl(urlsplit(self.urls[at]).query, keep_blank_values=True))


def ask(asked, server, variables=(), **more):
    return infinity.ask(asked, dict(variables), SPAN, BASE, server, **more)


@pytest.mark.parametrize("answer", ANSWERS, ids=[one["name"] for one in ANSWERS])
def test_an_answer_becomes_this_frame(answer):
    def framed():
        frame = frame_of(answer["body"], answer["root"], answer["columns"], "A")
        return wide.finished(frame, answer["format"])

    if "error" in answer:
        with pytest.raises(InfinityError) as told:
            framed()
        assert str(told.value) == answer["error"]
        return
    frame = framed()
    fields = [
        [one.name, one.kind, one.values, *([one.labels] if one.labels is not None else [])] for one in frame.fields
    ]
    assert {"meta": frame.meta, "fields": fields} == answer["frame"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (-0.5, "-0.5"), (100000.0, "100000"), (1e6, "1e+06"), (1.25e21, "1.25e+21"), (1e-7, "1e-07")],
)
def test_numbers_are_written_as_go_writes_them(value, text):
    assert go_text(value) == text


def test_json_in_a_cell_is_as_go_writes_it():
    assert go_json({"b": [1e21, 1e-7, 1234567.0, 0.5], "a": "é\u2028&"}) == (
        '{"a":"é\\u2028\\u0026","b":[1e+21,1e-7,1234567,0.5]}'
    )


def test_what_is_no_time_is_no_time():
    assert [time_ms(text) for text in ("", "now", "2026-13-01", "12", "2026-01-02 03:04:05+01")] == [None] * 5


def test_a_refusal_tells_its_status_alone():
    with pytest.raises(InfinityError, match=r"status code : 400$"):
        ask(target(), Server({"title": "unknown measure"}, status=400))


def test_json_is_not_what_is_asked_for_first():
    server = Server({"rows": []})
    ask(target(), server)
    assert server.headers == [{"Accept": "application/json;q=0.9,text/plain", "Accept-Encoding": "gzip"}]


def test_a_list_of_values_is_a_glob_unless_csv_is_asked_for():
    assert asking.formatted(["a", "b"], "glob") == "{a,b}"
    assert asking.formatted(["a"], "glob") == "a"
    assert asking.formatted(["a, b", "c"], "csv") == "a, b,c"
    assert asking.formatted(['say "a, b"', "c"], "doublequote") == '"say \\"a, b\\"","c"'


def test_the_value_of_all_stands_as_it_is_in_every_format():
    assert {asking.formatted(Everything("*"), form) for form in ("glob", "csv", "doublequote")} == {"*"}


def test_variables_are_put_into_parameters_and_unknown_ones_stay():
    server = Server({"rows": []})
    asked = target(url_options=params(("product", "${p:csv}"), ("interval", "$__interval_ms"), ("by", "$by")))
    ask(asked, server, {"p": ["a", "b"], "by": "version"})
    assert server.query() == {"product": "a,b", "interval": "$__interval_ms", "by": "version"}


def test_variables_are_not_put_into_columns():
    server = Server({"rows": [{"$agg": 1, "p95": 2}]})
    frame = ask(target(columns=[{"selector": "$agg", "text": "v", "type": "number"}]), server, {"agg": "p95"})
    assert frame.named("v").values == [1.0]


@pytest.mark.parametrize(
    ("text", "becomes"),
    [
        ("${__timeFrom}", "1785000000000"), ("${__to}", "1785086400123"), ("${__timeFrom:date:seconds}", "1785000000"),
        ("${__timeTo:date}", "2026-07-26T17:20:00.123Z"), ("${__from:date:iso}", "2026-07-25T17:20:00Z"),
        (" a ", "a"),
    ],
)  # fmt: skip
def test_macros_of_the_range_are_the_plugins(text, becomes):
    assert asking.with_macros(text, SPAN) == becomes


def test_parameters_are_sorted_and_encoded_as_a_form():
    asked = target(url="/api/x?z=1+2", url_options=params(("b", 'a, "b"+c&d'), ("a", "é")))
    assert asking.address(BASE, asked, SPAN) == f"{BASE}/api/x?a=%C3%A9&b=a%2C+%22b%22%2Bc%26d&z=1+2"


def test_the_base_is_not_put_before_an_address_that_has_it():
    assert asking.address(BASE, target(url=f"{BASE}/x"), SPAN) == f"{BASE}/x"
    # Nothing is put between the two.
    assert asking.address(f"{BASE}/", target(), SPAN) == f"{BASE}//api/x"


PAGED = {
    "pagination_mode": "cursor", "pagination_max_pages": 9, "pagination_param_cursor_field_name": "cursor",
    "pagination_param_cursor_extraction_path": "next_cursor",
}  # fmt: skip


def page(*values, cursor=None):
    return {"rows": [{"a": value} for value in values], "next_cursor": cursor}


def test_pages_are_put_together_until_the_cursor_is_null():
    server = Server(page(1, 2, cursor="x y"), page(3))
    assert ask(target(**PAGED), server).named("a").values == [1.0, 2.0, 3.0]
    assert server.query(0) == {}
    assert server.query() == {"cursor": "x y"}


def test_one_page_more_than_five_is_asked_for_whatever_the_dashboard_says():
    server = Server(*(page(at, cursor=str(at)) for at in range(20)))
    assert len(ask(target(**PAGED), server)) == 6
    assert len(ask(target(**PAGED), Server(*(page(at, cursor=str(at)) for at in range(20))), limit=20)) == 10


def test_a_cursor_that_is_missing_fails_the_query():
    with pytest.raises(InfinityError, match="cursor"):
        ask(target(**PAGED), Server({"rows": [{"a": 1}]}))


def test_an_empty_page_fails_the_query():
    with pytest.raises(InfinityError, match="different fields"):
        ask(target(**PAGED), Server(page(1, cursor="x"), page()))


def test_a_first_page_that_is_empty_and_the_last_one_is_no_failure():
    assert len(ask(target(**PAGED), Server(page()))) == 0


def test_a_type_that_differs_between_pages_fails_the_query():
    untyped = target(**PAGED, columns=[{"selector": "a", "text": "a", "type": ""}])
    with pytest.raises(InfinityError, match="different field types"):
        ask(untyped, Server(page(1, cursor="x"), page("b")))


def test_frames_with_other_names_cannot_be_one():
    with pytest.raises(InfinityError, match="different field names"):
        wide.merged([Frame("A", [Field("a", "number", [1])]), Frame("A", [Field("b", "number", [1])])])


def variable(**more):
    return {"queryType": "infinity", "infinityQuery": target(**more)}


def test_a_variable_takes_the_columns_value_and_text_by_their_names():
    columns = [{"selector": name, "text": f"__{name}", "type": "string"} for name in ("text", "value")]
    found = infinity.options(variable(columns=columns), {}, SPAN, BASE, Server({"rows": [{"text": "T", "value": "v"}]}))
    assert found == [("v", "T")]
    found = infinity.options(variable(), {}, SPAN, BASE, Server(page(1)))
    assert found == [(1.0, 1.0)]


def test_a_variable_without_rows_fails():
    with pytest.raises(InfinityError, match="at least one field expected"):
        infinity.options(variable(), {}, SPAN, BASE, Server(page()))


def test_a_flag_is_a_label_too_and_null_is_false():
    frame = Frame("A", [Field("f", "boolean", [True, None]), Field("n", "number", [1, 2]), Field("t", "time", [1, 1])])
    assert [one.labels for one in wide.long_to_wide(frame).fields[1:]] == [{"f": "false"}, {"f": "true"}]


def test_a_frame_is_told_to_grafana_with_its_labels_and_meaning():
    frame = Frame("A", [Field("time", "time", [1]), Field("n", "number", [2.0], {"v": "a"})], {"type": "x"})
    assert infinity.as_grafana(frame) == {
        "schema": {
            "name": "A", "refId": "A", "meta": {"type": "x"},
            "fields": [{"name": "time", "type": "time"}, {"name": "n", "type": "number", "labels": {"v": "a"}}],
        },
        "data": {"values": [[1], [2.0]]},
    }  # fmt: skip
