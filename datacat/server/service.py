"""Composition root of the server: store, socket, applications, jobs, bus, in that order.

Whatever may fail is opened by build(), before anything runs.
"""

import contextlib
import logging
import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cherrypy.process import wspbus
from cherrypy.process.servers import ServerAdapter

from datacat import host
from datacat.errors import Busy, HostError
from datacat.server import httpd, ingest, plugins, router
from datacat.server.api import Api
from datacat.server.config import Config, is_loopback
from datacat.server.gate import Rights, gate
from datacat.server.health import Health
from datacat.server.jobs import Job, jobs
from datacat.server.leases import Leases
from datacat.server.own import OwnStream, now_us
from datacat.server.pages import Pages
from datacat.store import Store, open_store
from datacat.worker import Worker

_log = logging.getLogger(__name__)

_BOOT_BYTES = 8


class Service:
    """One server: built, started and stopped once. start() and stop() belong to the thread that built it.

    Several may run in one process; each has its own bus, store and threads.
    """

    def __init__(
        self, config: Config, store: Store, sock: socket.socket, environ: Mapping[str, str], rights: Rights | None
    ) -> None:
        self.config = config
        self.store = store
        self.boot = secrets.token_hex(_BOOT_BYTES)
        self._draining = False
        self._socket = sock
        self._address = sock.getsockname()[:2]
        self.own = OwnStream(store, self.boot)
        self.leases = Leases()
        self.site = site(config, self.own, self.leases, lambda: self._draining, rights)
        limits = httpd.Limits(config.threads, config.max_connections)
        self._http = httpd.Server(sock, self.site, limits)
        self._workers = [_worker(job) for job in jobs(self.own, self.leases, config, now_us())]
        self._manager = plugins.ServiceManager(environ, self._workers, store, self._self_address, time.monotonic)
        self._bus: Any = wspbus.Bus()
        self._subscribe()

    @property
    def url(self) -> str:
        """Where the server listens, with the real port."""
        name, port = self._address
        return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"

    @property
    def port(self) -> int:
        """The real port."""
        return int(self._address[1])

    @property
    def running(self) -> bool:
        """Whether the bus runs; it stops by itself when the HTTP server fails."""
        return bool(self._bus.state in (wspbus.states.STARTING, wspbus.states.STARTED))

    def start(self) -> None:
        """Start jobs and HTTP, then tell the service manager."""
        self._bus.start()

    def stop(self) -> None:
        """Stop everything in reverse order, close the store; idempotent."""
        self._draining = True
        if self._bus.state != wspbus.states.EXITING:
            self._bus.exit()
        self.close()

    def close(self) -> None:
        """Let go of what build() opened; idempotent."""
        with contextlib.suppress(OSError):
            self._socket.close()
        self._manager.close()
        self.store.close()

    def _self_address(self) -> tuple[str, int]:
        """Return where this process reaches itself."""
        name, port = self._address
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(name, name), port  # noqa: S104  compared, not listened on

    def _subscribe(self) -> None:
        bus = self._bus
        bus.subscribe("log", _log_bus)
        adapter = ServerAdapter(bus, self._http, None)
        plugins.own(bus, "HTTP", (plugins.START_HTTP, adapter.start), (plugins.STOP_HTTP, adapter.stop))
        for worker in self._workers:
            plugins.own(bus, worker.name, (plugins.START_WORKERS, worker.start), (plugins.STOP_WORKERS, worker.stop))
        plugins.own(
            bus,
            "the service manager",
            (plugins.START_ANNOUNCE, self._manager.ready),
            (plugins.STOP_ANNOUNCE, self._manager.stopping),
        )
        plugins.own(bus, "the store", stop=(plugins.STOP_STORE, self.store.close))


def build(config: Config, environ: Mapping[str, str] | None = None, *, rights: Rights | None = None) -> Service:
    """Open the store and the socket and put the service together; starts nothing.

    environ is what the service manager told (default: the process's). rights: who may do what, default: without keys.
    Raises: ConfigError, HostError (the port), Busy and StoreError (the store).
    """
    environ = os.environ if environ is None else environ
    sock = httpd.bind(config.host, config.port)
    try:
        if not config.insecure and not is_loopback(sock.getsockname()[0]):
            raise HostError(f"{config.host} is not an address of this machine alone", hint="use 127.0.0.1")
        store = _open(config.store or f"semidbm:{_store_dir(config, environ)}")
    except BaseException:
        sock.close()
        raise
    try:
        return Service(config, store, sock, environ, rights)
    except BaseException:
        sock.close()
        store.close()
        raise


def run(config: Config, environ: Mapping[str, str] | None = None) -> bool:
    """Serve until SIGTERM or SIGINT; True when it stopped because it was asked to. Raises: as build()."""
    service = build(config, environ)
    asked = threading.Event()
    names = ("SIGTERM", "SIGINT", "SIGBREAK")
    before = {
        number: signal.signal(number, lambda *_: asked.set())
        for name in names
        if (number := getattr(signal, name, None)) is not None
    }
    try:
        service.start()
        if service.running:
            _announce(service, config)
        # A wait without end would keep Windows from delivering Ctrl-C.
        while service.running and not asked.wait(1.0):
            pass
        return asked.is_set()
    finally:
        service.stop()
        for number, handler in before.items():
            signal.signal(number, handler)


def _announce(service: Service, config: Config) -> None:
    _log.info("serving on %s", service.url)
    sys.stdout.write(f"datacat-server: serving on {service.url}\n")
    sys.stdout.flush()
    if config.port_file:
        path = Path(config.port_file)
        part = path.with_name(path.name + ".part")
        try:
            part.write_text(f"{service.port}\n", encoding="ascii")
            part.replace(path)
        except OSError as error:
            raise HostError(
                f"cannot write the port to {path}: {error.strerror}", hint="use another --port-file"
            ) from error


def site(config: Config, own: OwnStream, leases: Leases, is_draining: Any, rights: Rights | None) -> Any:
    """Return the WSGI callable for everything: batches go to the hot path, all else through CherryPy."""
    doors = gate(config, rights)
    table = [
        *Api(own, leases, config.lease_s).routes(),
        *Health(own.store, is_draining).routes(),
        *Pages(own.store).routes(),
    ]
    app = router.application(router.Router(table, doors))
    batches = ingest.Ingest(own, leases, doors)

    def serve(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        chosen = batches if ingest.PATH.fullmatch(environ["PATH_INFO"]) else app
        answered: Iterable[bytes] = chosen(environ, start_response)
        return answered

    return serve


def _open(url: str) -> Store:
    try:
        return open_store(url)
    except Busy as error:
        holder = f"pid {error.holder}" if error.holder else "another process"
        raise Busy(
            f"the store {url} is in use by {holder}", holder=error.holder, hint="stop it, or use another --data-dir"
        ) from error


def _store_dir(config: Config, environ: Mapping[str, str]) -> Path:
    folder = Path(config.data_dir).expanduser() if config.data_dir else host.data_dir(environ)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise HostError(
            f"cannot make the data folder {folder}: {error.strerror}", hint="use another --data-dir"
        ) from error
    return folder / "store"


def _worker(job: Job) -> Worker:
    return Worker(job.name, job.interval_s, lambda: job.step(now_us()))


def _log_bus(message: str, level: int = logging.INFO) -> None:
    # The bus tells about itself at level 20; for us that is detail.
    _log.log(level if level > logging.INFO else logging.DEBUG, "%s", message)
