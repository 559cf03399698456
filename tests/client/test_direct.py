import gzip
import http.server
import json
import threading
import time
from urllib.parse import parse_qs, urlsplit

import pytest
from client_helpers import run_app
from helpers import eventually

import datacat
from datacat.client import direct, live
from datacat.client.direct import Answer, Direct
from datacat.client.ports import Drops
from datacat.wire import layout, lines
from datacat.wire.records import Beat, Dropped, Gap, Metric, Open, StatePatch


class Server:
    """A server in memory that keeps the batches protocol of one session; answers can be put before its own."""

    def __init__(self):
        self.streams = {}
        self.records = []
        self.tails = {}
        self.answers = []
        self.requests = []
        self.deleted = False

    def ask(self, method, path, body, headers):
        url = urlsplit(path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        self.requests.append((method, url.path, query, headers))
        planned = self.answers.pop(0) if self.answers else None
        if planned is not None and planned.status != 0:
            return planned
        if method == "GET":
            return Answer(200, {"id": url.path.rsplit("/", 1)[1]})
        answer = self._store(query, gzip.decompress(body) if headers.get("Content-Encoding") == "gzip" else body)
        return planned if planned is not None else answer  # a planned 0: it was stored, the answer got lost

    def _store(self, query, body):
        stream, start, end = query["stream"], int(query["from"]), int(query["to"])
        assert end - start == len(body)
        acked = self.streams.get(stream, 0)
        if self.deleted:
            return Answer(410, {})
        if end <= acked:
            return Answer(200, {"acked": acked})
        if start != acked or int(query["crc"]) != self.tails.get(stream, 0):
            return Answer(409, {"acked": acked, "reason": "offset"})
        good, bad = lines.decode_lines(body)
        assert bad == []
        if not self.streams and not isinstance(good[0].record, (Open, Gap)):
            return Answer(404, {})
        self.records += [line.record for line in good]
        self.streams[stream] = end
        self.tails[stream] = int(query["end_crc"])
        return Answer(200, {"acked": end})

    def lose_everything(self):
        self.streams, self.tails, self.records = {}, {}, []


FIRST = Open(1, "p", "1", id="00000000-0000-7000-8000-000000000000", state={"a": 1})


class Rig:
    def __init__(self, **options):
        self.server = Server()
        self.drops = Drops()
        self.now_ns = 10**12
        meta = layout.Meta(FIRST.id, "p", "1", "stream", 1)
        self.direct = Direct(meta, FIRST, self.drops, self.server.ask, clock_ns=lambda: self.now_ns, **options)
        self.direct.append(lines.encode(FIRST))

    def log(self, *values):
        for value in values:
            assert self.direct.append(lines.encode(Metric(2, "m", value)))

    def ship(self):
        while self.direct.ship():
            pass

    def later(self, seconds):
        self.now_ns += int(seconds * 1e9)
        self.ship()

    def values(self):
        return [record.value for record in self.server.records if isinstance(record, Metric)]


@pytest.fixture
def rig():
    return Rig()


def test_what_is_logged_arrives_in_order_and_is_settled(rig):
    rig.log(1, 2)
    rig.ship()
    rig.log(3)
    assert rig.direct.acked() < rig.direct.offset()
    rig.ship()
    assert rig.server.records[0] == FIRST
    assert rig.values() == [1, 2, 3]
    assert rig.direct.acked() == rig.direct.offset()
    assert len(rig.server.requests) == 2


def test_a_large_batch_is_compressed_and_cut(monkeypatch):
    monkeypatch.setattr(direct, "BATCH_BYTES", 10_000)
    rig = Rig()
    rig.log(*range(1000))
    rig.ship()
    assert rig.values() == list(range(1000))
    assert len(rig.server.requests) > 3
    assert rig.server.requests[0][3]["Content-Encoding"] == "gzip"


def test_an_answer_that_got_lost_stores_nothing_twice(rig):
    rig.log(1)
    rig.server.answers = [Answer(0, {})]
    rig.ship()
    rig.log(2)
    rig.later(5)
    assert rig.values() == [1, 2]


@pytest.mark.parametrize("status", [0, 401, 403, 429, 500, 503])
def test_a_server_that_may_take_it_later_is_asked_again_with_growing_pauses(rig, status):
    rig.log(1)
    refusal = Answer(status, {}) if status else Answer(0, {})
    rig.server.answers = [refusal] * 3
    rig.ship()
    rig.ship()
    assert len(rig.server.requests) == 1
    rig.later(0.5)
    assert len(rig.server.requests) == 1
    rig.later(1)
    rig.later(3)
    rig.later(6)
    assert len(rig.server.requests) == 4
    assert rig.values() == [1]
    assert rig.drops.totals() == {}


def test_the_server_s_own_pause_is_kept(rig):
    rig.server.answers = [Answer(503, {}, retry_after_s=30)]
    rig.ship()
    rig.later(29)
    assert len(rig.server.requests) == 1
    rig.later(2)
    assert len(rig.server.requests) == 2


def test_a_server_that_lost_its_store_gets_a_new_stream_with_who_it_is_and_the_state(rig):
    rig.direct.append(lines.encode(StatePatch(2, {"b": {"c": 2}})))
    rig.ship()
    rig.server.lose_everything()
    rig.log(7)
    rig.ship()
    gap, metric = rig.server.records
    assert isinstance(gap, Gap)
    assert gap.open["product"] == "p"
    assert gap.state == {"a": 1, "b": {"c": 2}}
    assert metric.value == 7
    rig.log(8)
    rig.ship()
    assert rig.values() == [7, 8]


def test_a_batch_that_is_refused_for_good_is_dropped_counted_and_told(rig):
    rig.ship()
    rig.log(1, 2)
    rig.server.answers = [Answer(422, {})]
    rig.ship()
    rig.log(3)
    rig.ship()
    assert rig.values() == [3]
    assert rig.drops.totals() == {"refused": 2}
    assert [record.counts for record in rig.server.records if isinstance(record, Dropped)] == [{"refused": 2}]
    assert rig.direct.acked() == rig.direct.offset()


def test_a_deleted_session_is_final(rig):
    rig.ship()
    rig.server.deleted = True
    rig.log(1)
    rig.ship()
    assert not rig.direct.append(b"x\n")
    assert rig.drops.totals() == {"deleted": 2}


def test_a_full_queue_drops_the_newest_and_says_so():
    rig = Rig(queue_bytes=400)
    rig.log(1)
    line = lines.encode(Metric(2, "m", 2, unit="u" * 300))
    assert not rig.direct.append(line)
    rig.ship()
    assert rig.drops.totals() == {"queue_full": 1}
    assert Dropped in [type(record) for record in rig.server.records]
    assert rig.direct.append(line)


def test_heartbeats_go_with_the_batches_once_each(rig):
    rig.direct.slots[1] = 5_000_000
    rig.ship()
    rig.ship()
    rig.direct.slots[1] = 6_000_000
    rig.ship()
    assert [record.t for record in rig.server.records if isinstance(record, Beat)] == [5_000_000, 6_000_000]


def test_details_come_from_the_server(rig):
    assert rig.direct.details() == {"id": FIRST.id}
    rig.server.answers = [Answer(404, {})]
    assert rig.direct.details() is None


@pytest.mark.parametrize(
    ("url", "loopback"),
    [
        ("http://localhost:8080", True),
        ("http://127.0.0.1", True),
        ("http://[::1]:80", True),
        ("https://datacat.example", False),
        ("http://10.0.0.1", False),
    ],
)
def test_proxies_are_not_used_for_this_machine(url, loopback):
    assert direct.is_loopback(url) is loopback


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        headers = dict(self.headers.items())
        answer = self.server.core.ask("POST", self.path, body, headers)
        self.answer(answer)

    def do_GET(self):
        self.answer(self.server.core.ask("GET", self.path, b"", {}))

    def answer(self, answer):
        body = json.dumps(answer.body).encode()
        self.send_response(answer.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def real():
    """The same server behind a real socket."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.core = Server()
        server.daemon_threads = True
        server.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_session_in_simple_mode_has_the_same_calls_and_the_same_records(real):
    session = datacat.create_session(
        real.url, product="p", version="1", use_daemon=False, state={"s": 1}, api_key="secret"
    )
    session.log_event("x", data={"nan": float("nan")})
    session.update_state({"a": 1})
    with session.timer("t", count=2):
        pass
    session.heartbeat()
    assert session.flush(10)
    assert session.get_details() == {"id": session.id}
    session.end(4)
    eventually(lambda: real.core.records and real.core.records[-1].__struct_config__.tag == "close")
    kinds = [record.__struct_config__.tag for record in real.core.records if not isinstance(record, Beat)]
    assert kinds == ["open", "event", "state", "metric", "close"]
    assert real.core.records[0].daemon_id is None
    assert any(isinstance(record, Beat) for record in real.core.records)
    assert real.core.requests[0][3]["Authorization"] == "Bearer secret"
    assert session.journal_folder is None
    session._carrier.drain()


@pytest.mark.parametrize("end", ["", "session.end()\n", "raise ValueError('boom')\n"])
def test_everything_is_sent_before_the_interpreter_ends(real, tmp_path, end):
    app = run_app(
        f"""
import datacat
session = datacat.create_session({real.url!r}, product="p", version="1", use_daemon=False)
for i in range(5000):
    session.log_event("burst", data={{"i": i}})
{end}""",
        tmp_path,
    )
    assert "Exception ignored" not in app.stderr
    assert ("Traceback" in app.stderr) == ("raise" in end)
    burst = [record.data["i"] for record in real.core.records if getattr(record, "name", "") == "burst"]
    assert burst == list(range(5000))
    last = real.core.records[-1]
    assert last.__struct_config__.tag == ("close" if "end" in end else "closing")
    assert getattr(last, "exception_type", None) == ("ValueError" if "raise" in end else None)


def test_an_absent_server_holds_the_end_up_for_five_seconds_at_most(tmp_path):
    started = time.monotonic()
    app = run_app(
        """
import datacat
session = datacat.create_session("http://127.0.0.1:9", product="p", version="1", use_daemon=False)
session.log_event("x")
print(session.flush(0.1), session.stats()["written"])
""",
        tmp_path,
    )
    assert app.stdout == "False 2\n", app.stderr
    assert app.returncode == 0
    assert time.monotonic() - started < direct.DRAIN_S + 5


def test_a_forked_child_sends_nothing(real, tmp_path):
    app = run_app(
        f"""
import os, sys
import datacat
session = datacat.create_session({real.url!r}, product="p", version="1", use_daemon=False)
session.flush(10)
pid = os.fork()
if pid == 0:
    session.log_event("child")
    session.get_details()
    session.end()
    sys.exit(0)
os.waitpid(pid, 0)
session.log_event("parent")
""",
        tmp_path,
    )
    assert app.returncode == 0, app.stderr
    assert [record.name for record in real.core.records if hasattr(record, "name")] == ["parent"]
    assert live.sessions() == []


def test_one_session_after_the_other_leaves_no_thread_behind(real):
    def ours():
        return [thread for thread in threading.enumerate() if thread.name == "datacat-direct"]

    before, calls = len(ours()), len(live._last)
    for number in range(5):
        session = datacat.create_session(real.url, "p", "1", use_daemon=False)
        session.log_event(f"e{number}")
        session.end()
        assert session.flush(10)
    eventually(lambda: len(ours()) == before)
    assert len(live._last) <= calls + 5


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, {}),
        Answer(200, {"acked": "many"}),
        Answer(200, {"acked": 1}),
        Answer(204, {}),
        Answer(302, {}),
        Answer(409, {}),
        Answer(409, {"acked": None}),
    ],
)
def test_an_answer_that_no_datacat_server_gives_settles_nothing(rig, answer):
    rig.log(1, 2)
    rig.server.answers = [answer]
    rig.ship()
    assert rig.direct.acked() == 0
    rig.later(5)
    assert rig.values() == [1, 2]
    assert rig.drops.totals() == {}


def test_what_was_dropped_is_told_whole_after_the_batch_that_told_it_was_refused_too(rig):
    rig.ship()
    for value in (1, 2):
        rig.log(value)
        rig.server.answers = [Answer(422, {}), Answer(422, {})]
        rig.ship()
    rig.server.answers = []
    rig.log(3)
    rig.ship()
    told = [record.counts for record in rig.server.records if isinstance(record, Dropped)]
    assert rig.drops.totals() == {"refused": 2}
    assert sum(counts["refused"] for counts in told) == 2


def test_a_server_that_refuses_everything_is_not_asked_without_end(rig):
    rig.server.answers = [Answer(422, {})] * 50
    rig.log(1)
    rig.ship()
    assert len(rig.server.requests) < 5
