"""HTTPS by certificate files: one context that is made anew when the files change, and handshakes that block nobody.

TLS 1.2 and 1.3 with the ciphers of Python's defaults (forward secrecy and authenticated encryption only); no
compression, no renegotiation. A connection that is there keeps the certificate that it began with.
"""

import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from datacat import host
from datacat.errors import HostError

_log = logging.getLogger(__name__)

LOOK_S = 1.0
"""How often the files are looked at while connections come."""
FLIGHT_S = 10.0
"""The server's part of a handshake must have left in this time; it is smaller than any socket's buffer."""


class Tls:
    """The context for new connections. Any thread; files that cannot be used change nothing and are logged once."""

    def __init__(self, cert: str, key: str, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises: HostError that says which file is wrong and why."""
        self._files = Path(cert).expanduser(), Path(key).expanduser()
        self._clock = clock
        self._lock = threading.Lock()
        self._complaint = ""
        self._next_look = clock() + LOOK_S
        self._stamp = _stamp(*self._files)
        self._context = _context(*self._files)

    def wrap(self, sock: socket.socket) -> ssl.SSLSocket:
        """Return the server's end of an encrypted connection, whose handshake is still to come; sock is given up."""
        if self._clock() >= self._next_look and self._lock.acquire(blocking=False):
            try:
                self._look()
            finally:
                self._lock.release()
        return self._context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)

    def reload(self) -> None:
        """Look at the files now."""
        with self._lock:
            self._look()

    def _look(self) -> None:
        self._next_look = self._clock() + LOOK_S
        stamp = _stamp(*self._files)
        if stamp == self._stamp:
            return
        try:
            self._context = _context(*self._files)
        except HostError as error:
            # Two files are not replaced at one moment: the next look may find them together.
            if str(error) != self._complaint:
                _log.error("the certificate stays as it is: %s", error)
                self._complaint = str(error)
            return
        self._stamp, self._complaint = stamp, ""
        _log.info("new connections have the certificate that is in %s now", self._files[0])


def shake_hands(sock: ssl.SSLSocket) -> bool:
    """Go on with a handshake as far as that needs no waiting for the client; True when it is done.

    Raises: OSError; PlainHttp when the client does not speak TLS.
    """
    sock.settimeout(0)
    try:
        sock.do_handshake()
    except ssl.SSLWantReadError:
        return False
    except ssl.SSLWantWriteError:
        sock.settimeout(FLIGHT_S)
        sock.do_handshake()
    except ssl.SSLError as error:
        if error.reason == "HTTP_REQUEST":
            raise PlainHttp from error
        raise
    return True


class PlainHttp(ConnectionError):
    """The client sent a request without TLS."""


def say_goodbye(sock: socket.socket) -> None:
    """Tell the client that nothing was cut off (close_notify, RFC 8446 6.1); its own is not waited for."""
    if isinstance(sock, ssl.SSLSocket):
        try:
            sock.settimeout(0)
            sock.unwrap()
        except (OSError, ValueError):
            return


def send_plain(sock: socket.socket, data: bytes) -> None:
    """Send bytes beside TLS, as far as they go at once. Raises: OSError."""
    sock.settimeout(0)
    socket.socket.send(sock, data)


def to_ourselves(sock: socket.socket) -> ssl.SSLSocket:
    """Return the client's end of a connection to our own server, whose certificate is for other names than our address.

    Raises: OSError.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(sock)


def _context(cert: Path, key: Path) -> ssl.SSLContext:
    for path in (cert, key):
        try:
            path.read_bytes()
        except OSError as error:
            raise HostError(
                f"cannot read {path} for HTTPS: {error.strerror}",
                hint="correct tls_cert and tls_key, and let the account of the server read the files",
                permanent=host.needs_a_person(error) or isinstance(error, FileNotFoundError),
            ) from error
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])

    def no_password() -> NoReturn:
        raise HostError(
            f"the key in {key} has a password",
            hint="take it off with 'openssl pkey -in OLD -out NEW'",
            permanent=True,
        )

    try:
        context.load_cert_chain(cert, key, no_password)
    except (ssl.SSLError, OSError) as error:
        reason = getattr(error, "reason", None) or ""
        if "MISMATCH" in reason:
            told = f"the key in {key} does not belong to the certificate in {cert}"
        else:
            told = f"{cert} and {key} are no certificate and key in PEM ({reason or error})"
        raise HostError(told, hint="correct tls_cert and tls_key", permanent=True) from error
    return context


def _stamp(*paths: Path) -> object:
    """Return what changes with the files, also with the target of a link; None when one is missing."""
    try:
        return [(about.st_mtime_ns, about.st_size, about.st_ino) for about in (path.stat() for path in paths)]
    except OSError:
        return None
