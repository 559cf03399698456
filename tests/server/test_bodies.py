"""Bodies: compressed in every way, within limits before and after."""

import gzip
import io
import zlib

import pytest
import zstandard

from datacat.server.bodies import MAX_REQUEST_BYTES, read
from datacat.server.problems import Refusal

LIMIT = 100_000
PLAIN = b"datacat " * 100


def streamed(body):
    """Compress as a stream: such a frame does not tell its size."""
    packer = zstandard.ZstdCompressor().compressobj()
    return packer.compress(body) + packer.flush()


def environ(body, encoding="", **more):
    return {"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body)), "HTTP_CONTENT_ENCODING": encoding, **more}


PACK = {
    "": bytes,
    "identity": bytes,
    "gzip": gzip.compress,
    "GZIP": gzip.compress,
    "x-gzip": gzip.compress,
    "zstd": zstandard.ZstdCompressor().compress,
    "Zstd": streamed,
}


@pytest.mark.parametrize("encoding", PACK)
def test_a_body_is_read_in_every_encoding(encoding):
    assert read(environ(PACK[encoding](PLAIN), encoding), LIMIT) == PLAIN
    assert read(environ(PACK[encoding](b"x" * LIMIT), encoding), LIMIT) == b"x" * LIMIT


@pytest.mark.parametrize("encoding", PACK)
def test_a_body_that_is_too_large_after_decompression_is_refused(encoding):
    refused(environ(PACK[encoding](b"x" * (LIMIT + 1)), encoding), 413)


@pytest.mark.parametrize("encoding", ["gzip", "zstd", "Zstd"])
def test_a_bomb_is_refused(encoding):
    bomb = PACK[encoding](bytes(200_000_000))
    assert len(bomb) < MAX_REQUEST_BYTES
    refused(environ(bomb, encoding), 413)


@pytest.mark.parametrize("encoding", ["gzip", "zstd", "Zstd"])
@pytest.mark.parametrize(
    "damage",
    [lambda b: b[:-1], lambda b: b + b"x", lambda b: b + b, lambda b: b"", lambda b: b"junk" * 9, lambda b: b[:9]],
)
def test_what_is_not_exactly_one_whole_member_is_refused(encoding, damage):
    refused(environ(damage(PACK[encoding](PLAIN)), encoding), 400)


@pytest.mark.parametrize("encoding", ["br", "deflate", "gzip, gzip", "zstd,gzip", "nonsense"])
def test_an_unknown_encoding_is_refused(encoding):
    assert refused(environ(zlib.compress(PLAIN), encoding), 415).headers == {"Accept-Encoding": "gzip, zstd"}


def test_a_body_that_is_cut_off_is_refused():
    refused(environ(PLAIN, CONTENT_LENGTH=str(len(PLAIN) + 1)), 400)


def test_a_chunked_body_is_read_to_its_end_within_the_limit():
    chunked = {"wsgi.input_terminated": True, "CONTENT_LENGTH": ""}
    assert read(environ(PLAIN, **chunked), LIMIT) == PLAIN
    refused(environ(b"x" * (LIMIT + 200_000), **chunked), 413)


def refused(env, status):
    with pytest.raises(Refusal) as caught:
        read(env, LIMIT)
    assert caught.value.status == status
    return caught.value
