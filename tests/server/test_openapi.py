"""The OpenAPI document says what the server does, and the server does what the document says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import jsonschema_rs
import pytest
from system.box import Box

from datacat.server.query.table import TABLE

HERE = Path(__file__).parent
CHECKS = """
[checks]
# What JSON Schema cannot say (from is before to, a cursor is one of ours) is refused all the same.
positive_data_acceptance.expected-statuses = [
    "2xx", "304", "400", "401", "403", "404", "405", "409", "410", "414", "415", "422", "431"
]
# Refused by a limit of the HTTP side before anybody looks at the data.
negative_data_rejection.expected-statuses = [
    "400", "401", "403", "404", "405", "406", "409", "410", "413", "414", "415", "422", "431"
]
"""


@pytest.fixture
def document(server):
    return server.get("/openapi.json").json


def test_every_route_and_parameter_is_in_the_document(document):
    assert document["openapi"].startswith("3.1")
    for endpoint in TABLE:
        operation = document["paths"][f"/api/query/{endpoint.path}"]["get"]
        assert [one["name"] for one in operation["parameters"]] == [one.name for one in endpoint.parameters]
    assert {"/api/sessions/{id}/batches", "/api/keys", "/livez", "/"} <= document["paths"].keys()
    names = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert len(names) == len(set(names))


def test_its_schemas_are_valid_and_its_references_lead_somewhere(document):
    for schema in document["components"]["schemas"].values():
        jsonschema_rs.meta.validate(schema)
    for target in set(re.findall(r'"#/([^"]+)"', str(document).replace("'", '"'))):
        found = document
        for name in target.split("/"):
            found = found[name]


def campaign(tmp_path, examples, *, with_keys):
    """Ask a real server every operation, rightly and wrongly; fail with the report when a check does."""
    box = Box(tmp_path)
    try:
        headers = []
        if with_keys:
            make = [
                sys.executable,
                "-m",
                "datacat",
                "keys",
                "create",
                "tester",
                "--role",
                "admin",
                "--data-dir",
                str(tmp_path / "data"),
            ]
            made = subprocess.run(make, env=box.env, capture_output=True, text=True, check=True)
            key = next(line for line in made.stdout.splitlines() if line.startswith("dcat_"))
            headers = ["--header", f"Authorization: Bearer {key}"]
        box.start_server()
        config = tmp_path / "schemathesis.toml"
        config.write_text(CHECKS)
        done = subprocess.run(
            [
                str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(config), "run",
                f"{box.url}/openapi.json", "--checks", "all", "--phases", "examples,fuzzing", "--seed", "7", "--no-color",
                "--max-examples", str(examples), "--continue-on-failure", "--suppress-health-check", "all", *headers,
            ],
            env={**os.environ, "SCHEMATHESIS_HOOKS": "schemathesis_hooks", "PYTHONPATH": str(HERE)},
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            pytest.fail("\n".join(line[:600] for line in (done.stdout + done.stderr).splitlines()))
    finally:
        box.close()


@pytest.mark.timeout(180)
def test_every_answer_is_a_documented_one(tmp_path):
    campaign(tmp_path, 2, with_keys=False)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("with_keys", [False, True])
def test_ten_thousand_answers_are_documented_ones(tmp_path, with_keys):
    campaign(tmp_path, 200, with_keys=with_keys)
