"""Composition root of the server: store, socket, applications, jobs, bus, in that order.

Whatever may fail is opened by build(), before anything runs.
"""

import contextlib
import logging
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from cherrypy.process import wspbus
from cherrypy.process.servers import ServerAdapter

from datacat import host
from datacat.errors import Busy, ConfigError, HostError
from datacat.host.usage import usage
from datacat.server import backups, faults, httpd, ingest, listen, plugins, router, watchdog
from datacat.server.access import Access
from datacat.server.alerting import INTERVAL_S, Alerts
from datacat.server.api import Api
from datacat.server.audit import Audit
from datacat.server.backups import Backups
from datacat.server.batch_loop import BatchLoop
from datacat.server.batches import Batches
from datacat.server.config import Config, Live, is_loopback
from datacat.server.exports import Exports
from datacat.server.exposition import Exposition
from datacat.server.gate import HEADERS, Gate, gate
from datacat.server.health import Health
from datacat.server.jobs import Job, jobs
from datacat.server.keyapi import KeyApi
from datacat.server.keys import KeyFile, Ring
from datacat.server.leases import Leases
from datacat.server.notify import Notifier, Rate, how_it_goes
from datacat.server.openapi import described_too
from datacat.server.own import OwnStream, now_us
from datacat.server.pressure import Pressure
from datacat.server.pulse import STEP_S, Pulse, disk_of, own_usage
from datacat.server.query.ground import Ground
from datacat.server.query.serve import query_routes
from datacat.server.rates import Rates
from datacat.server.signin import SignIns
from datacat.server.tls import Tls
from datacat.server.ui.operation import Run, Upkeep
from datacat.server.ui.site import Site
from datacat.store import Ages, Store, open_store
from datacat.store.timed import Timed
from datacat.worker import Worker

_log = logging.getLogger(__name__)

_BOOT_BYTES = 8
STATUS_INTERVAL_S = 30.0
"""How often the service manager is told how it goes, if that has changed."""


class Service:
    """One server: built, started and stopped once. start() and stop() belong to the thread that built it.

    Several may run in one process; each has its own bus, store and threads.
    """

    def __init__(
        self,
        config: Config,
        store: Store,
        sock: socket.socket,
        notifier: Notifier,
        environ: Mapping[str, str],
        ring: Ring,
        secure: Tls | None,
        folder: Path | None,
        root: Path | None,
        ends_in_s: float,
    ) -> None:
        """Put it together. folder is that of keys and audit log, root that of the store, None when it has none."""
        self.live = Live(config)
        self.pulse = Pulse(
            store,
            now_us,
            own_usage(usage, os.getpid()),
            lambda: self.leases.connected(now_us(), self.live.now.lease_s),
            lambda: disk_of(root) if root else None,
        )
        self.store = store = Timed(store, self.pulse.timings)
        self.boot = secrets.token_hex(_BOOT_BYTES)
        self._draining = False
        self._socket = sock
        self._address = sock.getsockname()[:2]
        self.own = OwnStream(store, self.boot)
        self.leases = Leases()
        self._ring = ring
        self._audit = Audit(folder, now_us)
        doors = gate(self.live, ring, Rates(), now_us, SignIns(folder, now_us))
        alerts = Alerts(
            Ground(store, config.public_url), self.live, self._audit, folder, is_sealed=not listen.is_reachable(sock)
        )
        access = Access(lambda: self.live.now.request_log)
        pressure = Pressure(config.threads)
        batches = ingest.Ingest(self.own, self.leases, doors, pressure)
        inner = site(
            self.live,
            self.own,
            self.leases,
            lambda: self._draining,
            doors,
            self._audit,
            self.pulse,
            alerts,
            batches,
            upkeep=self._upkeep,
        )
        self.site = access.around(faults.arm(environ, inner))
        limits = httpd.Limits(config.threads, config.max_connections)
        self._tls = secure
        hot = Batches(batches, self.pulse, access)
        self._http = httpd.Server(
            sock,
            self.site,
            limits,
            secure,
            lambda http: BatchLoop(http, hot, store),
            access.refused,
            pressure.is_behind,
        )
        table = jobs(self.own, self.leases, self.live, now_us(), self.pulse.deleted)
        table.append(Job("pulse", STEP_S, self.pulse.sample))
        table.append(Job("alerts", INTERVAL_S, alerts.step))
        self._backups = Backups(root, folder, self.live, time.monotonic)
        table.append(Job("backup", backups.INTERVAL_S, self._backups.step))
        self._workers = [_worker(job, self.pulse) for job in table]
        self._notifier = notifier
        self._rate = Rate(time.monotonic)
        self._status = Worker("status", STATUS_INTERVAL_S, self._tell_status)
        manager_s = watchdog.limit_s(environ, os.getpid())
        limit_s = manager_s or (watchdog.SELF_LIMIT_S if config.self_watchdog else 0.0)
        self._watchdog = watchdog.Watchdog(
            watchdog.SelfCheck(self._http, store, self._workers, time.monotonic, limit_s),
            notifier,
            limit_s if notifier.heard or config.self_watchdog else 0.0,
            kills_itself=config.self_watchdog,
            ends_in_s=ends_in_s,
        )
        self._bus: Any = wspbus.Bus()
        self._subscribe()

    @property
    def url(self) -> str:
        """Where the server listens, with the real port."""
        name, port = self._address
        scheme = "https" if self._tls else "http"
        return f"{scheme}://[{name}]:{port}" if ":" in name else f"{scheme}://{name}:{port}"

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
        self.store.close()
        self._watchdog.close()
        self._notifier.close()

    def reload(self, read: Callable[[], Config]) -> None:
        """Read the settings again and take those that can change; a malformed one changes nothing and is logged."""
        self._notifier.reloading()
        try:
            self._ring.reload()
            if self._tls:
                self._tls.reload()
            changed, waiting = self.live.reload(read())
        except ConfigError as error:
            _log.error("the settings stay as they are: %s", error)
        else:
            self._http.limits = self._http.limits._replace(max_connections=self.live.now.max_connections)
            for name in changed:
                _log.info("%s is %s now", name, getattr(self.live.now, name))
            if waiting:
                _log.warning("a change of %s needs a restart", ", ".join(waiting))
            if not changed and not waiting:
                _log.info("the settings were read again; nothing has changed")
        self._notifier.ready(self._how())

    def _upkeep(self) -> Upkeep:
        now_s = time.monotonic()
        runs = [Run(one.name, one.interval_s, now_s - one.last_ended, one.failures) for one in self._workers]
        return Upkeep(runs, self._watchdog.limit_s, self._watchdog.is_good)

    def _announce(self) -> None:
        self._notifier.ready(self._how())
        self._watchdog.start()
        if self._notifier.heard:
            self._status.start()

    def _leave(self) -> None:
        self._notifier.stopping("finishing what has come, then closing the store")
        self._status.stop()
        self._watchdog.stop()

    def _tell_status(self) -> None:
        self._notifier.status(self._how())

    def _how(self) -> str:
        stats = self.store.stats()
        return how_it_goes(stats, self._rate.of(stats.get("records", 0)))

    def _subscribe(self) -> None:
        bus = self._bus
        bus.subscribe("log", _log_bus)
        adapter = ServerAdapter(bus, self._http, None)
        plugins.own(bus, "HTTP", (plugins.START_HTTP, adapter.start), (plugins.STOP_HTTP, adapter.stop))
        for worker in self._workers:
            plugins.own(bus, worker.name, (plugins.START_WORKERS, worker.start), (plugins.STOP_WORKERS, worker.stop))
        announce = (plugins.START_ANNOUNCE, self._announce)
        plugins.own(bus, "the service manager", announce, (plugins.STOP_ANNOUNCE, self._leave))
        plugins.own(bus, "the backup", stop=(plugins.STOP_STORE, self._backups.close))
        plugins.own(bus, "the store", stop=(plugins.STOP_STORE, self.store.close))


def build(
    config: Config,
    environ: Mapping[str, str] | None = None,
    *,
    ends_in_s: float = 0.0,
) -> Service:
    """Open the store and the socket and put the service together; starts nothing.

    environ is what the service manager told (default: the process's). ends_in_s: the process is ended when a stop takes
    longer; 0: never.
    Raises: ConfigError, HostError (the port, the keys, the certificate), Busy and StoreError (the store).
    """
    environ = os.environ if environ is None else environ
    notifier = Notifier(environ)
    with contextlib.ExitStack() as opened:
        opened.callback(notifier.close)
        folder = _data_folder(config, environ)
        ring = Ring(KeyFile(folder) if folder else None)
        _check_reach(config, config.host, ring)
        secure = Tls(config.tls_cert, config.tls_key) if config.tls_cert else None
        given = listen.given_sockets(environ, os.getpid())
        sock = opened.enter_context(listen.listener(config.host, config.port, given, notifier.tell))
        _check_reach(config, sock.getsockname()[0], ring)
        if folder is not None:
            _make(folder)
        url = config.store or f"semidbm:{folder}{os.sep}store"
        notifier.status(f"opening the store {url}")
        ages = Ages(config.rollup_minutes_days, config.rollup_hours_days, config.rollup_days)
        store = _open(url, ages, config.sync_interval_ms / 1000)
        opened.callback(store.close)
        root = None if url == "memory:" else Path(url.removeprefix("semidbm:"))
        service = Service(config, store, sock, notifier, environ, ring, secure, folder, root, ends_in_s)
        opened.pop_all()
        return service


def site(
    live: Live,
    own: OwnStream,
    leases: Leases,
    is_draining: Any,
    doors: Gate,
    audit: Audit,
    pulse: Pulse | None = None,
    alerts: Alerts | None = None,
    batches: ingest.Ingest | None = None,
    upkeep: Callable[[], Upkeep] | None = None,
) -> Any:
    """Return the WSGI callable for everything: batches are taken past CherryPy, all else goes through it."""
    ground = Ground(own.store, live.now.public_url, pulse)
    pages = Site(ground, own.clock_us, leases=leases, live=live, doors=doors, audit=audit, alerts=alerts, upkeep=upkeep)
    table = [
        *Api(own, leases, live, audit).routes(),
        *KeyApi(doors.ring, audit, own.clock_us).routes(),
        *(alerts.routes() if alerts else ()),
        *Health(own.store, is_draining).routes(),
        *pages.routes(),
        *Exports(own.store, audit, own.clock_us).routes(),
        *query_routes(ground, own.clock_us),
        *(Exposition(own.store, pulse, own.clock_us, live).routes() if pulse else ()),
    ]
    app = router.application(router.Router(described_too(table), doors, pages.page_of))
    hot = batches or ingest.Ingest(own, leases, doors, Pressure(live.now.threads))

    def serve(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            return start_response(status, [*headers, *environ[HEADERS].items()], *more)

        environ[HEADERS] = {}  # CherryPy copies the environment, but not what is in it
        chosen = hot if ingest.PATH.fullmatch(environ["PATH_INFO"]) else app
        answered: Iterable[bytes] = chosen(environ, start)
        return answered

    return pulse.around(serve) if pulse else serve


def _open(url: str, ages: Ages, sync_interval_s: float) -> Store:
    try:
        return open_store(url, ages=ages, sync_interval_s=sync_interval_s)
    except Busy as error:
        holder = f"pid {error.holder}" if error.holder else "another process"
        raise Busy(
            f"the store {url} is in use by {holder}", holder=error.holder, hint="stop it, or use another --data-dir"
        ) from error


def data_folder(config: Config, environ: Mapping[str, str]) -> Path:
    """Return the folder of everything that the server keeps; it need not exist."""
    return Path(config.data_dir).expanduser() if config.data_dir else host.data_dir(environ)


def _data_folder(config: Config, environ: Mapping[str, str]) -> Path | None:
    """Return the folder of store, keys and audit log; None when the store is named and no folder is."""
    if config.store and not config.data_dir:
        return None
    return Path(config.data_dir).expanduser() if config.data_dir else host.data_dir(environ)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise HostError(
            f"cannot make the data folder {folder}: {error.strerror}",
            hint="use another --data-dir",
            permanent=host.needs_a_person(error),
        ) from error


def _check_reach(config: Config, address: str, ring: Ring) -> None:
    """Raise HostError when others could reach the server at this address and there are no keys."""
    if not config.insecure and not is_loopback(address) and not ring:
        raise HostError(
            f"{address} is not an address of this machine alone, and there are no keys: everybody who can reach the "
            "port could write and read",
            hint="make a key with 'datacat keys create', or listen on 127.0.0.1; --insecure does without keys",
            permanent=True,
        )


def _worker(job: Job, pulse: Pulse) -> Worker:
    def step() -> bool:
        more = job.step(now_us())
        pulse.ran(job.name)
        return more

    return Worker(job.name, job.interval_s, step)


def _log_bus(message: str, level: int = logging.INFO) -> None:
    # The bus tells about itself at level 20; for us that is detail.
    _log.log(level if level > logging.INFO else logging.DEBUG, "%s", message)
