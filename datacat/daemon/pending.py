"""How many records of a session's streams are written and not shipped yet: for the ledger. The uplink's thread.

Counting reads each byte once more than shipping does, and only of a backlog: who keeps up has nothing behind a batch.
"""

from datacat.daemon.streams import Source
from datacat.wire.layout import SEGMENT_BYTES


class Pending:
    """Remembers for each stream up to where its records are counted."""

    def __init__(self) -> None:
        self._known: dict[str, list[tuple[int, int]]] = {}

    def clear(self) -> None:
        """Count anew: segments were squeezed."""
        self._known.clear()

    def behind(self, source: Source, offset: int) -> int:
        """Return how many records lie from offset on. Raises: JournalError."""
        pieces = [piece for piece in self._known.pop(source.id, []) if piece[0] > offset]
        # A cut inside a counted piece: count the rest of that piece anew.
        total, at = 0, offset
        counted: list[tuple[int, int]] = []
        if pieces:
            rest = source.read(offset, SEGMENT_BYTES, stop=pieces[0][0])
            while rest.data and rest.end < pieces[0][0]:
                total += rest.records
                rest = source.read(rest.end, SEGMENT_BYTES, stop=pieces[0][0])
            total += rest.records
            counted = [(pieces[0][0], total), *pieces[1:]]
            total += sum(records for _, records in pieces[1:])
            at = pieces[-1][0]
        while (piece := source.read(at, SEGMENT_BYTES)).data:
            total += piece.records
            at = piece.end
            counted.append((at, piece.records))
        if counted:
            self._known[source.id] = counted
        return total
