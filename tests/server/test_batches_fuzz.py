"""Whatever comes to the endpoint of batches: an answer that is documented, and a session that can be read."""

import gzip
import json
import os
import time
from urllib.parse import urlencode

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datacat.wire import lines
from datacat.wire.records import Event, Open

SESSION = "01890a5d-ac96-774b-bcce-000000000001"
T = 1_800_000_000_000_000
DOCUMENTED = {200, 400, 404, 405, 409, 410, 413, 415, 422}
MINUTES = 10

numbers = st.sampled_from(["0", "1", "100", "-1", "1e3", "", "9" * 18, "9" * 30, "０", "0x1", "+1"])
parameters = st.dictionaries(
    st.sampled_from(["stream", "from", "to", "crc", "end_crc", "records", "pending", "zz"]),
    numbers | st.text(max_size=8) | st.just("app"),
)
record = st.sampled_from([lines.encode(Open(T, "editor", "1")), lines.encode(Event(T, "a")), b"{}\n", b"\n", b"null\n"])
scraps = (
    st.binary(max_size=60) | record | st.text(max_size=20).map(lambda text: json.dumps({"t": 1, "k": text}).encode())
)
plain = st.lists(scraps, max_size=6).map(b"".join)


@st.composite
def requests(draw):
    body = draw(plain)
    encoding = draw(st.sampled_from(["", "gzip", "zstd", "br", "GZIP", "identity"]))
    if draw(st.booleans()):
        packed = {"gzip": gzip.compress, "zstd": zstandard.compress}.get(encoding.lower(), bytes)(body)
        cut = draw(st.integers(0, len(packed)))
        body = draw(st.sampled_from([packed, packed[:cut], packed + body]))
    query = {"stream": "app", "from": "0", "to": "100"} if draw(st.booleans()) else draw(parameters)
    kind = draw(st.sampled_from(["application/x-ndjson", "application/json", "text/html", ""]))
    method = draw(st.sampled_from(["POST", "POST", "POST", "GET", "PUT"]))
    return method, query, body, {"Content-Encoding": encoding, "Content-Type": kind}


def answered(server, request):
    method, query, body, headers = request
    headers = {name: value for name, value in headers.items() if value}
    path = f"/api/sessions/{SESSION}/batches?{urlencode(query)}"
    answer = server.request(method, path, body=body, headers=headers)
    assert answer.status in DOCUMENTED, (request, answer)
    json.loads(answer.body)
    if answer.status != 200:
        assert answer.header("content-type") == "application/problem+json"
    found = server.get(f"/api/sessions/{SESSION}?events=all&metrics=all&history=all")
    assert found.status in (200, 404), (request, found)


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.lists(requests(), max_size=3))
def test_a_batch_of_anything_has_a_documented_answer(make_server, tried):
    server = make_server()
    for request in tried:
        answered(server, request)


@pytest.mark.long
@pytest.mark.timeout(MINUTES * 60 + 120)
def test_ten_minutes_of_batches_of_anything_have_documented_answers(make_server):
    end = time.monotonic() + 60 * float(os.environ.get("DATACAT_FUZZ_MINUTES", MINUTES))

    @settings(max_examples=2000, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(requests(), max_size=3))
    def some(tried):
        server = make_server()
        for request in tried:
            answered(server, request)

    while time.monotonic() < end:
        some()
