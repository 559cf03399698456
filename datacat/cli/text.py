"""Values as people read them: times, spans, ids, states, records. Pure; the time now is an argument."""

import itertools
import json
import re
import signal
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from datacat.errors import WireError
from datacat.wire import times

STATUS_STYLES = {
    "active": "green",
    "ended": "dim",
    "suspended": "blue",
    "hung": "bold yellow",
    "crashed": "bold red",
    "abnormal": "magenta",
}
LEVEL_STYLES = {"debug": "dim", "info": "", "warning": "yellow", "error": "red", "critical": "bold red"}

_COMMANDS = dict.fromkeys(
    (*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)),
    " ",
)
"""Characters that command a terminal: C0, C1 (ISO/IEC 6429), and those that turn the direction of what follows."""
_SHORT_ID_CHARS = 13
"""The first 13 characters of a UUID of version 7 are its millisecond."""
_AGO = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|min|h|d|w)", re.ASCII)
_UNIT_S = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}
_BYTES = ("KiB", "MiB", "GiB", "TiB", "PiB")
_SPANS = ((86_400, "d"), (3600, "h"), (60, "min"))


def moment_us(text: str, now_us: int) -> int:
    """Return the Unix us of a time: 2h, 30min, 7d (that long ago), RFC 3339, a date, or a Unix number.

    Raises: WireError when it is none of these.
    """
    if ago := _AGO.fullmatch(text.strip()):
        return now_us - round(float(ago[1]) * _UNIT_S[ago[2]] * 1_000_000)
    try:
        return times.to_us(float(text) if "." in text else int(text))
    except ValueError:
        pass
    if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
        text += "T00:00:00+00:00"
    try:
        return times.to_us(text)
    except WireError as error:
        raise WireError(f"{text!r} is not a time", hint="use 2h, 30min or 7d (ago), 2026-01-31, or RFC 3339") from error


def later_us(text: str, now_us: int) -> int:
    """Return the Unix us of a time to come: 90d (from now on), or what moment_us() takes. Raises: WireError."""
    moment = moment_us(text, now_us)
    return 2 * now_us - moment if _AGO.fullmatch(text.strip()) else moment


def us_of(value: Any) -> int:
    """Return the Unix us of a timestamp of the API, 0 for null."""
    return times.to_us(value) if value else 0


def clock(value: Any) -> str:
    """Return the local time of day of a timestamp of the API, with milliseconds."""
    if not value:
        return "-"
    return _local(us_of(value)).strftime("%H:%M:%S.%f")[:-3]


def date_and_time(value: Any) -> str:
    """Return the local date and time of a timestamp of the API, to the second, with the offset from UTC."""
    if not value:
        return "-"
    return _local(us_of(value)).strftime("%Y-%m-%d %H:%M:%S %z")


def _local(us: int) -> datetime:
    return datetime.fromisoformat(times.rfc3339(us)).astimezone()


def span(seconds: float) -> str:
    """Return a length of time in at most two units: 0.4 s, 12 s, 3 min 20 s, 2 h 5 min, 4 d 1 h."""
    if seconds < 10:
        return f"{max(seconds, 0):.1f} s"
    rest = round(seconds)
    if rest < 60:
        return f"{rest} s"
    units = [*_SPANS, (1, "s")]
    for (size, name), (next_size, next_name) in itertools.pairwise(units):
        if rest >= size:
            tail = rest % size // next_size
            return f"{rest // size} {name}" + (f" {tail} {next_name}" if tail else "")
    return f"{rest} s"


def ago(value: Any, now_us: int) -> str:
    """Return how long ago a timestamp of the API was."""
    return f"{span((now_us - us_of(value)) / 1e6)} ago" if value else "never"


def lasted(session: dict[str, Any], now_us: int) -> str:
    """Return how long the session ran, or has been running."""
    return span(((us_of(session.get("ended_at")) or now_us) - us_of(session["created_at"])) / 1e6)


def short_ids(session_ids: Sequence[str]) -> dict[str, str]:
    """Return each id with its shortest beginning, 13 characters or more, that is unique among them."""
    length = _SHORT_ID_CHARS
    while len({session_id[:length] for session_id in session_ids}) < len(set(session_ids)):
        length += 1
    return {session_id: session_id[:length].rstrip("-") for session_id in session_ids}


def signal_name(number: int | None) -> str:
    """Return SIGKILL for 9, and "signal 99" for a number without a name."""
    if number is None:
        return ""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def exit_of(session: dict[str, Any]) -> str:
    """Return the exit code or the name of the signal that a session ended with; "-" when neither is known."""
    if session.get("exit_signal") is not None:
        return signal_name(session["exit_signal"])
    return "-" if session.get("exit_code") is None else str(session["exit_code"])


def compact(value: Any) -> str:
    """Return a JSON value on one line; texts without quotes."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(", ", ": "))


def tame(text: str) -> str:
    """Return a text that somebody else wrote without the characters that command a terminal."""
    return text.translate(_COMMANDS)


def one_line(text: str, width: int) -> str:
    """Return a text without line breaks or control characters, cut to width with an ellipsis."""
    flat = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return flat if len(flat) <= width else flat[: width - 1] + "…"


def one_line_keeping(text: str, width: int) -> str:
    """Return a text without line breaks or control characters, its runs of spaces kept, cut to width."""
    flat = "".join(char if char.isprintable() else " " for char in text)
    return flat if len(flat) <= width else flat[: width - 1] + "…"


def leaves(value: Any, path: str = "") -> Iterable[tuple[str, Any]]:
    """Yield (dotted path, value) of every member of a state that is no object; an empty object is a leaf."""
    if isinstance(value, dict) and value:
        for name, child in value.items():
            yield from leaves(child, f"{path}.{name}" if path else name)
    elif path:
        yield path, value


def event_text(event: dict[str, Any]) -> str:
    """Return what an event says after its name: exception, message, data."""
    parts = []
    if event.get("exception_type"):
        parts.append(f"{event['exception_type']}: {event.get('exception_msg') or ''}".rstrip(": "))
    if event.get("message") and event["message"] not in "".join(parts):
        parts.append(event["message"])
    if event.get("data"):
        parts.append(" ".join(f"{name}={compact(value)}" for name, value in event["data"].items()))
    return "  ".join(parts)


def quantity(value: Any, unit: str | None) -> str:
    """Return a number with its unit; bytes (By in UCUM, which OpenTelemetry uses) in the largest unit that fits."""
    if unit in ("By", "bytes") and isinstance(value, (int, float)) and abs(value) >= 1024:
        power = min((int(abs(value)).bit_length() - 1) // 10, len(_BYTES))
        return f"{value / 1024**power:.1f} {_BYTES[power - 1]}"
    shown = "" if unit is None or unit == "1" or unit.startswith("{") else f" {unit}"
    return number(value) + shown


def number(value: Any) -> str:
    """Return a number in at most six significant digits; whole numbers in full."""
    if isinstance(value, float) and not value.is_integer():
        return f"{value:.6g}"
    return f"{int(value):,}".replace(",", "\u202f") if isinstance(value, (int, float)) else compact(value)
