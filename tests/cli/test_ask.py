"""Asking a server over HTTPS: its certificate is checked, and a person is told what to do about it."""

import shutil

import pytest
from certs import make_cert

from datacat.cli.ask import Server
from datacat.errors import UplinkError
from datacat.server import service
from datacat.server.config import Config

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="capability: there is no openssl to make keys with")


@pytest.fixture
def https(tmp_path):
    cert, key = make_cert(tmp_path, "localhost")
    built = service.build(Config(port=0, store="memory:", tls_cert=str(cert), tls_key=str(key)), {})
    try:
        built.start()
        yield f"https://localhost:{built.port}", cert
    finally:
        built.stop()


def test_the_authority_of_the_certificate_may_be_named(https):
    url, cert = https
    with Server(url, ca_file=str(cert)) as server:
        assert list(server.sessions({}, 10)) == []


def test_without_it_the_certificate_is_not_trusted_and_the_remedy_is_said(https):
    url, _ = https
    with Server(url) as server, pytest.raises(UplinkError, match=r"not trusted .*--ca-file") as caught:
        server.get("/api/sessions")
    assert caught.value.status == 0


def test_an_authority_that_is_not_there_is_said(https, tmp_path):
    url, _ = https
    with Server(url, ca_file=str(tmp_path / "none.pem")) as server, pytest.raises(UplinkError, match=r"none\.pem"):
        server.get("/api/sessions")
