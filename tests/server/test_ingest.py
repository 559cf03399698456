"""Batches: exactly once, all or nothing, within limits."""

import gzip
import threading

import pytest
import zstandard

from datacat.store.memory import MemoryStore
from datacat.wire import lines, routes
from datacat.wire.records import (
    CUT_MARK,
    MAX_RECORD_BYTES,
    Beat,
    Close,
    Event,
    Gap,
    Metric,
    Open,
    StatePatch,
    Verdict,
)

SESSION = "01890a5d-ac96-774b-bcce-000000000001"
T = 1_800_000_000_000_000
OPEN = Open(T, "editor", "1.2", pid=7)


def encode(*records):
    return b"".join(map(lines.encode, records))


def ship(
    server,
    start,
    end,
    *records,
    stream="app",
    body=None,
    session_id=SESSION,
    crc=None,
    end_crc=None,
    headers=None,
    query="",
):
    path = f"/api/sessions/{session_id}/batches?stream={stream}&from={start}&to={end}{query}"
    path += f"&crc={crc}" if crc is not None else ""
    path += f"&end_crc={end_crc}" if end_crc is not None else ""
    body = encode(*records) if body is None else body
    return server.request("POST", path, body=body, headers={"Content-Type": routes.NDJSON, **(headers or {})})


def names(server, session_id=SESSION):
    return [event["name"] for event in server.get_session(session_id)["events"]]


# --- the table of answers


def test_a_batch_that_continues_its_stream_is_stored(server):
    answer = ship(server, 0, 100, OPEN, Event(T + 1, "a"))
    assert (answer.status, answer.json) == (200, {"acked": 100, "boot": "b00t"})
    answer = ship(server, 100, 250, Event(T + 2, "b"))
    assert (answer.status, answer.json) == (200, {"acked": 250, "boot": "b00t"})
    assert names(server) == ["a", "b"]
    assert server.get_session(SESSION)["streams"] == {"app": 250}


def test_the_ledger_counts_what_batches_say_they_stand_for(server):
    ship(server, 0, 100, OPEN, Event(T + 1, "a"), query="&records=7&pending=4")
    assert ledger_of(server) == {"written": 11, "shipped": 2, "acknowledged": 7}
    ship(server, 0, 100, OPEN, Event(T + 1, "a"), query="&records=7&pending=4")
    ship(server, 100, 250, Event(T + 2, "b"), query="&records=4")
    assert ledger_of(server) == {"written": 11, "shipped": 3, "acknowledged": 11}


def test_records_that_take_no_way_are_in_no_ledger(server):
    ship(server, 0, 100, OPEN)
    server.request("POST", f"/api/sessions/{SESSION}/events", body=b'{"name": "x"}')
    assert ledger_of(server) == {"written": 1, "shipped": 1, "acknowledged": 1}


def ledger_of(server):
    counts = server.get_session(SESSION)["counts"]
    return {name: counts[name] for name in ("written", "shipped", "acknowledged")}


@pytest.mark.parametrize("span", [(0, 100), (0, 50), (100, 100), (50, 80)])
def test_a_batch_that_repeats_changes_nothing_and_its_body_is_ignored(server, span):
    ship(server, 0, 100, OPEN, Event(T + 1, "a"))
    before = server.get_session(SESSION)
    answer = ship(server, *span, body=b"\xff not even a line")
    assert (answer.status, answer.json["acked"]) == (200, 100)
    assert server.get_session(SESSION) == before


@pytest.mark.parametrize("span", [(150, 200), (50, 200), (101, 101)])
def test_a_gap_or_an_overlap_is_refused_with_what_is_acknowledged(server, span):
    ship(server, 0, 100, OPEN)
    answer = ship(server, *span, Event(T, "b"))
    assert answer.status == 409
    assert answer.header("content-type") == "application/problem+json"
    assert (answer.json["acked"], answer.json["boot"], answer.json["reason"]) == (100, "b00t", "offset")
    assert names(server) == []


def test_another_past_is_refused_as_diverged(server):
    ship(server, 0, 100, OPEN, crc=0, end_crc=1234)
    answer = ship(server, 100, 200, Event(T, "b"), crc=1235, end_crc=1)
    assert answer.status == 409
    assert (answer.json["acked"], answer.json["boot"], answer.json["reason"]) == (100, "b00t", "diverged")
    assert ship(server, 100, 200, Event(T, "b"), crc=1234, end_crc=1).status == 200
    assert ship(server, 200, 300, Event(T, "c")).status == 200  # without a CRC nothing is compared
    assert names(server) == ["b", "c"]


def test_a_deleted_session_is_gone_for_good(admin):
    ship(admin, 0, 100, OPEN)
    admin.request("DELETE", f"/api/sessions/{SESSION}")
    answer = ship(admin, 100, 200, Event(T, "b"))
    assert answer.status == 410
    assert (answer.json["acked"], answer.json["boot"], answer.json["reason"]) == (0, "b00t", "deleted")
    assert ship(admin, 0, 100, OPEN).status == 410
    assert admin.get(f"/api/sessions/{SESSION}/acked").status == 410


def test_a_session_that_the_server_does_not_have_begins_again_at_0(server):
    answer = ship(server, 100, 200, Event(T, "b"))
    assert (answer.status, answer.json["acked"], answer.json["reason"]) == (409, 0, "offset")
    answer = ship(server, 0, 100, Event(T, "b"))
    assert (answer.status, answer.json["acked"], answer.json["reason"]) == (404, 0, "unknown")
    assert ship(server, 0, 100, OPEN, Event(T, "b")).status == 200


def test_a_stream_that_lost_its_beginning_opens_with_a_gap(server):
    gap = Gap(T, "disk full", 500, {"product": "editor", "version": "1"}, {"a": 1})
    assert ship(server, 0, 100, gap, Event(T + 1, "b")).status == 200
    session = server.get_session(SESSION)
    assert (session["product"], session["state"]["a"]) == ("editor", 1)
    assert names(server) == ["b"]


def test_streams_have_their_own_offsets(server):
    ship(server, 0, 100, OPEN, Event(T + 1, "a"))
    assert ship(server, 0, 70, Event(T + 2, "d"), stream="daemon").json["acked"] == 70
    server.post(f"/api/sessions/{SESSION}/events", json={"name": "s", "timestamp": (T + 3) / 1e6})
    told = server.get(f"/api/sessions/{SESSION}/acked").json
    assert told["boot"] == "b00t"
    assert (told["streams"]["app"], told["streams"]["daemon"]) == (100, 70)
    assert told["streams"].keys() == {"app", "daemon", "b00t"}
    assert names(server) == ["a", "d", "s"]


def test_an_empty_batch_moves_the_offset(server):
    ship(server, 0, 100, OPEN)
    assert ship(server, 100, 1_048_576, body=b"").json["acked"] == 1_048_576


# --- what is in a batch


def test_one_bad_line_refuses_the_batch_and_is_named(server):
    body = encode(OPEN) + b'{"t": 1}\n\n' + encode(Event(T, "a")) + b'{"t":"x","k":"event","name":"n"}\nnonsense\n'
    answer = ship(server, 0, 100, body=body)
    assert answer.status == 422
    assert [error["pointer"] for error in answer.json["errors"]] == ["/1", "/3/t", "/4"]
    assert all(error["detail"] for error in answer.json["errors"])
    assert answer.json["boot"] == "b00t"
    assert server.get("/api/sessions").json["sessions"] == []


def test_many_bad_lines_are_named_as_a_few(server):
    answer = ship(server, 0, 100, body=b"x\n" * 1000)
    assert answer.status == 422
    assert len(answer.json["errors"]) == 20
    assert "1000 of 1000 lines" in answer.json["detail"]


@pytest.mark.parametrize("value", [b"NaN", b"Infinity", b"1e999", b'"\\ud800"', b'"\xff"'])
def test_what_is_no_json_is_refused(server, value):
    body = encode(OPEN) + b'{"t":1,"k":"event","name":"n","data":{"v":' + value + b"}}\n"
    assert ship(server, 0, 100, body=body).json["errors"][0]["pointer"] == "/1"


def test_what_is_beyond_the_limits_of_a_record_is_cut_with_a_mark(server):
    deep = b'{"t":%d,"k":"event","name":"deep","data":%s1%s}\n' % (T, b'{"a":' * 60, b"}" * 60)
    large = encode(Event(T + 1, "large", message="x" * MAX_RECORD_BYTES))
    named = encode(Event(T + 2, "n" * 500), Metric(T + 3, "m" * 500, 1))
    opened = encode(Open(T, "p" * 500, "1"))
    assert ship(server, 0, 100, body=opened + deep + large + named).status == 200
    session = server.get_session(SESSION)
    assert session["product"].endswith(CUT_MARK)
    first, second, third = session["events"]
    assert CUT_MARK in str(first["data"])
    assert second["message"].endswith(CUT_MARK)
    assert third["name"].endswith(CUT_MARK)
    assert len(third["name"]) == 200
    assert session["metrics"][0]["name"].endswith(CUT_MARK)


def test_unknown_kinds_and_members_are_kept(server):
    body = encode(OPEN) + b'{"t":5,"k":"smell","of":"roses"}\n{"t":6,"k":"event","name":"e","colour":"red"}\n'
    assert ship(server, 0, 100, body=body).status == 200
    assert server.get_session(SESSION)["events"][0]["colour"] == "red"


@pytest.mark.parametrize("size", [4 * 1024 * 1024 + 1, 200 * 1024 * 1024])
@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_batch_that_is_too_large_when_unpacked_is_refused(server, size, encoding):
    pack = {"gzip": gzip.compress, "zstd": zstandard.ZstdCompressor().compress}[encoding]
    answer = ship(server, 0, 100, body=pack(bytes(size)), headers={"Content-Encoding": encoding})
    assert answer.status == 413


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_compressed_batch_is_stored(server, encoding):
    pack = {"gzip": gzip.compress, "zstd": zstandard.ZstdCompressor().compress}[encoding]
    body = pack(encode(OPEN, Event(T, "a")))
    assert ship(server, 0, 100, body=body, headers={"Content-Encoding": encoding}).status == 200
    assert names(server) == ["a"]
    answer = ship(server, 100, 200, body=body[:-3], headers={"Content-Encoding": encoding})
    assert answer.status == 400
    assert answer.json["boot"] == "b00t"


@pytest.mark.parametrize(
    "query",
    [
        "from=0&to=1",
        "stream=&from=0&to=1",
        "stream=a/b&from=0&to=1",
        "stream=a&to=1",
        "stream=a&from=0",
        "stream=a&from=-1&to=1",
        "stream=a&from=0&to=x",
        "stream=a&from=2&to=1",
        "stream=a&from=0&to=99999999999999999999",
        "stream=a&from=0&to=1&crc=x",
        "stream=a&from=0&to=1&more=1",
        "stream=a&stream=b&from=0&to=1",
        "stream=a&from=%C2%B2&to=3",
    ],
)
def test_a_bad_parameter_is_refused(server, query):
    answer = server.request("POST", f"/api/sessions/{SESSION}/batches?{query}", body=encode(OPEN))
    assert answer.status == 400
    assert answer.header("content-type") == "application/problem+json"


def test_another_media_type_is_refused(server):
    assert ship(server, 0, 1, OPEN, headers={"Content-Type": "text/html"}).status == 415


def test_an_id_that_is_no_uuid_is_not_found(server):
    assert ship(server, 0, 1, OPEN, session_id="nonsense").status == 404
    assert ship(server, 0, 1, OPEN, session_id="..%2fx").status == 404


def test_ids_are_the_same_in_upper_and_lower_case(server):
    assert ship(server, 0, 100, OPEN, session_id=SESSION.upper()).status == 200
    assert server.get_session(SESSION.upper())["id"] == SESSION


def test_only_post_ships(server):
    answer = server.get(f"/api/sessions/{SESSION}/batches")
    assert (answer.status, answer.header("allow")) == (405, "POST")
    answer = server.post(f"/api/sessions/{SESSION}/acked")
    assert (answer.status, answer.header("allow")) == (405, "GET, HEAD")


# --- what a batch means for the server


def test_a_batch_renews_the_lease_of_its_daemon(server):
    ship(server, 0, 100, OPEN, headers={"Datacat-Daemon": "d1"})
    (row,) = server.get("/api/daemons").json["daemons"]
    assert (row["id"], row["connected"]) == ("d1", True)


@pytest.mark.parametrize("status", ["suspended", "abnormal"])
def test_a_session_that_was_believed_to_be_away_goes_on(server, status):
    ship(server, 0, 100, OPEN)
    server.now_us += 10_000_000
    away = Verdict(server.now_us, status, "lost" if status == "abnormal" else None, by="server")
    server.own.write(SESSION, [lines.Line(away, lines.encode(away)[:-1])])
    assert server.get_session(SESSION)["status"] == status
    server.now_us += 5_000_000
    ship(server, 100, 200, Event(server.now_us, "b"))
    session = server.get_session(SESSION)
    assert (session["status"], session["ended_at"]) == ("active", None)
    assert names(server) == ["b", "application_resumed"]
    assert session["events"][-1]["data"] == {"status": status, "duration_s": 5.0}
    ship(server, 200, 300, Event(server.now_us, "c"))
    assert names(server).count("application_resumed") == 1
    told = server.get(f"/api/sessions/{SESSION}/transitions").json["rows"]
    assert [row["status"] for row in told] == ["active", status, "active"]


def test_a_heartbeat_in_a_batch_ends_a_hang_that_the_server_saw(server):
    ship(server, 0, 100, OPEN, Beat(T))
    server.now_us += 70_000_000
    hung = Verdict(server.now_us, "hung", by="server")
    server.own.write(SESSION, [lines.Line(hung, lines.encode(hung)[:-1])])
    ship(server, 100, 200, Event(server.now_us, "not a beat"))
    assert server.get_session(SESSION)["status"] == "hung"
    server.now_us += 10_000_000
    ship(server, 200, 300, Beat(server.now_us))
    session = server.get_session(SESSION)
    assert (session["status"], session["hang_count"]) == ("active", 1)
    assert session["hang_seconds"] == pytest.approx(80.0)
    assert names(server)[-1] == "application_recovered"


def test_the_end_in_a_batch_is_final(server):
    ship(server, 0, 100, OPEN, StatePatch(T + 1, {"a": 1}), Close(T + 2, 0))
    ship(server, 0, 100, Verdict(T + 3, "crashed", "killed", exit_signal=9), stream="daemon")
    session = server.get_session(SESSION)
    assert (session["status"], session["end_reason"], session["exit_code"]) == ("ended", "clean", 0)


def test_the_same_batch_from_many_threads_is_stored_once(server):
    ship(server, 0, 100, OPEN)
    answers = []
    ready = threading.Barrier(8)

    def send():
        ready.wait()
        answers.append(ship(server, 100, 200, Event(T, "once")))

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [(answer.status, answer.json["acked"]) for answer in answers] == [(200, 200)] * 8
    assert names(server) == ["once"]


def test_a_store_that_fails_is_said_without_its_inside(server, monkeypatch):
    monkeypatch.setattr(MemoryStore, "check", lambda _self: None)
    server.store.close()
    answer = ship(server, 0, 100, OPEN)
    assert answer.status == 503
    assert answer.header("retry-after")
    assert answer.json["boot"] == "b00t"
