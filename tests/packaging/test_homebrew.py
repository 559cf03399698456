"""Homebrew: the formula is filled in from the lock, Ruby understands it, and its own test passes with the source package.

Homebrew itself is not here: formula_stub.rb plays as much of its language as the formula uses.
"""

import functools
import hashlib
import http.server
import importlib.util
import json
import plistlib
import re
import shutil
import subprocess
import sys
import sysconfig
import threading
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STUB = Path(__file__).parent / "formula_stub.rb"
TEMPLATE = (ROOT / "packaging" / "homebrew" / "datacat.rb.in").read_text(encoding="utf-8")


def load_script():
    spec = importlib.util.spec_from_file_location("brew_formula", ROOT / "scripts" / "brew_formula.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


brew_formula = load_script()


@pytest.fixture(scope="module")
def ruby():
    return shutil.which("ruby") or pytest.skip("capability: no ruby on this machine")


def sha(text):
    return hashlib.sha256(text.encode()).hexdigest()


class Index(http.server.BaseHTTPRequestHandler):
    """A package index that has every file of the lock: one pure wheel or one source package for each project."""

    def __init__(self, files, *args):
        self.files = files
        super().__init__(*args)

    def do_GET(self):
        name = self.path.strip("/").split("/")[-1]
        known = name in self.files and self.headers["Accept"] == brew_formula.SIMPLE_JSON
        body = json.dumps({"files": self.files.get(name, [])}).encode()
        self.send_response(200 if known else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def index():
    files = {}
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Index, files))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/simple", files
    server.shutdown()
    thread.join()
    server.server_close()


def pins():
    return brew_formula.read_lock(brew_formula.LOCK.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def formula(index, tmp_path_factory):
    """Return the formula of this checkout and the source package, with addresses of an index of the test."""
    out = tmp_path_factory.mktemp("dist")
    address, files = index
    for pin in pins():
        ending = "py3-none-any.whl" if pin.name != "psutil" else ".tar.gz"
        file = f"{pin.name}-{pin.version}{ending if ending[0] == '.' else '-' + ending}"
        files[pin.name] = [{"filename": file, "url": f"../{file}", "hashes": {"sha256": min(pin.hashes)}}]
    try:
        brew_formula.main(["--homepage", "https://example.org/", "--index", address, "--out", str(out)])
    except SystemExit as error:
        if "could not be built" in str(error) and "onnection" in str(error):
            pytest.skip("capability: the tools that build a source package cannot be fetched here")
        raise
    return out / "datacat.rb"


def facts(ruby, formula):
    done = subprocess.run([ruby, STUB, formula, "facts"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_ruby_understands_template_and_formula(ruby, formula):
    for path in (ROOT / "packaging" / "homebrew" / "datacat.rb.in", formula):
        done = subprocess.run([ruby, "-wc", path], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "Syntax OK\n", "")


def test_the_formula_says_what_homebrew_asks_of_it(ruby, formula):
    told = facts(ruby, formula)
    fields = told["fields"]
    assert (told["class"], formula.name) == ("Datacat", "datacat.rb")
    assert set(fields) == {"desc", "homepage", "url", "sha256", "license"}
    assert len(fields["desc"]) < 80
    assert not re.match(r"(a|an|the|datacat)\b", fields["desc"], re.IGNORECASE)
    assert "Language::Python::Virtualenv" in told["ancestors"]
    assert told["dependencies"] == sorted(told["dependencies"])
    assert "@" not in formula.read_text(encoding="utf-8").replace("python@", "")


def test_checksum_and_version_are_those_of_the_source_package(ruby, formula):
    from datacat import __version__

    told = facts(ruby, formula)
    (sdist,) = formula.parent.glob("*.tar.gz")
    assert told["fields"]["sha256"] == hashlib.sha256(sdist.read_bytes()).hexdigest()
    assert told["version"] == __version__


def test_every_dependency_of_the_lock_is_a_resource_with_a_checksum_of_the_lock(ruby, formula):
    resources = facts(ruby, formula)["resources"]
    names = [resource["name"] for resource in resources]
    assert names == sorted(set(names))
    hashes = {pin.name: pin.hashes for pin in pins()}
    assert all(resource["sha256"] in hashes[resource["name"]] for resource in resources)
    # certifi is a formula of its own; the others are for older Pythons and for Windows.
    assert {"certifi", "backports-tarfile"} <= set(hashes) - set(names) <= {"certifi", "backports-tarfile", "tzdata"}
    assert {"cherrypy", "msgspec", "psutil", "requests", "sdnotify", "semidbm", "zstandard"} <= set(names)


def test_no_address_of_a_package_is_committed():
    tracked = subprocess.run(
        ["git", "grep", "-lE", r"://[^ ]+\.(whl|tar\.gz)", "--", "packaging", "scripts"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if tracked.returncode > 1:
        pytest.skip("capability: this is no git checkout")
    assert tracked.stdout == ""


def test_the_service_block_becomes_a_job_that_keeps_the_server_alive(ruby, formula):
    service = facts(ruby, formula)["service"]
    assert service["keep_alive"] is True  # what else it may be is no Restart= at all on Linux
    assert service["run"][:3] == ["/brew/opt/datacat/bin/datacat-server", "--config", "/brew/etc/datacat/server.toml"]
    assert "--self-watchdog" in service["run"]  # neither launchd nor Homebrew's unit for systemd has a watchdog
    assert service["environment"]["STATE_DIRECTORY"] == service["working_dir"] == "/brew/var/lib/datacat"
    assert service["process_type"] in ("background", "standard", "interactive", "adaptive")
    job = {"ProgramArguments": service["run"], "EnvironmentVariables": service["environment"], "KeepAlive": True}
    assert plistlib.loads(plistlib.dumps(job)) == job


@pytest.fixture(scope="module")
def libexec(formula, tmp_path_factory):
    """Return an environment as virtualenv_install_with_resources makes it; its dependencies are those of the tests."""
    folder = tmp_path_factory.mktemp("brew") / "libexec"
    (sdist,) = formula.parent.glob("*.tar.gz")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--python", folder / "bin/python", "install", "--quiet", "--no-deps",
         "--no-compile", "--ignore-installed", sdist],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def run_block(ruby, formula, block, libexec, folder):
    return subprocess.run(
        [ruby, STUB, formula, block, libexec, folder],
        capture_output=True, text=True, check=False, timeout=55,
        env={"PATH": "/usr/bin:/bin", "DATACAT_BATCH_INTERVAL_SECONDS": "0.5", "LANG": "C.UTF-8"},
    )  # fmt: skip


def test_its_own_test_passes_with_the_built_source_package(ruby, formula, libexec, tmp_path):
    shutil.which("curl") or pytest.skip("capability: no curl on this machine")
    done = run_block(ruby, formula, "test", libexec, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "data" / "store").exists()


def test_its_own_test_fails_when_the_server_does_not_come_up(ruby, formula, libexec, tmp_path):
    broken = tmp_path / "broken.rb"
    broken.write_text(
        formula.read_text().replace('"--retry", "30"', '"--retry", "1"').replace('"--data-dir"', '"--no"')
    )
    done = run_block(ruby, broken, "test", libexec, tmp_path)
    assert done.returncode != 0


def test_installing_makes_folders_settings_and_completions(ruby, formula, libexec, tmp_path):
    done = run_block(ruby, formula, "install", libexec, tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "var/lib/datacat").stat().st_mode & 0o777 == 0o700
    from datacat.server.config import read_file

    assert read_file(tmp_path / "etc/datacat/server.toml") == {}


def test_a_lock_line_without_hash_is_refused():
    with pytest.raises(SystemExit, match="without version or hash"):
        brew_formula.read_lock("click==8.5.1\n")


def test_a_pure_wheel_is_taken_before_the_source_package_and_no_file_that_the_lock_does_not_know():
    pin = brew_formula.Pin("tool", "1.0", "", frozenset({sha("wheel"), sha("source"), sha("linux")}))

    def file(name, content):
        return {"filename": name, "url": f"https://example.org/{name}#x", "hashes": {"sha256": sha(content)}}

    linux = file("tool-1.0-cp313-cp313-manylinux_2_17_x86_64.whl", "linux")
    wheel, source = file("tool-1.0-py3-none-any.whl", "wheel"), file("tool-1.0.tar.gz", "source")
    other = file("tool-1.0-py3-none-any.whl", "other")
    assert brew_formula.choose(pin, [source, linux, other, wheel]).sha256 == sha("wheel")
    assert brew_formula.choose(pin, [linux, other, source]).url == "https://example.org/tool-1.0.tar.gz"
    with pytest.raises(SystemExit, match="neither a pure wheel nor a source package"):
        brew_formula.choose(pin, [linux, other])


def test_an_index_that_does_not_answer_is_named_with_the_project(index):
    with pytest.raises(SystemExit, match="did not tell about nothing-here"):
        brew_formula.listing(index[0], "nothing-here")


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_resources_alone_are_enough_to_install_and_pass_the_test(ruby, tmp_path):
    """With the real index: every file is fetched, its checksum compared, and nothing else is installed."""
    brew_formula.main(["--homepage", "https://example.org/", "--out", str(tmp_path)])
    formula, libexec = tmp_path / "datacat.rb", tmp_path / "libexec"
    told = facts(ruby, formula)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", libexec], check=True)
    files = []
    for resource in told["resources"]:
        with urllib.request.urlopen(resource["url"], timeout=60) as answer:
            content = answer.read()
        assert hashlib.sha256(content).hexdigest() == resource["sha256"]
        files.append(tmp_path / resource["url"].rsplit("/", 1)[1])
        files[-1].write_bytes(content)
    (sdist,) = tmp_path.glob("datacat-*.tar.gz")
    pip = [sys.executable, "-m", "pip", "--python", libexec / "bin/python", "install", "--quiet", "--no-deps"]
    for file in [*files, sdist]:
        subprocess.run([*pip, "--no-compile", file], check=True)
    # The formula certifi, and what Python 3.11 needs beside 3.13.
    subprocess.run([*pip, "certifi", "backports.tarfile"], check=True)
    done = run_block(ruby, formula, "test", libexec, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
