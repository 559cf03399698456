"""What the bus starts and stops, and in which order."""

import logging
from collections.abc import Callable
from typing import Any

_log = logging.getLogger(__name__)

# CherryPy's own numbers for HTTP are start 75 and stop 25; a lower number comes first.
START_WORKERS, START_HTTP, START_ANNOUNCE = 70, 75, 90
STOP_ANNOUNCE, STOP_HTTP, STOP_WORKERS, STOP_STORE = 5, 25, 60, 90


def own(
    bus: Any,
    name: str,
    start: tuple[int, Callable[[], object]] | None = None,
    stop: tuple[int, Callable[[], object]] | None = None,
) -> None:
    """Let the bus start and stop something: (priority, function) each; the first that stops has the lowest number.

    A stop function that fails is logged, because the bus would end the process without stopping the others.
    """
    if start is not None:
        bus.subscribe("start", start[1], start[0])
    if stop is not None:
        act = stop[1]

        def guarded() -> None:
            try:
                act()
            except Exception:
                _log.exception("stopping %s failed", name)

        bus.subscribe("stop", guarded, stop[0])
