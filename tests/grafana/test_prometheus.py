"""A real Prometheus: its configuration, rules and alerts by promtool; what it scrapes is what datacat's own API says."""

import re
import subprocess
import time
from pathlib import Path
from urllib.parse import urlencode

import psutil
import pytest
import requests
import yaml
from certs import make_cert
from fleet import seed
from helpers import eventually
from prometheus import tool
from system.box import Box

from datacat.cli.grafana import made
from datacat.server.keys import KeyFile, make
from datacat.store import open_store

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "packaging/grafana/prometheus"
CASES = ("rules.test.yml", "days.test.yml")
OPERATIONS = r"(sum|increase\d+[hd]|rate\d+[mhd]|ratio|ratio_rate\d+[mhd]|p\d\d_rate\d+[mhd])"
RULES = [
    rule for group in yaml.safe_load((FOLDER / "datacat.rules.yml").read_text())["groups"] for rule in group["rules"]
]
ALERTS = [rule for rule in RULES if "alert" in rule]
PAGE = (ROOT / "docs/operations.md").read_text(encoding="utf-8")


def promtool(*arguments, cwd=ROOT):
    done = subprocess.run([tool("promtool"), *arguments], cwd=cwd, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout


def exported(folder, url, key_file):
    """Write the files as `datacat grafana export` does; return the path of prometheus.yml."""
    for name, text in made(url).items():
        if name.startswith("prometheus/"):
            filled = text.replace("/run/secrets/datacat_read_token", str(key_file))
            (folder / Path(name).name).write_text(filled, encoding="utf-8")
    return folder / "prometheus.yml"


def test_the_rules_are_good_and_named_by_level_metric_and_operations():
    assert f"{len(RULES)} rules found" in promtool("check", "rules", FOLDER / "datacat.rules.yml")
    for rule in RULES:
        if "record" in rule:
            assert re.fullmatch(rf"[a-z_]+:datacat_[a-z0-9_]+:{OPERATIONS}", rule["record"]), rule["record"]


def test_rules_ask_only_for_metrics_that_there_are():
    recorded = {rule.get("record") for rule in RULES}
    known = set(re.findall(r"^\| `(datacat_\w+)`", PAGE, re.MULTILINE))
    for rule in RULES:
        for name in re.findall(r"[a-z_]*:datacat_[\w:]+|\bdatacat_\w+", rule["expr"]):
            assert name in recorded or name.removesuffix("_bucket") in known, name


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_is_wrong_and_leads_to_what_to_do(rule):
    told = rule["annotations"]
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert told["summary"]
    assert told["description"].endswith(".")
    page, _, anchor = told["runbook"].partition("#")
    headings = re.findall(r"^###? (.*)$", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
    assert anchor in {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


def test_every_alert_fires_when_it_should_and_only_then():
    promtool("test", "rules", *(f"tests/grafana/{name}" for name in CASES))
    text = "".join((ROOT / "tests/grafana" / name).read_text() for name in CASES)
    cases = [case for name in CASES for case in yaml.safe_load((ROOT / "tests/grafana" / name).read_text())["tests"]]
    firing, silent = set(), set()
    for case in cases:
        for row in case.get("alert_rule_test", []):
            (firing if row["exp_alerts"] else silent).add(row["alertname"])
        for row in case.get("promql_expr_test", []):
            for names in re.findall(r'alertname=~?"([^"]+)"', row["expr"]):
                (firing if row["exp_samples"] else silent).update(names.split("|"))
    everything = {rule["alert"] for rule in ALERTS}
    assert (firing, silent) == (everything, everything), text


@pytest.mark.parametrize("url", ["http://datacat.example.org:8080", "https://datacat.example.org/behind/a/proxy"])
def test_the_configuration_that_is_exported_is_good(tmp_path, url):
    key_file = tmp_path / "key"
    key_file.write_text("x")
    config = exported(tmp_path, url, key_file)
    promtool("check", "config", config)
    (job,) = yaml.safe_load(config.read_text())["scrape_configs"]
    (target,) = job["static_configs"][0]["targets"]
    assert f"{job['scheme']}://{target}{job['metrics_path']}" == f"{url}/metrics"
    # What stands there as a comment is good as well.
    text = config.read_text()
    (tmp_path / "ca.pem").write_text("")
    parts = list(re.finditer(r"^    # tls_config:\n(?:    #   .*\n)+", text, re.MULTILINE))
    assert len(parts) == 2
    for part in parts:
        live = part[0].replace("    # ", "    ").replace("/etc/prometheus/our-own-ca.pem", str(tmp_path / "ca.pem"))
        (tmp_path / "other.yml").write_text(text[: part.start()] + live + text[part.end() :])
        promtool("check", "config", tmp_path / "other.yml")


class Scraped:
    """A datacat server on the made-up fleet, with keys, one with HTTPS, and a Prometheus that scrapes every second."""

    def __init__(self, folder):
        self.box = Box(folder)
        (folder / "https").mkdir()
        self.secure = Box(folder / "https")
        self.process = None
        data = folder / "data"
        data.mkdir(mode=0o700)
        store = open_store(f"semidbm:{data / 'store'}")
        self.fleet = seed(store, time.time_ns() // 1000, long_events=0)
        store.close()
        self.keys = {}
        for role in ("read", "ingest"):
            key, self.keys[role] = make(role, role, (), 0, time.time_ns() // 1000)
            KeyFile(data).add(key)
        self.box.start_server()
        cert, key = make_cert(folder, "server")
        self.secure.start_server("--tls-cert", cert, "--tls-key", key)
        (folder / "key").write_text(self.keys["read"] + "\n")
        config = exported(folder, self.box.url, folder / "key")
        settings = yaml.safe_load(config.read_text())
        settings["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
        (job,) = settings["scrape_configs"]
        settings["scrape_configs"] += [
            {"job_name": "without-key", "static_configs": job["static_configs"]},
            {"job_name": "https", "scheme": "https", "tls_config": {"ca_file": str(cert)},
             "static_configs": [{"targets": [f"localhost:{self.secure.port}"]}],
             "metric_relabel_configs": [{"source_labels": ["__name__"], "regex": "datacat_.*", "action": "drop"}]},
        ]  # fmt: skip
        config.write_text(yaml.safe_dump(settings))
        self.log = folder / "prometheus.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [tool("prometheus"), f"--config.file={config}", f"--storage.tsdb.path={folder / 'tsdb'}",
                 "--web.listen-address=127.0.0.1:0"],
                cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        self.url = f"http://127.0.0.1:{eventually(self._port, 20)}"
        eventually(lambda: self._answers("/-/ready"), 20)

    def _port(self):
        assert self.process.poll() is None, self.log.read_text()
        found = psutil.Process(self.process.pid).net_connections("tcp")
        return next((one.laddr.port for one in found if one.status == psutil.CONN_LISTEN), None)

    def _answers(self, path):
        return requests.get(self.url + path, timeout=10).ok

    def close(self):
        if self.process:
            self.process.terminate()
            self.process.wait(20)
        self.box.close()
        self.secure.close()

    def ask(self, path, **params):
        answer = requests.get(f"{self.url}/api/v1/{path}", params=params, timeout=10)
        assert answer.ok, answer.text
        return answer.json()["data"]

    def promql(self, expression, *labels):
        """Return what an expression is now: by the labels that are named, or its only value.

        Those here take the last of ten seconds: on a busy machine a scrape may not be done within its second.
        """
        found = self.ask("query", query=expression)["result"]
        rows = {tuple(one["metric"].get(name, "") for name in labels): float(one["value"][1]) for one in found}
        return rows if labels else rows.get(())

    def target(self, job):
        """Return what Prometheus says of the target of a job; None before it knows it."""
        known = self.ask("targets")["activeTargets"]
        return next((one for one in known if one["labels"]["job"] == job and one["lastScrape"] > "0001-01-02"), None)

    def api(self, path, **params):
        answer = requests.get(
            f"{self.box.url}/api/query/{path}?{urlencode(params)}",
            headers={"Authorization": f"Bearer {self.keys['read']}"}, timeout=10,
        )  # fmt: skip
        assert answer.ok, answer.text
        return answer.json()["rows"]

    def post(self, path, body=None):
        answer = requests.post(
            self.box.url + path, json=body, headers={"Authorization": f"Bearer {self.keys['ingest']}"}, timeout=10
        )
        assert answer.ok, answer.text
        return answer.json()


@pytest.fixture(scope="module")
def scraped(tmp_path_factory):
    tool("prometheus")  # before anything is started
    scraped = Scraped(tmp_path_factory.mktemp("prometheus"))
    try:
        yield scraped
    finally:
        scraped.close()


def drive(scraped):
    """Sessions that come, log, crash and end, while scrapes go on; return when it began (Unix ms) and what was done."""
    began = time.time_ns() // 1_000_000
    crashes = {"editor": 3, "viewer": 1, "brand-new": 2}
    ends = {"editor": 5, "viewer": 4, "brand-new": 1}
    done = {"events": 0, "metrics": 0, "states": 0, "sessions": 0}
    for product, crashed in crashes.items():
        for number in range(crashed + ends[product] + 1):
            one = f"/api/sessions/{scraped.post('/api/sessions', {'product': product, 'version': '9'})['session_id']}"
            scraped.post(f"{one}/events", [{"name": f"e{n}"} for n in range(7)])
            scraped.post(f"{one}/metrics", [{"name": "m", "type": "gauge", "value": n} for n in range(3)])
            if number < crashed:
                scraped.post(f"{one}/crash", {"reason": "signal"})
            elif number < crashed + ends[product]:
                scraped.post(f"{one}/end")
            done["sessions"] += 1
    return began, crashes, ends, done


def test_prometheus_scrapes_openmetrics_with_a_key_and_nothing_without(scraped):
    target = eventually(lambda: scraped.target("datacat"), 15)
    assert (target["health"], target["lastError"]) == ("up", "")
    assert scraped.promql("datacat_build_info", "job") == {("datacat",): 1}
    # There is no type "info" in the text format: it is OpenMetrics that was scraped.
    assert scraped.ask("targets/metadata", metric="datacat_build")[0]["type"] == "info"
    refused = eventually(lambda: scraped.target("without-key"), 15)
    assert refused["health"] == "down"
    assert "401" in refused["lastError"]
    secure = eventually(lambda: scraped.target("https"), 15)
    assert (secure["health"], secure["lastError"]) == ("up", "")


def test_what_prometheus_counts_is_what_the_api_says(scraped):
    # The fleet that was there: told by status, and no increase.
    there = eventually(lambda: scraped.promql("sum(last_over_time(datacat_sessions[10s]))"), 15)
    assert there == len(scraped.fleet.ends)
    now = {row["product"]: row for row in scraped.api("summary", **{"from": "-30d", "by": "product"})}
    told = scraped.promql("last_over_time(datacat_sessions[10s])", "product", "status")
    for product, row in now.items():
        for status in ("active", "ended", "crashed", "abnormal"):
            assert told[product, status] == row[status], (product, status)
    assert scraped.promql("sum(last_over_time(datacat_sessions_started_total[10s]))") == 0

    began, crashes, ends, done = drive(scraped)
    started = done["sessions"]
    eventually(lambda: scraped.promql("sum(last_over_time(datacat_sessions_started_total[10s]))") == started, 20, 0.2)

    # Counters, exactly.
    rows = {row["product"]: row for row in scraped.api("summary", **{"from": began, "by": "product", "zero": 1})}
    counted = {
        name: scraped.promql(f"last_over_time(datacat_{name}_total[10s])", "product")
        for name in ("sessions_started", "session_crashes")
    }
    ended = scraped.promql("last_over_time(datacat_sessions_ended_total[10s])", "product", "outcome")
    for product, crashed in crashes.items():
        at_all = crashed + ends[product]
        assert counted["sessions_started"][product,] == rows[product]["started"] == at_all + 1
        assert counted["session_crashes"][product,] == crashed
        assert (ended[product, "crashed"], ended[product, "normal"]) == (crashed, ends[product])
    event = {
        "from": began,
        "attribute": "event",
        "interval": "1d",
        "by": "product",
        "measures": "started,crashed,ended",
    }
    for row in scraped.api("sessions/timeseries", **event):
        product = row["product"]
        if product in crashes:
            assert row["crashed"] == counted["session_crashes"][product,]
            assert row["started"] == counted["sessions_started"][product,]
    # Both rates are of the same scrapes, from 0 on, so what is guessed between scrapes falls out of their ratio. A product
    # that is new begins with what it has at its first scrape: that is no increase to Prometheus.
    known = [product for product in crashes if product != "brand-new"]
    ratio = "product:datacat_session_crashes_per_session_ended:ratio_rate1h"
    wanted = {(product,): pytest.approx(crashes[product] / (crashes[product] + ends[product])) for product in known}
    eventually(
        lambda: {key: rate for key, rate in scraped.promql(ratio, "product").items() if key in wanted} == wanted, 5
    )
    # increase() itself guesses what lies before the first scrape and behind the last one.
    grown = scraped.promql("increase(datacat_sessions_started_total[5m])", "product")
    for product in known:
        assert grown[product,] == pytest.approx(rows[product]["started"], rel=0.1)

    # What the server says about itself: the sums of its steps of 10 s, which are measured at the end of each.
    items = 'sum(last_over_time(datacat_ingest_items_total{kind!="heartbeat"}[10s]))'
    stored = eventually(lambda: scraped.promql(items), 10)
    eventually(lambda: round(summed(scraped, "ingest_per_second")[""]) == stored, 15, 0.2)
    kinds = scraped.promql("last_over_time(datacat_ingest_items_total[10s])", "kind")
    by_kind = summed(scraped, "ingest_per_second", by="kind")
    assert {kind: round(count) for kind, count in by_kind.items()} == {
        kind: count for (kind,), count in kinds.items() if count and kind != "heartbeat"
    }
    assert kinds["session",] == started
    assert kinds["metric",] == 3 * started
    created = 'last_over_time(datacat_http_requests_total{route="/api/sessions", method="POST"}[10s])'
    assert scraped.promql(f"sum({created})") == round(
        summed(scraped, "requests_per_second", by="route")["/api/sessions"]
    )
    # The API knows a quantile within 2.2 %, Prometheus within its bucket: bounds are at most 2.5 times apart. Which of
    # two neighbours is the 95th of a hundred is a matter of taste, and they may lie far apart.
    bucket, requests = (
        f'last_over_time(datacat_http_request_duration_seconds_{part}{{route="/api/sessions"}}[10s])'
        for part in ("bucket", "count")
    )
    rank = 1 / scraped.promql(requests)
    below, above = (scraped.promql(f"histogram_quantile({0.95 + by}, {bucket})") for by in (-rank, rank))
    ours = next(row["latency_p95"] for row in service(scraped, "latency_p95", by="route", interval="1d", max_points=2000)
                if row["route"] == "/api/sessions" and row["latency_p95"])  # fmt: skip
    assert below / 2.6 < ours < above * 2.6


def test_every_rule_can_be_evaluated_and_nothing_is_alarmed(scraped):
    def rules():
        return [(rule["name"], rule["health"]) for group in scraped.ask("rules")["groups"] for rule in group["rules"]]

    eventually(lambda: all(health != "unknown" for _, health in rules()), 15)
    assert sorted(rules()) == sorted((rule.get("record") or rule["alert"], "ok") for rule in RULES)
    assert scraped.promql('ALERTS{alertstate="firing"}', "alertname") == {}
    assert scraped.promql("last_over_time(datacat_store_writable[10s])") == 1
    for name in ("store_write_seconds", "store_query_seconds", "ingest_bytes"):
        assert scraped.promql(f"count(last_over_time({{__name__=~'datacat_{name}.*'}}[10s]))"), name


def service(scraped, measure, **more):
    return scraped.api("service/timeseries", **{"from": "-1h", "measures": measure, **more})


def summed(scraped, measure, by=""):
    """Return how many there were since the start, by group: rates times the length of their buckets."""
    sums = {}
    for row in service(scraped, measure, interval="10s", max_points=2000, **({"by": by} if by else {})):
        group = row[by] if by else ""
        sums[group] = sums.get(group, 0.0) + row[measure] * 10
    return sums
