"""Who may come in: Host, Origin, key or loopback, how often, and what each may do."""

import base64
import binascii
import ipaddress
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from datacat.server import rates
from datacat.server.config import Live, is_loopback
from datacat.server.keys import Key, Ring
from datacat.server.principal import NOBODY, Principal, Right
from datacat.server.problems import Refusal
from datacat.server.rates import Limit, Rates, Taken
from datacat.server.signin import SignIns, cookie_of, token_of

_log = logging.getLogger(__name__)

HEADERS = "datacat.headers"
"""Where the environment of a request has a dict of headers that go with its answer."""

_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_FORWARDED = ("HTTP_FORWARDED", "HTTP_X_FORWARDED")
"""How the headers begin that a proxy adds, whatever their values."""
_CHALLENGE = 'Bearer realm="datacat"'
_CHALLENGED = {"WWW-Authenticate": _CHALLENGE}
_READING = frozenset({"GET", "HEAD"})
_WRONG_WINDOW_S = 60


def from_loopback(environ: Mapping[str, Any]) -> bool:
    """Return whether the request began on this machine: a proxy on it passes on those of others."""
    if any(name.startswith(_FORWARDED) for name in environ):
        return False
    return is_loopback(_peer(environ))


def client_address(environ: Mapping[str, Any], proxies: frozenset[str]) -> str:
    """Return the address of the client: the peer, or when that is one of proxies whom it forwards for.

    Of X-Forwarded-For the last address that is no proxy of ours counts; what stands before it the client may have made
    up.
    """
    address = _peer(environ)
    if address not in proxies:
        return address
    hops = [hop.strip() for hop in str(environ.get("HTTP_X_FORWARDED_FOR", "")).split(",")]
    while address in proxies and hops and _is_address(hops[-1].strip("[]")):
        address = hops.pop().strip("[]").removeprefix("::ffff:")
    return address


@dataclass(frozen=True, slots=True)
class Gate:
    """Decides before the body is read. hosts are the names and addresses that this server was told it has.

    any_address: it listens on an address that stands for all, so that every address may be its own. A web page that
    misuses a browser (DNS rebinding) always comes with a name.
    """

    hosts: frozenset[str]
    any_address: bool
    live: Live
    ring: Ring
    rates: Rates
    clock_us: Callable[[], int]
    sign_ins: SignIns

    def admit(self, environ: dict[str, Any], need: Right | None) -> Principal:
        """Return who asks, or raise Refusal 400, 401, 403 or 429. need None: nothing is told that is worth a check.

        Headers for the answer are put into environ.
        """
        if need is None:
            return NOBODY
        self.check_names(environ)
        principal = self._principal(environ)
        self._count(environ, principal, need)
        if need not in principal.rights:
            raise self._refused(environ, principal, need)
        return principal

    def check_names(self, environ: Mapping[str, Any]) -> None:
        """Raise Refusal 400 or 403 for a request to a foreign host, or of another site's page."""
        host = str(environ.get("HTTP_HOST", ""))
        if host:
            self._check_host(host)
        elif environ.get("SERVER_PROTOCOL") != "HTTP/1.0":
            raise Refusal(400, "the header Host is missing")
        origin = environ.get("HTTP_ORIGIN")
        if origin and _netloc(str(origin)) != host.lower():
            raise Refusal(403, f"a page of {str(origin)[:80]} may not use this server")

    def key(self, environ: Mapping[str, Any], text: str) -> Key:
        """Return the key with this text. Raises: Refusal 401, or 429 when wrong ones came too often."""
        key = self.ring.find(text)
        if key is None:
            raise self._wrong(environ)
        if key.has_expired(self.clock_us()):
            raise Refusal(401, "this key has expired", headers=_CHALLENGED)
        return key

    def _principal(self, environ: Mapping[str, Any]) -> Principal:
        """Return who asks; without keys a key that comes along is for a proxy before us, and ignored."""
        config = self.live.now
        address = client_address(environ, frozenset(config.trusted_proxies))
        with_keys = bool(self.ring)
        text = presented(environ)
        if with_keys and text:
            return _holder(self.key(environ, text), address)
        # A cookie goes along by itself, so it only lets read: a form of our pages brings a token as well.
        if with_keys and environ.get("REQUEST_METHOD") in _READING and (cookie := cookie_of(environ)):
            key = self.ring.get(self.sign_ins.key_id(cookie))
            if key is not None and not key.has_expired(self.clock_us()):
                return _holder(key, address, token_of(cookie))
        if config.insecure:
            return Principal("anybody", address)
        return Principal("nobody" if with_keys or not from_loopback(environ) else "loopback", address)

    def _wrong(self, environ: Mapping[str, Any]) -> Refusal:
        """Return the answer to a wrong key: 401, and 429 after some of them from one address.

        A right key still comes in from there: it cannot be guessed, and others must not be able to lock its owner out.
        """
        config = self.live.now
        address = client_address(environ, frozenset(config.trusted_proxies))
        if config.wrong_keys_per_minute:
            per_s = config.wrong_keys_per_minute / _WRONG_WINDOW_S
            taken = self.rates.take(Limit("wrong-keys", rates.of_address(address), per_s, _WRONG_WINDOW_S))
            if not taken.ok:
                return Refusal(429, "there were too many wrong keys from this address", headers=taken.headers)
            if taken.left == 0:
                _log.warning("many wrong keys from %s", address)
        return Refusal(
            401, "this key is not known here", headers={"WWW-Authenticate": f'{_CHALLENGE}, error="invalid_token"'}
        )

    def _count(self, environ: dict[str, Any], principal: Principal, need: Right) -> None:
        """Count the request for its key and its address; reading takes nothing from what writing may do."""
        config, kind = self.live.now, "write" if need == "ingest" else "read"
        limits = []
        if principal.key_id and config.key_rate:
            limits.append(Limit(f"key-{kind}", principal.key_id, config.key_rate))
        if principal.role != "loopback" and config.address_rate:
            limits.append(Limit(f"address-{kind}", rates.of_address(principal.address), config.address_rate))
        taken: Taken | None = None
        for limit in limits:
            now = self.rates.take(limit)
            if not now.ok:
                raise Refusal(429, f"there were too many requests ({limit.policy})", headers=now.headers)
            if taken is None or now.left < taken.left:
                taken = now
        if taken is not None:
            environ.setdefault(HEADERS, {}).update(taken.headers)

    def _refused(self, environ: Mapping[str, Any], principal: Principal, need: Right) -> Refusal:
        if principal.key_id:
            return Refusal(
                403, f"a key with the role {principal.role} may not do this", hint=f"use one that may {need}"
            )
        if principal.rights or from_loopback(environ) or self.ring:
            return Refusal(401, f"this needs a key with the right {need}", headers=_CHALLENGED)
        return Refusal(403, "without a key only programs on this machine may use this server")

    def _check_host(self, host: str) -> None:
        name = _name(host)
        if name in self.hosts or (self.any_address and _is_address(name)):
            return
        raise Refusal(
            403, f"this server is not {host[:80]!r}", hint="tell it its name with --allowed-hosts if that is right"
        )


def gate(live: Live, ring: Ring, rates: Rates, clock_us: Callable[[], int], sign_ins: SignIns | None = None) -> Gate:
    """Return the gate that the settings describe."""
    own = live.now.host.lower().strip("[]")
    hosts = {own, *live.now.allowed_hosts}
    any_address = own in ("0.0.0.0", "::")  # noqa: S104  compared, not listened on
    if any_address or is_loopback(own):
        hosts |= _LOCAL_NAMES
    return Gate(frozenset(hosts), any_address, live, ring, rates, clock_us, sign_ins or SignIns(None, clock_us))


def presented(environ: Mapping[str, Any]) -> str:
    """Return the key that came with a request, empty without one: Authorization, or X-Api-Key.

    With Basic (RFC 7617), which curl and Grafana know, the password is the key.
    """
    scheme, _, value = str(environ.get("HTTP_AUTHORIZATION", "")).strip().partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value.strip(), validate=True).decode("utf-8", "replace").partition(":")[2]
        except (binascii.Error, ValueError):
            return value
    return str(environ.get("HTTP_X_API_KEY", "")).strip()


def is_secure(environ: Mapping[str, Any], proxies: frozenset[str]) -> bool:
    """Return whether the client came by TLS, to us or to a proxy that we know."""
    if environ.get("wsgi.url_scheme") == "https":
        return True
    return _peer(environ) in proxies and str(environ.get("HTTP_X_FORWARDED_PROTO", "")).strip().lower() == "https"


def _holder(key: Key, address: str, token: str = "") -> Principal:
    return Principal(key.role, address, key.id, key.name, key.products, token)


def _peer(environ: Mapping[str, Any]) -> str:
    return str(environ.get("REMOTE_ADDR", "")).removeprefix("::ffff:")


@lru_cache(maxsize=1024)
def _name(host: str) -> str:
    """Return the name in the value of a header Host, in lower case; empty when it is malformed."""
    try:
        # Host has no user information; what is behind an @ would be another name than the one before it.
        return (urlsplit(f"//{host}").hostname or "").lower() if "@" not in host else ""
    except ValueError:
        return ""


def _netloc(origin: str) -> str:
    """Return host and port of an origin in lower case; empty when it has none or is malformed."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


@lru_cache(maxsize=1024)
def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
