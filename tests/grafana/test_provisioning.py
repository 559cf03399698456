"""What Grafana reads when it starts: the data source, where dashboards are, and alert rules."""

import json
import re
import sys
from pathlib import Path

import pytest
import requests
import yaml

from datacat.server import keys, service
from datacat.server.config import SETTINGS, Config
from datacat.server.query import asked
from datacat.server.query.serve import PREFIX

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "packaging/grafana/provisioning"
sys.path.append(str(ROOT / "scripts"))

from boards import targets  # noqa: E402 scripts are no package

JSON_DATA = {
    "auth_method", "apiKeyKey", "apiKeyType", "oauth2", "oauthPassThru", "aws", "azureBlobAccountName", "azureBlobAccountUrl",
    "azureBlobCloudType", "tlsSkipVerify", "tlsAuth", "tlsAuthWithCACert", "serverName", "timeoutInSeconds", "proxy_type",
    "proxy_url", "proxy_username", "allowedHosts", "refData", "global_queries", "customHealthCheckEnabled",
    "customHealthCheckUrl", "unsecuredQueryHandling", "enableSecureSocksProxy", "pathEncodedUrlsEnabled",
    "ignoreStatusCodeCheck", "allowDangerousHTTPMethods", "keepCookies",
}  # fmt: skip
SECURE_DATA = {
    "basicAuthPassword", "tlsCACert", "tlsClientCert", "tlsClientKey", "apiKeyValue", "bearerToken", "awsAccessKey",
    "awsSecretKey", "oauth2ClientSecret", "oauth2JWTPrivateKey", "oauth2ExternalCredentials", "azureBlobAccountKey",
    "proxyUserPassword",
}  # fmt: skip
"""What Infinity 3.11.1 knows; other keys would be ignored without a word."""
DATA_SOURCE = {
    "name", "uid", "type", "access", "url", "editable", "jsonData", "secureJsonData", "orgId", "isDefault", "version",
}  # fmt: skip
RULES = ("datacat-crash-free", "datacat-hang-rate", "datacat-hung-now", "datacat-no-ingest", "datacat-new-crash")


def loaded(name):
    return yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))


@pytest.fixture(params=range(len(RULES)), ids=RULES)
def rule(request):
    (group,) = loaded("alerting/datacat.yaml")["groups"]
    return group["rules"][request.param]


def test_the_data_source_has_only_keys_that_the_plugin_knows():
    told = loaded("datasources/datacat.yaml")
    (source,) = told["datasources"]
    assert told["apiVersion"] == 1
    assert source.keys() <= DATA_SOURCE
    assert source["jsonData"].keys() <= JSON_DATA
    assert source["secureJsonData"].keys() <= SECURE_DATA


def test_the_data_source_asks_with_a_key_and_can_be_tested():
    (source,) = loaded("datasources/datacat.yaml")["datasources"]
    assert (source["uid"], source["type"], source["access"]) == ("datacat", targets.PLUGIN, "proxy")
    assert re.search("datacat", source["name"], re.IGNORECASE)  # the dashboards look for this
    assert not source["url"].endswith("/")
    assert source["jsonData"]["allowedHosts"] == [source["url"]]
    assert source["jsonData"]["auth_method"] == "bearerToken"
    assert source["secureJsonData"] == {"bearerToken": "$DATACAT_READ_TOKEN"}
    assert source["jsonData"]["customHealthCheckEnabled"] is True
    endpoint = targets.endpoint_of(source["jsonData"]["customHealthCheckUrl"].removeprefix(PREFIX))
    assert not any(parameter.required for parameter in endpoint.parameters)


def test_saving_the_data_source_tells_a_wrong_key_from_a_right_one(tmp_path):
    (source,) = loaded("datasources/datacat.yaml")["datasources"]
    key, text = keys.make("grafana", "read", (), 0, 1)
    keys.KeyFile(tmp_path).add(key)
    server = service.build(Config(store="memory:", port=0, data_dir=str(tmp_path)))
    try:
        server.start()
        url = server.url + source["jsonData"]["customHealthCheckUrl"]
        answers = [
            requests.get(url, headers={"Authorization": f"Bearer {word}"}, timeout=10) for word in (text, "wrong")
        ]
    finally:
        server.stop()
    assert [answer.status_code for answer in answers] == [200, 401]
    assert answers[0].content


def test_dashboards_stay_as_they_are_shipped():
    told = loaded("dashboards/datacat.yaml")
    (provider,) = told["providers"]
    assert told["apiVersion"] == 1
    assert (provider["type"], provider["disableDeletion"], provider["allowUiUpdates"]) == ("file", True, False)
    assert provider["options"]["path"].startswith("/")


def test_there_are_the_five_rules():
    told = loaded("alerting/datacat.yaml")
    (group,) = told["groups"]
    assert told["apiVersion"] == 1
    assert [rule["uid"] for rule in group["rules"]] == list(RULES)
    assert len({rule["title"] for rule in group["rules"]}) == len(RULES)
    assert (group["orgId"], group["interval"]) == (1, "1m")


def test_a_rule_compares_one_number_of_each_row(rule):
    first, second = rule["data"]
    assert (first["refId"], first["datasourceUid"]) == ("A", "datacat")
    assert first["relativeTimeRange"]["from"] > first["relativeTimeRange"]["to"] == 0
    model = first["model"]
    assert (model["parser"], model["format"], model["refId"]) == ("backend", "table", "A")
    assert model["datasource"]["uid"] == "datacat"
    types = [column["type"] for column in model["columns"]]
    assert types.count("number") == 1
    assert set(types) <= {"number", "string"}
    assert (rule["condition"], second["refId"], second["datasourceUid"]) == ("B", "B", "__expr__")
    assert (second["model"]["type"], second["model"]["expression"]) == ("threshold", "A")
    ((condition,),) = [second["model"]["conditions"]]
    assert condition["evaluator"]["type"] in ("gt", "lt")


def test_a_rule_asks_what_the_server_knows_without_variables(rule):
    model = rule["data"][0]["model"]
    endpoint = targets.endpoint_of(model["url"].removeprefix(PREFIX))
    query = {one["key"]: [one["value"]] for one in model["url_options"]["params"]}
    assert (query["from"], query["to"]) == (["${__timeFrom}"], ["${__timeTo}"])
    query |= {"from": ["1784000000000"], "to": ["1784086400000"]}
    assert "$" not in json.dumps(query)
    asked.read(endpoint, query, 1_784_086_400_000_000)
    kinds = {column.name: column.kind for column in endpoint.columns}
    assert [targets.TYPES[kinds[column["selector"]]] for column in model["columns"]] == [
        column["type"] for column in model["columns"]
    ]
    if model["url"].endswith("/summary") and "by" in query:
        assert query["zero"] == ["1"], "a product without sessions in the range would be no data"


def test_a_rule_says_what_is_wrong_where_to_look_and_what_to_do(rule):
    notes = rule["annotations"]
    assert notes["summary"]
    assert notes["description"]
    labels = {column["text"] for column in rule["data"][0]["model"]["columns"] if column["type"] == "string"}
    assert set(re.findall(r"\$labels\.(\w+)", json.dumps(notes))) <= labels
    page, _, anchor = notes["runbook"].partition("#")
    headings = re.findall(r"^#+ (.*)$", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
    assert anchor in {heading.lower().replace(" ", "-") for heading in headings}
    path = FOLDER.parent / f"dashboards/{notes['__dashboardUid__']}.json"
    panels = {str(panel["id"]) for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]}
    assert notes["__panelId__"] in panels
    assert rule["labels"]["severity"] in ("critical", "warning", "info")


def test_labels_and_titles_have_no_dollar_that_grafana_would_take_for_its_environment(rule):
    assert "$" not in json.dumps([rule["title"], rule["labels"], rule["uid"], rule["for"]])


def test_silence_and_a_server_that_is_away_are_an_alert_and_missing_rows_are_none():
    (group,) = loaded("alerting/datacat.yaml")["groups"]
    assert {rule["noDataState"] for rule in group["rules"]} == {"OK"}
    assert {rule["uid"]: rule["execErrState"] for rule in group["rules"]} == {
        name: "Alerting" if name == "datacat-no-ingest" else "Error" for name in RULES
    }


def test_compose_says_that_it_was_not_run_and_names_what_exists():
    path = FOLDER.parent / "compose.yaml"
    text = path.read_text(encoding="utf-8")
    assert "NOT RUN BY US" in text.splitlines()[0]
    services = yaml.safe_load(text)["services"]
    for service_ in services.values():
        for volume in service_["volumes"]:
            source = volume.partition(":")[0]
            assert not source.startswith("./") or (path.parent / source).is_dir(), source
    assert (path.parent / services["datacat"]["build"]["context"] / "pyproject.toml").is_file()
    _, *flags = services["datacat"]["command"]
    known = {f"--{setting.name.replace('_', '-')}" for setting in SETTINGS}
    assert {flag.partition("=")[0] for flag in flags} <= known
    (provider,) = loaded("dashboards/datacat.yaml")["providers"]
    mounts = dict(volume.split(":")[:2] for volume in services["grafana"]["volumes"])
    assert mounts["./dashboards"] == provider["options"]["path"]
    assert mounts["./provisioning"] == "/etc/grafana/provisioning"
    (source,) = loaded("datasources/datacat.yaml")["datasources"]
    assert source["secureJsonData"]["bearerToken"].removeprefix("$") in services["grafana"]["environment"]
    assert source["url"] == "http://datacat:8080"
    assert "--port=8080" in flags
