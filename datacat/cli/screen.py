"""Tables and lines: rich in a terminal, plain aligned text when piped."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import click
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from datacat.cli.text import tame


class Column(NamedTuple):
    """A column: its title, whether it holds numbers (set to the right), and whether it may be wrapped.

    rank: in a terminal that is too narrow the columns with the highest rank go first; those with 0 stay.
    """

    title: str
    right: bool = False
    wraps: bool = False
    rank: int = 0


class Cell(NamedTuple):
    """A text and how it looks in a terminal."""

    text: str
    style: str = ""


Row = Sequence[Cell | str]
_GAP = 2
"""Spaces between the columns of box.SIMPLE_HEAD."""


def console(*, err: bool = False) -> Console:
    """Return a console on what is standard output now; is_terminal tells which of the two looks it has."""
    return Console(stderr=err, highlight=False)


def table(
    columns: Sequence[Column], rows: Sequence[Row], *, width: int = 0, title: str = "", caption: str = ""
) -> Table:
    """Return a table for a terminal of that width; 0: as wide as it is."""
    if width:
        columns, rows = fitting(columns, rows, width)
    drawn = Table(
        box=box.SIMPLE_HEAD,
        title=title or None,
        caption=caption or None,
        header_style="bold",
        padding=(0, 1, 0, 0),
        expand=False,
    )
    for column in columns:
        drawn.add_column(
            column.title,
            justify="right" if column.right else "left",
            no_wrap=not column.wraps,
            overflow="fold" if column.wraps else "ellipsis",
        )
    for row in rows:
        drawn.add_row(*(Text(text_of(cell), "" if isinstance(cell, str) else cell.style) for cell in row))
    return drawn


def fitting(columns: Sequence[Column], rows: Sequence[Row], width: int) -> tuple[list[Column], list[Row]]:
    """Return columns and rows without the columns of the highest rank that do not fit into width. Pure."""
    needs = [
        max(cell_len(text) for text in (column.title, *(text_of(row[at]) for row in rows)))
        for at, column in enumerate(columns)
    ]
    kept = list(range(len(columns)))
    while (
        sum(needs[at] + _GAP for at in kept) > width
        and (last := max(kept, key=lambda at: columns[at].rank)) is not None
    ):
        if not columns[last].rank:
            break
        kept.remove(last)
    return [columns[at] for at in kept], [[row[at] for at in kept] for row in rows]


def plain_table(columns: Sequence[Column], rows: Sequence[Row]) -> list[str]:
    """Return the lines of a table for a pipe: a header, columns set two spaces apart, nothing cut."""
    texts = [[column.title for column in columns], *([text_of(cell) for cell in row] for row in rows)]
    widths = [max(len(row[at]) for row in texts) for at in range(len(columns))]
    return [
        "  ".join(
            cell.rjust(width) if column.right else cell.ljust(width)
            for cell, width, column in zip(row, widths, columns, strict=True)
        ).rstrip()
        for row in texts
    ]


def print_table(columns: Sequence[Column], rows: Sequence[Row], *, title: str = "") -> None:
    """Print a table as standard output needs it."""
    out = console()
    if out.is_terminal:
        out.print(table(columns, rows, width=out.width, title=title))
    else:
        for line in plain_table(columns, rows):
            click.echo(line)


def print_json(value: Any) -> None:
    """Print a value as JSON, indented."""
    import json

    click.echo(json.dumps(value, ensure_ascii=False, indent=2))


def markup(text: str, style: str) -> str:
    """Return text in rich's markup, so that no bracket of it is read as a tag."""
    return f"[{style}]{escape(text)}[/]" if style else escape(text)


def text_of(cell: Cell | str) -> str:
    """Return what is shown of a cell, where nothing commands the terminal."""
    return tame(cell if isinstance(cell, str) else cell.text)
