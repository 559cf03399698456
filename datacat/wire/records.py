"""The kinds of records, their fields, units and limits; checked types shared by all three programs.

A record is one JSON object. `t` is Unix time in microseconds, UTC; `k` is the kind. Unknown kinds and unknown fields
are kept by every program that passes a record on: what travels and is stored is the line itself, these types are how
it is read. Omitted fields have their defaults.

    open state event metric closing close      written by the app
    gap dropped verdict                        written by the daemon or the server, never by the app
    beat                                       on the wire only: the app's newest heartbeat
"""

import math
from typing import Any, TypeAlias

import msgspec

from datacat.errors import WireError

MAX_RECORD_BYTES = 64 * 1024
"""One encoded record with its newline."""
MAX_BATCH_BYTES = 4 * 1024 * 1024
"""One batch before compression."""
MAX_NAME_CHARS = 200
MAX_DEPTH = 32
MAX_T_US = 253_402_300_799_999_999
"""The last microsecond of the year 9999, the last that RFC 3339 can write."""
MAX_TEXT_CHARS = 16 * 1024
"""A text that had to be cut, because its record was too large, keeps this much."""
CUT_MARK = "…[cut]"
"""Ends every text that was cut; also the value that stands where a structure was nested too deeply."""

LEVELS = ("debug", "info", "warning", "error", "critical")
"""Levels of events, in order of severity."""
METRIC_TYPES = ("gauge", "counter", "histogram", "timer")

DEFAULT_BOUNDS = (0, 5, 10, 25, 50, 75, 100, 250, 500, 750, 1000, 2500, 5000, 7500, 10000)
"""Bucket bounds of a histogram that names none (OpenTelemetry SDK specification, explicit bucket histogram)."""

HUNG_EVENT = "application_appears_hung"
RECOVERED_EVENT = "application_recovered"
SLOW_EVENT = "application_slow"
SUSPENDED_EVENT = "application_suspended"
RESUMED_EVENT = "application_resumed"
CRASHED_EVENT = "parent_process_crashed"
OUTPUT_EVENT = "output_tail"
"""What a program last wrote, as the parent that ran it has it: data.stdout and data.stderr, lists of lines."""

State: TypeAlias = dict[str, Any]
"""A JSON object without null members (arrays may hold null)."""
Patch: TypeAlias = dict[str, Any]
"""An RFC 7396 merge patch: null deletes a member."""


class _Kind(msgspec.Struct, tag_field="k", omit_defaults=True, kw_only=False):
    t: int


class Open(_Kind, tag="open"):
    """The first record of a session's first stream: who runs. process_start is the platform's own number."""

    product: str = ""
    version: str = ""
    id: str | None = None
    environment: str | None = None
    hostname: str | None = None
    machine_id: str | None = None
    boot_id: str | None = None
    pid: int | None = None
    process_start: int | None = None
    platform: str | None = None
    daemon_id: str | None = None
    state: State | None = None


class StatePatch(_Kind, tag="state"):
    """A change of the app's state."""

    patch: Patch = {}


class Event(_Kind, tag="event"):
    """Something that happened; level is one of LEVELS, category is free text (None: the same as level)."""

    name: str = ""
    level: str = "info"
    category: str | None = None
    group: str | None = None
    labels: list[str] | None = None
    message: str | None = None
    data: dict[str, Any] | None = None
    stacktrace: list[str] | None = None
    exception_type: str | None = None
    exception_msg: str | None = None
    source_file: str | None = None
    source_line: int | None = None
    source_function: str | None = None


class Metric(_Kind, tag="metric"):
    """One measurement. value of a counter is its increment.

    One sample of a histogram may name its bucket bounds in metadata.buckets [number]. A merged histogram or timer has
    value = sum, and metadata sum, count, min, max (a histogram also buckets [{le, count}], cumulative, the last le
    "+Inf"). A merged gauge has value = last, and metadata count, min, max, mean.
    """

    name: str = ""
    value: int | float = 0
    type: str = "gauge"
    count: int | None = None
    unit: str | None = None
    tags: list[str] | None = None
    metadata: dict[str, Any] | None = None


class Closing(_Kind, tag="closing"):
    """The interpreter is about to end, or (observed) a parent saw how the process ended. Not final by itself."""

    exit_code: int | None = None
    exit_signal: int | None = None
    exception_type: str | None = None
    exception_msg: str | None = None
    observed: bool = False


class Close(_Kind, tag="close"):
    """The app said end(); final."""

    exit_code: int | None = None


class Beat(_Kind, tag="beat"):
    """The app's newest heartbeat was at t."""


class Gap(_Kind, tag="gap"):
    """Bytes of a stream are missing.

    The first record of a stream that cannot begin at 0 carries open and a whole state.
    """

    reason: str = ""
    lost_bytes: int = 0
    open: dict[str, Any] | None = None
    state: State | None = None


class Dropped(_Kind, tag="dropped"):
    """Records that could not be kept since the last such record, counted by reason."""

    counts: dict[str, int] = {}


class Verdict(_Kind, tag="verdict"):
    """A change of status, judged from outside.

    status is a word of routes.STATUS_CODES. by is who judged: daemon or server. hang_s is the length of the hang that
    is over with this verdict, net of sleep.
    """

    status: str = ""
    reason: str | None = None
    detail: str | None = None
    exit_code: int | None = None
    exit_signal: int | None = None
    by: str = "daemon"
    hang_s: float | None = None


class Unknown(msgspec.Struct):
    """A record of a kind that this version does not know; it is passed on and stored as it came."""

    t: int
    k: str


Known: TypeAlias = Open | StatePatch | Event | Metric | Closing | Close | Beat | Gap | Dropped | Verdict
Record: TypeAlias = Known | Unknown

APP_KINDS = ("open", "state", "event", "metric", "closing", "close")
KINDS = (*APP_KINDS, "beat", "gap", "dropped", "verdict")


def kind_of(record: Record) -> str:
    """Return the word in the record's member k."""
    return record.k if isinstance(record, Unknown) else kind_of_type(type(record))


def kind_of_type(one: type) -> str:
    """Return the word that records of a type, or of one made from it, have in k; Unknown is none of these types."""
    return str(one.__struct_config__.tag)  # type: ignore[attr-defined]


def event_level(level: str | None, category: str | None, has_exception: bool) -> str:
    """Return the level of an event: as given, else a category that is a level word, else by its exception."""
    if level:
        return level
    if category in LEVELS:
        return category
    return "error" if has_exception else "info"


def cut_text(text: str, limit: int) -> str:
    """Return text in at most limit characters, ended by CUT_MARK when it was cut."""
    return text if len(text) <= limit else text[: limit - len(CUT_MARK)] + CUT_MARK


def safe_form(value: object, depth: int = MAX_DEPTH, text_chars: int = MAX_TEXT_CHARS) -> Any:
    """Return value as JSON that every border accepts, never raising.

    What JSON cannot say becomes its repr: NaN and infinities, integers beyond 64 bits, objects, bytes. Texts are cut to
    text_chars, lone surrogates become U+FFFD, structures deeper than depth become CUT_MARK, keys become texts.
    """
    if value is None or value is True or value is False:
        return value
    if isinstance(value, str):
        return cut_text(value.encode("utf-8", "replace").decode("utf-8"), text_chars)
    if isinstance(value, int):
        # Between -2^63 and 2^64 - 1, which msgspec reads back as the same integer.
        return int(value) if -(2**63) <= value < 2**64 else _repr(value, text_chars)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else repr(float(value))
    if isinstance(value, (dict, list, tuple, set, frozenset)):
        if depth <= 0:
            return CUT_MARK
        try:
            items = list(value.items() if isinstance(value, dict) else value)
        except Exception:  # a broken container belongs to the app
            return _repr(value, text_chars)
        if isinstance(value, dict):
            return {_key(key): safe_form(item, depth - 1, text_chars) for key, item in items}
        return [safe_form(item, depth - 1, text_chars) for item in items]
    return _repr(value, text_chars)


def _key(key: object) -> str:
    return (
        cut_text(key if isinstance(key, str) else _repr(key, MAX_NAME_CHARS), MAX_NAME_CHARS)
        .encode("utf-8", "replace")
        .decode("utf-8")
    )


def _repr(value: object, limit: int) -> str:
    try:
        text = repr(value)
    except Exception:  # a broken __repr__ belongs to the app and must not cost the record
        text = f"<{type(value).__name__} without repr>"
    return cut_text(text, limit).encode("utf-8", "replace").decode("utf-8")


def is_finite_json(value: object) -> bool:
    """Return whether value holds no NaN or infinity: JSON encoders write those as null, which would delete state."""
    level = [value]
    while level:  # a loop: what came from outside may be nested as deep as a reader of JSON takes it
        if any(isinstance(item, float) and not math.isfinite(item) for item in level):
            return False
        nested = [item for item in level if isinstance(item, (dict, list, tuple))]
        level = [child for item in nested for child in (item.values() if isinstance(item, dict) else item)]
    return True


def depth_of(value: object) -> int:
    """Return how many objects and arrays are nested in value; 0 for a scalar."""
    depth = 0
    level = [value]
    while level := [item for item in level if isinstance(item, (dict, list, tuple))]:
        depth += 1
        level = [child for item in level for child in (item.values() if isinstance(item, dict) else item)]
    return depth


def check(record: Record) -> None:
    """Raise WireError when a decoded record lacks what its kind needs or names a word or a time that does not exist."""
    if not 0 <= record.t <= MAX_T_US:
        raise WireError("t is not a time between 1970 and 9999", pointer="/t")
    match record:
        case Open():
            _require(record.product, "/product")
            _require(record.version, "/version")
        case Event():
            _require(record.name, "/name")
            if record.level not in LEVELS:
                raise WireError(
                    f"there is no level {record.level!r}", pointer="/level", hint=f"use one of {', '.join(LEVELS)}"
                )
        case Metric():
            _require(record.name, "/name")
            if record.type not in METRIC_TYPES:
                raise WireError(
                    f"there is no metric type {record.type!r}",
                    pointer="/type",
                    hint=f"use one of {', '.join(METRIC_TYPES)}",
                )
        case Verdict():
            _require(record.status, "/status")
        case _:
            pass


def _require(text: str, pointer: str) -> None:
    if not text:
        raise WireError(f"{pointer[1:]} is missing or empty", pointer=pointer)
