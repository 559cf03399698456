"""Read the records of a session in order across its streams, opening nothing before it is needed. Pure but for load.

Order: t, then stream, then the start of the batch, then the index in it. Records of one batch may be out of order.
"""

import heapq
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from typing import Any, TypeAlias, TypeVar

from datacat.store import RecordQuery, Row
from datacat.store.chunks import Described, Part, may_match
from datacat.wire.lines import decode_object

Position: TypeAlias = tuple[int, str, int, int]
Piece: TypeAlias = tuple[Part, list[bytes]]
"""A part and its lines."""
Span = TypeVar("Span", bound=Described)
"""Something that has parts."""

_TEXTS = ("name", "message", "exception_type", "exception_msg")
_NAMED = ("event", "metric")


def read_rows(spans: Iterable[Span], query: RecordQuery, load: Callable[[Span], Iterable[Piece]]) -> Iterator[Row]:
    """Yield the records that match, in the query's order, at most query.limit.

    load returns the parts of a span with their lines; it is called only for spans that can match, when their time has
    come. A limit therefore costs what its records' spans cost, however long the session is.
    """
    wanted = [span for span in spans if may_match(span, query)]
    rows = _newest_first(wanted, query, load) if query.newest_first else _oldest_first(wanted, query, load)
    for number, row in enumerate(rows):
        if query.limit is not None and number >= query.limit:
            return
        yield row


def _oldest_first(spans: list[Span], query: RecordQuery, load: Callable[[Span], Iterable[Piece]]) -> Iterator[Row]:
    numbers = count(len(spans))
    # The number keeps what has the same time from being compared.
    waiting: list[tuple[int, int, Span | None, Piece | None]]
    waiting = [(span.t_min, number, span, None) for number, span in enumerate(spans)]
    heapq.heapify(waiting)
    rows: list[tuple[Position, Row]] = []
    while waiting:
        t_min, _, span, piece = heapq.heappop(waiting)
        # Everything older than what is still to be opened is complete now.
        while rows and rows[0][0][0] < t_min:
            yield heapq.heappop(rows)[1]
        if span is not None:
            for one in load(span):
                if may_match(one[0], query):
                    heapq.heappush(waiting, (one[0].t_min, next(numbers), None, one))
        elif piece is not None:
            for row in _matching(piece, query):
                heapq.heappush(rows, (row.position, row))
    while rows:
        yield heapq.heappop(rows)[1]


def _newest_first(spans: list[Span], query: RecordQuery, load: Callable[[Span], Iterable[Piece]]) -> Iterator[Row]:
    numbers = count(len(spans))
    waiting: list[tuple[int, int, Span | None, Piece | None]]
    waiting = [(-span.t_max, number, span, None) for number, span in enumerate(spans)]
    heapq.heapify(waiting)
    rows: list[Row] = []
    while waiting:
        before, _, span, piece = heapq.heappop(waiting)
        while rows and rows[-1].position[0] > -before:
            yield rows.pop()
        if span is not None:
            for one in load(span):
                if may_match(one[0], query):
                    heapq.heappush(waiting, (-one[0].t_max, next(numbers), None, one))
        elif piece is not None:
            rows.extend(_matching(piece, query))
            # Batches hardly overlap, so this sorts what is nearly sorted.
            rows.sort(key=_position)
    while rows:
        yield rows.pop()


def _position(row: Row) -> Position:
    return row.position


def _matching(piece: Piece, query: RecordQuery) -> Iterator[Row]:
    text = query.q.casefold()
    part, lines = piece
    for index, raw in enumerate(lines):
        record = decode_object(raw)
        position = (record["t"], part.stream, part.start, index)
        if query.after is not None and (position >= query.after if query.newest_first else position <= query.after):
            continue
        if matches(record, query, text):
            yield Row(position, record)


def matches(record: dict[str, Any], query: RecordQuery, text: str) -> bool:
    """Return whether a record is asked for, position aside; text is query.q in its casefolded form."""
    t = record["t"]
    if query.from_us is not None and t < query.from_us:
        return False
    if query.to_us is not None and t >= query.to_us:
        return False
    if query.kinds and record["k"] not in query.kinds:
        return False
    if query.names and not (record["k"] in _NAMED and record.get("name") in query.names):
        return False
    # Encoders leave out members that have their default.
    if query.levels and not (record["k"] == "event" and record.get("level", "info") in query.levels):
        return False
    return not text or any(text in str(record.get(member, "")).casefold() for member in _TEXTS)
