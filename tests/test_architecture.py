"""The house keeps its shape: who imports whom, how large a module is, where threads come from."""

import ast
import importlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import datacat

PACKAGE = Path(datacat.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
MAX_LINES = 400
LIGHT = (
    "cherrypy",
    "cheroot",
    "psutil",
    "semidbm",
    "requests",
    "asyncio",
    "http",
    "urllib",
    "dataclasses",
    "rich",
    "click",
)


def name_of(path):
    parts = ("datacat", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def parametrize_modules(*, but=()):
    paths = [path for path in MODULES if name_of(path) not in but]
    return pytest.mark.parametrize("path", paths, ids=name_of)


def test_nobody_imports_a_room_above_or_beside_its_own():
    lint = shutil.which("lint-imports", path=str(Path(sys.executable).parent))
    assert lint, "import-linter is missing; run scripts/venv server,dev"
    run = subprocess.run([lint, "--no-cache"], cwd=PACKAGE.parent, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


@parametrize_modules()
def test_a_module_has_at_most_400_lines(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


@parametrize_modules()
def test_a_module_says_its_job_in_its_first_line(path):
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert docstring
    assert docstring.splitlines()[0].strip()


@parametrize_modules()
def test_what_a_module_offers_exists(path):
    listed = [
        ast.literal_eval(node.value)
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets)
    ]
    if not listed:
        return
    (names,) = listed
    module = importlib.import_module(name_of(path))
    assert sorted(set(names)) == sorted(names)
    assert [name for name in names if not hasattr(module, name)] == []
    if path.name == "__init__.py":
        public = {
            name
            for name, value in vars(module).items()
            if not name.startswith("_") and callable(value) and is_own(value, name_of(path))
        }
        assert public <= set(names), f"{name_of(path)} shows names that __all__ does not list"


def is_own(value, package):
    """Whether value is defined in the package or in a module of it, not just used there."""
    return f"{getattr(value, '__module__', '')}.".startswith(f"{package}.")


def calls(tree, module, name):
    """Yield the lines where module.name is called, however it was imported."""
    aliases = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == module
        for alias in node.names
        if alias.name == name
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        if isinstance(function, ast.Name) and function.id in aliases:
            yield node.lineno
        if isinstance(function, ast.Attribute) and function.attr == name:
            owner = function.value
            if isinstance(owner, ast.Name) and owner.id.lstrip("_") == module:
                yield node.lineno


# The demo's programs stand for somebody else's app: they hang by sleeping and raise in threads of their own.
@parametrize_modules(but={"datacat.worker", "datacat.cli.demo.programs"})
def test_only_worker_creates_threads_and_nobody_sleeps(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert list(calls(tree, "threading", "Thread")) == []
    assert list(calls(tree, "threading", "Timer")) == []
    assert list(calls(tree, "time", "sleep")) == []


def test_importing_datacat_is_light():
    code = "import sys, datacat; print(*sorted(sys.modules))"
    run = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    before = subprocess.run(
        [sys.executable, "-I", "-c", "import sys; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    loaded = set(run.stdout.split()) - set(before.stdout.split())
    assert sorted(loaded & set(LIGHT)) == []


def test_the_help_of_the_command_line_loads_no_subcommand():
    code = (
        "import sys, click\nfrom datacat.cli.main import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print(*sorted(sys.modules), file=sys.stderr)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(run.stderr.split())
    assert "sessions" in run.stdout
    assert sorted(loaded & {"requests", "rich.table", "psutil", "cherrypy", "datacat.cli.run"}) == []
