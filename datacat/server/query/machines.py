"""Who reports: the machines with sessions in a span, from the columns of the shelves, the last heard of first."""

from bisect import bisect_left
from collections import Counter
from typing import NamedTuple

from datacat.server.query.asked import Asked
from datacat.server.query.cohorts import of_shelf
from datacat.server.query.ground import Ground
from datacat.store.shelf import machine_of


class Machine(NamedTuple):
    """One machine; started and crashed are of the sessions that began in the span.

    last_seen (us) is when the server last got anything of its newest session or of one that is open.
    """

    machine: str
    hostname: str
    last_seen: int
    open: int
    sessions: int
    started: int
    crashed: int


def machines(asked: Asked, ground: Ground, limit: int) -> list[Machine]:
    """Return at most so many machines that had a session in the span, the last heard of first."""
    start, stop = asked.span
    fleet = ground.store.fleet
    straddling: Counter[str] = Counter()
    started: Counter[str] = Counter()
    crashed: Counter[str] = Counter()
    running: Counter[str] = Counter()
    newest: dict[str, tuple[int, str]] = {}
    living: list[str] = []
    with fleet.reading() as shelves:
        for key, shelf in shelves.items():
            if not of_shelf(asked, *key):
                continue
            low, high = bisect_left(shelf.created, start), bisect_left(shelf.created, stop)
            before = list(shelf.straddling(start - 1))
            started.update(shelf.machines[low:high])
            straddling.update(shelf.machines[at] for at in before)
            crashed.update(row.machine for row in shelf.crashed if start <= row.created < stop)
            living += shelf.open
            # In the order of their begin, so that the newest one of each machine stays.
            last = {shelf.machines[at]: at for at in reversed(before)}
            last.update(zip(shelf.machines[low:high], range(low, high), strict=True))
            for name, at in last.items():
                if name not in newest or newest[name][0] < shelf.created[at]:
                    newest[name] = (shelf.created[at], shelf.ids[at])
        heads = {name: head for name, (_, one) in newest.items() if name and (head := fleet.glance(one)) is not None}
        heard = {name: head.last_seen for name, head in heads.items()}
        for one in living:
            head = fleet.glance(one)
            if head is not None and (name := machine_of(head)) in heard:
                running[name] += 1
                heard[name] = max(heard[name], head.last_seen)
    shown = sorted(heard, key=lambda name: (-heard[name], name))[:limit]
    return [
        Machine(name, heads[name].hostname or "", heard[name], running[name], started[name] + straddling[name],
                started[name], crashed[name])
        for name in shown
    ]  # fmt: skip
