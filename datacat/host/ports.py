"""Who listens on a port of this machine; not for the client, because it needs psutil."""

from typing import NamedTuple

import psutil


class Listener(NamedTuple):
    """A process that listens; pid 0 and an empty name when this user may not see whose it is."""

    pid: int
    name: str


def listener_of(port: int) -> Listener | None:
    """Return who listens on a TCP port of this machine; None when nobody does, or when that cannot be seen at all."""
    try:
        connections = psutil.net_connections("tcp")
    except (psutil.Error, OSError):
        return None
    for connection in connections:
        if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port:
            try:
                return Listener(connection.pid or 0, psutil.Process(connection.pid).name() if connection.pid else "")
            except psutil.Error:
                return Listener(connection.pid or 0, "")
    return None
