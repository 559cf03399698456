"""datacat, a flight recorder for applications: the public face.

    import datacat
    session = datacat.create_session(product="editor", version="1.2")
    session.log_event("file_opened", data={"size_bytes": 1200})
    session.end()

LogHandler and last_run are loaded when they are first used.
"""

from typing import TYPE_CHECKING, Any

from datacat.client import Session, create_session, freeze_support

if TYPE_CHECKING:
    from datacat.client.last import last_run
    from datacat.client.logs import LogHandler

__version__ = "0.1.0"

__all__ = ["LogHandler", "Session", "__version__", "create_session", "freeze_support", "last_run"]


def __getattr__(name: str) -> Any:
    if name == "last_run":
        from datacat.client.last import last_run

        return last_run
    if name == "LogHandler":
        from datacat.client.logs import LogHandler

        return LogHandler
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
