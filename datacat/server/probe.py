"""Ask the server itself whether it answers."""

import http.client
import socket

from datacat.server import tls


def ask(sock: socket.socket, timeout_s: float, *, secure: bool = False) -> int:
    """Return the status of an answer to a request on sock, which is closed; secure: over TLS. Raises: OSError."""
    asking = http.client.HTTPConnection("watchdog", timeout=timeout_s)
    try:
        sock.settimeout(timeout_s)
        sock = asking.sock = tls.to_ourselves(sock) if secure else sock
        asking.request("GET", "/livez", headers={"Connection": "close"})
        answer = asking.getresponse()
        answer.read()
    except http.client.HTTPException as error:
        raise OSError(f"a request was not answered: {type(error).__name__}") from error
    finally:
        asking.close()
        sock.close()
    return answer.status


def own_address(sock: socket.socket) -> tuple[str, int]:
    """Return where this process reaches itself."""
    name, port = sock.getsockname()[:2]
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(name, name), port  # noqa: S104  compared, not listened on
