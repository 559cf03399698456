"""A JSON answer -> a frame, with every habit of the Infinity data source's backend parser.

Follows grafana-infinity-datasource 3.11.1 (jsonframer 1.3.0, gframer 1.1.13), which is Go: numbers are float64, objects
have no order, texts of numbers are what fmt's %v makes. Pure. Our own code.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any


class InfinityError(Exception):
    """What the plugin would answer instead of a frame; the panel shows it."""


@dataclass
class Field:
    """A column: kind is string, number, boolean or time (Unix ms); labels are those of one series."""

    name: str
    kind: str
    values: list[Any]
    labels: dict[str, str] | None = None


@dataclass
class Frame:
    """Columns of equal length; meta has Grafana's word for what they mean, if it knows."""

    name: str
    fields: list[Field] = field(default_factory=list)
    meta: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.fields[0].values) if self.fields else 0

    def named(self, name: str) -> Field:
        """Return the column with this name. Raises: KeyError."""
        for one in self.fields:
            if one.name == name:
                return one
        raise KeyError(name)


MISSING = object()
KINDS = {
    "string": "string",
    "boolean": "boolean",
    "number": "number",
    "timestamp": "time",
    "timestamp_epoch": "time",
    "timestamp_epoch_s": "time",
}
"""Declared types of columns: the kind of the field that comes of it. Any other type is guessed."""


def frame_of(body: str | bytes, root: str = "", columns: Sequence[dict[str, str]] = (), name: str = "") -> Frame:
    """Return the frame of an answer; columns are {selector, text, type}. Raises: InfinityError."""
    text = body.decode() if isinstance(body, bytes) else body
    if not text.strip():
        raise InfinityError("empty response body")
    value = json.loads(text, parse_int=float, parse_constant=_no_constant)
    if root:
        value = found(value, root)
        if value is MISSING:
            raise InfinityError("no results found: gjson finds no root, and nor does JSONata")
    if columns:
        rows = value if isinstance(value, list) else [value] if isinstance(value, dict) else []
        value = [{_text(column): _cell(row, column) for column in columns} for row in rows]
    return Frame(name, _fields(value, columns, name))


def found(value: Any, path: str) -> Any:
    r"""Return what a gjson path leads to, or MISSING: a.b, a.0, a.#, a.#.b, and a\.b for a name with a dot."""
    return _walk(value, [part.replace("\\.", ".") for part in re.split(r"(?<!\\)\.", path)])


def _walk(value: Any, parts: Sequence[str]) -> Any:
    for at, part in enumerate(parts):
        if isinstance(value, dict):
            if part not in value:
                return MISSING
            value = value[part]
        elif isinstance(value, list):
            if part == "#":
                if at == len(parts) - 1:
                    return float(len(value))
                return [one for item in value if (one := _walk(item, parts[at + 1 :])) is not MISSING]
            if not part.isdigit() or int(part) >= len(value):
                return MISSING
            value = value[int(part)]
        else:
            return MISSING
    return value


def _no_constant(text: str) -> Any:
    raise InfinityError(f"{text} is no JSON")


def _text(column: dict[str, str]) -> str:
    return column.get("text") or column["selector"]


def _cell(row: Any, column: dict[str, str]) -> Any:
    value = found(row, column["selector"])
    return None if value is MISSING else value


def _fields(value: Any, columns: Sequence[dict[str, str]], name: str) -> list[Field]:
    if isinstance(value, dict):
        return [_field(key, [value[key]]) for key in sorted(value)]
    if not isinstance(value, list):
        return [_field(name, [value])]
    first = next((item for item in value if item is not None), None)
    if first is None:
        return [_field(name, value)] if value else []
    if isinstance(first, list):
        return [Field(name, "string", [go_json(item) for item in value])]
    if not isinstance(first, dict):
        return [_field(name, value)]
    types = {_text(column): column.get("type", "") for column in columns}
    fields = []
    # Whatever the order of the columns is: by name.
    for key in sorted({key for item in value if isinstance(item, dict) for key in item}):
        cells = [item.get(key) if isinstance(item, dict) else None for item in value]
        declared = types.get(key, "")
        if declared in KINDS and _guess(cells) != "json":
            fields.append(Field(key, KINDS[declared], [converted(cell, declared) for cell in cells]))
        else:
            fields.append(_field(key, cells))
    return fields or [Field(name, "string", [None] * len(value))]


def _field(name: str, cells: list[Any]) -> Field:
    """Return the field of cells whose type is not declared: that of the first one that is not null."""
    kind = _guess(cells)
    if kind == "json":
        return Field(name, "string", [go_json(cell) for cell in cells])
    values = []
    for cell in cells:
        own = _kind(cell)
        if cell is not None and own not in (kind, "json"):
            raise InfinityError(f"panic: interface conversion: {name} has {own} after {kind}")
        values.append(None if own == "json" else cell)
    return Field(name, kind, values)


def _guess(cells: Sequence[Any]) -> str:
    return next((_kind(cell) for cell in cells if cell is not None), "string")


def _kind(value: Any) -> str:
    if value is None or isinstance(value, str):
        return "string"
    if isinstance(value, bool):
        return "boolean"
    return "number" if isinstance(value, (int, float)) else "json"


def converted(value: Any, kind: str) -> Any:
    """Return a cell as its declared type; what cannot be read is null, and nothing is said."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    match kind:
        case "string":
            if isinstance(value, bool):
                return "true" if value else "false"
            return go_text(value) if is_number else value if isinstance(value, str) else None
        case "boolean":
            if isinstance(value, str):
                return True if value.lower() == "true" else None
            return value if isinstance(value, bool) else None
        case "number":
            if isinstance(value, str):
                return _number(value)
            return float(value) if is_number else None
        case "timestamp":
            return time_ms(f"{value:.0f}" if is_number else value) if is_number or isinstance(value, str) else None
    factor = 1000 if kind == "timestamp_epoch_s" else 1
    if isinstance(value, str):
        return int(value) * factor if re.fullmatch(r"[+-]?\d+", value) else None
    return int(value) * factor if is_number else None


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


_INSTANT = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:[.,](\d+))?(Z|[+-]\d\d:\d\d)")
_DATES = ("%Y-%m-%d", "%Y/%m/%d", "%m/%d/%Y")
_TIMES = ("", "T%H:%M", " %H:%M", "T%H:%M:%S", " %H:%M:%S", "T%H:%M:%S.%f", " %H:%M:%S.%f")


def time_ms(text: str) -> int | None:
    """Return the Unix ms of RFC 3339, of some dates without a zone (UTC), of a bare year; None of anything else."""
    if instant := _INSTANT.fullmatch(text):
        base = datetime.fromisoformat(instant[1] + instant[3].replace("Z", "+00:00"))
        return int(base.timestamp()) * 1000 + int((instant[2] or "0").ljust(3, "0")[:3])
    if re.fullmatch(r"\d{4}", text):
        return int(datetime(int(text), 1, 1, tzinfo=UTC).timestamp()) * 1000
    for layout in (date + time for date in _DATES for time in _TIMES):
        try:
            return int(datetime.strptime(text, layout).replace(tzinfo=UTC).timestamp() * 1000)
        except ValueError:
            continue
    return None


def go_text(value: float) -> str:
    """Return what Go's %v makes of a float64: shortest digits, with an exponent below 1e-4 and from 1e6 on."""
    if value == 0:
        return "0"
    sign, digits, exponent = Decimal(repr(float(value))).normalize().as_tuple()
    text = "".join(map(str, digits))
    power = len(text) + int(exponent) - 1
    if power < -4 or power >= 6:
        fraction = f".{text[1:]}" if len(text) > 1 else ""
        text = f"{text[0]}{fraction}e{'-' if power < 0 else '+'}{abs(power):02}"
    else:
        text = format(Decimal((0, digits, int(exponent))), "f")
    return "-" * sign + text


def go_json(value: Any) -> str:
    """Return what Go's json.Marshal makes of a value: sorted keys, <, > and & escaped, plain numbers up to 1e21."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{go_json(key)}:{go_json(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(go_json, value)) + "]"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if value == 0 or 1e-6 <= abs(value) < 1e21:
            text = format(Decimal(repr(float(value))), "f")
            return (text.rstrip("0").rstrip(".") if "." in text else text) or "0"
        return go_text(value).replace("e-0", "e-")
    text = json.dumps(value, ensure_ascii=False)
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text
