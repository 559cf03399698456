"""Ask the server: one object that gets JSON, and says in plain words what went wrong."""

import ipaddress
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn, Self, TypeVar
from urllib.parse import urlsplit

import click
import zstandard

from datacat import __version__
from datacat.cli import preferences
from datacat.errors import NotFound, UplinkError, WireError
from datacat.wire import ids, routes

TIMEOUT_S = 15.0
"""A query over the whole store takes at most 2 s of the server's time; the rest is for a slow network."""
_PIECE_BYTES = 64 * 1024
PAGE = 1000
"""The largest page that the server gives."""

Params = Mapping[str, Any]
_Command = TypeVar("_Command", bound=Callable[..., Any])


def server_option(command: _Command) -> _Command:
    """Let --server and the key stand behind the subcommand too; server_of(ctx, server, api_key) takes them."""
    key = click.option("--api-key", metavar="KEY", help="A key of the server; --key-file hides it from other users.")
    return click.option("--server", metavar="URL", help="Where the server is.")(key(preferences.key_options(command)))


def server_url(ctx: click.Context, server: str | None) -> str:
    """Return the server's address without a slash at its end. Raises: click.BadParameter when it is none."""
    url = preferences.target(ctx, server).server
    if "://" not in url:
        url = f"http://{url}"
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise click.BadParameter(f"{url!r} is no address of a server; use http://HOST:PORT", param_hint="--server")
    return url.rstrip("/")


def server_of(ctx: click.Context, server: str | None, api_key: str | None) -> "Server":
    """Return the server that the options, the environment or the default name."""
    target = preferences.target(ctx, server, api_key)
    return Server(server_url(ctx, server), api_key=target.api_key, ca_file=target.ca_file)


def key_of(ctx: click.Context, api_key: str | None) -> str | None:
    """Return the key that the options, the environment or the user's file name."""
    return preferences.target(ctx, None, api_key).api_key or None


class Server:
    """A datacat server. For one thread; close() or `with` lets go of the connection."""

    def __init__(
        self, url: str, *, api_key: str | None = None, ca_file: str = "", timeout_s: float = TIMEOUT_S
    ) -> None:
        import requests  # 100 ms that the help does not need

        self.url = url
        self._requests = requests
        self._timeout_s = timeout_s
        self._verify: str | bool = ca_file or True
        self._http = requests.Session()
        # A proxy of the environment cannot reach our own machine; elsewhere it may be the only way.
        self._http.trust_env = not _is_loopback(urlsplit(url).hostname or "")
        self._http.headers["User-Agent"] = f"datacat/{__version__}"
        if api_key:
            self._http.headers["Authorization"] = f"Bearer {api_key}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connection."""
        self._http.close()

    def get(self, path: str, params: Params | None = None) -> Any:
        """Return the JSON that path answers. Raises: as ask()."""
        return self.ask("GET", path, params=params)

    def ask(self, method: str, path: str, *, params: Params | None = None, body: Any = None) -> Any:
        """Return the JSON that the server answers to a request, whose body is sent as JSON; None for no content.

        Raises: UplinkError with status 0 when nobody answers or it is no datacat server, else with the HTTP status.
        """
        answer = self._send(method, path, params=params, json=body)
        if answer.status_code == 204:
            return None
        try:
            body = answer.json()
        except ValueError as error:
            raise UplinkError(f"what answers at {self.url} is no datacat server: no JSON at {path}") from error
        if not answer.ok:
            raise _refusal(self.url, answer.status_code, body if isinstance(body, dict) else {})
        return body

    def stream(self, path: str, params: Params) -> Iterator[bytes]:
        """Yield the body of an answer while it comes. Raises: UplinkError, also when it is cut off."""
        answer = self._send("GET", path, params=params, stream=True)
        if not answer.ok:
            self._refused(answer)
        try:
            yield from answer.iter_content(_PIECE_BYTES)
        except self._requests.RequestException as error:
            raise UplinkError(
                f"the answer of {self.url} was cut off ({_reason(error)})", hint="try it again"
            ) from error

    def post_lines(self, path: str, body: bytes) -> Any:
        """Send NDJSON; return the JSON of the answer. Raises: UplinkError."""
        packed = zstandard.ZstdCompressor().compress(body)
        headers = {"Content-Type": routes.NDJSON, "Content-Encoding": "zstd"}
        answer = self._send("POST", path, data=packed, headers=headers)
        if not answer.ok:
            self._refused(answer)
        return answer.json()

    def _refused(self, answer: Any) -> NoReturn:
        try:
            body = answer.json()
        except ValueError:
            body = {}
        raise _refusal(self.url, answer.status_code, body if isinstance(body, dict) else {})

    def _send(self, method: str, path: str, **more: Any) -> Any:
        try:
            return self._http.request(method, self.url + path, timeout=self._timeout_s, verify=self._verify, **more)
        except self._requests.exceptions.SSLError as error:
            raise UplinkError(
                f"the certificate of {self.url} is not trusted ({_reason(error)})",
                hint="name the authority that it is from with --ca-file or DATACAT_CA_FILE",
            ) from error
        except self._requests.RequestException as error:
            raise UplinkError(
                f"no datacat server answers at {self.url} ({_reason(error)})",
                hint="start one with datacat-server, or name another with --server or DATACAT_SERVER_URL",
            ) from error
        except OSError as error:  # of requests too, when it does not find the file
            raise UplinkError(
                f"cannot use {self._verify} as the authority of certificates", hint="name another --ca-file"
            ) from error

    def sessions(self, params: Params, limit: int) -> Iterator[dict[str, Any]]:
        """Yield the heads that match, in the server's order, at most limit of them, page by page."""
        cursor: str | None = None
        while limit > 0:
            page = self.get(
                routes.SESSIONS, {**params, "limit": min(limit, PAGE), **({"cursor": cursor} if cursor else {})}
            )
            yield from page["sessions"]
            limit -= len(page["sessions"])
            cursor = page.get("next_cursor")
            if not cursor or not page["sessions"]:
                return

    def session(self, session_id: str, params: Params | None = None) -> dict[str, Any]:
        """Return the whole session object. Raises: NotFound, UplinkError."""
        try:
            found: dict[str, Any] = self.get(routes.session_path(session_id), params)
        except UplinkError as error:
            if error.status in (404, 410):
                raise NotFound(session_id) from error
            raise
        return found

    def resolve(self, text: str) -> str:
        """Return the id of the one session whose id begins with text.

        Raises: click.UsageError when it is no beginning of an id or of several sessions; NotFound.
        """
        prefix = text.strip().lower()
        try:
            return ids.session_id(prefix)
        except WireError:
            pass
        if not prefix or set(prefix) - set("0123456789abcdef-"):
            raise click.UsageError(f"{text!r} is not the beginning of a session's id; datacat sessions lists them")
        found = [head["id"] for head in self.sessions({"q": prefix}, _MANY) if head["id"].startswith(prefix)]
        if not found:
            raise NotFound(text)
        if len(found) > 1:
            some = "".join(f"\n  {session_id}" for session_id in found[:_SHOWN])
            more = f"\n  and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
            raise click.UsageError(f"{text} is the beginning of {len(found)} ids; give more of it:{some}{more}")
        return str(found[0])


_MANY = 10_000
"""How many sessions a prefix is looked for in; more than that is no prefix that somebody typed."""
_SHOWN = 5


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _reason(error: Exception) -> str:
    """Return the innermost reason of a chain that urllib3 and requests wrapped several times."""
    text = type(error).__name__
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.strerror:
            text = seen.strerror
        inner = getattr(seen, "reason", None)
        seen = inner if isinstance(inner, BaseException) else seen.__cause__ or seen.__context__
    return text.lower() if text[:1].isupper() and " " in text else text


def _refusal(url: str, status: int, problem: Mapping[str, Any]) -> UplinkError:
    detail = problem.get("detail") or problem.get("title") or f"HTTP {status}"
    fields = "".join(f"; {item.get('pointer', '')}: {item.get('detail', '')}" for item in problem.get("errors", ()))
    hint = "give a key with --key-file, --api-key or DATACAT_API_KEY" if status in (401, 403) else ""
    return UplinkError(f"the server at {url} refused: {detail}{fields}", status=status, body=dict(problem), hint=hint)
