"""/metrics for Prometheus: the fleet, what comes in, and the server itself, in text or OpenMetrics.

Counts are those since this server started and only grow. Labels are bounded: products, statuses, routes, reasons;
never ids, hosts, or names that an app makes up. docs/operations.md has the table.
"""

import platform
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import InfoMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric

from datacat import __version__
from datacat.errors import StoreError
from datacat.server import served
from datacat.server.config import Live
from datacat.server.problems import Refusal
from datacat.server.pulse import Pulse
from datacat.server.router import Answer, Request, Route
from datacat.server.series import OTHER, Labels, counter, counters, gauge, gauges, histogram
from datacat.store import Store, timed
from datacat.store.fleet import Shelves
from datacat.store.tally import DURATION_BOUNDS_S, HANG_BOUNDS_S, OUTCOMES, Tally
from datacat.wire.routes import STATUS_CODES

MAX_PRODUCTS = 50
"""So many products have a label of their own, all others together are OTHER."""
MAX_REASONS = 20
"""The same for reasons of dropped records: they are words of clients."""
MAX_VERSIONS = 10
"""The versions of a product with the most active sessions have a series of their own."""
STUCK_S = 10.0
"""The store does not take writes when one has waited for so long."""
_CACHE_US = 10_000_000
"""What takes a look at every product is not looked at more often, however many scrape."""
_US = 1_000_000
_KINDS = ("session", "event", "metric", "state", "heartbeat")
_READING = frozenset({"GET", "HEAD", "OPTIONS"})

_BY_PRODUCT: tuple[tuple[str, str, Callable[[Tally], int]], ...] = (
    ("datacat_sessions_started", "Sessions that came.", lambda tally: tally.started),
    ("datacat_session_crashes", "Sessions that crashed.", lambda tally: tally.crashes),
    ("datacat_session_hangs", "Hangs that began.", lambda tally: tally.hangs),
    ("datacat_session_hang_recoveries", "Hangs that ended well.", lambda tally: tally.recoveries),
)


class Exposition:
    """The handler of /metrics. Any thread."""

    def __init__(self, store: Store, pulse: Pulse, clock_us: Callable[[], int], live: Live) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        for collector in (PlatformCollector, ProcessCollector, GCCollector):
            collector(registry=self._registry)
        self.sources = (
            Kept(Fleet(store, live), clock_us),
            Kept(Room(store, pulse, live), clock_us),
            Server(store, pulse),
        )
        for source in self.sources:
            self._registry.register(source)

    def routes(self) -> list[Route]:
        """Return the table of routes."""
        return [Route("GET", "/metrics", self.metrics, "read")]

    def metrics(self, request: Request) -> Answer:
        """GET /metrics: OpenMetrics when it is asked for, else the text format 0.0.4.

        Raises: Refusal 403 for a key of some products: what Prometheus keeps is seen by all who may ask it.
        """
        if request.principal.products:
            raise Refusal(403, "/metrics tells of all products, and this key is for some of them")
        encode, content_type = choose_encoder(str(request.environ.get("HTTP_ACCEPT", "")))
        return Answer(200, encode(self._registry), {"Content-Type": content_type})


class Kept:
    """What another collector found, at most ten seconds old."""

    def __init__(self, source: "Fleet | Room", clock_us: Callable[[], int]) -> None:
        self._source = source
        self._clock_us = clock_us
        self._kept: list[Metric] = []
        self._kept_at = 0

    def collect(self) -> Iterable[Metric]:
        """Return the metrics."""
        now_us = self._clock_us()
        if not self._kept or now_us - self._kept_at >= _CACHE_US or now_us < self._kept_at:
            self._kept, self._kept_at = list(self._source.collect()), now_us
        return self._kept


class Fleet:
    """Collects what is known of the sessions, by product."""

    def __init__(self, store: Store, live: Live) -> None:
        self._store = store
        self._live = live
        self._labels = Labels(MAX_PRODUCTS)

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of this moment."""
        fleet, label = self._store.fleet, self._labels.of
        with fleet.reading() as shelves:
            statuses, active, oldest = _counted(shelves)
            tallies = {product: tally.copy() for product, tally in fleet.tallies.items()}
            heard = max(fleet.heard.values(), default=0)
        sizes = Counter({product: sum(counts.values()) for product, counts in statuses.items()})
        sizes.update({product: tally.started for product, tally in tallies.items()})
        self._labels.see(sizes)
        # From the beginning, with 0: what first appears with 1 is no increase to Prometheus.
        tallies = {product: Tally() for product in statuses} | tallies
        sessions: Counter[tuple[str, ...]] = Counter()
        for product, counts in statuses.items():
            for status in STATUS_CODES:
                sessions[label(product), status] += counts[status]
        yield gauges("datacat_sessions", "Sessions by product and status.", ["product", "status"], sessions)
        if self._live.now.metrics_by_version:
            text = "Sessions whose status is active, by product and version."
            yield gauges("datacat_sessions_active_by_version", text, ["product", "version"], self._versions(active))
        yield gauge("datacat_store_oldest_session_timestamp_seconds", "When the oldest session began.", oldest / _US)
        yield gauge("datacat_last_ingest_timestamp_seconds", "When the server last got anything.", heard / _US)
        for name, text, pick in _BY_PRODUCT:
            sums: Counter[tuple[str, ...]] = Counter()
            for product, tally in tallies.items():
                sums[(label(product),)] += pick(tally)
            yield counters(name, text, ["product"], sums)
        outcomes: Counter[tuple[str, ...]] = Counter()
        for product, tally in tallies.items():
            for outcome in OUTCOMES.values():
                outcomes[label(product), outcome] += tally.ended[outcome]
        yield counters("datacat_sessions_ended", "Sessions that ended, by outcome.", ["product", "outcome"], outcomes)
        lasted = [(label(product), tally.durations.counts, tally.durations.sum) for product, tally in tallies.items()]
        yield histogram("datacat_session_duration_seconds", "How long sessions lasted.", "product",
                        DURATION_BOUNDS_S, lasted)  # fmt: skip
        hung = [(label(product), tally.recovered.counts, tally.recovered.sum) for product, tally in tallies.items()]
        yield histogram("datacat_session_hang_seconds", "How long it took to recover from hangs.", "product",
                        HANG_BOUNDS_S, hung)  # fmt: skip

    def _versions(self, active: dict[str, Counter[str]]) -> Counter[tuple[str, ...]]:
        found: Counter[tuple[str, ...]] = Counter()
        for product, versions in active.items():
            own = {version for version, _ in versions.most_common(MAX_VERSIONS)}
            for version, count in versions.items():
                named = version in own and self._labels.of(product) == product
                found[self._labels.of(product), version if named else OTHER] += count
        return found


def _counted(shelves: Shelves) -> tuple[dict[str, Counter[str]], dict[str, Counter[str]], int]:
    """Return how many sessions there are by product and status, the active ones by product and version, the oldest."""
    statuses: dict[str, Counter[str]] = {}
    active: dict[str, Counter[str]] = {}
    oldest = 0
    for (product, version), shelf in shelves.items():
        counts = statuses.setdefault(product, Counter())
        still = Counter(status for _, status in shelf.open.values())
        gone = {"crashed": len(shelf.crashed), "abnormal": len(shelf.abnormal)}
        counts.update(still)
        counts.update(gone)
        counts["ended"] += len(shelf) - sum(still.values()) - sum(gone.values())
        if still["active"]:
            active.setdefault(product, Counter())[version] += still["active"]
        if len(shelf):
            oldest = min(oldest or shelf.created[0], shelf.created[0])
    return statuses, active, oldest


class Room:
    """Collects how large the store is, what room it has, and whether it takes writes."""

    def __init__(self, store: Store, pulse: Pulse, live: Live) -> None:
        self._store = store
        self._pulse = pulse
        self._live = live

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of this moment."""
        stats = self._store.stats()
        yield gauge("datacat_store_bytes", "Bytes of the store on disk.", stats.get("size_bytes", 0))
        yield gauge("datacat_store_dead_bytes", "Of these, what was deleted and is not given back yet.",
                    stats.get("dead_bytes", 0))  # fmt: skip
        yield gauge("datacat_store_limit_bytes", "The setting max_store_bytes; 0: no limit.",
                    self._live.now.max_store_bytes)  # fmt: skip
        yield gauge("datacat_store_sessions", "Sessions in the store.", stats.get("sessions", 0))
        yield gauge("datacat_store_writable", "Whether the store takes writes: 1 or 0.", self._takes_writes())
        if disk := self._pulse.disk():
            yield gauge("datacat_disk_size_bytes", "Bytes of the file system of the store.", disk.size_bytes)
            yield gauge("datacat_disk_free_bytes", "Bytes that are free there.", disk.free_bytes)

    def _takes_writes(self) -> bool:
        try:
            self._store.check_progress(STUCK_S)  # first: it never waits for the disk
            self._store.check()
        except StoreError:
            return False
        return True


class Server:
    """Collects what the server does."""

    def __init__(self, store: Store, pulse: Pulse) -> None:
        self._store = store
        self._pulse = pulse
        self._reasons = Labels(MAX_REASONS)

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of this moment."""
        fleet, pulse = self._store.fleet, self._pulse
        yield InfoMetricFamily("datacat_build", "This server.",
                               value={"version": __version__, "python": platform.python_version()})  # fmt: skip
        kinds: dict[tuple[str, ...], float] = {(kind,): fleet.totals[kind] for kind in _KINDS}
        yield counters("datacat_ingest_items", "What came in, by kind.", ["kind"], kinds)
        yield counter("datacat_records_acknowledged", "Records of journals that are acknowledged.",
                      fleet.totals["acknowledged"])  # fmt: skip
        dropped = dict(fleet.dropped)
        self._reasons.see(dropped)
        lost: Counter[tuple[str, ...]] = Counter()
        for word, count in dropped.items():
            lost[(self._reasons.of(word),)] += count
        yield counters("datacat_records_dropped", "Records that were lost before they came.", ["reason"], lost)
        yield gauge("datacat_daemons_connected", "Daemons with a lease.", pulse.daemons())
        for name, text, ops in (
            (
                "datacat_store_write_seconds",
                "How long writes to the store took, until they were on disk.",
                timed.WRITES,
            ),
            ("datacat_store_query_seconds", "How long the store took to answer.", timed.QUERIES),
        ):
            rows = [(op, counts, total) for op, (counts, total) in pulse.timings.of(ops).items()]
            yield histogram(name, text, "op", timed.BOUNDS_S, rows)
        gone: dict[tuple[str, ...], float] = {(kind,): pulse.deleted[kind] for kind in ("age", "size")}
        yield counters("datacat_retention_deleted", "Sessions that retention deleted, by why.", ["kind"], gone)
        yield gauge("datacat_retention_last_success_timestamp_seconds", "When retention last ran; 0: not yet.",
                    pulse.ran_us("retain") / _US)  # fmt: skip
        yield from self._requests()

    def _requests(self) -> Iterator[Metric]:
        counted = self._pulse.served.snapshot()
        requests: Counter[tuple[str, ...]] = Counter()
        refused: Counter[tuple[str, ...]] = Counter({(reason,): 0 for reason in self._pulse.REASONS})
        for (method, route, status), count in counted.requests.items():
            requests[method, route, str(status)] += count
            if method not in _READING and (400 <= status < 500 or status == 503):
                refused[(self._pulse.reason(status),)] += count
        yield counters("datacat_http_requests", "Requests that were answered.", ["method", "route", "code"], requests)
        yield counters("datacat_ingest_rejected", "Requests to write that were refused, by why.", ["reason"], refused)
        yield counter("datacat_ingest_bytes", "Bytes of the bodies that were taken, as they travelled.",
                      counted.received_bytes)  # fmt: skip
        times = [(route, counts, total) for route, (counts, total) in counted.times.items()]
        yield histogram("datacat_http_request_duration_seconds", "How long it took until an answer began.", "route",
                        served.BOUNDS_S, times)  # fmt: skip
        yield gauge("datacat_http_requests_in_flight", "Requests that are not answered yet.", counted.in_flight)
