"""Parameters of a request -> what is asked, checked against the endpoint's table. Pure; refusals name the parameter."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from datacat.errors import WireError
from datacat.server.problems import Refusal
from datacat.server.query import spans
from datacat.server.query.shape import Endpoint, Parameter
from datacat.server.query.spans import Span
from datacat.store import Head

_ALL = frozenset({"", "*", "$__all", "All"})
"""Values of a filter that mean: no filter. The last two are what Grafana sends."""
MAX_VALUES = 500


@dataclass(frozen=True, slots=True)
class Filter:
    """Which values pass: those included (empty: all), without those excluded."""

    included: frozenset[str] = frozenset()
    excluded: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.included or self.excluded)

    def passes(self, value: str | None) -> bool:
        """Return whether a value passes."""
        return (not self.included or value in self.included) and value not in self.excluded


_ANY = Filter()


@dataclass(frozen=True, slots=True)
class Asked:
    """One question. values are the parameters by name; filters those of the sessions' dimensions that say something.

    products: the only ones that exist for the asker; empty: all.
    """

    now_us: int
    span: Span
    values: Mapping[str, Any]
    filters: Mapping[str, Filter]
    products: frozenset[str] = frozenset()

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def sees_product(self, product: str) -> bool:
        """Return whether the filter of products and the asker's key let a product pass."""
        return (not self.products or product in self.products) and self.filters.get("product", _ANY).passes(product)

    def buckets(self) -> spans.Buckets:
        """Return the buckets of a time series; with many groups they are fewer, so that an answer stays bounded."""
        groups = self["top"] + 1 if self.values.get("by") else 1
        points = min(self["max_points"], MAX_CELLS // groups)
        return spans.buckets(self.span, self["interval"], points)


MAX_CELLS = 20_000
"""Buckets times groups of an answer."""

HEAD_FIELDS = {
    "product": "product",
    "version": "version",
    "status": "status",
    "hostname": "hostname",
    "machine": "machine_id",
    "session": "id",
    "environment": "environment",
    "end_reason": "end_reason",
    "daemon": "daemon_id",
    "platform": "platform",
}
"""Dimensions of sessions and the member of the head that has them."""


def dimension(head: Head, name: str) -> str | None:
    """Return a session's value of a dimension."""
    value: str | None = getattr(head, HEAD_FIELDS[name])
    return value


def read(
    endpoint: Endpoint, query: Mapping[str, list[str]], now_us: int, products: frozenset[str] = frozenset()
) -> Asked:
    """Return the question that a query asks of an endpoint. Raises: Refusal 400."""
    values: dict[str, Any] = {}
    filters: dict[str, Filter] = {}
    for parameter in endpoint.parameters:
        given = query.get(parameter.name, [])
        try:
            value = _value(parameter, given, now_us)
        except WireError as error:
            raise Refusal(400, f"{parameter.name}: {error.message}", hint=error.hint) from error
        values[parameter.name] = value
        if parameter.kind == "filter" and value and parameter.name in HEAD_FIELDS:
            filters[parameter.name] = value
    to, since = values.get("to"), values.get("from")
    stop: int = now_us if to is None else to
    start: int = max(0, stop - spans.DEFAULT_SPAN_US) if since is None else since
    if start > stop:
        raise Refusal(400, "from is later than to")
    return Asked(now_us, Span(start, stop), values, filters, products)


def split(text: str) -> list[str]:
    r"""Return the items of a comma list; \, is a comma and \\ a backslash inside of one.

    An item in double quotes is what is in them, commas as well, and \" a quote: Grafana's format doublequote.
    """
    items, at, closes = [], 0, True
    while at <= len(text):
        found = _QUOTED.match(text, at) if closes else None
        if found:
            items.append(found[1].replace('\\"', '"'))
        else:
            # Where none closes none does further on: so that a text of nothing but quotes is read once.
            closes = closes and text[at : at + 1] != '"'
            found = next(_PLAIN.finditer(text, at))
            items.append(_ESCAPED.sub(r"\1", found[0]))
        at = found.end() + 1
    return items


_QUOTED = re.compile(r'"(.*?)(?<!\\)"(?=,|\Z)', re.DOTALL)
_PLAIN = re.compile(r"(?:[^,\\]|\\.|\\\Z)*", re.DOTALL)
_ESCAPED = re.compile(r"\\([,\\])")


def _value(parameter: Parameter, given: list[str], now_us: int) -> Any:
    """Return the value of a parameter of its kind. Raises: Refusal, WireError."""
    name, kind = parameter.name, parameter.kind
    if kind == "texts":
        return tuple(text for text in given if text)
    if kind in ("filter", "words", "names", "numbers"):
        given = given if any(given) else [parameter.default or ""]
        items = [item.strip() if kind != "filter" else item for text in given for item in split(text)]
        if len(items) > MAX_VALUES:
            raise Refusal(400, f"{name} has more than {MAX_VALUES} values")
        if kind == "filter":
            if parameter.required and not any(items):
                raise Refusal(400, f"the parameter {name} is missing")
            return _filter(parameter, items)
        items = [item for item in items if item]
        if parameter.required and not items:
            raise Refusal(400, f"the parameter {name} is missing")
        if kind == "numbers":
            return tuple(_number(name, item) for item in items)
        if kind == "words":
            for item in items:
                _word(parameter, item)
        return tuple(dict.fromkeys(items))
    if len(given) > 1:
        raise Refusal(400, f"the parameter {name} stands {len(given)} times")
    text = given[0] if given and given[0] else parameter.default or ""
    if kind == "length":
        # An alert rule of Grafana sends the name of its interval's variable.
        return 0 if not text or text == "auto" or text.startswith("$") else spans.length_of(text)
    if not text:
        if parameter.required:
            raise Refusal(400, f"the parameter {name} is missing")
        return None if kind in ("time", "count") else ""
    if kind == "time":
        return spans.time_of(text, now_us)
    if kind == "word":
        return _word(parameter, text)
    if kind == "flag":
        return _word(parameter, text) == "1"
    if kind == "count":
        return _count(parameter, text)
    return text


def _filter(parameter: Parameter, items: list[str]) -> Filter:
    included = frozenset(item for item in items if item not in _ALL and not item.startswith("!"))
    excluded = frozenset(item[1:] for item in items if item.startswith("!") and item[1:] not in _ALL)
    if parameter.words:
        for item in included | excluded:
            _word(parameter, item)
    if any(item in _ALL and item for item in items):
        included = frozenset()
    return Filter(included, excluded)


def _word(parameter: Parameter, text: str) -> str:
    if text not in parameter.words:
        raise Refusal(400, f"unknown {parameter.name} {text[:40]!r}", hint=f"use one of {', '.join(parameter.words)}")
    return text


def _count(parameter: Parameter, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10 and parameter.low <= int(text)):
        raise Refusal(400, f"{parameter.name}={text[:40]} is no whole number from {parameter.low} up")
    if int(text) > parameter.high:
        raise Refusal(400, f"{parameter.name}={text[:40]} is more than {parameter.high}")
    return int(text)


def _number(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise Refusal(400, f"{name}: {text[:40]!r} is no number") from error
    if not 0 < value < 1e12:
        raise Refusal(400, f"{name}: {text[:40]!r} is not between 0 and 1e12")
    return value
