"""head' = fold(head, record): what a session is, told by its records alone. Pure; every store uses it."""

from typing import Any

import msgspec


class Stream(msgspec.Struct, omit_defaults=True):
    """How far a stream is acknowledged: its offset, and the CRC-32 of the bytes before it when it was told."""

    acked: int
    end_crc: int | None = None


class Head(msgspec.Struct, omit_defaults=True):
    """Everything about a session but its state and records. Times are Unix us (0: never).

    by is who made the last verdict: app, daemon or server; a later verdict of a lesser judge does not change an end.
    last_seen is when the server last got anything. last_heartbeat is the app's own time. counts has events, metrics,
    states, errors; dropped counts records that the client or daemon could not keep, by reason.
    """

    id: str
    product: str
    version: str
    environment: str | None = None
    created_at: int = 0
    updated_at: int = 0
    ended_at: int = 0
    last_seen: int = 0
    last_heartbeat: int = 0
    status: str = "active"
    status_since: int = 0
    end_reason: str | None = None
    end_detail: str | None = None
    exit_code: int | None = None
    exit_signal: int | None = None
    by: str = "app"
    hang_count: int = 0
    hang_seconds: float = 0.0
    has_exception: bool = False
    machine_id: str | None = None
    boot_id: str | None = None
    hostname: str | None = None
    pid: int | None = None
    platform: str | None = None
    daemon_id: str | None = None
    streams: dict[str, Stream] = {}
    counts: dict[str, int] = {}
    dropped: dict[str, int] = {}


def public(head: Head) -> dict[str, Any]:
    """Return the head as the session object of the API: RFC 3339 times, booleans derived from the status."""
    raise NotImplementedError
