"""Cells: aggregates of samples that merge in any order, with their distribution. Pure."""

from typing import TypeAlias

import msgspec

from datacat.store import lanes, sketch
from datacat.store.lanes import Bins, Lanes

Layout: TypeAlias = tuple[tuple[float, ...], list[int]]
"""Bucket bounds in ascending order, and the samples in each bucket (not cumulative), one more for those above."""


class Cell(msgspec.Struct, array_like=True, gc=False):
    """Samples of one series: how many, their sum, least, greatest, and the newest with its time (us).

    distribution has their bins (sketch.py), as a dict or as lanes; layouts the counts per bucket of a histogram, one
    for each set of bounds.
    For events and changes of status only count and last_t mean something.
    """

    count: int
    sum: int | float
    min: int | float
    max: int | float
    last: int | float
    last_t: int
    distribution: Bins | Lanes | None = None
    layouts: list[Layout] | None = None

    @property
    def bins(self) -> Bins | None:
        """The distribution as {bin: count}; None when it is not known."""
        return lanes.to_bins(self.distribution) if isinstance(self.distribution, Lanes) else self.distribution

    @property
    def mean(self) -> float | None:
        """The arithmetic mean; None without samples."""
        return self.sum / self.count if self.count > 0 else None

    @property
    def approximate(self) -> bool:
        """Whether quantiles had to be joined from buckets with different bounds."""
        return bool(self.layouts) and len(self.layouts or ()) > 1

    def buckets(self) -> tuple[list[float], list[float]] | None:
        """Return (bounds, counts per bucket, the last one above every bound) of a histogram; else None."""
        if not self.layouts:
            return None
        if len(self.layouts) == 1:
            bounds, counts = self.layouts[0]
            return list(bounds), list(counts)
        return sketch.join_layouts(self.layouts)

    def quantile(self, q: float) -> float | None:
        """Return the quantile q, 0 <= q <= 1; None when nothing is known of the distribution.

        By bins it is right within 1 % of the value; by buckets it is what Prometheus' histogram_quantile gives.
        """
        joined = self.buckets()
        if joined is not None:
            return sketch.bucket_quantile(*joined, q)
        known = self.distribution
        if not known:
            return None
        if q in (0, 1):
            return self.max if q else self.min
        found = lanes.quantile(known, q) if isinstance(known, Lanes) else sketch.quantile(known, q)
        return min(max(found, self.min), self.max)

    def copy(self) -> "Cell":
        """Return a cell that can be merged into without changing this one."""
        layouts = None if self.layouts is None else [(bounds, list(counts)) for bounds, counts in self.layouts]
        known = self.distribution
        if type(known) is dict:
            known = known.copy()
        return Cell(self.count, self.sum, self.min, self.max, self.last, self.last_t, known, layouts)

    def merge(self, more: "Cell") -> None:
        """Add the samples of more, which stays as it is."""
        self.merge_values(more)
        if more.distribution:
            self._merge_distribution(more.distribution)
        if more.layouts:
            self._merge_layouts(more.layouts)

    def merge_values(self, more: "Cell") -> None:
        """Add the samples of more without their distribution."""
        self.count += more.count
        self.sum += more.sum
        self.min = min(self.min, more.min)
        self.max = max(self.max, more.max)
        # Of two samples at the same time the greater one stays, so that the order of merging does not matter.
        if more.last_t > self.last_t or (more.last_t == self.last_t and more.last > self.last):
            self.last, self.last_t = more.last, more.last_t

    def _merge_distribution(self, more: Bins | Lanes) -> None:
        own = self.distribution
        if type(own) is Lanes and type(more) is Lanes:
            both = lanes.add(own, more)
            if both is not None:
                self.distribution = both
                return
        if type(own) is dict and type(more) is dict:
            sketch.add_bins(own, more)
            return
        if own is None:
            self.distribution = more.copy() if type(more) is dict else more
            return
        one = own if isinstance(own, Lanes) else lanes.of_bins(own)
        other = more if isinstance(more, Lanes) else lanes.of_bins(more)
        both = lanes.add(one, other) if one is not None and other is not None else None
        if both is None:
            bins = lanes.to_bins(own) if isinstance(own, Lanes) else own
            sketch.add_bins(bins, lanes.to_bins(more) if isinstance(more, Lanes) else more)
            self.distribution = bins
            return
        self.distribution = both

    def _merge_layouts(self, more: list[Layout]) -> None:
        if self.layouts is None:
            self.layouts = []
        for bounds, counts in more:
            for index, (own, known) in enumerate(self.layouts):
                if own == bounds:
                    self.layouts[index] = (own, [a + b for a, b in zip(known, counts, strict=True)])
                    break
            else:
                self.layouts.append((bounds, list(counts)))
