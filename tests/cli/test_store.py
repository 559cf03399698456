"""datacat store on a data folder: what each command prints, leaves behind and answers to the shell."""

import csv
import io
import json
import os
import shutil
import signal
import subprocess

import pytest
from click.testing import CliRunner
from helpers import eventually
from storing import everything, sid
from system.box import BIN

from datacat.cli import exits, main
from datacat.server import service
from datacat.server.config import Config
from datacat.store.loading import take
from datacat.store.semi import SemiStore


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Run the command in this process as a user without settings."""
    for name in ("DATACAT_SERVER_URL", "DATACAT_API_KEY", "DATACAT_KEY_FILE", "DATACAT_DATA_DIR", "DATACAT_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "cli.toml").write_text("")
    monkeypatch.setenv("DATACAT_CLI_CONFIG", str(tmp_path / "cli.toml"))

    def run(*args, data=None, **more):
        where = ["--data-dir", str(data)] if data else []
        return CliRunner().invoke(main.group, ["store", *map(str, args), *where], standalone_mode=False, **more)

    return run


@pytest.fixture
def data(mixed_store, tmp_path):
    """A data folder with a store in it and keys beside it."""
    data = tmp_path / "data"
    shutil.copytree(mixed_store, data / "store")
    (data / "keys.json").write_text('{"keys":[]}')
    return data


def damage(data):
    path = max((data / "store" / "segments").glob("*/data"))
    content = bytearray(path.read_bytes())
    content[200] ^= 8
    path.write_bytes(content)
    return path


def test_check_answers_0_for_a_sound_store_and_1_for_a_damaged_one(run, data):
    told = run("check", data=data)
    assert (told.return_value, told.exception) == (exits.OK, None)
    assert ": sound: " in told.stdout
    path = damage(data)
    told = run("check", "--json", data=data)
    assert told.return_value == exits.FAILED
    report = json.loads(told.stdout)
    assert not report["sound"]
    assert str(path) in [one["path"] for one in report["troubles"] if one["kind"] == "damaged"]


def test_repair_tells_what_it_would_do_and_then_does_it(run, data):
    path = damage(data)
    before = path.read_bytes()
    told = run("repair", "--dry-run", data=data)
    assert told.return_value == exits.FAILED
    assert f"{path} at " in told.stdout
    assert "moved to quarantine" in told.stdout
    assert path.read_bytes() == before
    assert run("repair", data=data).return_value == exits.OK
    assert run("check", data=data).return_value == exits.OK
    assert list((data / "store" / "quarantine").iterdir())
    assert run("repair", "--dry-run", data=data).return_value == exits.OK


def test_compact_leaves_the_sessions_and_less_of_the_rest(run, data):
    store = SemiStore(data / "store")
    store.drop(sid(2))
    before = everything(store)
    size = store.stats()["size_bytes"]
    store.close()
    assert run("compact", data=data).return_value == exits.OK
    store = SemiStore(data / "store")
    assert everything(store) == before
    assert store.stats()["size_bytes"] < size
    assert store.stats()["dead_bytes"] <= 8 * store.stats()["segments"]
    store.close()


def test_backup_and_restore_move_everything(run, data, tmp_path):
    told = run("backup", tmp_path / "copy", "--json", data=data)
    assert json.loads(told.stdout)["sessions"] == 13
    assert run("check", data=tmp_path / "copy").return_value == exits.OK
    assert run("restore", tmp_path / "copy", data=tmp_path / "new").exception is None
    assert (tmp_path / "new" / "keys.json").read_text() == '{"keys":[]}'
    old, new = SemiStore(data / "store"), SemiStore(tmp_path / "new" / "store")
    assert everything(new) == everything(old)
    old.close()
    new.close()
    assert "not empty" in str(run("backup", tmp_path / "copy", data=data).exception)
    assert "is a backup" in str(run("compact", data=tmp_path / "copy").exception)


def test_stats_are_told_as_a_table_and_as_json(run, data):
    assert "sessions" in run("stats", data=data).stdout
    told = json.loads(run("stats", "--json", data=data).stdout)
    assert (told["sessions"], told["deleted_sessions"], told["troubles"], told["held_by"]) == (13, 2, 0, None)
    assert told["size_bytes"] > told["segment_bytes"] > 0


def test_an_export_of_some_sessions_is_imported_once(run, data, tmp_path):
    out = tmp_path / "some.ndjson"
    assert run("export", "--product", "p1", "-o", out, data=data).exception is None
    told = json.loads(run("import", "--json", out, data=tmp_path / "new").stdout)
    assert told["sessions"] > 2
    assert json.loads(run("import", "--json", out, data=tmp_path / "new").stdout)["batches"] == 0
    store = SemiStore(tmp_path / "new" / "store")
    assert {head.product for head, _, _ in everything(store).values()} == {"p1"}
    store.close()
    one = run("export", sid(1), data=data)
    assert {json.loads(line)["session"] for line in one.stdout.splitlines()} == {sid(1)}
    rows = list(csv.DictReader(io.StringIO(run("export", sid(1), "--format", "csv", data=data).stdout)))
    assert {row["session"] for row in rows} == {sid(1)}


def test_an_import_that_is_no_export_says_the_line(run, data, tmp_path):
    (tmp_path / "x").write_text("{}\n")
    assert "x, line 1" in str(run("import", tmp_path / "x", data=data).exception)


def test_an_export_that_fails_leaves_no_file(run, data, tmp_path):
    told = run("export", sid(999), "-o", tmp_path / "x.ndjson", data=data)
    assert "no session" in str(told.exception)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cli.toml", "data"]


@pytest.mark.parametrize("args", [("compact",), ("repair",), ("export",), ("import", "FILE")])
def test_what_needs_the_store_for_itself_says_who_has_it(run, data, tmp_path, args):
    (tmp_path / "lines").write_text("")
    args = [str(tmp_path / "lines") if arg == "FILE" else arg for arg in args]
    with take(data / "store"):
        told = run(*args, data=data)
    assert f"in use by pid {os.getpid()}" in str(told.exception)


@pytest.mark.skipif(getattr(os, "geteuid", lambda: 1)() != 0, reason="capability: only root can give files away")
def test_a_superuser_leaves_no_files_that_the_server_cannot_read(run, data):
    for path in [data / "store", *(data / "store").rglob("*")]:
        os.chown(path, 65534, 65534)
    told = run("compact", data=data)
    assert "sudo -u" in str(told.exception)
    assert run("check", data=data).exception is None
    assert {path.stat().st_uid for path in (data / "store").rglob("*")} == {65534}


def test_a_restore_by_a_superuser_belongs_to_who_owns_the_data_folder(run, data, tmp_path):
    run("backup", tmp_path / "copy", data=data)
    new = tmp_path / "new"
    new.mkdir()
    owner = 65534 if getattr(os, "geteuid", lambda: 1)() == 0 else new.stat().st_uid
    if owner != new.stat().st_uid:
        os.chown(new, owner, owner)
    assert run("restore", tmp_path / "copy", data=new).exception is None
    assert {path.stat().st_uid for path in new.rglob("*")} == {owner}


def test_check_stats_and_backup_work_while_the_store_is_in_use(run, data, tmp_path):
    store = SemiStore(data / "store")
    try:
        assert "server runs" in run("check", data=data).stdout
        assert json.loads(run("stats", "--json", data=data).stdout)["held_by"] == str(os.getpid())
        assert run("backup", tmp_path / "copy", data=data).exception is None
    finally:
        store.close()


def test_sessions_go_from_one_server_to_another(run, data, tmp_path):
    (data / "keys.json").unlink()
    one = service.build(Config(port=0, data_dir=str(data)), {})
    other = service.build(Config(port=0, store="memory:", data_dir=str(tmp_path / "other")), {})
    one.start()
    other.start()
    try:
        out = tmp_path / "all.ndjson"
        assert run("export", "--server", one.url, "-o", out).exception is None
        refused = run("import", "--server", other.url, out)
        assert "needs a key" in str(refused.exception)
        key = json.loads(
            CliRunner()
            .invoke(
                main.group,
                ["keys", "create", "a", "--role", "admin", "--json", "--data-dir", str(tmp_path / "other")],
                standalone_mode=False,
            )
            .stdout
        )["key"]
        eventually(lambda: run("import", "--server", other.url, "--api-key", key, out).exception is None)
        again = run("import", "--json", "--server", other.url, "--api-key", key, out)
        assert json.loads(again.stdout)["batches"] == 0
        mine, theirs = everything(one.store), everything(other.store)
        assert {key: rows for key, (_, _, rows) in mine.items()} == {key: rows for key, (_, _, rows) in theirs.items()}
    finally:
        one.stop()
        other.stop()


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="capability: no pseudo-terminals here")
def test_a_terminal_sees_a_bar_and_ctrl_c_leaves_nothing_half_made(data, tmp_path):
    # The work stands still at what nobody writes to, however fast the machine is.
    (data / "store/quarantine").mkdir(exist_ok=True)
    os.mkfifo(data / "store/quarantine/00000001-00000000-8")
    master, slave = os.openpty()
    process = subprocess.Popen(
        [BIN / "datacat", "store", "backup", tmp_path / "copy", "--data-dir", data],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=slave, start_new_session=True,
        env={**os.environ, "TERM": "xterm"},
    )  # fmt: skip
    os.close(slave)
    shown = b""
    try:
        while b"segment" not in shown:
            shown += os.read(master, 4096)
        process.send_signal(signal.SIGINT)
        while True:
            try:
                if not os.read(master, 4096):
                    break
            except OSError:
                break
        assert process.wait(20) == exits.INTERRUPTED
    finally:
        process.kill()
        process.wait()
        os.close(master)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]
