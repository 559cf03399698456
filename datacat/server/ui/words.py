"""Numbers, times and ends of sessions as people read them. Pure; filters of the templates."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from datacat.host.process import signal_name
from datacat.server.notify import size
from datacat.store import Head
from datacat.wire.routes import OPEN_STATUSES
from datacat.wire.times import rfc3339

US = 1_000_000
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
NOTHING = "–"


def duration(seconds: float | None) -> str:
    """Return a length of time by its two biggest units: 3 min 12 s, 2 d 4 h, 0.25 s."""
    if seconds is None:
        return NOTHING
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms" if seconds > 0 else "0 s"
    if seconds < 10:
        return f"{seconds:.1f}".rstrip("0").rstrip(".") + " s"
    whole = round(seconds)
    for index, (length, unit) in enumerate(_UNITS):
        if whole >= length:
            text = f"{whole // length} {unit}"
            if index + 1 < len(_UNITS):
                below, name = _UNITS[index + 1]
                if rest := whole % length // below:
                    text += f" {rest} {name}"
            return text
    return "0 s"


def percent(share: float | None) -> str:
    """Return a share as a percentage that never claims more than is so: 99.98 % is not 100 %."""
    if share is None:
        return NOTHING
    value = share * 100
    if value in (0, 100):
        return f"{value:.0f} %"
    if value >= 99:
        return f"{min(value, 99.99):.2f} %"
    return f"{max(value, 0.01):.1f} %" if value >= 0.1 else f"{max(value, 0.01):.2f} %"


def points(now: float | None, before: float | None) -> tuple[str, str]:
    """Return the change of a share in percentage points, and the word better, worse or same."""
    if now is None or before is None:
        return "", "same"
    change = (now - before) * 100
    if abs(change) < 0.005:
        return "±0", "same"
    return f"{change:+.2f}".replace("-", "−") + " pp", "better" if change > 0 else "worse"


def count(number: float | None) -> str:
    """Return a count with narrow spaces between thousands."""
    if number is None:
        return NOTHING
    text = f"{number:,.0f}" if float(number).is_integer() or abs(number) >= 100 else f"{number:,.4g}"
    return text.replace(",", "\u202f")


def rfc(t_us: int) -> str:
    """Return a time for <time datetime>; empty for 0, which is never."""
    return rfc3339(t_us) if t_us else ""


def moment(text: str | None) -> str:
    """Return an RFC 3339 time as it is shown without scripts: date and time to the second, UTC."""
    return text[:19].replace("T", " ") if text else ""


def compact(value: object) -> str:
    """Return a JSON value as short text; a text as it is."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def pretty(value: object) -> str:
    """Return a JSON value on several lines."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def reason(end_reason: str | None, detail: str | None) -> str:
    """Return why a session ended, when no more is at hand than these two."""
    return ": ".join(filter(None, ((end_reason or "").replace("_", " "), detail)))


def why(head: Head) -> str:
    """Return why a session ended, in a few words."""
    reason = (head.end_reason or "").replace("_", " ")
    if head.exit_signal:
        name = signal_name(head.exit_signal)
        return name if head.end_reason == "signal" else f"{reason}, {name}"
    if head.exit_code:
        return (
            f"{reason} {head.exit_code}" if head.end_reason == "exit_code" else f"{reason}, exit code {head.exit_code}"
        )
    return reason


def sentence(head: Head, now_us: int) -> str:
    """Return how a session ended and why, in one sentence."""
    lasted = duration(((head.ended_at or now_us) - head.created_at) / US)
    if head.status in OPEN_STATUSES:
        since = duration(max(0, now_us - (head.status_since or head.created_at)) / US)
        words = {
            "active": f"running for {lasted}",
            "hung": f"hung for {since}, {lasted} after it started",
            "suspended": f"suspended for {since}: asleep, stopped, or out of contact",
        }
        return words[head.status] + _hangs(head, head.status == "hung")
    told = head.crash.title if head.status == "crashed" and head.crash else why(head)
    words = {
        "crashed": f"crashed: {told or 'nobody saw why'}",
        "abnormal": f"did not end by itself: {_ABNORMAL.get(head.end_reason or '', told)}",
        "ended": f"ended: {_ENDED.get(head.end_reason or '', told)}",
    }
    return f"{words.get(head.status, head.status)}, {lasted} after it started" + _hangs(head, False)


_ABNORMAL = {
    "power": "the machine lost power",
    "reboot": "the machine was rebooted",
    "lost": "it was never heard of again",
}
_ENDED = {
    "clean": "the app said so",
    "exit_zero": "exit code 0",
    "closed": "the interpreter closed, its exit code is not known",
    "terminated": "it was asked to stop",
}


def _hangs(head: Head, hangs_now: bool) -> str:
    times = head.hang_count - hangs_now
    if times < 1:
        return ""
    often = "once" if times == 1 else f"{times} times"
    return f"; hung {often} for {duration(head.hang_seconds)} before"


class Spark(NamedTuple):
    """A small bar chart: how wide it is, and the paths of its bars and of the bad part of each."""

    width: int
    bars: str
    bad: str


def spark(points: Sequence[tuple[float, float]]) -> Spark:
    """Return the chart of (how many, how many of them are bad) one after the other; 4 wide by bar and 32 high."""
    wholes, bads = [whole for whole, _ in points], [bad for _, bad in points]
    most = max(wholes, default=0)
    return Spark(4 * max(1, len(points)), _bars(wholes, most), _bars(bads, most))


def _bars(heights: Sequence[float], most: float) -> str:
    bars = [f"M{at * 4} 32V{32 - 32 * height / most:.1f}h3V32z" for at, height in enumerate(heights) if height]
    return "".join(bars)


def measured(value: float | None, unit: str | None) -> str:
    """Return a metric's value with its unit (UCUM, as OpenTelemetry writes units) as people read it."""
    if value is None:
        return NOTHING
    if unit == "By":
        return str(size(round(value)))
    if unit == "s":
        return duration(value) if value >= 0 else f"{value:g} s"
    return f"{count(value)} {unit}" if unit and unit != "1" and not unit.startswith("{") else count(value)


def written(value: float | None, form: str) -> str:
    """Return a number in the form that is named: percent, duration, bytes or count."""
    if value is None:
        return NOTHING
    return str(FILTERS[form](int(value) if form == "bytes" else value))


FILTERS: dict[str, Any] = {
    "duration": duration,
    "percent": percent,
    "count": count,
    "moment": moment,
    "compact": compact,
    "pretty": pretty,
    "bytes": size,
    "rfc": rfc,
}
