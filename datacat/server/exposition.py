"""/metrics for Prometheus: the fleet, what comes in, and the server itself, in text or OpenMetrics.

Counts are those since this server started and only grow. Labels are bounded: products, statuses, routes, reasons;
never ids, hosts, or names that an app makes up.
"""

import platform
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric

from datacat import __version__
from datacat.server.pulse import Pulse
from datacat.server.router import Answer, Request, Route
from datacat.server.served import BOUNDS_S
from datacat.store import Store
from datacat.store.tally import DURATION_BOUNDS_S, HANG_BOUNDS_S, Distribution, Tally
from datacat.wire.routes import STATUS_CODES

MAX_PRODUCTS = 50
"""The products with the most sessions have a label of their own, all others together are OTHER."""
MAX_REASONS = 20
OTHER = "other"
_CACHE_US = 10_000_000
"""What takes a look at every product is not looked at more often, however many scrape."""
_US = 1_000_000


_BY_PRODUCT: tuple[tuple[str, str, Callable[[Tally], int]], ...] = (
    ("datacat_sessions_started", "Sessions that came.", lambda tally: tally.started),
    ("datacat_session_crashes", "Sessions that crashed.", lambda tally: tally.crashes),
    ("datacat_session_hangs", "Hangs that began.", lambda tally: tally.hangs),
    ("datacat_session_hang_recoveries", "Hangs that ended well.", lambda tally: tally.recoveries),
)


class Exposition:
    """The handler of /metrics. Any thread."""

    def __init__(self, store: Store, pulse: Pulse, clock_us: Callable[[], int]) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        for collector in (PlatformCollector, ProcessCollector, GCCollector):
            collector(registry=self._registry)
        self._registry.register(Fleet(store, clock_us))
        self._registry.register(Server(store, pulse))

    def routes(self) -> list[Route]:
        """Return the table of routes."""
        return [Route("GET", "/metrics", self.metrics, "read")]

    def metrics(self, request: Request) -> Answer:
        """GET /metrics: OpenMetrics when it is asked for, else the text format 0.0.4."""
        encode, content_type = choose_encoder(str(request.environ.get("HTTP_ACCEPT", "")))
        return Answer(200, encode(self._registry), {"Content-Type": content_type})


class Fleet:
    """Collects what is known of the sessions, by product."""

    def __init__(self, store: Store, clock_us: Callable[[], int]) -> None:
        self._store = store
        self._clock_us = clock_us
        self._kept: list[Metric] = []
        self._kept_at = 0

    def collect(self) -> Iterable[Metric]:
        """Return the metrics, at most ten seconds old."""
        now_us = self._clock_us()
        if not self._kept or now_us - self._kept_at >= _CACHE_US or now_us < self._kept_at:
            self._kept, self._kept_at = list(self._collect()), now_us
        return self._kept

    def _collect(self) -> Iterator[Metric]:
        fleet = self._store.fleet
        statuses: dict[str, Counter[str]] = {}
        oldest = 0
        with fleet.reading() as shelves:
            for (product, _), shelf in shelves.items():
                counts = statuses.setdefault(product, Counter())
                still = Counter(status for _, status in shelf.open.values())
                gone = {"crashed": len(shelf.crashed), "abnormal": len(shelf.abnormal)}
                counts.update(still)
                counts.update(gone)
                counts["ended"] += len(shelf) - sum(still.values()) - sum(gone.values())
                if len(shelf):
                    oldest = min(oldest or shelf.created[0], shelf.created[0])
            tallies = dict(fleet.tallies)
            heard = max(fleet.heard.values(), default=0)
        label = labels({product: sum(counts.values()) for product, counts in statuses.items()})
        sessions = GaugeMetricFamily(
            "datacat_sessions", "Sessions by product and status.", labels=["product", "status"]
        )
        merged: dict[str, Counter[str]] = {}
        for product, counts in statuses.items():
            merged.setdefault(label(product), Counter()).update(counts)
        for product, counts in sorted(merged.items()):
            for status in STATUS_CODES:
                sessions.add_metric([product, status], counts[status])
        yield sessions
        yield _gauge("datacat_store_oldest_session_timestamp_seconds", "When the oldest session began.", oldest / _US)
        yield _gauge("datacat_last_ingest_timestamp_seconds", "When the server last got anything.", heard / _US)
        for name, text, pick in _BY_PRODUCT:
            sums: Counter[tuple[str, ...]] = Counter()
            for product, tally in tallies.items():
                sums[(label(product),)] += pick(tally)
            yield _counter(name, text, ["product"], sums)
        outcomes: Counter[tuple[str, ...]] = Counter()
        for product, tally in tallies.items():
            for outcome, count in tally.ended.items():
                outcomes[label(product), outcome] += count
        yield _counter("datacat_sessions_ended", "Sessions that ended, by outcome.", ["product", "outcome"], outcomes)
        yield _histogram("datacat_session_duration_seconds", "How long sessions lasted.", DURATION_BOUNDS_S,
                         [(label(product), tally.durations) for product, tally in tallies.items()])  # fmt: skip
        yield _histogram("datacat_session_hang_seconds", "How long it took to recover from hangs.", HANG_BOUNDS_S,
                         [(label(product), tally.recovered) for product, tally in tallies.items()])  # fmt: skip


class Server:
    """Collects what the server does."""

    def __init__(self, store: Store, pulse: Pulse) -> None:
        self._store = store
        self._pulse = pulse

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of this moment."""
        fleet, stats = self._store.fleet, self._store.stats()
        yield InfoMetricFamily("datacat_build", "This server.",
                               value={"version": __version__, "python": platform.python_version()})  # fmt: skip
        kinds: dict[tuple[str, ...], int] = {
            (kind,): fleet.totals[kind] for kind in ("session", "event", "metric", "state")
        }
        yield _counter("datacat_ingest_items", "What came in, by kind.", ["kind"], kinds)
        yield CounterMetricFamily("datacat_records_acknowledged", "Records of journals that are acknowledged.",
                                  value=fleet.totals["acknowledged"])  # fmt: skip
        # Reasons are words of clients: only the most frequent have a series of their own.
        reason = labels(dict(fleet.dropped), MAX_REASONS)
        lost: Counter[tuple[str, ...]] = Counter()
        for word, count in list(fleet.dropped.items()):
            lost[(reason(word),)] += count
        yield _counter("datacat_records_dropped", "Records that were lost before they came.", ["reason"], lost)
        yield _gauge("datacat_store_bytes", "Bytes of the store on disk.", stats.get("size_bytes", 0))
        yield _gauge("datacat_store_sessions", "Sessions in the store.", stats.get("sessions", 0))
        yield _gauge("datacat_daemons_connected", "Daemons with a lease.", self._pulse.daemons())
        yield from self._requests()

    def _requests(self) -> Iterator[Metric]:
        served = self._pulse.served.snapshot()
        requests: Counter[tuple[str, ...]] = Counter()
        refused: Counter[tuple[str, ...]] = Counter()
        for (method, route, status), count in served.requests.items():
            requests[method, route, str(status)] += count
            if 400 <= status < 500:
                refused[(self._pulse.reason(status),)] += count
        yield _counter("datacat_http_requests", "Requests that were answered.", ["method", "route", "code"], requests)
        yield _counter("datacat_ingest_rejected", "Requests that were refused, by reason.", ["reason"], refused)
        text = "How long it took until an answer began."
        times = HistogramMetricFamily("datacat_http_request_duration_seconds", text, labels=["route"])
        for route, (counts, total) in sorted(served.times.items()):
            times.add_metric([route], _buckets(BOUNDS_S, counts), total)
        yield times
        yield _gauge("datacat_http_requests_in_flight", "Requests that are not answered yet.", served.in_flight)


def labels(sizes: Mapping[str, int], most: int = MAX_PRODUCTS) -> Callable[[str], str]:
    """Return the function from a name to its label: the biggest have their own, all others are OTHER."""
    biggest = set(sorted(sizes, key=lambda name: (-sizes[name], name))[:most])
    return lambda name: name if name in biggest else OTHER


def _counter(name: str, text: str, names: Sequence[str], counts: Mapping[tuple[str, ...], float]) -> Metric:
    family = CounterMetricFamily(name, text, labels=names)
    for values, count in sorted(counts.items()):
        family.add_metric(values, count)
    return family


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _histogram(name: str, text: str, bounds: Sequence[int], rows: Iterable[tuple[str, Distribution]]) -> Metric:
    merged: dict[str, tuple[list[int], float]] = {}
    for product, distribution in rows:
        if distribution.counts:
            counts, total = merged.get(product, ([0] * (len(bounds) + 1), 0.0))
            merged[product] = (
                [one + other for one, other in zip(counts, distribution.counts, strict=True)],
                total + distribution.sum,
            )
    family = HistogramMetricFamily(name, text, labels=["product"])
    for product, (counts, total) in sorted(merged.items()):
        family.add_metric([product], _buckets(bounds, counts), total)
    return family


def _buckets(bounds: Sequence[float], counts: Sequence[int]) -> list[tuple[str, float]]:
    """Return cumulative buckets as Prometheus wants them."""
    names = [*(f"{float(bound)}" for bound in bounds), "+Inf"]
    return list(zip(names, accumulate(counts), strict=True))
