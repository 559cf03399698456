"""How many requests a second are taken from one key or one address, and how that is told in headers.

Buckets are the generic cell rate algorithm: one number for each, the time at which the bucket will be empty again.
Headers (draft-ietf-httpapi-ratelimit-headers-10): RateLimit-Policy: "NAME";q=QUOTA;w=SECONDS, and RateLimit:
"NAME";r=LEFT;t=RESET.
"""

import ipaddress
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

MAX_BUCKETS = 20_000
"""So many are remembered; the one that was not asked for the longest time is forgotten, which is in its favour."""
WINDOW_S = 10
"""What was not used is saved up for so long: daemons come in waves when the server was away."""


class Limit(NamedTuple):
    """One bucket: the name of its policy, whose it is, how much it takes a second; window_s times that at once."""

    policy: str
    who: str
    per_s: float
    window_s: int = WINDOW_S

    @property
    def quota(self) -> int:
        """How many are taken at once after a pause."""
        return max(1, math.floor(self.per_s * self.window_s))


class Taken(NamedTuple):
    """What a bucket said: whether there was room, how many more there is room for, when it is full or has room."""

    limit: Limit
    ok: bool
    left: int
    reset_s: int

    @property
    def headers(self) -> dict[str, str]:
        """The headers that tell a client; Retry-After too when it was refused."""
        name = self.limit.policy
        told = {
            "RateLimit-Policy": f'"{name}";q={self.limit.quota};w={self.limit.window_s}',
            "RateLimit": f'"{name}";r={self.left};t={self.reset_s}',
        }
        return told if self.ok else {**told, "Retry-After": str(self.reset_s)}


class Rates:
    """All buckets of a server. Any thread; clock is in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._empty_at: OrderedDict[tuple[str, str], float] = OrderedDict()

    def take(self, limit: Limit) -> Taken:
        """Take one from the bucket if there is room."""
        cost, depth = 1 / limit.per_s, limit.quota / limit.per_s
        with self._lock:
            now = self._clock()
            bucket = (limit.policy, limit.who)
            empty_at = max(self._empty_at.get(bucket, now), now)
            after = empty_at + cost
            if after - now > depth * (1 + 1e-9):
                return Taken(limit, ok=False, left=0, reset_s=max(1, math.ceil(after - now - depth)))
            self._empty_at[bucket] = after
            self._empty_at.move_to_end(bucket)
            if len(self._empty_at) > MAX_BUCKETS:
                self._empty_at.popitem(last=False)
        return Taken(
            limit, ok=True, left=math.floor((depth - (after - now)) / cost + 1e-6), reset_s=math.ceil(after - now)
        )


def of_address(address: str) -> str:
    """Return whose bucket an address takes from: of IPv6 the network of one customer, /64 (RFC 6177)."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.IPv6Network((int(found) >> 64 << 64, 64)))
    return str(found)
