"""The rules for tests hold: no silent skip in CI, campaigns only when asked for."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

TESTS = """
import pytest

def test_that_gives_up():
    pytest.skip("it did not feel like it")

def test_that_cannot():
    pytest.skip("capability: no screen on this machine")

@pytest.mark.long
def test_that_takes_long():
    pass
"""


def outcome(folder, **env):
    shutil.copy(Path(__file__).with_name("conftest.py"), folder)
    (folder / "test_some.py").write_text(TESTS)
    clean = {name: value for name, value in os.environ.items() if name not in ("CI", "DATACAT_LONG")}
    command = [sys.executable, "-m", "pytest", "-q", "--rootdir", folder, "-c", os.devnull, folder]
    done = subprocess.run(command, cwd=folder, env=clean | env, capture_output=True, text=True, check=False)
    return done.stdout.splitlines()[-1].split(" in ")[0]


def test_a_skip_is_a_failure_in_ci_unless_a_capability_is_missing(tmp_path):
    assert outcome(tmp_path) == "2 skipped, 1 deselected"
    assert outcome(tmp_path, CI="true") == "1 failed, 1 skipped, 1 deselected"


def test_campaigns_run_when_they_are_asked_for(tmp_path):
    assert outcome(tmp_path, DATACAT_LONG="1") == "1 passed, 2 skipped"
