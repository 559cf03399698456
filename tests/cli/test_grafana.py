"""datacat grafana export: files with the server's address in them, and nothing of anybody else's is lost."""

import json
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from datacat.cli import grafana, main

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "packaging/grafana"
URL = "https://datacat.example.com:8443/dc"


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Run the command in this process as a user without settings."""
    for name in ("DATACAT_SERVER_URL", "DATACAT_API_KEY", "DATACAT_KEY_FILE", "DATACAT_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    empty = tmp_path / "cli.toml"
    empty.write_text("")
    monkeypatch.setenv("DATACAT_CLI_CONFIG", str(empty))
    return lambda *args: CliRunner().invoke(main.group, ["grafana", "export", *map(str, args)], standalone_mode=False)


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def shipped():
    return sorted(
        path.relative_to(SOURCE).as_posix()
        for folder in grafana.FOLDERS
        for path in (SOURCE / folder).rglob("*")
        if path.is_file()
    )


def test_everything_is_written_with_the_address_in_it(run, tmp_path):
    done = run(tmp_path / "out", "--url", f"{URL}/")
    assert done.return_value == 0, done.exception
    assert names(tmp_path / "out") == sorted([grafana.NOTE, *shipped()])
    (source,) = yaml.safe_load((tmp_path / "out/provisioning/datasources/datacat.yaml").read_text())["datasources"]
    assert source["url"] == URL
    assert source["jsonData"]["allowedHosts"] == [URL]
    for name in shipped():
        text = (tmp_path / "out" / name).read_text(encoding="utf-8")
        assert "datacat:8080" not in text
        assert yaml.safe_load(text) is not None or name.endswith(".md")
        assert str(tmp_path / "out" / name) in done.stdout
    assert "datacat keys create grafana --role read" in done.stderr


def test_without_an_address_it_is_that_of_the_command_line(run, tmp_path, monkeypatch):
    assert run(tmp_path / "one").return_value == 0
    assert "url: http://localhost:8080\n" in (tmp_path / "one/provisioning/datasources/datacat.yaml").read_text()
    monkeypatch.setenv("DATACAT_SERVER_URL", "http://10.0.0.7:8080")
    assert run(tmp_path / "two").return_value == 0
    assert "url: http://10.0.0.7:8080\n" in (tmp_path / "two/provisioning/datasources/datacat.yaml").read_text()


@pytest.mark.parametrize(
    "url",
    ["datacat:8080", "ftp://x", "http://", "http://x y", "http://u:p@x", "http://x?a=b", "http://x#y", "http://x:99999",
     "http://x:0", "http://x/$HOME", 'http://x"', "http://x\nurl: y"],
)  # fmt: skip
def test_what_is_no_address_of_a_server_is_refused(run, tmp_path, url):
    done = run(tmp_path / "out", "--url", url)
    assert "is no address of a server" in str(done.exception)
    assert done.exception.exit_code == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("url", ["http://datacat:8080", "http://[::1]:8080", "https://d.example.com", "http://x/a/b"])
def test_the_files_stay_yaml_whatever_the_address_is(url):
    for name, text in grafana.made(url).items():
        if name.endswith((".yaml", ".yml")):
            assert yaml.safe_load(text), name


def test_with_the_address_of_the_files_they_stay_as_they_are():
    assert grafana.made(grafana.ADDRESS) == {name: (SOURCE / name).read_text(encoding="utf-8") for name in shipped()}


def test_scheme_path_host_and_port_are_put_where_they_stand_alone():
    text = "- scheme: http\n  metrics_path: /metrics\n  static_configs: [{targets: ['datacat:8080']}]\n"
    (found,) = yaml.safe_load(grafana.filled(text, URL))
    assert (found["scheme"], found["metrics_path"]) == ("https", "/dc/metrics")
    assert found["static_configs"] == [{"targets": ["datacat.example.com:8443"]}]


def test_a_second_export_replaces_what_nobody_changed(run, tmp_path):
    assert run(tmp_path, "--url", "http://one:1").return_value == 0
    again = run(tmp_path, "--url", "http://one:1", "--json")
    assert not any(row["written"] for row in json.loads(again.stdout)["files"])
    moved = json.loads(run(tmp_path, "--url", "http://two:2", "--json").stdout)
    assert moved["url"] == "http://two:2"
    assert "provisioning/datasources/datacat.yaml" in [row["name"] for row in moved["files"] if row["written"]]
    assert "url: http://two:2\n" in (tmp_path / "provisioning/datasources/datacat.yaml").read_text()


def test_what_was_changed_or_is_not_ours_stays_unless_forced(run, tmp_path):
    mine = tmp_path / "dashboards/datacat-fleet.json"
    mine.parent.mkdir()
    mine.write_text('{"title": "mine"}')
    refused = run(tmp_path)
    assert "dashboards/datacat-fleet.json; nothing was written" in str(refused.exception)
    assert refused.exception.exit_code == 1
    assert mine.read_text() == '{"title": "mine"}'
    assert not (tmp_path / "provisioning").exists()
    assert run(tmp_path, "--force").return_value == 0
    rules = tmp_path / "provisioning/alerting/datacat.yaml"
    rules.write_text(rules.read_text().replace("- 50\n", "- 80\n"))
    assert "provisioning/alerting/datacat.yaml" in str(run(tmp_path, "--url", "http://two:2").exception)
    assert "- 80\n" in rules.read_text()


def test_a_note_that_is_not_ours_is_no_permission(run, tmp_path):
    assert run(tmp_path).return_value == 0
    (tmp_path / grafana.NOTE).write_text("[1]")
    (tmp_path / "dashboards/datacat-fleet.json").write_text("{}")
    assert "dashboards/datacat-fleet.json" in str(run(tmp_path).exception)


def test_a_folder_that_cannot_be_made_is_told(cli, tmp_path):
    (tmp_path / "file").write_text("")
    done = cli("grafana", "export", tmp_path / "file" / "out")
    assert done.returncode == 1
    assert f"cannot write to {tmp_path / 'file' / 'out'}" in done.stderr
    assert cli("grafana", "export", tmp_path / "file").returncode == 2


def test_the_import_format_asks_for_the_data_source(run, tmp_path):
    folder = tmp_path / "out"
    done = run(folder, "--import-format")
    assert done.return_value == 0
    assert "once for each file" in done.stderr
    assert names(folder) == sorted([grafana.NOTE, *(name for name in shipped() if name.startswith("dashboards/"))])
    for path in (folder / "dashboards").iterdir():
        text = path.read_text(encoding="utf-8")
        board = json.loads(text)
        assert "${datasource" not in text
        (asked,) = board["__inputs"]
        assert (asked["name"], asked["pluginId"]) == ("DS_DATACAT", grafana.PLUGIN)
        assert {one["id"] for one in board["__requires"] if one["type"] == "panel"} == {
            panel["type"] for panel in board["panels"]
        }
        assert board["panels"][0]["datasource"]["uid"] == "${DS_DATACAT}"
        assert "datasource" not in [one["name"] for one in board["templating"]["list"]]


def test_the_command_is_offered_and_explained(cli):
    assert "grafana" in cli("--help").stdout
    assert "--import-format" in cli("grafana", "export", "--help").stdout
    offered = cli(env={"_DATACAT_COMPLETE": "bash_complete", "COMP_WORDS": "datacat graf", "COMP_CWORD": "1"})
    assert "plain,grafana" in offered.stdout


def test_wheel_and_source_package_carry_the_files_themselves(packages):
    with zipfile.ZipFile(packages.wheel) as packed:
        for name in shipped():
            assert packed.read(f"datacat/cli/grafana_files/{name}") == (SOURCE / name).read_bytes()
    with tarfile.open(packages.sources) as packed:
        found = {member.name.partition("/")[2] for member in packed.getmembers() if member.isfile()}
    assert {f"datacat/cli/grafana_files/{name}" for name in shipped()} <= found


def test_the_command_needs_neither_the_server_nor_what_makes_the_files():
    program = "import sys; from datacat.cli import grafana; grafana.made('http://x'); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert loaded.isdisjoint({"cherrypy", "semidbm", "jinja2", "yaml", "grafana_foundation_sdk"})
    assert "datacat.server" not in done.stdout.split()
