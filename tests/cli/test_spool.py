"""datacat spool: journals are read, shipped, exported and dropped by hand, without any server or daemon."""

import json

import pytest
from click.testing import CliRunner
from daemon_helpers import FakeServer, Journal, now_us, start_app

from datacat import host
from datacat.cli.spool import command
from datacat.daemon import quarantine
from datacat.wire import layout
from datacat.wire.records import Close, Event, Metric, StatePatch, Verdict


@pytest.fixture
def server():
    fake = FakeServer()
    yield fake
    fake.close()


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "spool"
    (made / layout.OWNERS_DIR).mkdir(parents=True)
    return made


@pytest.fixture
def spool(folder, monkeypatch):
    for name in ("DATACAT_SERVER_URL", "DATACAT_API_KEY"):
        monkeypatch.delenv(name, raising=False)

    def run(*args, **kwargs):
        return CliRunner().invoke(command, [args[0], "--spool", str(folder), *map(str, args[1:])], **kwargs)

    return run


def dead(folder, **more):
    """Return the journal of an app that is gone, with an event, a metric and a state."""
    journal = Journal(folder, pid=999_999_999, start=1, created_us=now_us() - 60_000_000, **more)
    journal.append(
        Event(t=now_us(), name="opened", message="a file"),
        Metric(t=now_us(), name="fps", value=60),
        StatePatch(t=now_us(), patch={"document": "notes"}),
    )
    return journal


def rows(result):
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_an_empty_spool_says_so(spool):
    result = spool("list")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "nothing waits here" in result.stderr


def test_what_waits_is_listed_for_people_and_as_json(spool, folder):
    journal = dead(folder)
    lines = spool("list").stdout.splitlines()
    assert lines[0].split() == [
        *("ID", "PRODUCT", "VERSION", "STATUS", "APP", "STARTED", "SIZE", "RECORDS", "WAITING", "REFUSED", "DAEMON"),
    ]
    assert lines[1].split()[:5] == [journal.id, "shop", "1.0", "active", "gone"]
    (row,) = rows(spool("list", "--json"))
    assert (row["id"], row["written"], row["waiting"], row["app_gone"], row["daemon_pid"]) == (
        journal.id,
        4,
        4,
        True,
        None,
    )


def test_a_session_that_a_daemon_serves_is_shown_with_its_pid_and_left_to_it(spool, folder, server):
    journal = dead(folder, server_url=server.url)
    with host.lock(journal.folder / layout.LOCK_FILE):
        assert rows(spool("list", "--json"))[0]["daemon_pid"]
        result = spool("ship")
        assert result.stdout.split()[1] == "served"
        assert server.requests == []
        dropped = spool("drop", journal.id, "--yes")
        assert dropped.exit_code == 1
        assert journal.folder.exists()


def test_a_black_box_tells_what_the_app_was_and_did(spool, folder):
    journal = dead(folder)
    page = spool("show", journal.id[:13]).stdout
    for word in (
        "shop 1.0",
        "opened",
        "a file",
        "fps",
        "document = notes",
        "4 records on disk",
        f"stream {journal.stream}",
    ):
        assert word in page, word
    told = rows(spool("show", journal.id, "--json"))
    assert told["state"]["document"] == "notes"
    assert told["spool"]["waiting"] == 4


def test_what_lies_there_is_shipped_with_its_verdict_and_then_waits_no_more(spool, folder, server):
    journal = dead(folder, server_url=server.url)
    result = spool("ship")
    assert result.exit_code == 0, result.output
    assert result.stdout.split() == [journal.id, "shipped"]
    assert [row["name"] for row in server.records(journal.id, "event")] == ["opened", "parent_process_crashed"]
    assert server.records(journal.id, "verdict")[0]["status"] == "crashed"
    assert spool("list").stdout == ""
    (row,) = rows(spool("list", "--all", "--json"))
    assert (row["done"], row["waiting"], row["status"]) == (True, 0, "crashed")
    before = len(server.batches)
    assert spool("ship").exit_code == 0
    assert len(server.batches) == before
    assert "opened" in spool("show", journal.id).stdout  # what was acknowledged stays for a day


def test_a_session_whose_app_lives_is_shipped_and_stays_open(spool, folder, server):
    app, start = start_app()
    try:
        journal = Journal(folder, pid=app.pid, start=start, server_url=server.url, created_us=now_us() - 60_000_000)
        journal.append(Event(t=now_us(), name="alive"))
        assert spool("ship").stdout.split() == [journal.id, "shipped"]
        assert [row["name"] for row in server.records(journal.id, "event")] == ["alive"]
        assert server.records(journal.id, "verdict") == []
        (row,) = rows(spool("list", "--json"))
        assert (row["status"], row["waiting"], row["done"]) == ("active", 0, False)
    finally:
        app.communicate()


def test_another_server_may_be_named_and_a_key_comes_from_a_file(spool, folder, server, tmp_path):
    dead(folder, server_url="http://127.0.0.1:1")
    key = tmp_path / "key"
    key.write_text("dc_secret\n")
    result = spool("ship", "--to", server.url, "--key-file", key)
    assert result.exit_code == 0, result.output
    assert {headers.get("Authorization") for _, _, headers, _ in server.requests} == {"Bearer dc_secret"}


def test_without_a_server_shipping_fails_and_loses_nothing(spool, folder):
    journal = dead(folder, server_url="http://127.0.0.1:1")
    result = spool("ship", "--json")
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert (told["outcome"], "no answer" in told["detail"]) == ("failed", True)
    (row,) = rows(spool("list", "--json"))
    assert row["waiting"] == 6  # and the verdict with its event is written already
    assert journal.folder.exists()


def test_a_session_that_the_server_has_deleted_is_removed(spool, folder, server):
    journal = dead(folder, server_url=server.url)
    server.gone.add(journal.id)
    assert spool("ship").stdout.split()[1] == "deleted"
    assert not journal.folder.exists()


def test_an_export_has_every_record_and_no_key(spool, folder, tmp_path):
    journal = dead(folder, settings={"api_key": "dc_secret"})
    journal.append(b"no json\n", Close(t=now_us()))
    quarantine.keep(journal.folder, quarantine.Refused(1, "app", 0, 10, 422, "why", '{"k":"event"}'))
    out = tmp_path / "box.ndjson"
    assert spool("export", journal.id, "-o", out).exit_code == 0
    text = out.read_text()
    assert "dc_secret" not in text
    assert out.stat().st_mode & 0o077 == 0
    first, *rest = map(json.loads, text.splitlines())
    assert (first["session_id"], first["session"]["product"]) == (journal.id, "shop")
    assert [row["record"]["k"] for row in rest if "record" in row] == ["open", "event", "metric", "state", "close"]
    assert [row["text"] for row in rest if "text" in row] == ["no json"]
    assert rest[-1]["quarantine"]["status"] == 422
    assert rest[0]["offset"] == 0
    assert spool("export").stdout == text


def test_dropping_asks_and_says_what_would_be_lost(spool, folder):
    journal = dead(folder)
    result = spool("drop", journal.id, input="n\n")
    assert result.exit_code == 1
    assert "1 sessions with 4 records that no server has" in result.stderr
    assert journal.folder.exists()
    assert spool("drop", journal.id, input="y\n").exit_code == 0
    assert not journal.folder.exists()


def test_dropping_without_a_name_is_refused_and_done_ones_go_together(spool, folder, server):
    dead(folder, server_url=server.url)
    assert spool("drop").exit_code == 2
    spool("ship")
    assert spool("drop", "--done", "--yes").exit_code == 0
    assert rows(spool("list", "--all", "--json")) == []


def test_an_id_that_is_unknown_or_ambiguous_is_refused(spool, folder):
    for _ in range(2):
        dead(folder)
    assert spool("show", "zz").exit_code == 2
    assert "2 sessions begin with" in spool("show", "").output


def test_refused_records_stay_in_the_list_when_all_else_is_shipped(spool, folder, server):
    journal = dead(folder, server_url=server.url)
    quarantine.keep(journal.folder, quarantine.Refused(1, "app", 0, 10, 422, "why not", '{"k":"event"}'))
    spool("ship")
    (row,) = rows(spool("list", "--json"))
    assert (row["done"], row["quarantined"]) == (True, 1)
    assert "why not" in spool("show", journal.id).stdout


def test_a_damaged_journal_does_not_hide_the_others(spool, folder):
    good, bad = dead(folder), dead(folder)
    (bad.folder / "app" / "00000000.ndjson").unlink()
    (bad.folder / "app" / "00000000.squeezed").write_text("nonsense\n")
    listed = {row["id"]: row for row in rows(spool("list", "--json"))}
    assert listed[good.id]["damaged"] is None
    assert "squeezed" in listed[bad.id]["damaged"]
    assert spool("show", bad.id).exit_code == 0
    assert spool("export").exit_code == 0


def test_an_end_that_the_app_told_is_the_status(spool, folder):
    closed, judged = dead(folder), dead(folder)
    closed.append(Close(t=now_us()))
    judged.append(Verdict(t=now_us(), status="crashed", reason="oom"))
    assert {row["id"]: row["status"] for row in rows(spool("list", "--json"))} == {
        closed.id: "ended",
        judged.id: "crashed",
    }
