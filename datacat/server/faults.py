"""Faults on purpose, for tests of the watchdog alone: DATACAT_FAULT=store:PATH or pool:PATH.

While the file PATH exists, every sync of the store blocks (store), or every request (pool). What has blocked stays
blocked. This is the only place that reads the variable; it is no setting and no promise.
"""

import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from datacat.store import durable

VARIABLE = "DATACAT_FAULT"


def arm(environ: Mapping[str, str], site: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
    """Return the WSGI site with the fault that the environment asks for; without one, site itself."""
    kind, _, path = environ.get(VARIABLE, "").partition(":")
    trigger = Path(path)

    def block_while_there() -> None:
        if trigger.exists():
            threading.Event().wait()

    if kind == "store":
        sync = durable.sync_file

        def sync_or_block(fd: int) -> None:
            block_while_there()
            sync(fd)

        durable.sync_file = sync_or_block
    if kind == "pool":

        def answer_or_block(*request: Any) -> Iterable[bytes]:
            block_while_there()
            return site(*request)

        return answer_or_block
    return site
