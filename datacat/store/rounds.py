"""The rounds of a group commit: what one fsync makes durable for all who have written by then, and who waits for it."""

from collections import deque
from collections.abc import Callable, Sequence

from datacat.errors import StoreError
from datacat.host import faults
from datacat.store.segment import Segment


class Round:
    """Begun by one thread, made durable by sync() in the same or another, and ended by the first.

    goal is the newest ticket that it makes durable, segments are what was written to. failure is what to tell everybody
    who waits; it is there until sync() has succeeded. chores is what the thread of sync() is to call behind it, when
    nobody waits for that any more.
    """

    def __init__(self, goal: int, segments: Sequence[Segment] = ()) -> None:
        self.goal = goal
        self.segments = segments
        self.chores: Callable[[], None] = _nothing
        self.failure: StoreError | None = StoreError("a commit was interrupted", hint="restart the server")

    @property
    def waits(self) -> bool:
        """Whether sync() has anything to wait for."""
        return bool(self.segments)

    def sync(self) -> None:
        """Wait for the disk; what fails is kept in failure."""
        try:
            for segment in self.segments:
                faults.at("store.written")
                segment.sync()
                faults.at("store.synced")
            self.failure = None
        except StoreError as error:
            self.failure = error


def _nothing() -> None:
    """Be the chores of a round that has none."""


class Sleepers:
    """Who waits for the round of another: the ticket, and what wakes that one alone. The segments' lock guards it."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, Callable[[], object]]] = deque()

    def add(self, ticket: int, wake: Callable[[], object]) -> None:
        """Let wake be called once."""
        self._waiting.append((ticket, wake))

    def wake(self, durable: int, *, everybody: bool) -> None:
        """Wake those whose ticket is durable, and one more to begin the next round.

        To wake them all would cost each batch several switches between threads, most of them only to wait again.
        """
        waiting, self._waiting = self._waiting, deque()
        leads = False
        for ticket, wake in waiting:
            if everybody or ticket <= durable or not leads:
                leads = leads or ticket > durable
                wake()
            else:
                self._waiting.append((ticket, wake))
