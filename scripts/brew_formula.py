"""Fill in packaging/homebrew/datacat.rb.in: address and checksum of the source package, resources of its dependencies.

Versions and checksums come from packaging/requirements.lock; the index is only asked for the address of a file that the
lock knows. A pure wheel is taken where there is one, because it needs no build; else the source package.
"""

import argparse
import contextlib
import hashlib
import json
import os
import re
import subprocess
import sys
import urllib.parse
import urllib.request
from pathlib import Path
from typing import NamedTuple

from packaging.markers import Marker

ROOT = Path(__file__).parents[1]
TEMPLATE = ROOT / "packaging" / "homebrew" / "datacat.rb.in"
LOCK = ROOT / "packaging" / "requirements.lock"
SIMPLE_JSON = "application/vnd.pypi.simple.v1+json"  # PEP 691
TIMEOUT_S = 60


class Pin(NamedTuple):
    """One line of the lock."""

    name: str
    version: str
    marker: str
    hashes: frozenset[str]


class Resource(NamedTuple):
    """A file that the formula installs."""

    name: str
    url: str
    sha256: str


def main(argv=None):
    """Write the formula."""
    parser = argparse.ArgumentParser(prog="scripts/brew-formula", description=__doc__.splitlines()[0])
    parser.add_argument("--homepage", required=True, help="the address of the project")
    parser.add_argument("--url", help="where the source package of the release will be (default: the file here)")
    parser.add_argument("--sdist", type=Path, help="the source package (default: built from this checkout)")
    parser.add_argument("--lock", type=Path, default=LOCK, help="the lock with hashes (default: %(default)s)")
    parser.add_argument("--index", help="the package index (default: the one that pip uses)")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="the folder to write to (default: dist)")
    given = parser.parse_args(argv)
    given.out.mkdir(parents=True, exist_ok=True)
    sdist = given.sdist or build_sdist(given.out)
    template = TEMPLATE.read_text(encoding="utf-8")
    pins = [pin for pin in read_lock(given.lock.read_text(encoding="utf-8")) if is_wanted(pin, template)]
    index = given.index or pip_index()
    resources = [choose(pin, listing(index, pin.name)) for pin in pins]
    values = {
        "HOMEPAGE": given.homepage,
        "URL": given.url or sdist.resolve().as_uri(),
        "SHA256": hashlib.sha256(sdist.read_bytes()).hexdigest(),
    }
    formula = given.out / "datacat.rb"
    formula.write_text(fill(template, values, resources), encoding="utf-8")
    print(f"{formula}: {sdist.name}, {len(resources)} resources")


def build_sdist(folder):
    """Return the source package of this checkout, built into folder; its times are those of the last commit."""
    version = re.search(r'__version__ = "([^"]+)"', (ROOT / "datacat" / "__init__.py").read_text(encoding="utf-8"))[1]
    environ = dict(os.environ)
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        stamp = subprocess.run(
            ["git", "log", "-1", "--format=%ct"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        environ.setdefault("SOURCE_DATE_EPOCH", stamp.stdout.strip())
    done = subprocess.run(
        [sys.executable, "-m", "build", "--sdist", "--outdir", folder, ROOT],
        env=environ, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"the source package could not be built:\n{done.stdout}{done.stderr}")
    return folder / f"datacat-{version}.tar.gz"


def read_lock(text):
    """Return the pins of a requirements file with hashes."""
    pins = []
    for line in text.replace("\\\n", " ").splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = re.match(r"([A-Za-z0-9._-]+)==(\S+)\s*(?:;\s*(.*?))?\s*(?=--hash)", line)
        if not match:
            raise SystemExit(f"the lock has a line without version or hash: {line}")
        hashes = frozenset(re.findall(r"--hash=sha256:([0-9a-f]{64})", line))
        pins.append(Pin(match[1].lower(), match[2], match[3] or "", hashes))
    return sorted(pins)


def is_wanted(pin, template):
    """Whether the formula installs it: on macOS or Linux with its Python, and Homebrew has no formula of it."""
    if f'depends_on "{pin.name}"' in template:
        return False
    python = re.search(r'depends_on "python@([\d.]+)"', template)[1]
    systems = [("darwin", "Darwin"), ("linux", "Linux")]
    return not pin.marker or any(
        Marker(pin.marker).evaluate(
            {
                "sys_platform": platform,
                "platform_system": system,
                "os_name": "posix",
                "python_version": python,
                "python_full_version": f"{python}.0",
                "implementation_name": "cpython",
                "platform_python_implementation": "CPython",
            }
        )
        for platform, system in systems
    )


def pip_index():
    """Return the address of the index that pip uses here."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", "global.index-url"], capture_output=True, text=True, check=False
    )
    if address := os.environ.get("PIP_INDEX_URL") or done.stdout.strip():
        return address
    from pip._internal.models.index import PyPI  # pip tells its default nowhere else

    return PyPI.simple_url


def listing(index, name):
    """Return the files that the index has of a project: their names, addresses and hashes."""
    page = f"{index.rstrip('/')}/{name}/"
    request = urllib.request.Request(page, headers={"Accept": SIMPLE_JSON})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            files = json.load(answer)["files"]
            return [{**file, "url": urllib.parse.urljoin(answer.url, file["url"])} for file in files]
    except (OSError, ValueError, KeyError) as error:
        raise SystemExit(f"the index did not tell about {name}: {error}") from error


def choose(pin, files):
    """Return the file to install: of those that the lock knows, the pure wheel, else the source package."""
    known = [file for file in files if file.get("hashes", {}).get("sha256") in pin.hashes]
    for ending in ("-none-any.whl", ".tar.gz"):
        for file in known:
            if file["filename"].endswith(ending):
                return Resource(pin.name, file["url"].partition("#")[0], file["hashes"]["sha256"])
    raise SystemExit(f"of {pin.name} {pin.version} the index has neither a pure wheel nor a source package of the lock")


def fill(template, values, resources):
    """Return the formula."""
    blocks = [
        f'  resource "{resource.name}" do\n    url "{resource.url}"\n    sha256 "{resource.sha256}"\n  end\n'
        for resource in resources
    ]
    text = template.replace("  # @RESOURCES@\n", "\n".join(blocks))
    for name, value in values.items():
        if re.search(r'["\\#\s]', value):
            raise SystemExit(f"{value!r} is no address")
        text = text.replace(f"@{name}@", value)
    return text


if __name__ == "__main__":
    main()
