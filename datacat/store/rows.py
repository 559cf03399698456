"""Read the records of a session in order across its streams, opening no chunk before it is needed. Pure but for load.

Order: t, then stream, then the start of the batch, then the index in it. Records of one batch may be out of order.
"""

import heapq
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

from datacat.store import RecordQuery, Row
from datacat.store.chunks import Chunk, may_match
from datacat.wire.lines import decode_object

Position: TypeAlias = tuple[int, str, int, int]

_TEXTS = ("name", "message", "exception_type", "exception_msg")
_NAMED = ("event", "metric")


def read_rows(chunks: Sequence[Chunk], query: RecordQuery, load: Callable[[Chunk], list[bytes]]) -> Iterator[Row]:
    """Yield the records that match, in the query's order, at most query.limit.

    load returns the lines of a chunk; it is called only for chunks that can match, when their time has come. A limit
    therefore costs what its records' chunks cost, however long the session is.
    """
    wanted = [chunk for chunk in chunks if may_match(chunk, query)]
    rows = _newest_first(wanted, query, load) if query.newest_first else _oldest_first(wanted, query, load)
    for count, row in enumerate(rows):
        if query.limit is not None and count >= query.limit:
            return
        yield row


def _oldest_first(chunks: list[Chunk], query: RecordQuery, load: Callable[[Chunk], list[bytes]]) -> Iterator[Row]:
    chunks.sort(key=lambda chunk: chunk.t_min)
    heap: list[tuple[Position, Row]] = []
    for chunk in chunks:
        # Everything older than this chunk's oldest record is complete now.
        while heap and heap[0][0][0] < chunk.t_min:
            yield heapq.heappop(heap)[1]
        for row in _matching(chunk, query, load):
            heapq.heappush(heap, (row.position, row))
    while heap:
        yield heapq.heappop(heap)[1]


def _newest_first(chunks: list[Chunk], query: RecordQuery, load: Callable[[Chunk], list[bytes]]) -> Iterator[Row]:
    chunks.sort(key=lambda chunk: chunk.t_max, reverse=True)
    rows: list[Row] = []
    for chunk in chunks:
        while rows and rows[-1].position[0] > chunk.t_max:
            yield rows.pop()
        rows.extend(_matching(chunk, query, load))
        # Batches hardly overlap, so this sorts what is nearly sorted.
        rows.sort(key=lambda row: row.position)
    while rows:
        yield rows.pop()


def _matching(chunk: Chunk, query: RecordQuery, load: Callable[[Chunk], list[bytes]]) -> Iterator[Row]:
    text = query.q.casefold()
    for index, raw in enumerate(load(chunk)):
        record = decode_object(raw)
        position = (record["t"], chunk.stream, chunk.start, index)
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
