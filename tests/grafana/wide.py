"""What the plugin does to a frame before Grafana gets it: long to wide, the word for what it means, pages as one.

Follows data.LongToWide of grafana-plugin-sdk-go with null filling, and the post-processing of Infinity 3.11.1. Pure.
"""

from collections.abc import Sequence
from typing import Any

from grafana.framing import Field, Frame, InfinityError


def shape(frame: Frame) -> str:
    """Return "long" (a time, a number, texts or flags), "wide" (no texts) or "not" a time series."""
    time, factors, values = _roles(frame)
    if time is None or not values:
        return "not"
    return "long" if factors else "wide"


def _roles(frame: Frame) -> tuple[Field | None, list[Field], list[Field]]:
    """Return the time, the factors and the values. Of several times the first by name is the time, others are values."""
    time = next((one for one in frame.fields if one.kind == "time"), None)
    factors = [one for one in frame.fields if one.kind in ("string", "boolean")]
    return time, factors, [one for one in frame.fields if one is not time and one.kind in ("number", "time")]


def long_to_wide(frame: Frame) -> Frame:
    """Return a field for each value and set of labels; where a series has no row it is null. Raises: InfinityError."""
    time, factors, values = _roles(frame)
    assert time is not None
    if not time.values:
        raise InfinityError("long series without rows")
    times: list[int] = []
    series: dict[tuple[str, tuple[tuple[str, str], ...], str], dict[int, Any]] = {}
    for row, now in enumerate(time.values):
        if now is None:
            raise InfinityError("a time is null")
        if times and now < times[-1]:
            raise InfinityError("long series must be sorted ascending by time")
        if not times or now > times[-1]:
            times.append(now)
        labels = tuple((one.name, _label(one, row)) for one in factors)
        for one in values:
            # The last one of several rows with the same time and labels wins.
            series.setdefault((one.name, labels, one.kind), {})[len(times) - 1] = one.values[row]
    fields = [Field(time.name, "time", times)]
    for (name, labels, kind), cells in sorted(series.items(), key=lambda item: item[0][:2]):
        fields.append(Field(name, kind, [cells.get(at) for at in range(len(times))], dict(labels)))
    return Frame(frame.name, fields, {"type": "timeseries-wide"})


def _label(factor: Field, row: int) -> str:
    value = factor.values[row]
    if isinstance(value, bool) or factor.kind == "boolean":
        return "true" if value else "false"
    return value or ""


def finished(frame: Frame, form: str) -> Frame:
    """Return the frame as the plugin answers it for a format: table, timeseries or logs."""
    if form == "timeseries" and shape(frame) == "long":
        try:
            return long_to_wide(frame)
        except InfinityError:
            pass  # the plugin says nothing and answers the long frame: charts and alerts of it are nonsense
    kinds = [one.kind for one in frame.fields]
    numbers, texts = kinds.count("number"), kinds.count("string")
    if (len(frame) == 1 and numbers) or (len(frame) > 1 and numbers and texts):
        frame.meta["type"] = "numeric-long"
    elif len(frame) <= 1 and (numbers or "boolean" in kinds):
        frame.meta["type"] = "numeric-wide"
    if form == "logs":
        if {("timestamp", "time"), ("body", "string")} <= {(one.name, one.kind) for one in frame.fields}:
            frame.meta["type"] = "log-lines"
        frame.meta["preferredVisualisationType"] = "logs"
    return frame


def merged(frames: Sequence[Frame]) -> Frame:
    """Return the pages of one query as one frame. Raises: InfinityError."""
    first = frames[0]
    for other in frames[1:]:
        if len(first.fields) != len(other.fields):
            raise InfinityError("unable to merge fields due to different fields")
        for mine, theirs in zip(first.fields, other.fields, strict=True):
            if mine.name != theirs.name:
                raise InfinityError("unable to merge fields due to different field names")
            if mine.kind != theirs.kind:
                raise InfinityError("unable to merge fields due to different field types")
            mine.values = [*mine.values, *theirs.values]
    return first
