"""Timestamps: RFC 3339 texts and numbers of several units <-> Unix microseconds, UTC."""

from datetime import UTC, datetime, timedelta

from datacat.errors import WireError
from datacat.wire.records import MAX_T_US

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
# Seconds reach 1e11 in the year 5138, milliseconds reach 1e14 in the same year: no unit can be mistaken before.
_SECONDS_BELOW = 1e11
_MILLISECONDS_BELOW = 1e14


def to_us(value: object) -> int:
    """Return the Unix microseconds of an RFC 3339 text, or of a number in seconds (below 1e11), ms (below 1e14) or us.

    Raises: WireError when it is neither, or lies before 1970 or after the year 9999.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise _unreadable(value)
    if isinstance(value, str):
        us = _parse(value)
    elif value < _SECONDS_BELOW:
        us = round(value * 1_000_000) if isinstance(value, float) else value * 1_000_000
    elif value < _MILLISECONDS_BELOW:
        us = round(value * 1000)
    elif value <= MAX_T_US:
        us = int(value)
    else:
        raise _unreadable(value)
    if us < 0:
        raise _unreadable(value)
    return us


def rfc3339(us: int) -> str:
    """Return us as RFC 3339 in UTC with microseconds and a Z: 2026-01-31T12:00:00.000000Z."""
    return (_EPOCH + timedelta(microseconds=us)).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _parse(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text.upper())  # RFC 3339, 5.6: t and z may be in lower case
    except ValueError as error:
        raise _unreadable(text) from error
    if moment.tzinfo is None or len(text) < len("2026-01-31T12:00Z"):
        raise _unreadable(text)
    return (moment - _EPOCH) // _MICROSECOND


def _unreadable(value: object) -> WireError:
    return WireError(
        f"{str(value)[:64]!r} is not a time", hint="use RFC 3339 with an offset, or Unix seconds, ms or us"
    )
