"""The processes that a daemon watches: who has ended, and how. Owned by the main thread."""

import selectors

from datacat.errors import HostError
from datacat.host import process
from datacat.host.process import UNKNOWN_EXIT, Exit, ExitWatch, Target


class Exits:
    """Watch processes through a selector; where the platform has no descriptor for that, ask() looks."""

    def __init__(self, selector: selectors.BaseSelector, owner: Target | None = None, owner_fd: int = -1) -> None:
        self._selector = selector
        self._owner = owner
        self._owner_fd = owner_fd
        self._watches: dict[Target, ExitWatch] = {}
        self._seen: dict[Target, Exit] = {}

    def watch(self, target: Target) -> Exit | None:
        """Begin to watch a process; return how it ended when it has already."""
        if target in self._seen or target in self._watches:
            return self._seen.get(target)
        fd, self._owner_fd = (self._owner_fd, -1) if target == self._owner else (-1, self._owner_fd)
        try:
            watching = process.watch(target, fd)
        except HostError:  # gone, or not to be watched: a later look at its pid tells no more
            self._seen[target] = UNKNOWN_EXIT
            return UNKNOWN_EXIT
        self._watches[target] = watching
        if (number := watching.fileno()) is not None:
            self._selector.register(number, selectors.EVENT_READ, target)
        return self.ask(target)

    def ask(self, target: Target) -> Exit | None:
        """Return how a process ended, None while it runs."""
        watching = self._watches.get(target)
        if watching is None:
            return self._seen.get(target)
        fd = watching.fileno()
        seen = watching.wait(0.0)
        if seen is not None:
            self._drop(target, watching, fd)
            self._seen[target] = seen
        return seen

    def gone(self, target: Target | None) -> bool:
        """Whether the end of a process has been seen."""
        return target in self._seen

    @property
    def unselected(self) -> list[Target]:
        """The processes that only ask() tells about."""
        return [target for target, watching in self._watches.items() if watching.fileno() is None]

    def forget(self, target: Target) -> None:
        """Watch a process no more."""
        watching = self._watches.get(target)
        if watching is not None:
            self._drop(target, watching, watching.fileno())
        if target != self._owner:
            self._seen.pop(target, None)

    def close(self) -> None:
        """Close every watch; idempotent."""
        for target, watching in list(self._watches.items()):
            self._drop(target, watching, watching.fileno())

    def _drop(self, target: Target, watching: ExitWatch, fd: int | None) -> None:
        if fd is not None:
            self._selector.unregister(fd)
        watching.close()
        del self._watches[target]
