"""Messages to webhooks: generic JSON, Slack's (which many chats take), ntfy; and what came back.

Sources: api.slack.com/messaging/webhooks (text, mrkdwn escapes), docs.ntfy.sh/publish (headers Title, Priority, Tags;
RFC 2047 for what is no ASCII).
"""

import errno
import socket
from base64 import b64encode
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from datacat import __version__
from datacat.server.alerts import Message
from datacat.server.rules import Webhook

TIMEOUT_S = 10.0
_SAID_BYTES = 300
_NO_WAY_OUT = frozenset({errno.ENETUNREACH, errno.EAFNOSUPPORT, errno.EPERM, errno.EACCES, errno.ENETDOWN})
_NTFY_TAGS = {"firing": "rotating_light", "resolved": "white_check_mark", "test": "test_tube"}
_NTFY_PRIORITIES = {"firing": "high", "resolved": "default", "test": "low"}


class Sent(NamedTuple):
    """What came of sending: ok, in words, whether and when trying again can help."""

    ok: bool
    said: str
    retry: bool = False
    retry_after_s: float | None = None


def request_of(webhook: Webhook, message: Message) -> tuple[bytes, dict[str, str]]:
    """Return body and headers of the request that tells a webhook of a message."""
    headers = {"Content-Type": "application/json", "User-Agent": f"datacat-server/{__version__}"}
    body: Any
    match webhook.format:
        case "json":
            body = msgspec.json.encode(message)
        case "slack":
            title, text = (_slack(part) for part in (message.title, message.text))
            body = msgspec.json.encode({"text": f"*[{message.status}] {title}*\n{text}"})
        case "ntfy":
            body = message.text.encode()
            headers["Content-Type"] = "text/plain; charset=utf-8"
            headers["Title"] = _header(f"[{message.status}] {message.title}")
            headers["Priority"] = _NTFY_PRIORITIES.get(message.status, "default")
            headers["Tags"] = _NTFY_TAGS.get(message.status, "")
    return body, {**headers, **webhook.headers}


def send(webhook: Webhook, message: Message, timeout_s: float = TIMEOUT_S) -> Sent:
    """Send a message and return what came of it; never raises. Redirects are not followed."""
    import requests  # 100 ms of start that a server without alerts does not need

    body, headers = request_of(webhook, message)
    try:
        with requests.Session() as http:
            # A key of ~/.netrc must not go to a webhook instead of the configured one.
            http.auth = lambda request: request
            with http.post(
                webhook.url, data=body, headers=headers, timeout=timeout_s, allow_redirects=False, stream=True
            ) as answer:
                said = answer.raw.read(_SAID_BYTES, decode_content=True).decode("utf-8", "replace").strip()
                return outcome(answer.status_code, said, answer.headers)
    except (OSError, ValueError) as error:  # of requests too
        return Sent(False, reason(error), retry=True)


def outcome(status: int, said: str, headers: Mapping[str, str]) -> Sent:
    """Return what an HTTP answer means."""
    words = f"HTTP {status}" + (f": {' '.join(said.split())}" if said else "")
    if 200 <= status < 300:
        return Sent(True, words)
    after = headers.get("Retry-After", "")
    retry_after_s = float(after) if after.isascii() and after.isdigit() else None
    return Sent(False, words, status >= 500 or status in (408, 425, 429), retry_after_s)


def reason(error: BaseException) -> str:
    """Return why nobody was reached, in words that name no address: that may be a secret."""
    seen: BaseException | None = error
    text = type(error).__name__
    for _ in range(10):
        if isinstance(seen, socket.gaierror):
            return f"its name cannot be looked up ({seen.strerror}); under the sealed unit no name can"
        if isinstance(seen, OSError) and seen.errno in _NO_WAY_OUT:
            return f"no way out ({seen.strerror}); the sealed unit allows no outgoing traffic"
        if isinstance(seen, OSError) and seen.strerror:
            text = seen.strerror
        elif isinstance(seen, TimeoutError):
            text = "no answer in time"
        if seen is None:
            break
        inner = getattr(seen, "reason", None)
        if not isinstance(inner, BaseException):
            inner = next((part for part in seen.args if isinstance(part, BaseException)), None)
        seen = inner or seen.__cause__ or seen.__context__
    return text


def _slack(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _header(text: str) -> str:
    line = " ".join(text.split())[:250]
    return line if line.isascii() else f"=?UTF-8?B?{b64encode(line.encode()).decode()}?="
