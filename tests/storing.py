"""How the tests of the store write sessions and read them back."""

from datacat.store import Batch, Query, RecordQuery
from datacat.wire.lines import Line, encode
from datacat.wire.records import Open


def sid(number):
    return f"01890a5d-ac96-774b-bcce-{number:012x}"


A, B = sid(1), sid(2)


def line(record):
    raw = encode(record)[:-1]
    return Line(record, raw)


def lines(*records):
    return [line(record) for record in records]


def opened(t=100, product="editor", version="1", **more):
    return Open(t=t, product=product, version=version, **more)


def put(store, session_id, *records, stream="app", received_us=1_000):
    """Append at the end of a stream, as the server does with its own records."""
    return store.append(session_id, Batch(stream, lines(*records)), received_us=received_us)


def ship(store, session_id, start, end, *records, stream="app", crc=None, end_crc=None):
    batch = Batch(stream, lines(*records), start, end, crc, end_crc)
    return store.append(session_id, batch, received_us=1_000)


def stored(store, session_id, **query):
    return [row.record for row in store.records(session_id, RecordQuery(**query))]


def everything(store):
    """Return all that a reader can see of a store."""
    return {
        head.id: (
            head,
            store.state(head.id),
            [(row.position, row.record) for row in store.records(head.id, RecordQuery())],
        )
        for head in store.heads(Query(limit=10_000)).heads
    }


def cells_of(store, query):
    """Return the cells of an answer in a form that does not depend on the order of merging."""
    cells = store.rollups(query).cells
    for cell in cells.values():
        cell.distribution, cell.sum = cell.bins, round(cell.sum, 6)
    return cells
