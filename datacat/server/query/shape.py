"""What an endpoint of the query layer is: its parameters, its columns, its function. The table is made of these."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Row: TypeAlias = dict[str, Any]

KINDS = {
    "text": {"type": "string"},
    "integer": {"type": "integer"},
    "number": {"type": "number"},
    "flag": {"type": "boolean"},
    "time_ms": {"type": "integer", "description": "Unix time in milliseconds"},
    "time": {"type": "string", "format": "date-time"},
}
"""Kinds of columns and their JSON Schema."""


@dataclass(frozen=True, slots=True)
class Column:
    """A member of every row: a word of KINDS, what it means, and whether it may be null."""

    name: str
    kind: str
    text: str
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter.

    kind: time (see spans.time_of), length (see spans.length_of), text, filter (values, ! means not), words (of a fixed
    list), names (free words), texts (each stands for itself), count (from low to high), numbers, word (one of words),
    flag (0 or 1).
    default is a text as it would be given; None: there is none.
    """

    name: str
    kind: str
    text: str
    words: tuple[str, ...] = ()
    default: str | None = None
    low: int = 0
    high: int = 0
    required: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """What a question was answered with; columns are those of these rows, in order."""

    columns: Sequence[Column]
    rows: list[Row]
    next_cursor: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint below /api/query/. columns are all that its rows may have; the first `always` of them always do.

    example is a query that a test asks. open_ended: rows may have columns that are named by the question (tag:KEY).
    """

    path: str
    title: str
    text: str
    parameters: tuple[Parameter, ...]
    columns: tuple[Column, ...]
    answer: Callable[..., Result]
    always: int = 0
    example: str = ""
    open_ended: bool = False
