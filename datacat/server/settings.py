"""A row of a settings table, and how what a source gave becomes a value. Parsers raise ValueError, or OverflowError."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table. parse turns what a source gave into the value, or raises ValueError.

    live: a reload (SIGHUP) changes it while the server runs.
    """

    name: str
    default: Any
    parse: Callable[[object], Any]
    allowed: str
    about: str
    live: bool = False

    @property
    def is_switch(self) -> bool:
        """Whether the setting is on or off."""
        return isinstance(self.default, bool)


def text(value: object) -> str:
    """Return a text without white space around it."""
    if not isinstance(value, str) or "\0" in value:
        raise ValueError
    return value.strip()


def switch(value: object) -> bool:
    """Return whether it is on."""
    words = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in words:
        return words[value.strip().lower()]
    raise ValueError


def names(value: object) -> tuple[str, ...]:
    """Return names in lower case, from an array or from a text with commas."""
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, (list, tuple)) or not all(isinstance(item, str) for item in items):
        raise ValueError
    return tuple(item.strip().lower() for item in items if item.strip())


def address(value: object) -> str:
    """Return the address of a server without a slash at its end. Raises: ValueError."""
    found = text(value)
    if not found:
        return ""
    parts = urlsplit(found)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError
    if "@" in parts.netloc:
        raise ValueError
    return found.rstrip("/")


def whole(low: int, high: int) -> Callable[[object], int]:
    """Return a parser of whole numbers from low to high."""

    def parse(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, (int, str)):
            raise ValueError  # noqa: TRY004  one kind of error for every malformed value
        parsed = int(value)
        if not low <= parsed <= high:
            raise ValueError
        return parsed

    return parse


def number(low: float, high: float) -> Callable[[object], float]:
    """Return a parser of numbers from low to high."""

    def parse(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            raise ValueError  # noqa: TRY004  one kind of error for every malformed value
        parsed = float(value)
        if not low <= parsed <= high:
            raise ValueError
        return parsed

    return parse


def by_name(low: float, high: float) -> Callable[[object], tuple[tuple[str, float], ...]]:
    """Return a parser of numbers by name, from a table or from a text such as "editor=90, player=7"; sorted."""
    one = number(low, high)

    def parse(value: object) -> tuple[tuple[str, float], ...]:
        if isinstance(value, str):
            pairs = [item.rpartition("=") for item in value.split(",") if item.strip()]
            found: dict[object, object] = {name.strip(): given for name, _, given in pairs}
        elif isinstance(value, dict):
            found = value
        else:
            raise ValueError  # noqa: TRY004  one kind of error for every malformed value
        if not all(isinstance(name, str) and name for name in found):
            raise ValueError
        return tuple(sorted((str(name), one(given)) for name, given in found.items()))

    return parse


def word(words: tuple[str, ...]) -> Callable[[object], str]:
    """Return a parser that takes one of words."""

    def parse(value: object) -> str:
        word = text(value).lower()
        if word not in words:
            raise ValueError
        return word

    return parse


def setting(default: Any, parse: Callable[[object], Any], allowed: str, about: str, *, live: bool = False) -> Any:
    """Return a field of a settings class; its metadata is the rest of its row."""
    return field(default=default, metadata={"parse": parse, "allowed": allowed, "about": about, "live": live})
