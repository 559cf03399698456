"""When to ask a server again that did not answer or asked to be left alone. Pure.

Waits double from 1 s to longest_s, each shortened by up to half at random, so that hundreds of daemons whose server
went away at one moment come back over minutes (the tests show the spread). A Retry-After is kept to, up to a day, and
some more at random, for the same reason.
"""

import random
from collections.abc import Callable

FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 300.0
LONGEST_LOCAL_WAIT_S = 5.0
"""A refused connection to this machine costs nothing, and its server comes back soon."""
REFUSED_LOCAL_WAIT_S = 60.0
MAX_RETRY_AFTER_S = 24 * 3600.0


class Backoff:
    """failures counts those in a row, next_s is when to try again, told_s until when the server asked for peace."""

    def __init__(self, longest_s: float, jitter: Callable[[], float] = random.random) -> None:
        self.failures = 0
        self.next_s = 0.0
        self.told_s = 0.0
        self._longest_s = longest_s
        self._jitter = jitter

    def failed(self, now_s: float, retry_after_s: float | None = None, *, refused: bool = False) -> None:
        """Note a failure. refused: the server does not know us, which a person has to change: ask seldom."""
        longest_s = max(self._longest_s, REFUSED_LOCAL_WAIT_S) if refused else self._longest_s
        wait_s = longest_s if refused else min(longest_s, FIRST_WAIT_S * 2 ** min(self.failures, 30))
        self.failures += 1
        wait_s *= 1 - self._jitter() / 2
        self.told_s = 0.0
        if retry_after_s is not None:
            asked_s = min(max(0.0, retry_after_s), MAX_RETRY_AFTER_S)
            self.told_s = now_s + asked_s + min(asked_s, LONGEST_WAIT_S) * self._jitter()
        self.next_s = max(now_s + wait_s, self.told_s)

    def hurry(self) -> None:
        """Do not wait any longer, unless the server asked for it."""
        self.next_s = self.told_s

    def worked(self) -> None:
        """Note a success."""
        self.failures = 0
        self.next_s = self.told_s = 0.0

    def ready(self, now_s: float) -> bool:
        """Whether it is time to try."""
        return now_s >= self.next_s
