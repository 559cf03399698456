"""The Windows service against a fake service control manager, and the files of packaging/windows as far as Linux can.

The fakes do what pywin32 does (PythonService.cpp, win32serviceutil.py): the manager's thread makes the instance, calls
SvcRun, and reports STOPPED, with an error code when it left with an exception.
"""

import http.client
import logging
import logging.handlers
import os
import re
import shutil
import subprocess
import sys
import threading
import types
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from helpers import eventually

from datacat.cli import winservice
from datacat.errors import DatacatError

WINDOWS = Path(__file__).parents[2] / "packaging" / "windows"
STOP, INTERROGATE, PRESHUTDOWN = 1, 4, 15
NAMES = {1: "STOPPED", 2: "START_PENDING", 3: "STOP_PENDING", 4: "RUNNING"}


class Manager:
    """The service control manager: what was reported to it, what stands in the event log, and controls to send."""

    def __init__(self, root, environ):
        self.root = root
        self.environ = environ
        self.reports = []
        self.log = []
        self.handler = None
        self.hosted = None
        self.source = None

    def states(self):
        return [name for name, _ in self.reports]

    def dispatch(self):
        """StartServiceCtrlDispatcher: blocks the main thread while the service runs in one of the manager's."""
        service = threading.Thread(target=self.service_main)
        service.start()
        service.join()

    def service_main(self):
        instance = self.hosted([winservice.NAME])
        try:
            instance.SvcRun()
        except Exception as error:  # pywin32 writes the stack to the event log
            self.log.append(("error", repr(error)))
            self.reports.append(("STOPPED", {"error": True}))
        else:
            self.reports.append(("STOPPED", {"error": False}))


@pytest.fixture
def manager(tmp_path, monkeypatch):
    monkeypatch.setenv("PROGRAMDATA", str(tmp_path))
    for name in [name for name in os.environ if name.startswith(("DATACAT_", "STATE_DIRECTORY"))]:
        monkeypatch.delenv(name)
    manager = Manager(tmp_path / "datacat", os.environ)
    service = types.ModuleType("win32service")
    for number, name in NAMES.items():
        setattr(service, f"SERVICE_{name}", number)
    service.SERVICE_ACCEPT_STOP, service.SERVICE_ACCEPT_PRESHUTDOWN = 0x1, 0x100
    service.SERVICE_CONTROL_PRESHUTDOWN = PRESHUTDOWN

    class ServiceFramework:
        def __init__(self, args):
            assert args == ["datacat-server"]
            manager.handler = self.ServiceCtrlHandlerEx

        def GetAcceptedControls(self):
            return service.SERVICE_ACCEPT_STOP if hasattr(self, "SvcStop") else 0

        def ReportServiceStatus(self, state, waitHint=5000, win32ExitCode=0, svcExitCode=0):
            accepted = 0 if state == service.SERVICE_START_PENDING else self.GetAcceptedControls()
            manager.reports.append((NAMES[state], {"hint_ms": waitHint, "accepted": accepted}))

        def ServiceCtrlHandlerEx(self, control, event_type, data):
            if control == STOP:
                return self.SvcStop()
            return self.SvcOtherEx(control, event_type, data)

        def SvcOtherEx(self, control, event_type, data):
            manager.log.append(("unknown", control))

    util = types.ModuleType("win32serviceutil")
    util.ServiceFramework = ServiceFramework
    events = types.ModuleType("servicemanager")
    events.Initialize = lambda source, file: setattr(manager, "source", source)
    events.PrepareToHostSingle = lambda hosted: setattr(manager, "hosted", hosted)
    events.StartServiceCtrlDispatcher = manager.dispatch
    events.LogInfoMsg = lambda text: manager.log.append(("info", text))
    events.LogErrorMsg = lambda text: manager.log.append(("error", text))
    for module in (service, util, events):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    root = logging.getLogger()
    before = root.level
    yield manager
    root.setLevel(before)
    for handler in [one for one in root.handlers if isinstance(one, logging.handlers.RotatingFileHandler)]:
        root.removeHandler(handler)
        handler.close()


def settings(manager, text):
    manager.root.mkdir(parents=True, exist_ok=True)
    (manager.root / "server.toml").write_text(text)


@pytest.fixture
def running(manager):
    """A service that serves on a free port; it is told to stop in the end."""
    settings(manager, "port = 0\n")
    process = threading.Thread(target=winservice.main)
    process.start()
    eventually(lambda: "RUNNING" in manager.states() or not process.is_alive(), timeout_s=30)
    assert process.is_alive(), manager.log
    yield process
    if process.is_alive():
        manager.handler(STOP, 0, None)
        process.join(30)


def port(manager):
    (text,) = eventually(lambda: [text for kind, text in manager.log if kind == "info"])
    return int(re.search(r":(\d+)$", text)[1])


def test_the_manager_hears_running_when_the_server_serves_and_stop_ends_it_cleanly(manager, running):
    connection = http.client.HTTPConnection("127.0.0.1", port(manager), timeout=10)
    connection.request("GET", "/readyz")
    assert connection.getresponse().status == 200
    connection.close()
    assert manager.states() == ["START_PENDING", "RUNNING"]
    assert manager.reports[0][1]["hint_ms"] >= 60_000  # a large store takes its time
    manager.handler(STOP, 0, None)
    running.join(30)
    assert manager.states()[2:] == ["STOP_PENDING", "STOP_PENDING", "STOPPED"]
    assert manager.reports[-1] == ("STOPPED", {"error": False})
    assert manager.log[-1] == ("info", "datacat-server stopped")
    assert manager.source == "datacat-server"


def test_data_and_logs_are_below_programdata(manager, running):
    port(manager)
    assert (manager.root / "server" / "store").exists()
    assert (manager.root / "Logs" / "server.log").exists()
    assert (manager.root / "Logs" / "stderr.log").exists()


def test_before_the_machine_shuts_down_the_service_stops(manager, running):
    assert manager.reports[-1][1]["accepted"] & 0x100
    manager.handler(PRESHUTDOWN, 0, None)
    running.join(30)
    assert manager.reports[-1] == ("STOPPED", {"error": False})


def test_other_controls_are_left_to_pywin32(manager, running):
    manager.handler(INTERROGATE, 0, None)
    assert manager.log[-1] == ("unknown", INTERROGATE)
    assert running.is_alive()


def test_a_fault_that_somebody_has_to_mend_is_told_and_the_service_is_not_started_again(manager):
    settings(manager, "prot = 0\n")
    winservice.main()
    assert manager.states() == ["START_PENDING", "STOP_PENDING", "STOPPED"]
    assert manager.reports[-1] == ("STOPPED", {"error": False})  # no error code: the recovery actions stay away
    ((kind, text),) = manager.log
    assert kind == "error"
    assert "prot" in text


def test_a_log_folder_that_cannot_be_written_is_a_fault_that_is_told(manager):
    manager.root.write_text("a file")
    winservice.main()
    assert manager.reports[-1] == ("STOPPED", {"error": False})
    assert "cannot write logs" in manager.log[0][1]


@pytest.mark.parametrize("error", [DatacatError("the disk is slow"), ZeroDivisionError()], ids=repr)
def test_any_other_end_is_an_error_code_so_that_the_manager_starts_it_again(manager, monkeypatch, error):
    from datacat.server import service

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(service, "build", fail)
    winservice.main()
    assert manager.reports[-1] == ("STOPPED", {"error": True})


def test_the_server_watches_itself_as_the_manager_does_not(manager, monkeypatch):
    from datacat.server import service

    seen = {}

    def build(config, environ, **more):
        seen.update(config=config, environ=environ, **more)
        raise DatacatError("enough", permanent=True)

    monkeypatch.setattr(service, "build", build)
    settings(manager, "port = 8099\nself_watchdog = false\n")
    winservice.main()
    assert (seen["config"].self_watchdog, seen["config"].port) == (True, 8099)
    assert seen["config"].log_file == str(manager.root / "Logs" / "server.log")
    assert seen["environ"]["STATE_DIRECTORY"] == str(manager.root / "server")
    assert 0 < seen["ends_in_s"] * 1000 < winservice.STOP_HINT_MS


def test_a_server_that_stops_by_itself_is_started_again(manager, monkeypatch):
    from datacat.server import service

    class Stopped:
        running = False
        url = ""

        def start(self):
            pass

        def stop(self):
            pass

    monkeypatch.setattr(service, "build", lambda *_, **__: Stopped())
    winservice.main()
    assert manager.states() == ["START_PENDING", "STOPPED"]
    assert manager.reports[-1] == ("STOPPED", {"error": True})


def test_what_the_interpreter_prints_is_bounded(manager, monkeypatch):
    monkeypatch.setattr(winservice, "STDERR_BYTES", 100)
    settings(manager, "prot = 0\n")
    (manager.root / "Logs").mkdir()
    (manager.root / "Logs" / "stderr.log").write_text("x" * 101)
    before = sys.stderr
    winservice.main()
    assert (manager.root / "Logs" / "stderr.log").read_text() == ""
    assert sys.stderr is before


def test_importing_the_service_loads_no_server_and_nothing_of_windows():
    code = "import sys, datacat.cli.winservice; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert set(loaded) & {"cherrypy", "cheroot", "win32service", "click", "datacat.server.service"} == set()


def test_run_py_finds_the_packages_beside_it_and_nothing_else(tmp_path):
    site = tmp_path / "site"
    (site / "tool").mkdir(parents=True)
    (site / "tool" / "__init__.py").touch()
    (site / "tool" / "__main__.py").write_text("import sys, extra; print(extra.__name__, sys.argv[1:], __name__)")
    (site / "more").mkdir()
    (site / "more" / "extra.py").touch()
    (site / "more.pth").write_text("more\n")  # as pywin32 has one
    shutil.copy(WINDOWS / "run.py", tmp_path)
    done = subprocess.run(
        [sys.executable, "-I", tmp_path / "run.py", "tool", "--flag"], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("extra ['--flag'] __main__\n", "")


def test_the_service_that_install_registers_is_the_one_that_the_module_is():
    text = (WINDOWS / "common.ps1").read_text(encoding="utf-8")
    assert f"$ServiceName = '{winservice.NAME}'" in text
    assert f" {winservice.__name__}" in (WINDOWS / "install.ps1").read_text(encoding="utf-8")


def test_the_recovery_actions_also_count_ends_with_an_error_code():
    text = (WINDOWS / "common.ps1").read_text(encoding="utf-8")
    assert re.search(r"failure \$ServiceName reset= \d+ actions= restart/\d+/restart/\d+/restart/\d+", text)
    assert "failureflag $ServiceName 1" in text


SCRIPTS = sorted(path.name for path in WINDOWS.glob("*.ps1"))
POWERSHELL_PARSE = (
    "$e = $null; [System.Management.Automation.Language.Parser]::ParseFile($args[0], [ref]$null, [ref]$e) | Out-Null; "
    "$e | ForEach-Object { $_.ToString() }; exit $e.Count"
)


def faults_of(text):
    """Return the places that a grammar of PowerShell (not PowerShell's own parser) does not understand."""
    try:
        from tree_sitter_language_pack import get_parser
    except ImportError:
        pytest.skip("capability: no PowerShell here, nor tree-sitter-language-pack<1 with a grammar of it")
    found, todo = [], [get_parser("powershell").parse(text.encode()).root_node]
    while todo:
        node = todo.pop()
        todo += node.children
        if node.is_error or node.is_missing:
            found.append(f"line {node.start_point[0] + 1}: {node.type} {node.text.decode()[:60]!r}")
    return found


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_scripts_can_be_parsed(name):
    if pwsh := shutil.which("pwsh"):
        done = subprocess.run(
            [pwsh, "-NoProfile", "-Command", f"& {{ {POWERSHELL_PARSE} }} '{WINDOWS / name}'"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
    else:
        assert faults_of((WINDOWS / name).read_text(encoding="utf-8")) == []


def test_the_grammar_finds_what_is_no_powershell():
    assert faults_of("if ($a) { Write-Host 'x' \n") != []
    assert faults_of("param([string]$A = )\n") != []


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_scripts_are_ascii_which_every_powershell_reads_alike(name):
    assert (WINDOWS / name).read_text(encoding="utf-8").isascii()


def test_the_winsw_file_runs_the_server_with_the_same_folders_and_restarts_it():
    service = ET.parse(WINDOWS / "datacat-server.xml").getroot()
    known = {"id", "name", "description", "executable", "arguments", "env", "startmode", "delayedAutoStart", "log",
             "logpath", "onfailure", "resetfailure", "stoptimeout", "serviceaccount"}  # fmt: skip
    assert service.tag == "service"
    assert {child.tag for child in service} <= known
    assert service.findtext("id") == winservice.NAME
    assert {env.get("name"): env.get("value") for env in service.findall("env")}["STATE_DIRECTORY"].endswith(
        r"datacat\server"
    )
    assert [action.get("action") for action in service.findall("onfailure")] == ["restart"] * 3
    assert "datacat.cli.server --config" in service.findtext("arguments")
