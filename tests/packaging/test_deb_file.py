"""The Debian package as a file: reproducible, self-contained, in order; and what is generated for it."""

import gzip
import hashlib
import importlib.util
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from booting import CHECKOUT, build_deb

from datacat.server.config import SETTINGS, Config, read_file

pytestmark = pytest.mark.timeout(240)


def load(name, path):
    spec = importlib.util.spec_from_file_location(name, CHECKOUT / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def unpacked(deb, tmp_path_factory):
    folder = tmp_path_factory.mktemp("unpacked")
    subprocess.run(["dpkg-deb", "-R", deb, folder / "root"], check=True)
    return folder / "root"


def test_two_builds_of_one_tree_are_the_same_file(deb, tmp_path):
    again = build_deb(tmp_path)
    assert hashlib.sha256(again.read_bytes()).hexdigest() == hashlib.sha256(deb.read_bytes()).hexdigest()


def test_lintian_finds_neither_errors_nor_warnings(deb):
    if not shutil.which("lintian"):
        pytest.skip("capability: no lintian on this machine")
    run = subprocess.run(
        ["lintian", "--fail-on", "error,warning", "--allow-root", deb], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_each_compiled_part_tells_for_which_python_it_is(unpacked):
    names = [path.name for path in unpacked.rglob("*.so")]
    assert all(re.search(r"\.cpython-31[1-4]-|\.abi3\.so$", name) for name in names)
    for python in (311, 312, 313, 314):
        found = {name.split(".")[0] for name in names if f".cpython-{python}-" in name}
        assert found == {"_core", "backend_c", "_speedups"}


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13", "3.14"])
def test_everything_inside_loads_on_each_python_that_is_here(unpacked, version):
    candidates = [f"/usr/bin/python{version}", *Path.home().glob(f".pyenv/versions/{version}*/bin/python")]
    python = next((path for path in candidates if Path(path).exists()), None)
    if python is None:
        pytest.skip(f"capability: no Python {version} on this machine")
    modules = "datacat.cli.main, datacat.server.service, datacat.daemon.daemon, markupsafe._speedups, msgspec, psutil"
    code = f"import sys; sys.path.insert(0, {str(unpacked / 'usr/lib/datacat')!r}); import {modules}, zstandard\n"
    code += "assert zstandard.backend == 'cext'; assert datacat.__file__.startswith(sys.path[0])"
    run = subprocess.run([python, "-IBc", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_the_files_of_grafana_are_in_it(unpacked):
    source = CHECKOUT / "packaging/grafana"
    for path in (source / "dashboards").iterdir():
        packed = unpacked / "usr/lib/datacat/datacat/cli/grafana_files" / path.relative_to(source)
        assert packed.read_bytes() == path.read_bytes()


def test_nothing_in_the_package_names_the_machine_that_built_it(unpacked):
    here = str(CHECKOUT).encode()
    scripts = [path for path in unpacked.rglob("*") if path.is_file() and not path.is_symlink()]
    assert [path for path in scripts if here in path.read_bytes()] == []
    assert list(unpacked.rglob("*.pyc")) == []


def test_the_lock_names_every_file_by_its_hash_and_no_address():
    text = (CHECKOUT / "packaging/requirements.lock").read_text()
    assert "://" not in text
    joined = text.replace("\\\n", " ").splitlines()
    assert all(
        re.fullmatch(r"\S+==\S+( ; [^\\]+?)?( +--hash=sha256:[0-9a-f]{64})+", line.strip()) for line in joined if line
    )


def test_the_lock_has_every_dependency_of_the_server():
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["server"]]
    names = {re.split(r"[^A-Za-z0-9._-]", line)[0].lower() for line in wanted}
    text = (CHECKOUT / "packaging/requirements.lock").read_text()
    assert {name for name in names if not re.search(rf"^{re.escape(name)}==", text, re.MULTILINE)} == set()


def test_the_configuration_file_has_every_setting_commented_with_its_default(unpacked, tmp_path):
    text = (unpacked / "etc/datacat/server.toml").read_text()
    assert read_file(unpacked / "etc/datacat/server.toml") == {}
    opened = tmp_path / "opened.toml"
    opened.write_text(re.sub(r"^#(\w+ = )", r"\1", text, flags=re.MULTILINE))
    values = read_file(opened)
    assert values == {setting.name: getattr(Config(), setting.name) for setting in SETTINGS if setting.name != "config"}


def test_every_option_stands_in_the_manual(unpacked):
    page = gzip.decompress((unpacked / "usr/share/man/man8/datacat-server.8.gz").read_bytes()).decode()
    plain = page.replace("\\-", "-")
    assert [setting.name for setting in SETTINGS if f"--{setting.name.replace('_', '-')}" not in plain] == []


def test_the_manual_pages_are_sound(unpacked):
    if not shutil.which("man"):
        pytest.skip("capability: no man on this machine")
    for page in (unpacked / "usr/share/man").rglob("*.gz"):
        run = subprocess.run(
            ["man", "--warnings", "-l", page],
            capture_output=True,
            text=True,
            check=False,
            env={"LANG": "C.UTF-8", "MANROFFSEQ": "", "PATH": "/usr/bin:/bin", "MANWIDTH": "100"},
        )
        assert (run.returncode, run.stderr) == (0, ""), page


def test_the_text_of_a_help_is_never_an_instruction_to_the_formatter():
    generated = load("datacat_generated", "packaging/generated.py")
    assert generated.roff(".SH x\n'y a-b \\fB") == "\\&.SH x\n\\&'y a\\-b \\efB"


def test_two_wheels_that_disagree_about_a_file_are_not_packed(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(CHECKOUT / "packaging/debian")
    build = load("datacat_build_deb", "packaging/debian/build.py")
    for name, text in (("one", "a"), ("two", "b")):
        (tmp_path / name / "pkg").mkdir(parents=True)
        (tmp_path / name / "pkg/code.py").write_text(text)
    build.merge(tmp_path / "one", tmp_path / "lib")
    build.merge(tmp_path / "one", tmp_path / "lib")
    with pytest.raises(build.BuildError, match=r"code\.py differs"):
        build.merge(tmp_path / "two", tmp_path / "lib")


def test_the_units_hold_what_the_server_relies_on():
    for path in ("datacat-server.service", "user/datacat-server.service"):
        unit = (CHECKOUT / "packaging/systemd" / path).read_text()
        for line in ("Type=notify", "WatchdogSec=20s", "RestartPreventExitStatus=2 78", "Restart=always"):
            assert f"\n{line}\n" in unit, (path, line)
        assert re.search(r"\nFileDescriptorStoreMax=[1-9]", unit)


def test_the_units_are_sound_for_systemd(tmp_path):
    if not shutil.which("systemd-analyze"):
        pytest.skip("capability: no systemd-analyze on this machine")
    unit = tmp_path / "datacat-server.service"
    text = (CHECKOUT / "packaging/systemd/datacat-server.service").read_text()
    unit.write_text(text.replace("/usr/bin/datacat-server", "/bin/true"))
    run = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, check=False)
    odd = [line for line in run.stderr.splitlines() if unit.name in line and "Unknown key 'Restart" not in line]
    assert odd == []
    run = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=13", unit],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-300:]
