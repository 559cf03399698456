"""Counts as families of Prometheus, with labels that are bounded. Pure, but for Labels."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

OTHER = "other"


class Labels:
    """Which names have a label of their own: the biggest of the first that came, at most so many; all others are OTHER.

    A name keeps its label as long as the server runs. Would it change places with OTHER whenever another one is bigger,
    or its sessions are deleted, counters would shrink, and Prometheus would take that for a restart.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._own: set[str] = set()

    def see(self, sizes: Mapping[str, int]) -> None:
        """Give labels to new names as long as there are some, to the biggest first."""
        for name in sorted(sizes.keys() - self._own, key=lambda name: (-sizes[name], name)):
            if len(self._own) >= self._most:
                return
            self._own.add(name)

    def of(self, name: str) -> str:
        """Return the label of a name."""
        return name if name in self._own else OTHER


def gauge(name: str, text: str, value: float) -> Metric:
    """Return a gauge without labels."""
    return GaugeMetricFamily(name, text, value=value)


def gauges(name: str, text: str, names: Sequence[str], values: Mapping[tuple[str, ...], float]) -> Metric:
    """Return a gauge with a value for each combination of labels."""
    family = GaugeMetricFamily(name, text, labels=names)
    for labels, value in sorted(values.items()):
        family.add_metric(labels, value)
    return family


def counter(name: str, text: str, value: float) -> Metric:
    """Return a counter without labels; name is without _total."""
    return CounterMetricFamily(name, text, value=value)


def counters(name: str, text: str, names: Sequence[str], counts: Mapping[tuple[str, ...], float]) -> Metric:
    """Return a counter with a value for each combination of labels; name is without _total."""
    family = CounterMetricFamily(name, text, labels=names)
    for labels, count in sorted(counts.items()):
        family.add_metric(labels, count)
    return family


def histogram(
    name: str, text: str, label: str, bounds: Sequence[float], rows: Iterable[tuple[str, Sequence[int], float]]
) -> Metric:
    """Return a histogram of rows (label, counts that are not added up, sum); those with the same label are merged."""
    merged: dict[str, tuple[Sequence[int], float]] = {}
    for value, counts, total in rows:
        if counts:
            known, known_total = merged.get(value, ([0] * len(counts), 0.0))
            merged[value] = ([one + more for one, more in zip(known, counts, strict=True)], known_total + total)
    family = HistogramMetricFamily(name, text, labels=[label])
    names = [*(f"{float(bound)}" for bound in bounds), "+Inf"]
    for value, (counts, total) in sorted(merged.items()):
        family.add_metric([value], list(zip(names, accumulate(counts), strict=True)), total)
    return family
