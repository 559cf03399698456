"""GET /session and /sessions: the server's answer, or the daemon's own view while there is none. Any thread."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from datacat.daemon.uplink import Uplink
from datacat.daemon.view import View
from datacat.errors import JournalError, NotFound, UplinkError, WireError
from datacat.store import fold
from datacat.wire import ids, layout, routes
from datacat.wire.layout import Meta

Ask = Callable[[str, dict[str, Any]], dict[str, Any]]
"""Ask the main thread: (name, members) -> answer."""


def session(query: dict[str, str], ask: Ask, uplink: Callable[[Meta | None], Uplink]) -> dict[str, Any]:
    """Return one session object. Raises: WireError, NotFound."""
    if "session_id" not in query:
        raise WireError("session_id is missing", pointer="/session_id")
    session_id = ids.session_id(query["session_id"])
    meta: Meta | None = None
    folder: Path | None = None
    try:
        folder = Path(ask("where", {"session_id": session_id})["folder"])
        meta = _meta(folder)
    except NotFound:
        pass
    link = uplink(meta)
    try:
        return link.get(routes.session_path(session_id))
    except UplinkError as error:
        if folder is None or meta is None:
            raise NotFound(session_id) from error
    finally:
        link.close()
    try:
        return View(folder, meta).session()
    except (JournalError, OSError) as error:
        raise NotFound(session_id) from error


def sessions(ask: Ask, uplink: Callable[[Meta | None], Uplink], *, has_key: bool) -> dict[str, Any]:
    """Return {"sessions": [heads], "next_cursor"}: the server's, or our own when it is away or wants a key."""
    if not has_key:
        link = uplink(None)
        try:
            return link.get(routes.SESSIONS)
        except UplinkError:
            pass
        finally:
            link.close()
    heads = []
    for name in ask("list", {})["folders"]:
        folder = Path(name)
        meta = _meta(folder)
        if meta is None:
            continue
        try:
            heads.append(fold.public(View(folder, meta).head))
        except (JournalError, OSError):
            continue
    heads.sort(key=lambda head: str(head["created_at"]), reverse=True)
    return {"sessions": heads, "next_cursor": None}


def _meta(folder: Path) -> Meta | None:
    try:
        return msgspec.json.decode((folder / layout.META_FILE).read_bytes(), type=Meta)
    except (OSError, msgspec.DecodeError):
        return None
