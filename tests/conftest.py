"""Rules for every test: campaigns only when asked for, and in CI nothing is skipped without a probed reason."""

import os
import signal
import subprocess
import sys

import pytest


def pytest_configure(config):
    # Under nohup it is ignored, and so it would be by every program that a test starts.
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    config.addinivalue_line("markers", "long: a campaign that takes minutes; runs with DATACAT_LONG=1")


def pytest_collection_modifyitems(config, items):
    """Leave the long campaigns out (they are not skipped: nobody expected them to run)."""
    if os.environ.get("DATACAT_LONG") == "1":
        return
    long = [item for item in items if item.get_closest_marker("long")]
    items[:] = [item for item in items if not item.get_closest_marker("long")]
    config.hook.pytest_deselected(items=long)


def _refuse_skip(report):
    """Turn a skip into a failure in CI, unless its reason begins with "capability:"; the probe has printed why."""
    if os.environ.get("CI") != "true" or not report.skipped or hasattr(report, "wasxfail"):
        return
    _, _, reason = report.longrepr
    text = reason.removeprefix("Skipped: ")
    if not text.startswith("capability:"):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {text}\nsay what this machine lacks: pytest.skip('capability: ...')"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    report = yield
    _refuse_skip(report)
    return report


@pytest.fixture(scope="session")
def mixed_store(tmp_path_factory):
    """A closed store of mixed content (volume.py); tests copy it, and leave it as it is."""
    from volume import make

    return make(tmp_path_factory.mktemp("mixed") / "store")


@pytest.fixture(scope="session")
def may_spy():
    """Skip where py-spy may not read the memory of another process of the same user."""
    from datacat.daemon import pyspy

    assert pyspy.installed(), "datacat[dev] has py-spy"
    # Asked of the kernel and not of py-spy, whose mistakes are no capability; by a process that is not the other's
    # parent, for a parent may do more (Yama, ptrace_scope 1).
    app = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        look = f"open('/proc/{app.pid}/mem', 'rb')"
        ran = subprocess.run([sys.executable, "-c", look], capture_output=True, check=False, text=True)
    finally:
        app.communicate(b"\n")
    if "PermissionError" in ran.stderr:
        pytest.skip("capability: a process may not read the memory of another one here")
    assert ran.returncode == 0, ran.stderr
