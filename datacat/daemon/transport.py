"""The HTTP session of an uplink: whose certificates are trusted, which key is shown, which proxies count.

Certificates are checked against the system's own trust store (on Linux OpenSSL's, so SSL_CERT_FILE counts; Keychain;
the Windows store), or against one file of authorities alone. The key comes from a setting, or from a file that is read
anew for each session of this kind, so that a key can be changed while a daemon runs.
"""

import os
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from datacat.errors import ConfigError

if TYPE_CHECKING:
    import requests

PRIORITY_HEADER = "Datacat-Priority"
"""first on a batch with a session's beginning or end: a server that is behind takes those before others."""
_OTHER_TRUST = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


class Trust(NamedTuple):
    """verify False checks no certificate; ca_file is a PEM file with the only authorities that count."""

    api_key: str = ""
    api_key_file: str = ""
    verify: bool = True
    ca_file: str = ""

    def key(self) -> str:
        """Return the key (of its file the first line), or an empty text. Raises: ConfigError when it is not read."""
        if self.api_key or not self.api_key_file:
            return self.api_key
        try:
            return Path(self.api_key_file).read_text("utf-8").strip().partition("\n")[0].strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError("api_key_file", self.api_key_file, f"a readable file with one key ({error})") from error


def open_session(trust: Trust, *, local: bool) -> "requests.Session":
    """Return a session for one server. Raises: ConfigError when a file of trust cannot be read."""
    import requests

    session = requests.Session()
    # The server looks for the priority before it has read a whole head: it stands first.
    session.headers = requests.structures.CaseInsensitiveDict({PRIORITY_HEADER: "normal", **session.headers})
    session.headers["User-Agent"] = "datacat-daemon"
    if key := trust.key():
        session.headers["Authorization"] = f"Bearer {key}"
    # HTTP_PROXY must not catch a request to this machine; elsewhere proxies and certificates of the user count.
    session.trust_env = not local
    if not trust.verify:
        session.verify = False
    elif trust.ca_file:
        if not Path(trust.ca_file).is_file():
            raise ConfigError("tls_ca_file", trust.ca_file, "a PEM file that can be read")
        session.verify = trust.ca_file
        session.trust_env = False
        session.proxies = {} if local else requests.utils.getproxies()  # type: ignore[attr-defined]  # not in its stubs
    elif local or not any(os.environ.get(name) for name in _OTHER_TRUST):
        session.mount("https://", _adapter())
    return session


def _adapter() -> Any:
    """Return an adapter that trusts what the system trusts; requests alone brings a list of its own."""
    import truststore
    from requests.adapters import HTTPAdapter

    context = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    class SystemTrust(HTTPAdapter):
        def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
            super().init_poolmanager(*args, **{**kwargs, "ssl_context": context})

        def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
            return super().proxy_manager_for(proxy, **{**kwargs, "ssl_context": context})

        def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:  # noqa: ARG002  as it is called
            conn.cert_reqs = "CERT_REQUIRED"

    return SystemTrust()
