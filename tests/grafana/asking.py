"""A target of a dashboard -> the address that is asked: variables by the browser, macros and encoding by the plugin.

Formats of variables follow Grafana's format registry, macros and encoding Infinity 3.11.1. Pure.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from grafana.framing import InfinityError

Value: TypeAlias = str | Sequence[str]
"""Of a variable: a text, or a list when several may be chosen (also when one is)."""


class Everything(str):
    """The value of All of a variable that has one of its own: it stands as it is, in whatever format."""

    __slots__ = ()


class Range(NamedTuple):
    """The time range of a query, Unix ms."""

    start_ms: int
    stop_ms: int


_VARIABLE = re.compile(r"\$(\w+)|\$\{(\w+)(?:\.\w+)?(?::(\w+))?\}")


def interpolated(text: str, variables: Mapping[str, Value]) -> str:
    """Return a text with the variables that exist put in, as the browser does; the format is glob unless one is given."""

    def put(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        return formatted(variables[name], match[3] or "glob") if name in variables else match[0]

    return _VARIABLE.sub(put, text)


def formatted(value: Value, form: str) -> str:
    """Return the text of a variable in a format: glob, csv, raw, doublequote."""
    if isinstance(value, Everything):
        return str(value)
    several = [value] if isinstance(value, str) else list(value)
    if form == "doublequote":
        return ",".join('"' + one.replace('"', '\\"') + '"' for one in several)
    if form in ("csv", "raw"):
        return ",".join(several)
    if form != "glob":
        raise ValueError(f"not emulated: {form}")
    return "{" + ",".join(several) + "}" if len(several) > 1 else several[0]


def with_macros(text: str, span: Range) -> str:
    """Return a text with the plugin's macros of the time range put in, without blanks around."""
    for names, ms in ((("from", "timeFrom"), span.start_ms), (("to", "timeTo"), span.stop_ms)):
        for name in names:
            macro = re.compile(rf"\$\{{__{name}:?(.*?)\}}")
            text = macro.sub(lambda match, ms=ms: _time(match[1], ms), text)
    return text.strip()


def _time(form: str, ms: int) -> str:
    match form:
        case "":
            return str(ms)
        case "date" | "date:iso":
            whole = datetime.fromtimestamp(ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
            return f"{whole}.{ms % 1000:03}".rstrip("0").rstrip(".") + "Z"
        case "date:seconds":
            return str(ms // 1000)
    raise InfinityError(f"not emulated: the form {form} of a time")


def address(base: str, target: Mapping[str, Any], span: Range, extra: Iterable[tuple[str, str]] = ()) -> str:
    """Return the address of a target: base and path as they are, all parameters sorted by name and form-encoded."""
    url = with_macros(target["url"], span)
    url = url if url.startswith(base) else base + url
    parts = urlsplit(url)
    query = parse_qsl(parts.query, keep_blank_values=True)
    given = target.get("url_options", {}).get("params") or []
    query += [(one["key"], with_macros(one["value"], span)) for one in given]
    query = sorted([*query, *extra], key=lambda item: item[0])
    return urlunsplit(parts._replace(query=urlencode(query)))


def browsed(target: Mapping[str, Any], variables: Mapping[str, Value]) -> dict[str, Any]:
    """Return the target as it leaves the browser: variables are put into path, parameters and root, not into columns."""
    options = dict(target.get("url_options", {}))
    options["params"] = [{**one, "value": interpolated(one["value"], variables)} for one in options.get("params") or []]
    return {
        **target,
        "url": interpolated(target["url"], variables),
        "url_options": options,
        "root_selector": interpolated(target.get("root_selector", ""), variables),
    }
