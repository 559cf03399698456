"""HTTPS: certificates that change while the server runs, and handshakes that keep nobody from being served."""

import contextlib
import http.client
import os
import shutil
import socket
import ssl
import subprocess
import sys

import pytest
from certs import make_cert
from helpers import eventually
from target import SESSION, post, received

from datacat.errors import HostError
from datacat.server import service, tls
from datacat.server.config import Config
from datacat.server.tls import Tls
from datacat.wire import lines
from datacat.wire.records import Event, Open

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="capability: there is no openssl to make keys with")


@pytest.fixture(scope="session")
def certs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certs")
    return {name: make_cert(folder, name) for name in ("one", "two")}


@pytest.fixture
def files(certs, tmp_path):
    """Return the files that a server uses, with the first certificate in them."""
    return install(certs["one"], (tmp_path / "tls.crt", tmp_path / "tls.key"))


def install(pair, files):
    for source, target in zip(pair, files, strict=True):
        part = target.with_name(target.name + ".part")
        shutil.copyfile(source, part)
        part.replace(target)
    return files


@contextlib.contextmanager
def serving(files, **more):
    config = Config(port=0, store="memory:", tls_cert=str(files[0]), tls_key=str(files[1]), **more)
    built = service.build(config, {})
    try:
        built.start()
        yield built
    finally:
        built.stop()


def trusting(cert):
    return ssl.create_default_context(cafile=cert)


def get(port, cert, path="/livez", timeout_s=10):
    connection = http.client.HTTPSConnection("localhost", port, context=trusting(cert), timeout=timeout_s)
    with contextlib.closing(connection):
        connection.request("GET", path)
        return connection.getresponse().status


@contextlib.contextmanager
def connected(port, context, **options):
    """Yield the client's end of a connection whose handshake is done."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as sock,
        context.wrap_socket(sock, server_hostname="localhost", **options) as secure,
    ):
        yield secure


def name_shown(port):
    """Return the certificate that a new connection sees, as PEM."""
    return ssl.get_server_certificate(("127.0.0.1", port), timeout=10)


def pem_of(cert):
    return ssl.DER_cert_to_PEM_cert(ssl.PEM_cert_to_DER_cert(cert.read_text()))


def test_requests_over_tls_are_served_many_on_one_connection(files, certs):
    with serving(files) as built:
        assert built.url == f"https://127.0.0.1:{built.port}"
        connection = http.client.HTTPSConnection("localhost", built.port, context=trusting(files[0]), timeout=10)
        with contextlib.closing(connection):
            for number in range(50):
                body = b'{"product": "p", "version": "1", "state": {"x": "%s"}}' % (b"y" * number * 500)
                connection.request("POST", "/api/sessions", body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                answer.read()
                assert answer.status == 201
            connection.request("GET", "/api/sessions?limit=1000")
            assert connection.getresponse().read().count(b'"product"') == 50


def test_requests_that_came_in_one_packet_are_all_answered(files):
    with serving(files) as built, connected(built.port, trusting(files[0])) as secure:
        request = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"x" * 3000 + b"\r\n\r\n"
        secure.sendall(request * 20)
        received = b""
        while received.count(b"HTTP/1.1 200") < 20:
            part = secure.recv(65536)
            assert part, received
            received += part


def test_batches_over_tls_are_taken_by_the_batch_loop_from_the_second_on(files, monkeypatch):
    with serving(files) as built, connected(built.port, trusting(files[0])) as secure:
        secure.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert received(secure).startswith(b"HTTP/1.1 200")
        by_workers = []
        serve = built._http.serve_by_worker
        monkeypatch.setattr(built._http, "serve_by_worker", lambda conn: (by_workers.append(conn), serve(conn)))
        bodies = [lines.encode(Open(1, "editor", "1"))] + [lines.encode(Event(n, "e")) for n in range(2, 40)]
        batches = [
            post(SESSION % 1, body, start=number * 100, end=number * 100 + 100) for number, body in enumerate(bodies)
        ]
        for batch in batches[:3]:
            secure.sendall(batch)
            assert received(secure).startswith(b"HTTP/1.1 200")
        before = len(by_workers)
        assert before <= 1  # the first, unless the thread that was asked for /livez still waited for more
        # Many in one TLS record: what is decrypted already wakes no selector.
        secure.sendall(b"".join(batches[3:]))
        answers = b""
        while answers.count(b"HTTP/1.1 200") < len(batches) - 3:
            part = secure.recv(65536)
            assert part, answers
            answers += part
        assert len(by_workers) == before
        assert built.store.head(SESSION % 1).counts["events"] == len(bodies) - 1


def test_tls_1_2_and_1_3_are_spoken_and_nothing_older(files):
    with serving(files) as built:
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = trusting(files[0])
            context.minimum_version = context.maximum_version = version
            with connected(built.port, context) as secure:
                assert secure.version() == version.name.replace("_", ".")
    assert tls._context(*files).minimum_version == ssl.TLSVersion.TLSv1_2


def test_the_end_of_a_connection_is_told(files):
    with (
        serving(files) as built,
        connected(built.port, trusting(files[0]), suppress_ragged_eofs=False) as secure,
    ):
        secure.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        received = b""
        while part := secure.recv(65536):  # a cut would raise SSLEOFError
            received += part
        assert received.startswith(b"HTTP/1.1 200")


def test_a_plain_request_is_told_that_this_is_https(files):
    with serving(files) as built:
        plain = http.client.HTTPConnection("127.0.0.1", built.port, timeout=10)
        with contextlib.closing(plain):
            plain.request("GET", "/livez")
            answer = plain.getresponse()
            assert answer.status == 400
            assert b"this server speaks HTTPS" in answer.read()


def test_handshakes_that_stop_halfway_keep_nobody_from_being_served(files):
    with serving(files, threads=2) as built, contextlib.ExitStack() as opened:
        for number in range(40):
            sock = opened.enter_context(socket.create_connection(("127.0.0.1", built.port), timeout=10))
            sock.sendall(b"\x16\x03\x01\x02\x00\x01"[: number % 7])
        for _ in range(5):
            # With two threads, two that wait for a handshake would let this one time out.
            assert get(built.port, files[0], timeout_s=5) == 200


def test_a_handshake_that_drips_ends(files, monkeypatch):
    monkeypatch.setattr(service.httpd.Limits, "__new__", _limits)
    with serving(files) as built, socket.create_connection(("127.0.0.1", built.port), timeout=10) as sock:
        hello = b"\x16\x03\x01\x02\x00" + b"\x01" * 512

        def is_closed():
            nonlocal hello
            try:
                sock.sendall(hello[:1])
                hello = hello[1:]
                sock.settimeout(0.02)
                return sock.recv(1) == b""
            except TimeoutError:
                return False
            except OSError:
                return True

        eventually(is_closed)
        assert len(hello) > 100  # it did not end because it was malformed


def _limits(cls, *args):
    values = dict(zip(cls._fields, args, strict=False)) | {"head_s": 0.2}
    return tuple.__new__(cls, [values.get(name, cls._field_defaults.get(name)) for name in cls._fields])


def test_garbage_instead_of_tls_closes_the_connection_alone(files, caplog):
    with serving(files) as built:
        for garbage in (b"\0" * 1000, os.urandom(1000), b"\x16\x03\x01\x00\x05hello"):
            with socket.create_connection(("127.0.0.1", built.port), timeout=10) as sock:
                sock.sendall(garbage)
                with contextlib.suppress(ConnectionResetError):
                    while sock.recv(4096):
                        pass
        with connected(built.port, trusting(files[0])) as secure:
            socket.socket.sendall(secure, b"\x17\x03\x03\x00\x20" + b"x" * 32)  # a record that nobody encrypted
            with contextlib.suppress(OSError):
                assert secure.recv(1) == b""
        assert get(built.port, files[0]) == 200
    assert "Traceback" not in caplog.text
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]


def test_a_new_certificate_is_used_after_a_reload_and_old_connections_stay(files, certs):
    with serving(files) as built:
        old = http.client.HTTPSConnection("localhost", built.port, context=trusting(certs["one"][0]), timeout=10)
        with contextlib.closing(old):
            old.request("GET", "/livez")
            old.getresponse().read()
            install(certs["two"], files)
            built.reload(lambda: built.live.now)
            assert name_shown(built.port) == pem_of(certs["two"][0])
            assert get(built.port, certs["two"][0]) == 200
            old.request("GET", "/livez")
            assert old.getresponse().status == 200


def test_a_new_certificate_is_noticed_without_a_reload(files, certs):
    with serving(files) as built:
        assert name_shown(built.port) == pem_of(certs["one"][0])
        install(certs["two"], files)
        eventually(lambda: name_shown(built.port) == pem_of(certs["two"][0]))


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_a_pair_that_does_not_belong_together_changes_nothing_and_is_logged_once(files, certs, caplog):
    clock = Clock()
    held = Tls(*map(str, files), clock)
    before = held._context
    install((certs["two"][0],), files[:1])
    for _ in range(3):
        clock.now += tls.LOOK_S
        mine, theirs = socket.socketpair()
        with mine, held.wrap(theirs):
            pass
        assert held._context is before
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "does not belong" in caplog.text
    install(certs["two"], files)
    held.reload()
    assert held._context is not before


def broken(files, what):
    cert, key = files
    if what == "no certificate":
        cert.unlink()
    elif what == "no key":
        key.unlink()
    elif what == "garbage":
        cert.write_text("x")
    elif what == "empty key":
        key.write_text("")
    elif what == "folder":
        cert.unlink()
        cert.mkdir()
    elif what == "password":
        command = ["openssl", "pkey", "-in", key, "-aes256", "-passout", "pass:secret", "-out", key.with_name("p.key")]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        key.with_name("p.key").replace(key)


BROKEN = {
    "no certificate": r"cannot read .*tls\.crt for HTTPS: No such file",
    "no key": r"cannot read .*tls\.key for HTTPS: No such file",
    "garbage": r"are no certificate and key in PEM",
    "empty key": r"are no certificate and key in PEM",
    "folder": r"cannot read .*tls\.crt for HTTPS: Is a directory",
    "password": r"has a password; take it off",
}


@pytest.mark.parametrize("what", BROKEN)
def test_files_that_cannot_be_used_are_said_and_need_a_person(files, what):
    broken(files, what)
    with pytest.raises(HostError, match=BROKEN[what]) as caught:
        Tls(*map(str, files))
    assert caught.value.permanent


def test_such_a_start_ends_with_78_and_one_line(files, tmp_path):
    broken(files, "password")
    command = [sys.executable, "-m", "datacat.cli.server", "--port", "0", "--data-dir", str(tmp_path / "data")]
    command += ["--tls-cert", str(files[0]), "--tls-key", str(files[1])]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert ended.returncode == 78
    assert ended.stderr.count("\n") == 1
    assert "has a password" in ended.stderr


@pytest.mark.parametrize("reachable", [True, False])
def test_the_watchdogs_probe_speaks_tls_through_both_ways(files, reachable, monkeypatch):
    monkeypatch.setattr(service.httpd.listen, "is_reachable", lambda _sock: reachable)
    with serving(files) as built:
        before = built._http.served
        built._http.probe(10)
        eventually(lambda: built._http.served > before)


def test_a_stop_leaves_no_request_without_an_answer(files):
    with serving(files) as built:
        connection = http.client.HTTPSConnection("localhost", built.port, context=trusting(files[0]), timeout=10)
        connection.request("GET", "/livez")
        connection.getresponse().read()
        connection.request("GET", "/livez")
        built.stop()
        assert connection.getresponse().status == 200
        connection.close()
