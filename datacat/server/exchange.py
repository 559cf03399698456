"""One HTTP request as it came, read strictly, and errors that are found before the application runs.

cheroot 11.1.2 lets lengths such as -1 or +3 pass, takes the last of two lengths, folds lines, and reads a chunk's size
line without a limit: what two readers could read in two ways is refused here.
"""

import contextlib
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from cheroot import server

from datacat.server.bodies import too_large
from datacat.server.problems import SAFE_HEADERS, problem

NAME = "datacat"
"""What answers call the server; no version."""
MAX_HEADERS = 100
MAX_CHUNK_LINE_BYTES = 64
MIN_CHUNK_BYTES = 64
"""Chunks may be smaller on average only while there are few: each costs as much time as some kilobytes."""
FEW_CHUNKS = 1000

_LENGTH = re.compile(rb"[0-9]{1,12}")
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_HEX = re.compile(rb"[0-9A-Fa-f]{1,8}")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_PATH_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_ONCE = frozenset(
    {
        b"Content-Length",
        b"Host",
        b"Transfer-Encoding",
        b"Authorization",
        b"Content-Type",
        b"Content-Encoding",
        b"Origin",
    }
)


def parse_headers(lines: Iterable[bytes]) -> dict[bytes, bytes]:
    """Return the headers in lines (without their CRLF); a name that stands twice has its values joined.

    Raises: ValueError with a sentence that says nothing of what the client sent.
    """
    headers: dict[bytes, bytes] = {}
    for count, line in enumerate(lines):
        if count == MAX_HEADERS:
            raise ValueError("there are too many headers")
        raw, colon, value = line.partition(b":")
        if not colon or _CONTROL.search(value):
            raise ValueError("a header line is malformed")
        name = header_name(raw)
        if name in headers:
            if name in _ONCE:
                raise ValueError("a header that may stand once stands twice")
            value = headers[name] + b", " + value.strip(b" \t")
        headers[name] = value.strip(b" \t")
    length, coding = headers.get(b"Content-Length"), headers.get(b"Transfer-Encoding")
    if length is not None and (coding is not None or not _LENGTH.fullmatch(length)):
        raise ValueError("Content-Length is not one whole number alone")
    if coding is not None and coding.lower() != b"chunked":
        raise ValueError("the only transfer encoding is chunked")
    return headers


@lru_cache(maxsize=512)
def header_name(raw: bytes) -> bytes:
    """Return a header's name in its usual form. Raises: ValueError."""
    if not _TOKEN.fullmatch(raw):
        raise ValueError("a header line is malformed")
    return raw.title()


def chunk_size(line: bytes) -> int:
    """Return the size in a chunk's first line, CRLF included. Raises: ValueError."""
    digits = line.partition(b";")[0].strip()
    if not line.endswith(b"\r\n") or not _HEX.fullmatch(digits):
        raise ValueError("the size of a chunk is malformed")
    return int(digits, 16)


class _Headers(server.HeaderReader):
    def __call__(self, rfile: Any, hdict: dict[bytes, bytes] | None = None) -> dict[bytes, bytes]:
        lines = []
        while (line := rfile.readline()) != b"\r\n":
            if not line.endswith(b"\r\n"):
                raise ValueError("a header line is malformed")
            lines.append(line[:-2])
            if len(lines) > MAX_HEADERS:
                raise ValueError("there are too many headers")
        headers = parse_headers(lines)
        headers.pop(b"Expect", None)  # the connection has answered it already
        if hdict is not None:
            hdict.update(headers)
        return headers


class _Chunks(server.ChunkedRFile):
    """The body of a chunked request, all of which has come."""

    chunks = 0

    def _fetch(self) -> None:
        if self.closed:
            return
        size = chunk_size(self.rfile.readline(MAX_CHUNK_LINE_BYTES))
        if size == 0:
            if self.rfile.readline(MAX_CHUNK_LINE_BYTES) != b"\r\n":
                raise ValueError("trailers are not taken")
            self.closed = True
            return
        self.chunks += 1
        self.bytes_read += size
        if self.bytes_read > self.maxlen:
            raise too_large(self.maxlen)
        if self.chunks > FEW_CHUNKS and self.bytes_read < self.chunks * MIN_CHUNK_BYTES:
            raise ValueError("the chunks are too small")
        chunk = self.rfile.read(size)
        if len(chunk) != size or self.rfile.read(2) != b"\r\n":
            raise ValueError("a chunk is cut off")
        self.buffer += chunk


class Request(server.HTTPRequest):
    """A request for the application; what is wrong before it gets there is told as a problem document."""

    header_reader = _Headers()

    def __init__(self, http: Any, conn: Any, **options: Any) -> None:
        super().__init__(http, conn, **options)
        if http.tls is not None:
            self.scheme = b"https"

    def read_request_line(self) -> bool:
        """Read the first line; False when the request was answered with an error."""
        if not super().read_request_line():  # type: ignore[no-untyped-call]  # cheroot has half of its types
            return False
        if _PATH_CONTROL.search(self.path):
            self.simple_response("400 Bad Request", "the path has control characters")
            return False
        return True

    def read_request_headers(self) -> bool:
        """Read the headers; False when the request was answered with an error."""
        if not super().read_request_headers():  # type: ignore[no-untyped-call]  # cheroot has half of its types
            return False
        if self.response_protocol != "HTTP/1.1" and b"Transfer-Encoding" in self.inheaders:
            self.simple_response("400 Bad Request", "HTTP/1.0 has no transfer encodings")
            return False
        return True

    def respond(self) -> None:
        """Let the application answer."""
        if not self.chunked_read:
            super().respond()
            return
        body = self.rfile = _Chunks(self.conn.rfile, self.server.max_request_body_size)
        try:
            self.server.gateway(self).respond()
            self.ensure_headers_sent()
            if self.chunked_write:
                self.conn.wfile.write(b"0\r\n\r\n")
        finally:
            if not body.closed:  # what is left of the body must not be taken for the next request
                self.close_connection = self.conn.is_unread = True

    def simple_response(self, status: str | int, msg: str = "") -> None:
        """Answer with an error and close the connection."""
        self.close_connection = True
        code, _, phrase = str(status).partition(" ")
        self.conn.is_unread = True
        with contextlib.suppress(OSError):
            self.conn.wfile.write(error_answer(int(code), msg or phrase, phrase))
        self.server.note_refusal(int(code), self.conn.remote_addr)


def error_answer(status: int, detail: str, phrase: str) -> bytes:
    """Return a whole answer that tells of an error and ends the connection."""
    told = problem(status if status != 501 else 400, detail)
    headers = {**SAFE_HEADERS, **told.headers, "Content-Length": str(len(told.body))}
    headers |= {"Connection": "close", "Server": NAME}
    lines = [f"HTTP/1.1 {told.status} {phrase if status != 501 else 'Bad Request'}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + told.body
