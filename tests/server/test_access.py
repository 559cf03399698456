"""Every request is one line of the log, which holds nothing that a client chose."""

import json
import logging

import pytest
from wsgi import Client

from datacat.server import logs
from datacat.server.access import Access
from datacat.server.pulse import ROUTE

SECRET = "s3cr3t"


@pytest.fixture
def form():
    return ["text"]


@pytest.fixture
def client(form):
    def app(environ, start_response):
        environ[ROUTE] = ["/api/things/{id}"]
        start_response("200 OK", [("Content-Type", "text/plain")])
        return iter([b"one", b"three"]) if "stream" in environ["PATH_INFO"] else [b"four"]

    return Client(Access(lambda: form[0]).around(app), headers={"Authorization": f"Bearer {SECRET}"})


@pytest.fixture
def written(caplog):
    caplog.set_level(logging.INFO, "datacat.requests")
    return lambda: [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize(("path", "size"), [("/whole", 4), ("/stream", 8)])
def test_a_request_is_one_line_with_id_route_status_time_and_bytes(client, written, path, size):
    answer = client.request("POST", f"{path}/{SECRET}?key={SECRET}", body=SECRET.encode())
    (line,) = written()
    told = dict(part.split("=", 1) for part in line.split())
    assert told["id"] == answer.header("x-request-id")
    assert (told["method"], told["route"], told["status"]) == ("POST", "/api/things/{id}", "200")
    assert (told["bytes"], told["client"]) == (str(size), "127.0.0.1")
    assert float(told["ms"]) >= 0
    assert SECRET not in line


def test_json_is_one_object_a_line_without_anything_around_it(client, written, form, caplog):
    form[0] = "json"
    client.get("/whole")
    assert json.loads(written()[0])["route"] == "/api/things/{id}"
    for formatter in (logs._with_time(), logs._Priorities()):
        line = formatter.format(caplog.records[0])
        assert json.loads(line.removeprefix("<6>"))["status"] == 200


def test_it_can_be_switched_off(client, written, form):
    form[0] = "off"
    assert client.get("/stream").body == b"onethree"
    assert written() == []


def test_what_the_http_server_refuses_itself_is_a_line_too(written):
    Access(lambda: "text").refused(408, "10.1.2.3")
    assert "status=408 client=10.1.2.3" in written()[0]


def test_a_method_that_nobody_knows_is_not_written_down(client, written):
    client.request(f"X{SECRET}", "/whole")
    assert "method=other" in written()[0]
    assert SECRET not in written()[0]


@pytest.mark.parametrize(("status", "level"), [("200 OK", "DEBUG"), ("409 Conflict", "INFO")])
def test_a_batch_that_was_stored_is_told_at_debug_alone(caplog, status, level):
    def app(environ, start_response):
        environ[ROUTE] = ["/api/sessions/{id}/batches"]
        start_response(status, [])
        return [b""]

    caplog.set_level(logging.DEBUG, "datacat.requests")
    client = Client(Access(lambda: "text").around(app))
    client.request("POST", "/api/sessions/x/batches")
    assert [record.levelname for record in caplog.records] == [level]
    caplog.clear()
    caplog.set_level(logging.INFO, "datacat.requests")
    client.request("POST", "/api/sessions/x/batches")
    assert [record.levelname for record in caplog.records] == [level] * (level == "INFO")
