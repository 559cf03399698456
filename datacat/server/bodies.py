"""Bodies of requests and answers: read within limits before and after decompression, compressed when asked for."""

import threading
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import zstandard

from datacat.server.problems import Refusal
from datacat.wire.records import MAX_BATCH_BYTES

MAX_REQUEST_BYTES = MAX_BATCH_BYTES + 64 * 1024
"""A body as it travels: what cannot be compressed grows a little."""
MIN_COMPRESSED_BYTES = 1024
"""Less than this fits into one packet anyway."""
RECEIVED = "datacat.received"
"""In the environment of a request: a list whose one member is how many bytes of its body were read, as it travels."""
_GZIP_WBITS = 31  # zlib's number for one gzip member with header and checksum
_ZSTD_LEVEL = 1
_GZIP_LEVEL = 1
_of_thread = threading.local()


def read(environ: dict[str, Any], limit: int = MAX_BATCH_BYTES) -> bytes:
    """Return the whole body of a WSGI request, decompressed.

    Raises: Refusal 413 when it has more than limit bytes, before or after decompression; 415 for an encoding that is
    not gzip, zstd or identity; 400 when it is shorter than announced or not what its encoding says.
    """
    return decompress(receive(environ, limit), encoding_of(environ), limit)


def encoding_of(environ: Mapping[str, Any]) -> str:
    """Return the content encoding of a WSGI request's body, in lower case."""
    return str(environ.get("HTTP_CONTENT_ENCODING", "")).strip().lower()


def receive(environ: dict[str, Any], limit: int = MAX_BATCH_BYTES) -> bytes:
    """Return the whole body of a WSGI request as it travels. Raises: as read(), but for what its encoding says."""
    travels = min(MAX_REQUEST_BYTES, limit + 64 * 1024)
    source = environ["wsgi.input"]
    if environ.get("wsgi.input_terminated"):
        body = _read_chunked(source, travels)
    else:
        length = int(environ.get("CONTENT_LENGTH") or 0)
        if length > travels:
            raise too_large(limit)
        body = source.read(length) if length else b""
        if len(body) < length:
            raise Refusal(400, f"the body has {len(body)} bytes, Content-Length says {length}")
    if told := environ.get(RECEIVED):
        told[0] += len(body)
    return body


def plain_size(body: bytes, encoding: str, limit: int) -> int:
    """Return how many bytes the body has at most without its encoding, as far as it says so; else limit."""
    if encoding in ("", "identity"):
        return len(body)
    if encoding == "zstd":
        try:
            told = zstandard.frame_content_size(body)
        except zstandard.ZstdError:
            return len(body)
        return min(told, limit) if told >= 0 else limit
    return min(limit, len(body) * 1100)  # deflate's best is 1032 to 1


def decompress(body: bytes, encoding: str, limit: int) -> bytes:
    """Return body without its content encoding; at most limit bytes are ever produced. Raises: as read()."""
    match encoding.strip().lower():
        case "" | "identity":
            plain = body
        case "gzip" | "x-gzip":
            plain = _gunzip(body, limit)
        case "zstd":
            plain = _unzstd(body, limit)
        case _:
            raise Refusal(
                415,
                f"the content encoding {encoding[:40]!r} is not known",
                hint="use gzip, zstd or none",
                headers={"Accept-Encoding": "gzip, zstd"},
            )
    if len(plain) > limit:
        raise too_large(limit)
    return plain


def too_large(limit: int) -> Refusal:
    """Return the refusal of a body that has more than limit bytes."""
    return Refusal(413, f"the body has more than {limit} bytes", hint="send it in parts")


def negotiate(accepted: str) -> str:
    """Return zstd, gzip or nothing for the value of Accept-Encoding (RFC 9110, 12.5.3); zstd when both are liked."""
    weights: dict[str, float] = {}
    for item in accepted.lower().split(","):
        name, *parameters = (part.strip() for part in item.split(";"))
        weights[name] = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    weights[name] = float(parameter[2:])
                except ValueError:
                    weights[name] = 0.0
    best = max(("zstd", "gzip"), key=lambda name: weights.get(name, weights.get("*", 0.0)))
    return best if weights.get(best, weights.get("*", 0.0)) > 0 else ""


def compress(parts: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    """Yield parts compressed as one stream, as soon as there is something to send."""
    packer: Any = (
        zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compressobj()
        if encoding == "zstd"
        else zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_WBITS)
    )
    for part in parts:
        if packed := packer.compress(part):
            yield packed
    yield packer.flush()


def _read_chunked(source: Any, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    try:
        while part := source.read(64 * 1024):
            parts.append(part)
            size += len(part)
            if size > limit:
                raise too_large(limit)
    except ValueError as error:  # the server's reader found a broken chunk
        raise Refusal(400, f"the chunked body is malformed: {error}") from error
    return b"".join(parts)


def _gunzip(body: bytes, limit: int) -> bytes:
    unpacker = zlib.decompressobj(_GZIP_WBITS)
    try:
        plain = unpacker.decompress(body, limit + 1)
    except zlib.error as error:
        raise Refusal(400, f"the body is no gzip: {error}") from error
    if len(plain) > limit:
        raise too_large(limit)
    if not unpacker.eof or unpacker.unused_data:
        raise Refusal(400, "the body is not exactly one whole gzip member")
    return plain


def _unpacker() -> zstandard.ZstdDecompressor:
    """Return this thread's own: to make one costs as much as a small batch, and it may serve one thread at a time."""
    found: zstandard.ZstdDecompressor | None = getattr(_of_thread, "unpacker", None)
    if found is None:
        found = _of_thread.unpacker = zstandard.ZstdDecompressor()
    return found


def _unzstd(body: bytes, limit: int) -> bytes:
    unpacker = _unpacker()
    try:
        size = zstandard.frame_content_size(body)
        if size > limit:
            raise too_large(limit)
        if size >= 0:
            return unpacker.decompress(body, max_output_size=limit, allow_extra_data=False)
        # A frame need not tell its size; a part of it is unpacked to see. The reader would not notice that the end of
        # the frame is missing, so it is unpacked once more when it is known to be small.
        if len(unpacker.stream_reader(body).read(limit + 1)) > limit:
            raise too_large(limit)
        streamed = unpacker.decompressobj()
        plain = streamed.decompress(body)
    except zstandard.ZstdError as error:
        raise Refusal(400, f"the body is no zstd frame: {error}") from error
    if not streamed.eof or streamed.unused_data:
        raise Refusal(400, "the body is not exactly one whole zstd frame")
    return plain
