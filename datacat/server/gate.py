"""Who may come in: loopback or not, Host, Origin, forwarded requests, and what each may do."""

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias
from urllib.parse import urlsplit

from datacat.server.config import Config, is_loopback
from datacat.server.problems import Refusal

Right: TypeAlias = Literal["read", "ingest", "admin"]
Rights: TypeAlias = Callable[[Mapping[str, Any]], frozenset[Right]]
"""What a WSGI request may do."""

_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_FORWARDED = ("HTTP_FORWARDED", "HTTP_X_FORWARDED")
"""How the headers begin that a proxy adds, whatever their values."""
_WITHOUT_KEY: frozenset[Right] = frozenset({"read", "ingest"})


def keyless(config: Config) -> Rights:
    """Return the rights while there are no keys: loopback reads and writes, with insecure everybody does."""

    def rights(environ: Mapping[str, Any]) -> frozenset[Right]:
        return _WITHOUT_KEY if config.insecure or from_loopback(environ) else frozenset()

    return rights


def from_loopback(environ: Mapping[str, Any]) -> bool:
    """Return whether the request began on this machine: a proxy on it passes on those of others."""
    if any(name.startswith(_FORWARDED) for name in environ):
        return False
    address = str(environ.get("REMOTE_ADDR", ""))
    return is_loopback(address.removeprefix("::ffff:"))


@dataclass(frozen=True, slots=True)
class Gate:
    """Decides before the body is read. hosts are the names and addresses that this server was told it has.

    any_address: it listens on an address that stands for all, so that every address may be its own. A web page that
    misuses a browser (DNS rebinding) always comes with a name.
    """

    hosts: frozenset[str]
    any_address: bool
    rights: Rights

    def admit(self, environ: Mapping[str, Any], need: Right | None) -> None:
        """Let the request pass or raise Refusal 400, 401 or 403. need None: nothing is told that is worth a check."""
        if need is None:
            return
        host = str(environ.get("HTTP_HOST", ""))
        if host:
            self._check_host(host)
        elif environ.get("SERVER_PROTOCOL") != "HTTP/1.0":
            raise Refusal(400, "the header Host is missing")
        origin = environ.get("HTTP_ORIGIN")
        if origin and _netloc(str(origin)) != host.lower():
            raise Refusal(403, f"a page of {str(origin)[:80]} may not use this server")
        rights = self.rights(environ)
        if need not in rights:
            if rights or from_loopback(environ):
                raise Refusal(
                    401,
                    f"this needs a key with the right {need}",
                    headers={"WWW-Authenticate": 'Bearer realm="datacat"'},
                )
            raise Refusal(403, "without a key only programs on this machine may use this server")

    def _check_host(self, host: str) -> None:
        try:
            # Host has no user information; what is behind an @ would be another name than the one before it.
            name = (urlsplit(f"//{host}").hostname or "").lower() if "@" not in host else ""
        except ValueError:
            name = ""
        if name in self.hosts or (self.any_address and _is_address(name)):
            return
        raise Refusal(
            403, f"this server is not {host[:80]!r}", hint="tell it its name with --allowed-hosts if that is right"
        )


def gate(config: Config, rights: Rights | None = None) -> Gate:
    """Return the gate that the settings describe."""
    own = config.host.lower().strip("[]")
    hosts = {own, *config.allowed_hosts}
    any_address = own in ("0.0.0.0", "::")  # noqa: S104  compared, not listened on
    if any_address or is_loopback(own):
        hosts |= _LOCAL_NAMES
    return Gate(frozenset(hosts), any_address, rights or keyless(config))


def _netloc(origin: str) -> str:
    """Return host and port of an origin in lower case; empty when it has none or is malformed."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
