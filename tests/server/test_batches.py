"""A batch that waits for its commit without a thread is answered, counted and logged as every other request."""

import io
import json
import logging

import pytest

from datacat.errors import StoreError
from datacat.server.access import REQUEST_ID, Access
from datacat.server.batches import Batches
from datacat.server.config import Config
from datacat.server.ingest import MAX_QUICK_BYTES, Ingest
from datacat.server.own import line_of
from datacat.server.pressure import Pressure
from datacat.wire import lines
from datacat.wire.records import Event, Open, Verdict

SESSION = "01890a5d-ac96-774b-bcce-000000000001"
T = 1_800_000_000_000_000
ROUTE = "/api/sessions/{id}/batches"


@pytest.fixture
def batches(server):
    ingest = Ingest(server.own, server.leases, server.gate, Pressure(4))
    return Batches(ingest, server.pulse, Access(lambda: "text"))


def environ(body, start=0, end=100, **more):
    return {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": f"/api/sessions/{SESSION}/batches",
        "QUERY_STRING": f"stream=app&from={start}&to={end}",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": "localhost",
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": io.BytesIO(body),
        **more,
    }


OPENING = lines.encode(Open(T, "editor", "1.2"))


def test_a_batch_is_held_until_its_commit_and_answered_then(server, batches):
    batch = batches.begin(environ(OPENING))
    assert batch.is_held
    assert server.pulse.served.snapshot().in_flight == 1
    answer, headers, body = batches.end(batch, None)
    assert (answer.status, json.loads(body)) == (200, {"acked": 100, "boot": "b00t"})
    assert headers["Content-Length"] == str(len(body))
    assert headers[REQUEST_ID]
    told = server.pulse.served.snapshot()
    assert (told.in_flight, told.requests) == (0, {("POST", ROUTE, 200): 1})
    assert told.received_bytes == len(OPENING)


def test_a_batch_whose_commit_failed_is_no_acknowledgement(server, batches):
    batch = batches.begin(environ(OPENING))
    answer, headers, body = batches.end(batch, StoreError("the disk is gone"))
    assert answer.status == 503
    assert headers["Retry-After"]
    assert json.loads(body)["boot"] == "b00t"
    assert b"disk is gone" not in body
    assert server.pulse.served.snapshot().requests == {("POST", ROUTE, 503): 1}


def test_what_is_refused_is_held_for_nothing(batches):
    batch = batches.begin(environ(lines.encode(Event(T, "e")), start=50))
    assert (batch.is_held, batch.ticket) == (False, 0)
    answer, _, body = batches.end(batch, None)
    assert (answer.status, json.loads(body)["acked"]) == (409, 0)


def test_what_is_held_does_not_hold_its_body(batches):
    batch = batches.begin(environ(OPENING))
    assert "wsgi.input" not in batch.environ


def test_the_headers_of_a_rate_limit_go_with_the_answer(make_server):
    server = make_server(Config(insecure=True, address_rate=10))
    batches = Batches(Ingest(server.own, server.leases, server.gate, Pressure(4)), server.pulse, Access(lambda: "off"))
    _, headers, _ = batches.end(batches.begin(environ(OPENING)), None)
    assert headers["RateLimit"].startswith('"address-write";r=')


def test_every_batch_is_a_line_of_the_log(batches, caplog):
    caplog.set_level(logging.DEBUG, "datacat.requests")
    _, headers, _ = batches.end(batches.begin(environ(OPENING)), None)
    (line,) = [record.getMessage() for record in caplog.records if record.name == "datacat.requests"]
    assert f"id={headers[REQUEST_ID]} method=POST route={ROUTE} status=200" in line


def test_a_large_batch_is_not_quick_however_small_it_travels(batches):
    small, large = b"x" * MAX_QUICK_BYTES, b"x" * (MAX_QUICK_BYTES + 1)
    assert batches.is_quick(environ(b""), small)
    assert not batches.is_quick(environ(b""), large)
    gzip = environ(b"", HTTP_CONTENT_ENCODING="gzip")
    assert batches.is_quick(gzip, b"x" * 100)
    assert not batches.is_quick(gzip, b"x" * 100_000)


def test_the_return_of_a_session_is_not_quick(server, batches):
    batches.end(batches.begin(environ(OPENING)), None)
    assert batches.is_quick(environ(b""), b"")
    server.own.write(SESSION, [line_of(Verdict(T + 1, "suspended", by="server"))])
    assert not batches.is_quick(environ(b""), b"")
