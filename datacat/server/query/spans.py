"""Spans of time and their buckets: what from, to and interval mean. Pure."""

import re
from typing import NamedTuple

from datacat.errors import WireError
from datacat.wire import times
from datacat.wire.records import MAX_T_US

US = 1_000_000
DAY_US = 24 * 3600 * US
DEFAULT_SPAN_US = DAY_US
MAX_POINTS = 2000
DEFAULT_POINTS = 300

_UNITS = {"ms": 1000, "s": US, "m": 60 * US, "h": 3600 * US, "d": DAY_US, "w": 7 * DAY_US}
_LADDER = tuple(
    step * unit
    for unit, steps in (
        (US, (1, 5, 10, 15, 30)),
        (60 * US, (1, 5, 10, 15, 30)),
        (3600 * US, (1, 3, 6, 12)),
        (DAY_US, (1, 7)),
    )
    for step in steps
)
_RELATIVE = re.compile(r"(?:now)?(?:-(\d{1,9})(ms|s|m|h|d|w))?", re.ASCII)
_LENGTH = re.compile(r"(\d{1,15})(ms|s|m|h|d|w)?", re.ASCII)


class Span(NamedTuple):
    """A half-open span of time in Unix us."""

    start: int
    stop: int

    @property
    def before(self) -> "Span":
        """The span of the same length before."""
        return Span(2 * self.start - self.stop, self.start)


class Buckets(NamedTuple):
    """A span cut at multiples of interval_us since the epoch, UTC.

    starts has the aligned beginning of each bucket; edges has one more, and is cut to the span: bucket i holds what is
    in [edges[i], edges[i+1]).
    """

    interval_us: int
    starts: list[int]
    edges: list[int]


def time_of(text: str, now_us: int) -> int:
    """Return the time that a text means: now, -6h, now-6h, RFC 3339, or a number. Raises: WireError."""
    text = text.strip()
    if (found := _RELATIVE.fullmatch(text)) and text:
        count, unit = found.groups()
        return max(0, now_us - (int(count) * _UNITS[unit] if count else 0))
    try:
        return times.to_us(int(text) if text.isascii() and text.isdigit() else float(text))
    except (ValueError, OverflowError):
        return times.to_us(text.replace(" ", "+"))  # a + that was not quoted in the query


def length_of(text: str) -> int:
    """Return the us that a text like 30s, 5m, 1h, 1d means; a bare number is milliseconds. Raises: WireError."""
    found = _LENGTH.fullmatch(text)
    if found is None or not int(found[1]) or int(found[1]) * _UNITS[found[2] or "ms"] > MAX_T_US:
        raise WireError(f"{text[:40]!r} is no length of time", hint="use 30s, 5m, 1h, 1d, or milliseconds")
    return int(found[1]) * _UNITS[found[2] or "ms"]


def buckets(span: Span, wanted_us: int, max_points: int) -> Buckets:
    """Return the buckets of a span: the step of the ladder at least as long as wanted_us that makes few enough.

    wanted_us 0: as fine as max_points allows. Beyond the ladder steps are whole weeks.
    """
    interval = next((step for step in _LADDER if step >= wanted_us and _points(span, step) <= max_points), 0)
    if not interval:
        week = _LADDER[-1]
        interval = week * max(1, -(-wanted_us // week), -(-(span.stop - span.start) // (week * max(1, max_points - 1))))
    first = span.start // interval * interval
    starts = list(range(first, max(span.stop, span.start + 1), interval)) if span.stop > span.start else []
    edges = [span.start, *starts[1:], span.stop] if starts else []
    return Buckets(interval, starts, edges)


def _points(span: Span, interval: int) -> int:
    return -(-span.stop // interval) - span.start // interval
