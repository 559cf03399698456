"""Make a session: choose the folder, write who it is, have it shipped. Returns in milliseconds, whatever is missing."""

import os
import sys
import time
from pathlib import Path
from typing import Any

from datacat import host
from datacat.client import folder, guard, live
from datacat.client.deaf import Deaf
from datacat.client.journal import Journal
from datacat.client.local import Local, process_identity
from datacat.client.ports import Drops
from datacat.client.session import LOOK_EVERY_US, Session
from datacat.errors import DatacatError
from datacat.host import oom
from datacat.wire import ids, layout, records, routes
from datacat.wire.records import Open


def create_session(
    base_url: str = routes.SERVER_URL,
    product: str | None = None,
    version: str | None = None,
    *,
    use_daemon: bool = True,
    daemon_port: int | str = "auto",
    environment: str | None = None,
    session_id: str | None = None,
    state: dict[str, Any] | None = None,
    api_key: str | None = None,
    capture_exceptions: bool = True,
    capture_crashes: bool = True,
    state_dir: str | Path | None = None,
    settings: dict[str, Any] | None = None,
) -> Session:
    """Begin the session of this run of the app and return at once, with or without a daemon or server.

    product and version default to the name of the main program and "unknown". session_id (a UUID) makes the call
    idempotent for the server. state is the first state. use_daemon=False is simple mode: straight to the server,
    without a witness of how the app ends. capture_exceptions records exceptions that nobody handles,
    capture_crashes the traceback of a crash of the interpreter. state_dir is where the journal goes instead of the
    user's state folder; settings go to the daemon (batch_interval_seconds, tls_verify, ...). Never raises.
    """
    drops = Drops()
    try:
        settings = dict(settings) if isinstance(settings, dict) else {}
        if api_key:
            settings["api_key"] = api_key
        if daemon_port != "auto":
            settings["daemon_port"] = daemon_port
        meta = _meta(base_url, product, version, environment, session_id, settings)
        first = opening(meta, state)
        if use_daemon:
            roots = folder.roots(state_dir)
            session = _local_session(meta, first, roots, drops)
        else:
            from datacat.client import direct

            meta.source = "direct"
            session = direct.session(meta, first, drops)
        _begin(session, capture_exceptions=capture_exceptions, capture_crashes=capture_crashes)
    except DatacatError:  # no folder, no disk: the app runs all the same, what is dropped is counted
        session = _deaf_session(drops)
    except Exception as error:
        guard.swallowed(error)
        session = _deaf_session(drops)
    return session


def opening(meta: layout.Meta, state: object) -> Open:
    """Return the first record of a session."""
    return Open(
        meta.created_us,
        meta.product,
        meta.version,
        id=meta.id,
        environment=meta.environment,
        hostname=meta.hostname or None,
        machine_id=meta.machine_id or None,
        boot_id=meta.boot_id or None,
        pid=meta.pid,
        process_start=meta.process_start or None,
        platform=meta.platform or None,
        state=state if isinstance(state, dict) else None,
    )


def main_program(argv: list[str]) -> str:
    """Return a name for the running program: its file, or the package that was started with -m."""
    path = Path(argv[0]) if argv and argv[0] not in ("", "-c", "-m") else None
    if path is None:
        return "python"
    return path.parent.name if path.name == "__main__.py" else path.stem


def _meta(
    base_url: object,
    product: object,
    version: object,
    environment: object,
    session_id: object,
    settings: dict[str, Any] | None,
) -> layout.Meta:
    now_us = time.time_ns() // 1000
    pid, process_start = process_identity()
    oom_counter = oom.counter_of(pid)
    return layout.Meta(
        id=_id(session_id) or ids.uuid7(now_us // 1000, os.urandom(10)),
        product=_name(product) or main_program(sys.argv),
        version=_name(version) or "unknown",
        stream=os.urandom(ids.STREAM_ID_BYTES).hex(),
        created_us=now_us,
        pid=pid,
        process_start=process_start,
        process_image=host.process_image(pid),
        pid_namespace=host.pid_namespace(),
        boot_id=host.boot_id(),
        machine_id=host.machine_id(),
        hostname=host.hostname(),
        environment=_name(environment) or None,
        platform=host.platform(),
        server_url=str(records.safe_form(base_url or routes.SERVER_URL)).rstrip("/"),
        oom_counter=str(oom_counter or ""),
        oom_kills=oom.kills(oom_counter),
        settings=records.safe_form(dict(settings or {})),
    )


def _local_session(meta: layout.Meta, first: Open, roots: list[Path], drops: Drops) -> Session:
    """Return a session with a journal in the first of roots that can be written. Raises: DatacatError."""
    last: DatacatError | None = None
    for root in roots:
        made = None
        try:
            spool = folder.choose_spool([root])
            made = folder.make_session(spool, meta.id, meta.stream)
            volatile = folder.is_volatile(spool)
            if volatile:
                meta.settings["volatile"] = True
            journal = Journal(made / meta.stream, drops.count, segment_bytes=meta.segment_bytes, volatile=volatile)
            carrier = Local(made, meta.stream, (meta.pid, meta.process_start))
            session = Session(meta, journal, carrier, drops)
            session._put(first)  # noqa: SLF001  the first record is written before it is a session
            carrier.publish(meta)
        except DatacatError as error:
            last = error
            if made is not None:
                folder.discard(made)
            continue
        drops.tell = carrier.note_drops
        return session
    raise last or DatacatError("no folder for the journal")


def _begin(session: Session, *, capture_exceptions: bool, capture_crashes: bool) -> None:
    """Let the session live: registered, hooked, shipped."""
    from datacat.client import hooks

    live.add(session)
    hooks.install(session, exceptions=capture_exceptions, crashes=capture_crashes)
    session._look_at_us = session.meta.created_us + LOOK_EVERY_US  # noqa: SLF001  the first look is now
    session._carrier.look()  # noqa: SLF001
    session._carrier.wake()  # noqa: SLF001


def _deaf_session(drops: Drops) -> Session:
    """Return a session that takes every call and keeps nothing but the count of what it dropped."""
    deaf = Deaf(drops.count)
    meta = layout.Meta(
        id=ids.uuid7(time.time_ns() // 1_000_000, os.urandom(10)),
        product="",
        version="",
        stream="",
        created_us=time.time_ns() // 1000,
        pid=os.getpid(),
    )
    return Session(meta, deaf, deaf, drops)


def _id(given: object) -> str:
    try:
        return ids.session_id(str(given)) if given else ""
    except Exception:  # no UUID, or whatever an object of the app raises
        return ""


def _name(value: object) -> str:
    return "" if value is None else records.cut_text(str(records.safe_form(value)), records.MAX_NAME_CHARS)
