"""Whose certificates a daemon trusts, which key it shows, and what it says when it is refused."""

import os
import ssl
import subprocess
import sys

import pytest
from certs import make_cert
from daemon_helpers import FakeServer

from datacat.daemon.transport import Trust
from datacat.daemon.uplink import Uplink
from datacat.errors import ConfigError, UplinkError


@pytest.fixture(scope="module")
def cert(tmp_path_factory):
    return make_cert(tmp_path_factory.mktemp("tls"), "server")


@pytest.fixture
def tls(cert):
    """Yield a server that speaks HTTPS; its url names localhost, as the certificate does."""
    fake = FakeServer()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*cert)
    fake.http.socket = context.wrap_socket(fake.http.socket, server_side=True)
    fake.https = f"https://localhost:{fake.http.server_address[1]}"
    yield fake
    fake.close()


def asked(url, trust):
    link = Uplink(url, trust=trust)
    try:
        return link.get("/api/sessions")
    finally:
        link.close()


def test_an_unknown_authority_is_refused_in_plain_words(tls):
    with pytest.raises(UplinkError, match="no trusted connection") as caught:
        asked(tls.https, Trust())
    assert "certificate verify failed" in str(caught.value)
    assert "tls_ca_file" in str(caught.value)
    assert not caught.value.permanent
    assert tls.requests == []


def test_a_file_of_authorities_is_trusted(tls, cert):
    assert "sessions" in asked(tls.https, Trust(ca_file=str(cert[0])))


def test_a_file_of_authorities_is_the_only_one_that_counts(tls, tmp_path):
    other, _ = make_cert(tmp_path, "other")
    with pytest.raises(UplinkError, match="no trusted connection"):
        asked(tls.https, Trust(ca_file=str(other)))


def test_a_certificate_for_another_name_is_refused(tls, cert):
    with pytest.raises(UplinkError, match="no trusted connection"):
        asked(tls.https.replace("localhost", "[::ffff:127.0.0.1]"), Trust(ca_file=str(cert[0])))


def test_checking_can_be_switched_off_by_who_says_so(tls):
    with pytest.warns(Warning, match="Unverified"):
        assert "sessions" in asked(tls.https, Trust(verify=False))


def test_what_the_system_trusts_is_trusted(tls, cert):
    # OpenSSL takes its store from there, as every program of the system does; requests alone would not.
    code = (
        "import sys\n"
        "from datacat.daemon.uplink import Uplink\n"
        "link = Uplink(sys.argv[1])\n"
        "print(sorted(link.get('/api/sessions')))\n"
        "link.close()\n"
    )
    environ = {name: value for name, value in os.environ.items() if not name.endswith("_CA_BUNDLE")}
    done = subprocess.run(
        [sys.executable, "-c", code, tls.https],
        env={**environ, "SSL_CERT_FILE": str(cert[0])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if sys.platform != "linux":
        pytest.skip("capability: SSL_CERT_FILE is OpenSSL's; this system has a store of its own")
    assert done.stdout == "['next_cursor', 'sessions']\n", done.stderr


def test_a_file_that_cannot_be_read_is_named(tls, tmp_path):
    with pytest.raises(UplinkError, match="tls_ca_file"):
        asked(tls.https, Trust(ca_file=str(tmp_path / "nothing")))
    with pytest.raises(UplinkError, match="api_key_file"):
        asked(tls.https, Trust(api_key_file=str(tmp_path / "nothing")))


def test_the_first_line_of_a_key_file_is_the_key_and_one_given_as_a_text_wins(tmp_path):
    path = tmp_path / "key"
    path.write_text("  dc_one \n# the fleet's\n")
    assert Trust(api_key_file=str(path)).key() == "dc_one"
    assert Trust("dc_two", str(path)).key() == "dc_two"
    assert Trust().key() == ""
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError):
        Trust(api_key_file=str(path)).key()


@pytest.mark.parametrize(("status", "words"), [(401, "wants a key"), (403, "may not write")])
def test_who_is_refused_reads_the_key_anew_and_says_why(server, tmp_path, status, words):
    path = tmp_path / "key"
    path.write_text("dc_old")
    link = Uplink(server.url, trust=Trust(api_key_file=str(path)))
    server.plan("/api/sessions", (status, {}, {}))
    with pytest.raises(UplinkError, match=words) as caught:
        link.get("/api/sessions")
    assert "api_key_file" in str(caught.value)
    assert words in link.trouble
    path.write_text("dc_new")
    link.get("/api/sessions")
    assert link.trouble == ""
    assert [headers["Authorization"] for _, _, headers, _ in server.requests] == ["Bearer dc_old", "Bearer dc_new"]
    link.close()
