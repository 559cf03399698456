"""Requests to one server: batches, what is acknowledged, the daemon's registration and lease.

Used by one thread at a time. requests is imported at the first request, so that the daemon listens before that.
"""

import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from datacat import host
from datacat.daemon.backoff import LONGEST_LOCAL_WAIT_S, LONGEST_WAIT_S, Backoff
from datacat.daemon.config import Config, adjusted
from datacat.daemon.transport import PRIORITY_HEADER, Trust, open_session
from datacat.errors import ConfigError, UplinkError
from datacat.wire import routes
from datacat.wire.layout import Meta

if TYPE_CHECKING:
    import requests

CONNECT_TIMEOUT_S = 2.0
READ_TIMEOUT_S = 10.0
DAEMON_HEADER = "Datacat-Daemon"
SENT_HEADER = "Datacat-Sent-At"
"""Unix seconds of our clock: the server measures how wrong it is."""
ASLEEP_HEADER = "Datacat-Asleep"
"""Seconds that the machine has slept since its boot: after a silence the server can tell why."""
REFUSED = frozenset({401, 403})
"""The server does not let us write; a person has to change that."""
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class Uplink:
    """One server, as a daemon speaks to it.

    boot is the server's random id of its start, empty until it answered; batches counts those that it took, sent_at_s
    is the monotonic time of the last pass with one: a batch renews the lease. trouble says why the newest request was
    not taken; empty when it was.
    """

    def __init__(self, url: str, *, daemon_id: str = "", trust: Trust = Trust(), compress: bool = True) -> None:  # noqa: B008  immutable
        self.url = url.rstrip("/")
        self.local = is_local(url)
        self.boot = ""
        self.sent_at_s = 0.0
        self.batches = 0
        self.backoff = Backoff(LONGEST_LOCAL_WAIT_S if self.local else LONGEST_WAIT_S)
        self.trouble = ""
        self._daemon_id = daemon_id
        self._trust = trust
        self._compress = compress
        self._http: requests.Session | None = None

    def post_batch(self, path: str, body: bytes, *, urgent: bool = False) -> dict[str, Any]:
        """Send a batch; return the answer {acked, boot}. Raises: UplinkError."""
        headers = {
            "Content-Type": routes.NDJSON,
            SENT_HEADER: f"{time.time():.3f}",
            ASLEEP_HEADER: f"{host.asleep_s():.1f}",
        }
        if urgent:
            headers[PRIORITY_HEADER] = "first"
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
        try:
            answer = self._request(method, path, body, headers)
        except UplinkError as error:
            # What a session does wrong (404, 409, 410, 422) is no trouble with the server.
            if error.status in REFUSED or not error.permanent:
                self.trouble = str(error)
            if error.status in REFUSED:
                self.close()  # the next try reads the key anew
            raise
        self.trouble = ""
        return answer

    def _request(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> dict[str, Any]:
        import requests

        if self._http is None:
            try:
                self._http = open_session(self._trust, local=self.local)
            except ConfigError as error:
                raise UplinkError(f"{method} {self.url}: {error.message}", hint=error.hint) from error
            if self._daemon_id:
                self._http.headers[DAEMON_HEADER] = self._daemon_id
        try:
            answer = self._http.request(
                method,
                self.url + path,
                data=body,
                headers=headers,
                timeout=(CONNECT_TIMEOUT_S, READ_TIMEOUT_S),
                allow_redirects=False,
            )
        except requests.exceptions.SSLError as error:
            raise UplinkError(
                f"{method} {self.url}: no trusted connection ({_ssl_reason(error)})",
                hint="name the authority of its certificate with tls_ca_file, if it is one of your own",
            ) from error
        except (requests.RequestException, OSError, ValueError) as error:
            raise UplinkError(f"{method} {self.url}: no answer ({type(error).__name__})") from error
        document = _decode(answer.content)
        if answer.status_code // 100 == 2:
            if document is None:
                raise UplinkError(f"{method} {self.url}{path.partition('?')[0]}: not the answer of a datacat server")
            return document
        why = ""
        if answer.status_code in REFUSED:
            why = "the server wants a key" if answer.status_code == 401 else "the key of this daemon may not write"
        raise UplinkError(
            f"{method} {self.url}{path.partition('?')[0]}: {answer.status_code}{why and f', {why}'}",
            hint="set api_key_file or DATACAT_API_KEY to an ingest key; what was recorded is kept" if why else "",
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
        trust=Trust(config.api_key, config.api_key_file, config.tls_verify, config.tls_ca_file),
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


def _ssl_reason(error: BaseException) -> str:
    """Return what OpenSSL said, out of what urllib3 and requests wrapped around it."""
    text = str(error)
    _, found, rest = text.rpartition("] ")
    return (rest if found else text).partition(" (_ssl")[0][:200]


def _decode(content: bytes) -> dict[str, Any] | None:
    try:
        return msgspec.json.decode(content, type=dict[str, Any]) if content else {}
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
