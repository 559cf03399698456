"""A session on a server whose clock the test sets, and the sweep that judges it."""

import itertools

from datacat.server.config import Live
from datacat.server.jobs import Sweep
from datacat.store import Batch
from datacat.wire import lines
from datacat.wire.lines import Line
from datacat.wire.records import Open

US = 1_000_000
DAY = 24 * 3600
numbers = itertools.count(1)


class Watched:
    """One session on a server, and the sweep."""

    def __init__(self, server, **opened):
        self.server = server
        self.id = f"01890a5d-ac96-774b-bcce-{next(numbers):012x}"
        self.sweep = Sweep(server.own, server.leases, Live(server.config), server.now_us)
        self.offset = 0
        self.ship(Open(server.now_us, "editor", "1", **opened))

    def ship(self, *records, stream="app"):
        made = [Line(record, lines.encode(record)[:-1]) for record in records]
        if stream == "app":
            self.offset += 100
            batch = Batch(stream, made, self.offset - 100, self.offset)
        else:
            batch = Batch(stream, made)
        self.server.store.append(self.id, batch, received_us=self.server.now_us)

    def later(self, seconds, step=5):
        """Let time pass, sweeping every step seconds."""
        end = self.server.now_us + round(seconds * US)
        while self.server.now_us < end:
            self.server.now_us = min(end, self.server.now_us + step * US)
            self.sweep.step(self.server.now_us)

    @property
    def head(self):
        return self.server.store.head(self.id)

    @property
    def status(self):
        return self.head.status

    @property
    def events(self):
        return [event["name"] for event in self.server.get_session(self.id)["events"]]
