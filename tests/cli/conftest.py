"""A real server in a process of its own, the command line as a user starts it, and what is installed."""

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from system.box import BIN, Box


class Cli:
    """The commands, run in the environment of a box."""

    def __init__(self, box):
        self.box = box

    def __call__(self, *args, env=None, timeout_s=40, **popen):
        """Run datacat to its end; its exit code, output and errors as text."""
        given = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, **popen}
        return subprocess.run(
            [BIN / "datacat", *map(str, args)], env=self.env | (env or {}), check=False, timeout=timeout_s, **given
        )

    def start(self, *args, **popen):
        """Start datacat and return its process."""
        return subprocess.Popen([BIN / "datacat", *map(str, args)], env=self.env, text=True, **popen)

    @property
    def env(self):
        return {**self.box.env, "DATACAT_SERVER_URL": self.box.url, "COLUMNS": "120"}

    def post(self, path, body):
        """Tell the server something as a client of any language does."""
        answer = self.box.http.post(self.box.url + path, json=body, timeout=30)
        assert answer.ok, answer.text
        return answer.json() if answer.content else None

    def session(self, product, version="1.0", **more):
        """Make a session over HTTP; its id."""
        return self.post("/api/sessions", {"product": product, "version": version, **more})["session_id"]


@pytest.fixture(scope="session")
def cli(tmp_path_factory):
    """Yield the command line and a server that all tests of this folder share; each makes products of its own."""
    box = Box(tmp_path_factory.mktemp("cli"))
    try:
        box.start_server()
        yield Cli(box)
    finally:
        box.close()


class Packages(NamedTuple):
    """What is built of this tree."""

    wheel: Path
    sources: Path


@pytest.fixture(scope="session")
def packages(tmp_path_factory):
    """Build the source package, and the wheel out of it, once for all tests of this folder."""
    root = Path(__file__).parents[2]
    folder = tmp_path_factory.mktemp("packages")
    # A copy: setuptools writes into the folder that it builds from.
    copy = folder / "copy"
    copy.mkdir()
    wanted = ["datacat", "packaging", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"]
    subprocess.run(["cp", "-a", *(str(root / name) for name in wanted), str(copy)], check=True)
    done = subprocess.run(
        [sys.executable, "-m", "build", "--outdir", str(folder), str(copy)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,), (sources,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return Packages(wheel, sources)
