"""The listening socket: bound here, given by a .socket unit, or kept by systemd since the last run.

Sources: sd_listen_fds(3), sd_notify(3) (FDSTORE, FDSTOREREMOVE), systemd.socket(5) (FileDescriptorName).
"""

import contextlib
import errno
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from datacat import host
from datacat.errors import HostError

_log = logging.getLogger(__name__)

KEPT_NAME = "http"
"""FDNAME of the socket that systemd keeps for us. A .socket unit must use another name (its default is the unit's)."""
BACKLOG = 1024
"""Connections that wait in the kernel; they also wait there while the service restarts."""
FIRST_FD = 3
"""SD_LISTEN_FDS_START."""
VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
"""A process removes them when it has read them, so that no child takes the descriptors for its own."""
RELEASE_S = 2.0
"""How long systemd may take to let go of a socket that it kept and was told to drop."""
_SO_NETNS_COOKIE = 71
"""socket(7) of Linux 5.14: a number of the network that a socket belongs to; Python has no name for it."""

Tell = Callable[[str, Sequence[int]], None]
"""Tell the service manager a text, with descriptors."""


class Given(NamedTuple):
    """A socket that the service manager has handed over."""

    name: str
    sock: socket.socket


def given_sockets(environ: Mapping[str, str], pid: int, first_fd: int = FIRST_FD) -> list[Given]:
    """Return the sockets that the environment says are for this process.

    What is no listening TCP socket is closed, with a warning.
    """
    count = environ.get("LISTEN_FDS", "")
    if environ.get("LISTEN_PID") != str(pid) or not count.isdigit():
        return []
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    found = []
    for index in range(int(count)):
        name = names[index] if index < len(names) else "unknown"
        fd = first_fd + index
        try:
            os.set_inheritable(fd, False)
            sock = socket.socket(fileno=fd)
        except OSError as error:
            _log.warning("the service manager gave descriptor %d (%s), which is no socket: %s", fd, name, error)
            with contextlib.suppress(OSError):
                os.close(fd)
            continue
        if _is_listener(sock):
            found.append(Given(name, sock))
        else:
            _log.warning("the service manager gave a socket (%s) that does not listen for TCP connections", name)
            sock.close()
    return found


def listener(where: str, port: int, given: Sequence[Given], tell: Tell) -> socket.socket:
    """Return the socket to serve: one of a .socket unit, else the kept one if it fits the settings, else a new one.

    A new one is given to the service manager to keep, so that the next start takes it back and no connection is
    refused meanwhile. Sockets that are not used are closed. Raises: HostError.
    """
    chosen = next((one for one in given if one.name != KEPT_NAME), None)
    kept = next((one for one in given if one.name == KEPT_NAME), None)
    if chosen is None and kept is not None and _fits(kept.sock, where, port):
        chosen = kept
    for one in given:
        if one is not chosen:
            one.sock.close()
    if kept is not None and chosen is not kept:
        tell(f"FDSTOREREMOVE=1\nFDNAME={KEPT_NAME}", ())
    if chosen is not None:
        _log.info("taking over the socket %s on %s", chosen.name, chosen.sock.getsockname()[:2])
        # One of a .socket unit has that unit's Backlog=; listening again only changes the length.
        chosen.sock.listen(BACKLOG)
        return chosen.sock
    sock = bind(where, port, RELEASE_S if kept is not None else 0.0)
    tell(f"FDSTORE=1\nFDNAME={KEPT_NAME}", (sock.fileno(),))
    return sock


def bind(where: str, port: int, patience_s: float = 0.0) -> socket.socket:
    """Return a listening socket; try for patience_s while the address is in use.

    Raises: HostError that names the address and what to do; permanent when waiting does not help.
    """
    deadline = time.monotonic() + patience_s
    pause = threading.Event()
    while True:
        sock = None
        try:
            family, kind, protocol, _, address = _resolve(where, port)[0]
            sock = socket.socket(family, kind, protocol)
            # Elsewhere it lets a restart take the port at once; on Windows it would let two servers share it.
            option = getattr(socket, "SO_EXCLUSIVEADDRUSE", socket.SO_REUSEADDR)
            sock.setsockopt(socket.SOL_SOCKET, option, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if family == socket.AF_INET6 and where == "::":
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            sock.bind(address)
            sock.listen(BACKLOG)
        except OSError as error:
            if sock is not None:
                sock.close()
            if error.errno == errno.EADDRINUSE and time.monotonic() < deadline:
                pause.wait(0.02)
                continue
            raise _refusal(where, port, error) from error
        return sock


def is_reachable(sock: socket.socket) -> bool:
    """Return whether this process can connect to sock; not when it lives in a network of its own (PrivateNetwork)."""
    try:
        with socket.socket(sock.family, socket.SOCK_STREAM) as own:
            cookies = [one.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8) for one in (own, sock)]
    except OSError as error:
        # No such address family: the unit forbids it. No such option: another system, or an older kernel.
        return error.errno not in (errno.EAFNOSUPPORT, errno.EPERM)
    return cookies[0] == cookies[1]


def _resolve(where: str, port: int) -> list[tuple[int, int, int, str, tuple[object, ...]]]:
    found = socket.getaddrinfo(where.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return [(int(family), int(kind), protocol, name, address) for family, kind, protocol, name, address in found]


def _refusal(where: str, port: int, error: OSError) -> HostError:
    hints = {
        errno.EADDRINUSE: "stop what listens there, or use another --port",
        errno.EACCES: "use a --port above 1023, or give the service the right to use this one",
        errno.EADDRNOTAVAIL: "use an address of this machine for --host",
    }
    hint = hints.get(error.errno or 0, "use another --host")
    permanent = host.needs_a_person(error) or error.errno == errno.EADDRINUSE
    return HostError(f"cannot listen on {where}:{port}: {error.strerror}", hint=hint, permanent=permanent)


def _is_listener(sock: socket.socket) -> bool:
    if sock.family not in (socket.AF_INET, socket.AF_INET6) or sock.type != socket.SOCK_STREAM:
        return False
    return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def _fits(sock: socket.socket, where: str, port: int) -> bool:
    """Whether sock listens where the settings say; port 0 takes any."""
    address = sock.getsockname()
    try:
        wanted = [(family, name[0]) for family, _, _, _, name in _resolve(where, port)[:1]]
    except OSError:
        return False
    return (sock.family, address[0]) in wanted and port in (0, address[1])
