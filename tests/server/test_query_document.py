"""The chapter about queries is that of the table, and its commands work."""

import re
import shlex
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from querying import US

from datacat.server.query import document
from datacat.server.query.shape import KINDS
from datacat.server.query.table import TABLE

PAGE = Path(__file__).parents[2] / "docs" / "api.md"
MADE = re.compile(re.escape(document.BEGIN) + ".*?" + re.escape(document.END) + "\n", re.DOTALL)


def test_the_chapter_is_made_from_the_table():
    page = PAGE.read_text(encoding="utf-8")
    (found,) = MADE.findall(page)
    assert found == document.chapter(), (
        "write it anew: PYTHONPATH=tests .venv/bin/python tests/server/test_query_document.py"
    )


@pytest.mark.parametrize("endpoint", TABLE, ids=lambda endpoint: endpoint.path)
def test_its_commands_work(endpoint, server):
    session = server.session()
    server.post(f"/api/sessions/{session}/events", json={"name": "x", "level": "error"})
    server.post(f"/api/sessions/{session}/metrics", json={"name": "frame_ms", "value": 1})
    server.post(f"/api/sessions/{session}/crash")
    server.now_us += US
    command = re.search(rf"```sh\n(.*{re.escape(urlsplit(document.curl(endpoint)).path)}\?.*)\n```", PAGE.read_text())[
        1
    ]
    address = urlsplit(shlex.split(command)[-1].replace("01890a5d-ac96-774b-bcce-000000000001", session))
    answer = server.get(f"{address.path}?{address.query}")
    assert answer.status == 200
    known = {column.name: column for column in endpoint.columns}
    always = {column.name for column in endpoint.columns[: endpoint.always]}
    for row in answer.json["rows"]:
        assert always <= row.keys() <= known.keys()
        for name, value in row.items():
            assert value is not None or known[name].optional, name
            assert value is None or isinstance(value, _TYPES[KINDS[known[name].kind]["type"]]), name


_TYPES = {"string": str, "integer": int, "number": (int, float), "boolean": bool}

if __name__ == "__main__":
    PAGE.write_text(MADE.sub(lambda _: document.chapter(), PAGE.read_text()), encoding="utf-8")
