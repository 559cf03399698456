"""Every local endpoint over real sockets, good and bad, before a real daemon that was started by hand."""

import contextlib
import gzip
import json
import signal
import socket
import threading

import pytest
import requests
import zstandard
from helpers import eventually


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    from daemon_helpers import FakeServer, start_daemon

    folder = tmp_path_factory.mktemp("intake")
    server = FakeServer()
    port_file = folder / "port"
    daemon = start_daemon(
        folder / "spool", "--server-url", server.url, "--port-file", str(port_file), "--batch-interval-seconds", "0.1"
    )
    eventually(lambda: port_file.exists() and port_file.read_text().strip())
    place = Place(f"http://127.0.0.1:{int(port_file.read_text())}", server, daemon)
    yield place
    daemon.send_signal(signal.SIGTERM)
    place.left = daemon.wait(10)
    daemon.communicate()
    server.close()
    assert place.left == 0


class Place:
    def __init__(self, url, server, daemon):
        self.url, self.server, self.daemon = url, server, daemon
        self.http = requests.Session()
        self.http.trust_env = False

    def post(self, path, document=None, **kwargs):
        return self.http.post(self.url + path, json=document, timeout=20, **kwargs)

    def get(self, path, **kwargs):
        return self.http.get(self.url + path, timeout=20, **kwargs)

    def register(self, **members):
        answer = self.post("/register", {"product": "shop", "version": "2", **members})
        assert answer.status_code == 200, answer.text
        return answer.json()["session_id"]

    def sent(self, session_id, kind):
        return self.server.records(session_id, kind)


def test_a_whole_session_goes_through_the_endpoints(place):
    name = place.register(environment="test")
    for path, more in [
        ("/state", {"state": {"window": {"title": "cart"}}}),
        ("/event", {"name": "opened", "data": {"items": 3}, "colour": "red"}),
        ("/metric", {"name": "sold", "type": "counter", "delta": 2}),
        ("/metric", {"name": "size", "type": "histogram", "value": 7, "metadata": {"buckets": [1, 10]}}),
        ("/heartbeat", {}),
        ("/pause_heartbeat", {}),
        ("/resume_heartbeat", {}),
    ]:
        answer = place.post(path, {"session_id": name, **more})
        assert (answer.status_code, answer.json()) == (200, {"status": "ok"}), answer.text
    answer = place.post("/end", {"session_id": name, "exit_code": 0})
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
    (opened,) = place.sent(name, "open")
    assert (opened["product"], opened["environment"]) == ("shop", "test")
    assert opened["daemon_id"]
    (event,) = place.sent(name, "event")
    assert (event["name"], event["data"], event["colour"]) == ("opened", {"items": 3}, "red")
    assert [m["value"] for m in place.sent(name, "metric")] == [2, 7]
    (patch,) = place.sent(name, "state")
    assert patch["patch"] == {"window": {"title": "cart"}}
    assert place.sent(name, "close")[0]["exit_code"] == 0
    assert place.post("/end", {"session_id": name, "exit_code": 9}).status_code == 200
    assert len(place.sent(name, "close")) == 1


def test_registering_twice_with_an_id_is_one_session(place):
    name = "0198c0de-0000-7000-8000-000000000001"
    assert place.register(id=name.upper()) == place.register(id=name) == name


def test_a_watched_parent_that_dies_is_judged(place, processes):
    app, _ = processes.app()
    name = place.register(parent_pid=app.pid)
    app.kill()
    app.wait()
    verdict = eventually(lambda: place.sent(name, "verdict"))[0]
    assert (verdict["status"], verdict["reason"]) == ("crashed", "killed")


def test_health_tells_about_the_daemon(place):
    document = place.get("/health").json()
    assert document["status"] == "ok"
    assert document["pid"] == place.daemon.pid
    assert f":{document['port']}" in place.url
    assert document["server"] == place.server.url
    assert {"sessions", "spool_bytes", "unacked", "dropped"} <= document.keys()


def test_a_session_comes_from_the_server_and_from_the_journal_when_it_is_away(place):
    name = place.register()
    place.post("/event", {"session_id": name, "name": "seen"})
    eventually(lambda: place.sent(name, "event"))
    assert place.get(f"/session?session_id={name}").json() == {"id": name, "from": "server"}
    place.server.plan(name, (401, {}, {}))
    own = place.get(f"/session?session_id={name}").json()
    assert (own["id"], own["product"], own["status"], own["active"]) == (name, "shop", "active", True)
    assert [e["name"] for e in own["events"]] == ["seen"]
    assert own["state"] == {"product": "shop", "version": "2"}


def test_the_list_of_sessions_is_the_servers_or_our_own(place):
    name = place.register()
    eventually(lambda: place.sent(name, "open"))
    assert {"id": name} in place.get("/sessions").json()["sessions"]
    place.server.plan("/api/sessions", (503, {}, {}))
    own = place.get("/sessions").json()
    assert name in [head["id"] for head in own["sessions"]]
    assert own["next_cursor"] is None


@pytest.mark.parametrize(
    ("path", "document", "status", "pointer"),
    [
        ("/register", {}, 422, "/product"),
        ("/register", {"product": "a"}, 422, "/version"),
        ("/register", {"product": "a", "version": ""}, 422, "/version"),
        ("/register", {"product": 1, "version": "1"}, 422, "/product"),
        ("/register", {"product": "a", "version": "1", "id": "no"}, 422, "/id"),
        ("/register", {"product": "a", "version": "1", "parent_pid": 2**22 + 7}, 422, "/parent_pid"),
        ("/register", {"product": "a", "version": "1", "parent_pid": -1}, 422, "/parent_pid"),
        ("/state", {}, 422, "/session_id"),
        ("/state", {"session_id": "no"}, 422, "/session_id"),
        ("/state", {"session_id": "0198c0de-0000-7000-8000-00000000dead", "state": {}}, 404, "/session_id"),
        ("/state", {"session_id": None, "state": []}, 422, "/state"),
        ("/event", {"session_id": None}, 422, "/name"),
        ("/event", {"session_id": None, "name": 7}, 422, "/name"),
        ("/event", {"session_id": None, "name": "x", "level": "loud"}, 422, "/level"),
        ("/event", {"session_id": None, "name": "x", "timestamp": "yesterday"}, 422, "/timestamp"),
        ("/metric", {"session_id": None, "name": "x"}, 422, "/value"),
        ("/metric", {"session_id": None, "name": "x", "value": "7"}, 422, "/value"),
        ("/metric", {"session_id": None, "name": "x", "value": 7, "type": "speed"}, 422, "/type"),
        ("/heartbeat", {}, 422, "/session_id"),
        ("/pause_heartbeat", {}, 422, "/session_id"),
        ("/resume_heartbeat", {}, 422, "/session_id"),
        ("/end", {}, 422, "/session_id"),
        ("/end", {"session_id": None, "exit_code": "x"}, 422, "/exit_code"),
        ("/end", {"session_id": None, "timeout_s": -1}, 422, "/timeout_s"),
    ],
)
def test_what_is_wrong_is_named(place, path, document, status, pointer):
    if "session_id" in document and document["session_id"] is None:
        document = {**document, "session_id": place.register()}
    answer = place.post(path, document)
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["errors"][0]["pointer"] == pointer
    assert answer.json()["status"] == status


def test_syntax_types_methods_and_paths_have_their_status(place):
    json_type = {"Content-Type": "application/json"}
    assert place.post("/event", data=b"{", headers=json_type).status_code == 400
    assert place.post("/event", data=b'{"a": NaN}', headers=json_type).status_code == 400
    assert place.post("/event", data=b"[]", headers=json_type).status_code == 422
    assert place.post("/event", data=b"{}", headers={"Content-Type": "text/plain"}).status_code == 415
    assert place.post("/event", data=b"{}", headers=json_type | {"Content-Encoding": "br"}).status_code == 415
    assert place.post("/event", data=b"x", headers=json_type | {"Content-Encoding": "gzip"}).status_code == 400
    assert place.post("/event", data=b"x", headers=json_type | {"Content-Encoding": "zstd"}).status_code == 400
    bomb = gzip.compress(bytes(8 * 1024 * 1024))
    assert place.post("/event", data=bomb, headers=json_type | {"Content-Encoding": "gzip"}).status_code == 413
    assert place.post("/nowhere", {}).status_code == 404
    answer = place.get("/event")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")
    answer = place.post("/health", {})
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD")
    assert place.get("/session").status_code == 422
    assert place.get("/session?session_id=0198c0de-0000-7000-8000-00000000dead").status_code == 404
    assert place.http.head(place.url + "/health", timeout=5).status_code == 200


@pytest.mark.parametrize(("encoding", "pack"), [("GZIP", gzip.compress), ("zstd", zstandard.ZstdCompressor().compress)])
def test_compressed_bodies_are_read(place, encoding, pack):
    body = pack(json.dumps({"session_id": place.register(), "name": "packed"}).encode())
    headers = {"Content-Type": "application/json", "Content-Encoding": encoding}
    assert place.post("/event", data=body, headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example:8079"},
    ],
)
def test_a_browser_is_refused(place, headers):
    answer = place.get("/health", headers=headers)
    assert answer.status_code == 403
    assert answer.json()["title"] == "Forbidden"


@pytest.mark.parametrize(
    "text",
    [b"\r\n\r\n", b"nonsense\r\n\r\n", b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 70000 + b"\r\n\r\n"],
)
def test_a_malformed_request_does_not_hurt(place, text):
    host, port = place.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(text)
        connection.shutdown(socket.SHUT_WR)
        try:
            answer = connection.recv(4096)
        except ConnectionResetError:
            answer = b""
    assert b"Traceback" not in answer
    assert place.get("/health").status_code == 200


def test_idle_connections_do_not_keep_others_out_for_long(place):
    host, port = place.url.removeprefix("http://").split(":")
    idle = [socket.create_connection((host, int(port)), timeout=5) for _ in range(20)]
    try:
        assert place.get("/health").status_code == 200
    finally:
        for connection in idle:
            connection.close()


def test_a_large_event_is_cut_and_kept(place):
    name = place.register()
    answer = place.post("/event", {"session_id": name, "name": "big", "message": "m" * 200_000})
    assert answer.status_code == 200
    (event,) = eventually(lambda: place.sent(name, "event"))
    assert event["message"].endswith("…[cut]")


@pytest.mark.parametrize("depth", [40, 300, 900, 100_000])
def test_json_of_any_depth_is_refused_and_the_daemon_goes_on(place, depth):
    name = place.register()
    for path, member in [("/state", '"state":{"a":%s}'), ("/event", '"name":"e","data":{"a":%s}'), ("/end", '"x":%s')]:
        body = '{"session_id":"' + name + '",' + member % ("[" * depth + "]" * depth) + "}"
        answer = place.post(path, data=body, headers={"Content-Type": "application/json"})
        assert answer.status_code in ((400, 422) if path != "/end" else (200, 400)), answer.text
    assert place.get("/health").status_code == 200


def test_clients_that_drip_are_sent_away_and_others_are_served(place):
    port = int(place.url.rpartition(":")[2])
    head = b"POST /event HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n"
    slow = [socket.create_connection(("127.0.0.1", port), timeout=20) for _ in range(8)]
    for each in slow:
        each.sendall(head)
    stop = threading.Event()

    def drip():
        while not stop.wait(0.2):
            for each in slow:
                with contextlib.suppress(OSError):
                    each.sendall(b"x")

    dripping = threading.Thread(target=drip)
    dripping.start()
    try:
        assert place.get("/health").status_code == 200
        assert b" 408 " in slow[0].recv(100)
    finally:
        stop.set()
        dripping.join()
        for each in slow:
            each.close()


def test_a_target_that_is_no_address_is_answered(place):
    port = int(place.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(b"GET http://[ HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b" 400 " in connection.recv(100)
