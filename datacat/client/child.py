"""The session of a child process, written by its parent: programs in any language (datacat run).

The child is the session's process: the daemon watches it. The parent writes what it sees, at last how the child ended.
None of the hooks of create_session() are set: what happens to the parent is no part of the session.
"""

import time
from typing import Any

from datacat import host
from datacat.client import create, guard
from datacat.client.ports import Drops
from datacat.client.session import LOOK_EVERY_US, Session
from datacat.errors import DatacatError, HostError
from datacat.host import oom
from datacat.wire import routes
from datacat.wire.records import Closing


def create_child_session(
    pid: int,
    base_url: str = routes.SERVER_URL,
    product: str | None = None,
    version: str | None = None,
    *,
    environment: str | None = None,
    state: dict[str, Any] | None = None,
    api_key: str | None = None,
    settings: dict[str, Any] | None = None,
) -> Session:
    """Begin the session of a child that was not reaped yet, and return at once. Never raises.

    The arguments are those of create_session(). The session ends with close_child_session().
    """
    drops = Drops()
    try:
        meta = create._meta(base_url, product, version, environment, None, settings)  # noqa: SLF001  one way to say who
        meta.source = "run"
        meta.pid = pid
        meta.process_start = _process_start(pid)
        meta.process_image = ""  # a shell that becomes the program is what was asked for
        oom_counter = oom.counter_of(pid)
        meta.oom_counter, meta.oom_kills = str(oom_counter or ""), oom.kills(oom_counter)
        if api_key:
            meta.settings["api_key"] = api_key
        session = create._local_session(meta, create.opening(meta, state), host.state_dirs(), drops)  # noqa: SLF001
        session._look_at_us = meta.created_us + LOOK_EVERY_US  # noqa: SLF001
        session._carrier.look()  # noqa: SLF001
        session._carrier.wake()  # noqa: SLF001
    except DatacatError:
        return create._deaf_session(drops)  # noqa: SLF001
    except Exception as error:
        guard.swallowed(error)
        return create._deaf_session(drops)  # noqa: SLF001
    return session


def close_child_session(session: Session, exit_code: int | None, exit_signal: int | None) -> None:
    """Record how the parent saw the child end, and let go of the session. Nothing can be written after it."""
    try:
        closing = Closing(time.time_ns() // 1000, exit_code=exit_code, exit_signal=exit_signal, observed=True)
        session._put(closing)  # noqa: SLF001
        session._sink.close("ended")  # noqa: SLF001
        session._carrier.wake()  # noqa: SLF001
        session._carrier.look()  # noqa: SLF001
        session._carrier.close()  # noqa: SLF001
    except Exception as error:
        guard.swallowed(error)


def _process_start(pid: int) -> int:
    try:
        return host.process_start(pid)
    except HostError:
        return 0
