"""Requests to one server: batches, what is acknowledged, the daemon's registration and lease. Back-off is pure.

Used by one thread at a time. requests is imported at the first request, so that the daemon listens before that.
"""

import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from datacat.daemon.config import Config, adjusted
from datacat.errors import UplinkError
from datacat.wire import routes
from datacat.wire.layout import Meta

if TYPE_CHECKING:
    import requests

CONNECT_TIMEOUT_S = 2.0
READ_TIMEOUT_S = 10.0
FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 300.0
LONGEST_LOCAL_WAIT_S = 5.0
"""A refused connection to this machine costs nothing, and its server comes back soon."""
DAEMON_HEADER = "Datacat-Daemon"
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class Backoff:
    """When to try again: waits double from 1 s to longest_s, each shortened by up to half at random."""

    def __init__(self, longest_s: float, jitter: Callable[[], float] = random.random) -> None:
        self.failures = 0
        self.next_s = 0.0
        self._longest_s = longest_s
        self._jitter = jitter

    def failed(self, now_s: float, retry_after_s: float | None = None) -> None:
        """Note a failure. What the server asked for is kept to, up to an hour."""
        wait_s = min(self._longest_s, FIRST_WAIT_S * 2 ** min(self.failures, 30))
        wait_s *= 1 - self._jitter() / 2
        self.failures += 1
        self.next_s = now_s + max(wait_s, min(retry_after_s or 0.0, 3600.0))

    def worked(self) -> None:
        """Note a success."""
        self.failures = 0
        self.next_s = 0.0

    def ready(self, now_s: float) -> bool:
        """Whether it is time to try."""
        return now_s >= self.next_s


class Uplink:
    """One server, as a daemon speaks to it.

    boot is the server's random id of its start, empty until it answered; sent_at_s the monotonic time of the last
    batch, which renewed the lease.
    """

    def __init__(
        self, url: str, *, daemon_id: str = "", api_key: str = "", tls_verify: bool = True, compress: bool = True
    ) -> None:
        self.url = url.rstrip("/")
        self.local = is_local(url)
        self.boot = ""
        self.sent_at_s = 0.0
        self.backoff = Backoff(LONGEST_LOCAL_WAIT_S if self.local else LONGEST_WAIT_S)
        self._daemon_id = daemon_id
        self._api_key = api_key
        self._tls_verify = tls_verify
        self._compress = compress
        self._http: requests.Session | None = None

    def post_batch(self, path: str, body: bytes) -> dict[str, Any]:
        """Send a batch; return the answer {acked, boot}. Raises: UplinkError."""
        headers = {"Content-Type": routes.NDJSON}
        if self._compress and body:
            import zstandard

            body = zstandard.ZstdCompressor(level=3).compress(body)
            headers["Content-Encoding"] = "zstd"
        return self._object("POST", path, body, headers)

    def post(self, path: str, members: dict[str, Any]) -> dict[str, Any]:
        """Send JSON; return the JSON object in the answer. Raises: UplinkError."""
        return self._object("POST", path, msgspec.json.encode(members), {"Content-Type": routes.JSON})

    def get(self, path: str) -> dict[str, Any]:
        """Return the JSON object at path. Raises: UplinkError."""
        return self._object("GET", path, None, {})

    def close(self) -> None:
        """Close the connections; idempotent."""
        http, self._http = self._http, None
        if http is not None:
            http.close()

    def _object(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> dict[str, Any]:
        import requests

        if self._http is None:
            self._http = _new_session(self._tls_verify, self.local)
            if self._daemon_id:
                self._http.headers[DAEMON_HEADER] = self._daemon_id
            if self._api_key:
                self._http.headers["Authorization"] = f"Bearer {self._api_key}"
        try:
            answer = self._http.request(
                method,
                self.url + path,
                data=body,
                headers=headers,
                timeout=(CONNECT_TIMEOUT_S, READ_TIMEOUT_S),
                allow_redirects=False,
            )
        except (requests.RequestException, OSError, ValueError) as error:
            raise UplinkError(f"{method} {self.url}: no answer ({type(error).__name__})") from error
        document = _decode(answer.content)
        if answer.status_code // 100 == 2:
            if document is None:
                raise UplinkError(f"{method} {self.url}{path.partition('?')[0]}: not the answer of a datacat server")
            return document
        raise UplinkError(
            f"{method} {self.url}{path.partition('?')[0]}: {answer.status_code}",
            status=answer.status_code,
            retry_after_s=retry_after(answer.headers.get("Retry-After", ""), time.time()),
            body=document,
        )


def uplink_of(config: Config, meta: Meta | None, daemon_id: str) -> Uplink:
    """Return the server of a session, with the settings that the session asks for; of none: the daemon's own."""
    if meta is not None:
        config = adjusted(config, meta.settings)
    return Uplink(
        (meta.server_url if meta is not None else "") or config.server_url,
        daemon_id=daemon_id,
        api_key=config.api_key,
        tls_verify=config.tls_verify,
        compress=config.enable_compression,
    )


def is_local(url: str) -> bool:
    """Whether the server runs on this machine."""
    try:
        return (urlsplit(url).hostname or "") in _LOOPBACK
    except ValueError:
        return False


def retry_after(text: str, now_unix_s: float) -> float | None:
    """Return the seconds that a Retry-After header asks for: a number or an HTTP date (RFC 9110, 10.2.3)."""
    text = text.strip()
    if text.isdigit():
        return float(text)
    if not text:
        return None
    from email.utils import parsedate_to_datetime

    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now_unix_s)
    except (TypeError, ValueError):
        return None


def _new_session(tls_verify: bool, local: bool) -> "requests.Session":
    import requests

    session = requests.Session()
    session.headers["User-Agent"] = "datacat-daemon"
    session.verify = tls_verify
    # HTTP_PROXY must not catch a request to this machine; elsewhere proxies and certificates of the user count.
    session.trust_env = not local
    return session


def _decode(content: bytes) -> dict[str, Any] | None:
    try:
        return msgspec.json.decode(content, type=dict[str, Any]) if content else {}
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
