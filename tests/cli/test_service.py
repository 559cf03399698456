"""datacat service: the right steps for each manager, shown before they are done. Other platforms' managers are fakes."""

import re
import sys
import zipfile
from pathlib import Path
from typing import get_args

import pytest
from click.testing import CliRunner

import datacat
from datacat.cli import plans, service
from datacat.cli.plans import Action, Facts, Remove, Run, Say, Tail, Write, plan
from datacat.errors import HostError

ROOT = Path(__file__).parents[2]
FILES = Path(service.__file__).with_name("service_files")


@pytest.fixture
def facts(tmp_path):
    """Make facts of a machine whose root is a folder of the test."""
    root, home = tmp_path / "root", tmp_path / "home"
    root.mkdir()
    home.mkdir()

    def make(platform="linux", *, user=False, program="/opt/datacat/bin/datacat-server", uid=0):
        return Facts(platform, user, Path(program), Path("/usr/bin/python3"), FILES, home, uid, "1.2.3", root)

    return make


def commands(steps):
    return [" ".join(step.argv) for step in steps if isinstance(step, Run)]


def test_every_action_has_a_plan_on_every_platform(facts):
    for platform in ("linux", "darwin", "win32"):
        for action in get_args(Action):
            steps = plan(action, facts(platform))
            assert steps
            assert all(str(step) for step in steps)
    with pytest.raises(HostError, match="no way to make services on plan9"):
        plan("start", facts("plan9"))
    with pytest.raises(HostError, match="no services of single users"):
        plan("start", facts("win32", user=True))


def test_systemd_gets_a_unit_that_runs_this_program(facts):
    steps = plan("install", facts())
    written = {str(step.path.relative_to(facts().root)): step for step in steps if isinstance(step, Write)}
    unit = written["etc/systemd/system/datacat-server.service"].text
    assert "ExecStart=/opt/datacat/bin/datacat-server --config /etc/datacat/server.toml\n" in unit
    assert "Type=notify" in unit
    assert unit == re.sub(
        r"(?m)^ExecStart=\S+", "ExecStart=/opt/datacat/bin/datacat-server",
        (ROOT / "packaging/systemd/datacat-server.service").read_text(),
    )  # fmt: skip
    assert written["etc/datacat/server.toml"].keep
    assert written["etc/sysusers.d/datacat.conf"].text.splitlines()[-1].startswith("u datacat ")
    assert commands(steps)[-3:] == [
        "systemctl daemon-reload",
        "systemctl enable --now datacat-server",
        "systemctl --no-pager --lines=5 status datacat-server",
    ]


def test_the_settings_that_are_written_are_settings(facts, tmp_path):
    from datacat.server.config import Config, load

    (step,) = [step for step in plan("install", facts()) if isinstance(step, Write) and step.keep]
    file = tmp_path / "server.toml"
    file.write_text(step.text)
    assert load({"config": str(file)}, {}) == Config(config=str(file))
    file.write_text(step.text.replace("#port", "port").replace("#retention", "retention"))
    assert load({"config": str(file)}, {}) == Config(config=str(file))


def test_a_program_with_odd_letters_is_quoted_for_systemd(facts):
    steps = plan("install", facts(user=True, program="/opt/my cat/100%/datacat-server"))
    (unit,) = [step for step in steps if isinstance(step, Write)]
    assert 'ExecStart="/opt/my cat/100%%/datacat-server"' in unit.text
    assert unit.path == facts().home / ".config/systemd/user/datacat-server.service"


@pytest.mark.parametrize("program", ["/home/ada/venv/bin/datacat-server", "/root/x/datacat-server"])
def test_a_program_in_a_home_folder_is_refused_for_the_machine_and_taken_for_the_user(facts, program):
    with pytest.raises(HostError, match=r"may not look into home folders; .* --user"):
        plan("install", facts(program=program))
    assert plan("install", facts(program=program, user=True))


def test_a_unit_of_a_package_is_used_as_it_is(facts):
    folder = facts().root / "usr/lib/systemd/system"
    folder.mkdir(parents=True)
    (folder / "datacat-server.service").write_text("[Unit]\n")
    assert not [step for step in plan("install", facts()) if isinstance(step, Write)]
    assert any("belongs to a package" in str(step) for step in plan("uninstall", facts()))


def test_uninstalling_leaves_sessions_and_settings(facts):
    steps = plan("uninstall", facts())
    removed = [str(step.path.relative_to(facts().root)) for step in steps if isinstance(step, Remove)]
    assert removed == ["etc/systemd/system/datacat-server.service", "etc/sysusers.d/datacat.conf"]
    assert commands(steps)[0] == "systemctl disable --now datacat-server"
    assert not steps[0].needed
    assert str(steps[-1]) == "Sessions and settings stay: /var/lib/datacat, /etc/datacat"


@pytest.mark.parametrize(
    ("platform", "user", "action", "expected"),
    [
        ("linux", True, "restart", "systemctl --user restart datacat-server"),
        ("linux", False, "logs", "journalctl --unit datacat-server --lines=7 --follow"),
        ("linux", True, "logs", "journalctl --user-unit datacat-server --lines=7 --follow"),
        ("darwin", False, "stop", "launchctl bootout system/org.datacat.server"),
        ("darwin", True, "stop", "launchctl bootout gui/501/org.datacat.server.agent"),
        ("darwin", True, "restart", "launchctl kickstart -k gui/501/org.datacat.server.agent"),
        ("darwin", False, "status", "launchctl print system/org.datacat.server"),
        ("win32", False, "status", "sc.exe queryex datacat-server"),
    ],
)
def test_the_managers_own_commands_are_used(facts, platform, user, action, expected):
    assert commands(plan(action, facts(platform, user=user, uid=501), Tail(7, follow=True))) == [expected]


def test_the_labels_and_names_are_those_of_the_files(facts):
    for user, name in ((False, "org.datacat.server"), (True, "org.datacat.server.agent")):
        text = (FILES / "launchd" / f"{name}.plist").read_text()
        assert f"<key>Label</key>\n\t<string>{name}</string>" in text
        (start,) = commands(plan("start", facts("darwin", user=user)))
        assert start.endswith(f"/{name}.plist")
    assert f"$ServiceName = '{plans.UNIT}'" in (FILES / "windows/common.ps1").read_text()


def test_the_scripts_that_are_run_take_those_options(facts):
    (install,) = plan("install", facts("darwin"))
    assert install.argv[:2] == ("sh", str(FILES / "launchd/install.sh"))
    script = (FILES / "launchd/install.sh").read_text()
    (agent,) = plan("install", facts("darwin", user=True))
    for option in [word for word in (*install.argv, *agent.argv) if word.startswith("--")]:
        assert f"{option})" in script
    (windows,) = plan("install", facts("win32"))
    script = (FILES / "windows/install.ps1").read_text()
    assert all(f"${name}" in script for name in ("From", "Python"))
    assert windows.argv[-4:] == ("-From", "datacat", "-Python", "/usr/bin/python3")


def test_every_file_that_a_plan_uses_is_there_and_is_the_one_of_packaging():
    linked = [path for path in FILES.rglob("*") if path.is_file()]
    assert len(linked) > 10
    for path in linked:
        assert path.resolve() == (ROOT / "packaging" / path.relative_to(FILES)).resolve()
        assert path.read_bytes()


def test_the_wheel_carries_the_files_themselves(packages):
    with zipfile.ZipFile(packages.wheel) as packed:
        for path in FILES.rglob("*"):
            if path.is_file():
                name = f"datacat/cli/service_files/{path.relative_to(FILES)}"
                assert packed.read(name) == path.read_bytes()


# --- doing it


def test_steps_are_shown_and_done_in_order(tmp_path, capsys):
    ran = []
    kept = tmp_path / "deep" / "kept"
    kept.parent.mkdir()
    kept.write_text("mine")
    gone = tmp_path / "gone"
    gone.write_text("x")
    steps = [
        Write(tmp_path / "new" / "unit", "text"),
        Write(kept, "yours", keep=True),
        Remove(gone),
        Remove(tmp_path / "never"),
        Run(("one", "two words")),
        Say("done"),
    ]
    assert service.carry_out(steps, lambda argv: ran.append(argv) or 0) == 0
    assert (tmp_path / "new" / "unit").read_text() == "text"
    assert kept.read_text() == "mine"
    assert not gone.exists()
    assert ran == [("one", "two words")]
    told = capsys.readouterr()
    assert told.err.splitlines()[-1] == "+ one 'two words'"
    assert told.out == "done\n"


def test_what_fails_stops_the_rest_and_what_may_fail_does_not():
    ran = []

    def run(argv):
        ran.append(argv[0])
        return 5 if argv[0].startswith("bad") else 0

    with pytest.raises(HostError, match="this ended with 5: bad one"):
        service.carry_out([Run(("bad", "one")), Run(("good",))], run)
    assert ran == ["bad"]
    assert service.carry_out([Run(("bad",), needed=False), Run(("good",))], run) == 0
    assert service.carry_out([Run(("bad",))], run) == 5


def test_a_dry_run_shows_and_does_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(service, "_run", lambda argv: pytest.fail(f"ran {argv}"))
    shown = CliRunner().invoke(service.command, ["install", "--user", "--dry-run"])
    assert shown.exit_code == 0, shown.output
    if sys.platform == "linux":
        assert shown.output.splitlines()[:3] == [
            f"write {tmp_path}/.config/systemd/user/datacat-server.service",
            "systemctl --user daemon-reload",
            "systemctl --user enable --now datacat-server",
        ]
    assert list(tmp_path.iterdir()) == []


def test_what_needs_root_or_systemd_is_said_before_anything_is_done(facts):
    with pytest.raises(HostError, match="to stop a service of the machine needs root; sudo datacat service stop"):
        service._check_rights("stop", facts(uid=1000))
    with pytest.raises(HostError, match="not run by systemd"):
        service._check_rights("status", facts(uid=1000))
    (facts().root / "run/systemd/system").mkdir(parents=True)
    service._check_rights("status", facts(uid=1000))
    service._check_rights("stop", facts(uid=1000, user=True))
    service._check_rights("stop", facts())


def test_the_help_tells_every_action():
    shown = CliRunner().invoke(service.command, ["--help"])
    for action in get_args(Action):
        assert action in shown.output
    assert datacat.__version__
