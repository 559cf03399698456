"""The order of rows: by any column, versions as people count them, missing values last. Pure."""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

from datacat.server.problems import Refusal
from datacat.server.query.shape import Column, Row

VersionKey: TypeAlias = tuple[tuple[int, int, str], ...]
_PARTS = re.compile(r"\d+|[A-Za-z]+")
_BEFORE_RELEASE = {"dev": -5, "a": -4, "alpha": -4, "b": -3, "beta": -3, "c": -2, "pre": -2, "preview": -2, "rc": -2}


@lru_cache(maxsize=4096)
def version_key(version: str) -> VersionKey:
    """Return a key that orders versions: numbers by value, alpha < beta < rc < the release < anything appended.

    After semver.org 2.0, 11 and PEP 440; build metadata behind a + comes last. Never raises.
    """
    key: list[tuple[int, int, str]] = []
    main, _, build = version.removeprefix("v").partition("+")
    for part in _PARTS.findall(main):
        if part.isdigit():
            key.append((1, int(part[:18]), ""))
        else:
            word = part.lower()
            _trim(key)
            key.append((_BEFORE_RELEASE.get(word, -1 if "-" in main else 2), 0, word))
    _trim(key)
    return (*key, (0, 0, build))


def _trim(key: list[tuple[int, int, str]]) -> None:
    while key and key[-1] == (1, 0, ""):  # 1.0 is 1
        key.pop()


def ordered(rows: Iterable[Row], columns: Sequence[Column], sort: str, by: Sequence[str] = ()) -> list[Row]:
    """Return rows by sort, a column with - for descending; ties by the columns of by. Raises: Refusal 400."""
    field, descending = sort.removeprefix("-"), sort.startswith("-")
    if field not in {column.name for column in columns}:
        raise Refusal(400, f"unknown sort {field[:40]!r}", hint=f"use one of {', '.join(c.name for c in columns)}")
    found = sorted(rows, key=lambda row: tuple(sort_value(name, row[name]) for name in by))
    there = [row for row in found if row[field] is not None]
    there.sort(key=lambda row: sort_value(field, row[field]), reverse=descending)
    return [*there, *(row for row in found if row[field] is None)]


def sort_value(field: str, value: Any) -> Any:
    """Return what a value is ordered by."""
    return (version_key(value), value) if field == "version" else value


def newest_version(versions: Iterable[str]) -> list[str]:
    """Return versions, the newest first."""
    return sorted(versions, key=lambda version: (version_key(version), version), reverse=True)
